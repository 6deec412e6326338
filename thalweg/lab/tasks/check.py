"""Try a task once, before hours are spent on it: does it do what a race relies on?"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks.blame import line_of


@dataclass(frozen=True)
class Probe:
    """What a first look at a task tells.

    Attributes:
        parameters: trainable ones.
        initial_loss: held-out, before training, of seed 0.
        fingerprint: SHA-256 of the task's code, its data and its first values; another task has another.
    """

    parameters: int
    initial_loss: float
    fingerprint: str


def check(task: Task) -> Probe:
    """Build, draw, compute and evaluate once with seed 0, and what must repeat twice.

    Raises:
        ThalwegError: with the line of the task's file, for whatever a race cannot rely on.
    """
    ask = _Asker(task)
    model, again = ask("model", 0), ask("model", 0)
    if not isinstance(model, nn.Module):
        raise ask.wrong("model", f"returned {type(model).__name__}, expected a torch.nn.Module")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ask.wrong("model", "returned a module without trainable parameters")
    if not _same(model.state_dict(), again.state_dict()):
        raise ask.wrong("model", "gave other weights for the same seed; seed torch's generator with it first")
    first, second = _two(ask), _two(ask)
    if _digest(first) != _digest(second):
        raise ask.wrong("batches", "gave other batches for the same seed; draw from a generator made from the seed")
    loss = ask("loss", model, first[0])
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        shown = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ask.wrong("loss", f"returned {shown}, expected a tensor without dimensions")
    if not loss.requires_grad:
        raise ask.wrong("loss", "returned a tensor without a gradient (detached, or computed under no_grad?)")
    if not math.isfinite(float(loss.detach())):
        raise ask.wrong("loss", f"is {float(loss.detach())} at step 0, before any training")
    with ask.blaming("loss"):
        loss.backward()  # type: ignore[no-untyped-call]
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        raise ask.wrong("loss", "gives no gradient to any parameter of the model")
    if not all(bool(g.isfinite().all()) for g in grads):
        raise ask.wrong("loss", "gives gradients that are not finite at step 0")
    value, repeated = ask("evaluate", again), ask("evaluate", again)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ask.wrong("evaluate", f"returned {type(value).__name__}, expected a float (loss.item())")
    if not math.isfinite(value):
        raise ask.wrong("evaluate", f"is {value} before any training")
    if value != repeated:
        raise ask.wrong(
            "evaluate",
            f"is not deterministic: {value!r}, then {repeated!r} for the same model; evaluate fixed examples, in eval "
            "mode",
        )
    if not _same(model.state_dict(), again.state_dict()):
        raise ask.wrong("evaluate", "changes the model")
    fingerprint = _fingerprint(task, ask.file, first, ask("model", 0), value)
    return Probe(sum(p.numel() for p in parameters), float(value), fingerprint)


class _Asker:
    """Calls a task's methods; what goes wrong in one is said with its line."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.file = inspect.getsourcefile(type(task))

    def __call__(self, method: str, *args: Any) -> Any:
        with self.blaming(method):
            return getattr(self.task, method)(*args)

    @contextmanager
    def blaming(self, method: str) -> Iterator[None]:
        try:
            yield
        except ThalwegError:
            raise
        except Exception as error:
            raise ThalwegError(f"{line_of(error, self.file)}: in {method}: {type(error).__name__}: {error}") from error

    def wrong(self, method: str, what: str) -> ThalwegError:
        function: Callable[..., Any] = getattr(type(self.task), method)
        file = inspect.getsourcefile(function) or self.file
        return ThalwegError(f"{file}:{inspect.getsourcelines(function)[1]}: {method} {what}")


def _two(ask: _Asker) -> list[Any]:
    """The first two batches of seed 0."""
    with ask.blaming("batches"):
        stream = iter(ask.task.batches(0))
        try:
            return [next(stream), next(stream)]
        except StopIteration:
            raise ask.wrong("batches", "ended; expected batches without end (while True: yield …)") from None


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and _digest(list(a.values())) == _digest(list(b.values()))


def _fingerprint(task: Task, file: str | None, batches: list[Any], model: nn.Module, loss: float) -> str:
    digest = hashlib.sha256()
    source = Path(file).read_bytes() if file else b""
    facts = [task.name, task.steps, task.batch_size, sorted(task.data().items()), repr(loss)]
    digest.update(source + repr(facts).encode())
    digest.update(_digest([batches, list(model.state_dict().values())]))
    return digest.hexdigest()


def _digest(value: Any) -> bytes:
    """A hash over nested containers of tensors and plain values."""
    digest = hashlib.sha256()
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, Tensor):
            digest.update(repr((tuple(one.shape), one.dtype)).encode())
            digest.update(one.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(one, Mapping):
            todo.extend(one.items())
        elif isinstance(one, (list, tuple)):
            digest.update(str(len(one)).encode())
            todo.extend(one)
        elif hasattr(one, "__dict__"):
            todo.append(vars(one))
        else:
            digest.update(repr(one).encode())
    return digest.digest()
