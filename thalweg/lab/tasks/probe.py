"""Try a task once, before hours are spent on it: does it do what a race relies on?"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thalweg import groups
from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks.blame import place, raised
from thalweg.lab.tasks.fingerprint import content, digest, fingerprint
from thalweg.lab.tasks.user import inspect_task

#: for at most so many seconds batches are drawn to see whether they end
PATIENCE = 0.5


@dataclass(frozen=True)
class Probe:
    """What a first look at a task tells.

    Attributes:
        parameters: trainable ones.
        initial_loss: held-out, before training, of seed 0.
        fingerprint: SHA-256 (hex) of its code, its data and its first values; another task has another.
        content: SHA-256 (hex) of its first values alone (see :func:`thalweg.lab.tasks.fingerprint.content`).
    """

    parameters: int
    initial_loss: float
    fingerprint: str
    content: str


def check(task: Task) -> Probe:
    """Try everything that a race relies on, with seed 0; torch's global generator is left as it was.

    Raises:
        ThalwegError: with the line of the task's file, what was found and what was expected.
    """
    inspect_task(task)
    trial = _Trial(task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = trial.model()
        batches = trial.batches()
        trial.groups(model)
        initial_loss = trial.evaluate(model)
        with trial.blaming("data"):
            mark = fingerprint(task, batches, model, initial_loss)
        loss = trial.loss(model, batches[0])
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Probe(parameters, initial_loss, mark, content(batches, model, [initial_loss, loss]))


class _Trial:
    """Calls a task's methods; whatever is wrong with one is said with its line."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.file = inspect.getsourcefile(type(task))

    def model(self) -> nn.Module:
        """A module with parameters, the same for the same seed."""
        with self.blaming("model"):
            model, again = self.task.model(0), self.task.model(0)
        if not isinstance(model, nn.Module):
            raise self.wrong("model", f"returned {_shown(model)}", "a torch.nn.Module")
        if not any(p.requires_grad for p in model.parameters()):
            raise self.wrong("model", "returned a module without trainable parameters", "some to train")
        if digest(model.state_dict()) != digest(again.state_dict()):
            raise self.wrong(
                "model", "gave other weights for the same seed", "torch.manual_seed(seed) before they are made"
            )
        return model

    def batches(self) -> list[Any]:
        """The first two, the same for the same seed, from a stream that does not end."""
        first, second = self._drawn(), self._drawn()
        if digest(first) != digest(second):
            raise self.wrong(
                "batches",
                "gave other batches for the same seed",
                "a generator made from the seed, as in torch.Generator().manual_seed(seed)",
            )
        return first

    def _drawn(self) -> list[Any]:
        with self.blaming("batches"):
            stream = self.task.batches(0)
            if not isinstance(stream, Iterator):
                raise self.wrong(
                    "batches", f"returned {_shown(stream)}", "an iterator without end (while True: … yield batch)"
                )
            drawn, start = [], time.monotonic()
            for count in range(self.task.steps):
                try:
                    batch = next(stream)
                except StopIteration:
                    raise self.wrong(
                        "batches",
                        f"ended after {count} {'batch' if count == 1 else 'batches'}",
                        f"a stream without end (while True: …); a run takes {self.task.steps}",
                    ) from None
                if count < 2:
                    drawn.append(batch)
                elif time.monotonic() - start > PATIENCE:
                    break
        return drawn

    def groups(self, model: nn.Module) -> None:
        """The model runs on the sample, if there is one, and it can be told what each parameter is."""
        with self.blaming("sample"):
            groups.roles(model, self.task.sample(), head=self.task.head)

    def evaluate(self, model: nn.Module) -> float:
        """A finite number, the same each time, that leaves the model as it was."""
        model.train()
        before = digest(model.state_dict())
        with self.blaming("evaluate"):
            values = [self.task.evaluate(model), self.task.evaluate(model)]
        if not isinstance(values[0], float):
            raise self.wrong("evaluate", f"returned {_shown(values[0])}", "a float (loss.item())")
        if not math.isfinite(values[0]):
            raise self.wrong("evaluate", f"returned {values[0]} before any training", "a finite loss")
        if values[0] != values[1]:
            raise self.wrong(
                "evaluate",
                f"is not deterministic: {values[0]!r}, then {values[1]!r} for the same model",
                "the same examples always, and the model in eval mode",
            )
        if not model.training:
            raise self.wrong("evaluate", "left the model in eval mode", "model.train() at its end")
        with self.blaming("evaluate"):
            quiet = self.task.evaluate(model.eval())
        if quiet != values[0]:
            raise self.wrong(
                "evaluate",
                f"depends on the model's mode: {values[0]!r} in train mode, {quiet!r} in eval mode",
                "model.eval() at its start",
            )
        model.train()
        if digest(model.state_dict()) != before:
            raise self.wrong("evaluate", "changed the model", "weights and buffers as they were (eval mode, no step)")
        return float(values[0])

    def loss(self, model: nn.Module, batch: Any) -> float:
        """A finite number that gives finite gradients."""
        with self.blaming("loss"):
            loss = self.task.loss(model, batch)
        if not isinstance(loss, Tensor) or loss.ndim:
            raise self.wrong("loss", f"returned {_shown(loss)}", "a tensor without dimensions (a mean over the batch)")
        if not math.isfinite(value := float(loss.detach())):
            raise self.wrong("loss", f"is {value} at step 0, before any training", "a finite loss")
        if not loss.requires_grad:
            raise self.wrong(
                "loss",
                "has no gradient (detached, or made under no_grad)",
                "a loss that depends on the model's parameters",
            )
        with self.blaming("loss"):
            loss.backward()  # type: ignore[no-untyped-call]
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        if not grads:
            raise self.wrong("loss", "gives no gradient to any parameter of the model", "one that depends on them")
        for name, grad in grads.items():
            values = grad.coalesce().values() if grad.is_sparse else grad
            if not values.isfinite().all():
                raise self.wrong("loss", f"gives {name} a gradient that is not finite at step 0", "finite ones")
        return value

    @contextmanager
    def blaming(self, method: str) -> Iterator[None]:
        """An exception from the user's code becomes one line that names the place; what is one line already stays."""
        try:
            yield
        except ThalwegError:
            raise
        except Exception as error:
            raise raised(error, self.file, method) from error

    def wrong(self, method: str, found: str, expected: str) -> ThalwegError:
        return ThalwegError(f"{place(getattr(type(self.task), method))}: {method} {found}; expected {expected}")


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"
