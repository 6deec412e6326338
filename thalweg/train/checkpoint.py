"""Save and resume, bit for bit: weights, optimizer, schedule, place in the data, random generators."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.schedule import Scheduler
from thalweg.train import rng
from thalweg.train.data import Stream
from thalweg.train.events import Watcher
from thalweg.wrap.wrapper import layers

#: of the file; another number is another arrangement of its content
FORMAT = 1


def writable(path: str | Path) -> Path:
    """The path of a checkpoint, seen to before a training rather than at its end.

    Raises:
        ValueError: if its folder is not there or cannot be written to.
    """
    path = Path(path)
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise bad_argument("checkpoint", str(path), "a file in a folder that is there and can be written to")
    return path


@dataclass
class Checkpoint:
    """A training's file and what goes into it; ``torch.load(path, weights_only=True)`` can read it."""

    path: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    stream: Stream
    watchers: Sequence[Watcher] = ()

    def save(self, step: int) -> None:
        """Write everything; a kill at any time leaves the old file or the new one, never a broken one.

        Raises:
            ThalwegError: if it cannot be written; the old file is kept.
        """
        content = {
            "format": FORMAT,
            "step": step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_name": _name(self.optimizer),
            "scheduler": self.scheduler.state_dict(),
            "data": self.stream.state_dict(),
            "watchers": [watcher.state_dict() for watcher in self.watchers],
            "rng": rng.capture(),
        }
        part = self.path.with_name(f".{self.path.name}.part")  # a killed save leaves one, which the next overwrites
        try:
            with part.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except (OSError, RuntimeError) as error:
            raise ThalwegError(f"cannot write the checkpoint {self.path}: {error}") from error
        finally:
            part.unlink(missing_ok=True)

    def load(self) -> int:
        """Put everything back as it was saved, if the file is there; the step to go on from, else 0.

        Raises:
            ThalwegError: if the file is no checkpoint, or one of another model or optimizer; nothing has changed then.
        """
        if not self.path.exists():
            return 0
        content = _read(self.path)
        if difference := self._difference(content):
            raise ThalwegError(f"{self.path} is the checkpoint of another training: {difference}")
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scheduler.load_state_dict(content["scheduler"])
        self.stream.load_state_dict(content["data"])
        for watcher, state in zip(self.watchers, content.get("watchers", ()), strict=False):
            if state:
                watcher.load_state_dict(state)
        rng.restore(content["rng"])  # last: reading forward has drawn from them
        return int(content["step"])

    def _difference(self, content: dict[str, Any]) -> str:
        """What keeps the content from being loaded here; empty if nothing does."""
        there, here = _shapes(content["model"]), _shapes(self.model.state_dict())
        for name in [*here, *there]:
            if there.get(name) != here.get(name):
                return f"{name} has shape {there.get(name, 'none')} there and {here.get(name, 'none')} here"
        name = _name(self.optimizer)
        if content["optimizer_name"] != name:
            return f"its optimizer is {content['optimizer_name']}, not {name}"
        sizes, ours = _sizes(content["optimizer"]), _sizes(self.optimizer.state_dict())
        return "" if sizes == ours else f"its optimizer has groups of {sizes} tensors, not {ours}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, weights_only=True)
    except Exception as error:  # torch raises whatever the unpickler met
        reason = str(error).partition("\n")[0][:200]
        raise ThalwegError(f"{path} is no checkpoint, or a damaged one: {reason}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ThalwegError(f"{path} is no checkpoint of this version (format {FORMAT})")
    return content


def _name(optimizer: torch.optim.Optimizer) -> str:
    """Its class, and of a wrapper the classes within too: ``EMA of SGD``."""
    return " of ".join(type(one).__name__ for one in layers(optimizer))


def _shapes(state: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value.shape) if isinstance(value, Tensor) else "no tensor" for name, value in state.items()}


def _sizes(optimizer: dict[str, Any]) -> list[int]:
    return [len(group["params"]) for group in optimizer["param_groups"]]
