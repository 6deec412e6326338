"""Where a watch's numbers go: a sink is a function of a step and its numbers; some for the services in use.

Each takes a flat dict from names to floats, with names such as ``loss``, ``norm``, ``update/blocks.0.mlp.weight``, and
the findings as text. What a sink raises ends that sink, not the training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO


class Sink(Protocol):
    """Takes the numbers of a step that was looked at."""

    def __call__(self, step: int, numbers: Mapping[str, float | str]) -> None:
        """Take them; strings are findings."""


class JsonLines:
    """A record of a run: a line of JSON for each step that was looked at, the first tells what the lists are of.

    Args:
        path: of the file; a record that is there already is written over.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file: TextIO = self.path.open("w", encoding="utf-8")

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line, so that whoever reads the file meanwhile sees it whole."""
        self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def wandb(run: Any) -> Sink:
    """Into a run of Weights & Biases, ``wandb.init(...)``, as ``watch/…`` over ``watch/step``.

    The step is one of the numbers, since W&B drops what is logged with a step below that of the script's own logging.
    """
    run.define_metric("watch/*", step_metric="watch/step")
    return lambda step, numbers: run.log({"watch/step": step, **{f"watch/{name}": x for name, x in numbers.items()}})


def trackio(module: Any) -> Sink:
    """Into trackio: give the module, after ``trackio.init(...)``."""
    return lambda step, numbers: module.log(dict(numbers), step=step)


def mlflow(module: Any) -> Sink:
    """Into MLflow's active run: give the module."""

    def send(step: int, numbers: Mapping[str, float | str]) -> None:
        module.log_metrics({name: x for name, x in numbers.items() if not isinstance(x, str)}, step=step)

    return send


def tensorboard(writer: Any) -> Sink:
    """Into a ``SummaryWriter`` of ``torch.utils.tensorboard``."""

    def send(step: int, numbers: Mapping[str, float | str]) -> None:
        for name, x in numbers.items():
            if isinstance(x, str):
                writer.add_text(name, x, step)
            else:
                writer.add_scalar(name, x, step)

    return send
