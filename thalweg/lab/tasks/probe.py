"""Try a task once, before hours are spent on it: does it do what a race relies on?"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from thalweg import groups
from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks import examples, opened, seeding
from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks._model import evaluating
from thalweg.lab.tasks.blame import place, raised
from thalweg.lab.tasks.fingerprint import content, digest, fingerprint, source_files
from thalweg.lab.tasks.rows import other_rows
from thalweg.lab.tasks.training import endless, sample_of, trained
from thalweg.lab.tasks.user import inspect_task

#: steps whose training losses are part of the fingerprint
STEPS = 20
#: part of its length by which each of these steps moves the vector of all weights
STRIDE = 1e-3
#: for how many seconds at most batches are drawn to see whether they end, and losses are computed again
PATIENCE = 0.5
#: two evaluations of one model may differ by this part of the loss; see :func:`check`
EVALUATION_NOISE = 1e-3
#: on another device than the CPU, sums come in any order: two losses may differ by this part
DEVICE_NOISE = 1e-3


@dataclass(frozen=True)
class Probe:
    """What a first look at a task tells.

    Attributes:
        parameters: trainable ones.
        initial_loss: held-out, before training, of seed 0.
        fingerprint: SHA-256 (hex) of its code, its data and its first values; another task has another.
        content: SHA-256 (hex) of its first values alone (see :func:`thalweg.lab.tasks.fingerprint.content`).
        files: what it opened to read, beside its code.
        evaluation_noise: by how much two evaluations of one model differed, in units of the loss.
        seen: how many of the examples that the evaluation feeds to the model are trained on, how many it feeds (0 where
            they are few, or cannot be seen), and how many batches were looked at.
        on_cpu: whether the model's weights are there; elsewhere the same training may give other last bits.
    """

    parameters: int
    initial_loss: float
    fingerprint: str
    content: str
    files: tuple[opened.File, ...] = ()
    evaluation_noise: float = 0.0
    on_cpu: bool = True
    seen: tuple[int, int, int] = (0, 0, 0)


def check(task: Task, seeds: Iterable[int] = ()) -> Probe:
    """Try everything that a race relies on, with the seeds 0 and 1; the global generators are left as they were.

    The same seed must give the same weights, batches and losses, another seed other weights and batches, unless the
    task says that they are :attr:`~thalweg.lab.tasks.Task.fixed`; and no two of ``seeds``, those of a race, may give
    the same: they would count as two and be one.

    An evaluation need not give the same to the last bit: on a GPU it cannot. The rule, set beforehand: two evaluations
    of one model, with the global generators at different seeds, may differ by a thousandth of the loss, some tenth of
    what the end losses of two seeds differ by. What they differ by is noted, and is in every interval, since it differs
    between the runs. An evaluation that differs by more draws something at random, and is refused.

    Raises:
        ThalwegError: with the line of the task's file, what was found and what was expected.
    """
    inspect_task(task)
    trial = _Trial(task)
    what = opened.by(task.module)
    with seeding.seeded(0), opened.watching(what):
        model, again = trial.models()
        weights = digest(model.state_dict())
        batches = trial.batches()
        trial.groups(model)
        initial_loss, noise = trial.evaluate(model)
        trial.hooks(model)
        losses = trial.losses(model)
        first = content(batches[:2], list(again.state_dict().values()), [initial_loss, losses[0]])
        trial.losses_again(again, losses)
        trial.varies(weights, batches, losses)
        with trial.blaming("data"):
            data = sorted(task.data().items())
    files, on_cpu = what.files(scratch=2, code=source_files(task)), trial.on_cpu(model)
    with seeding.seeded(0):
        trial.apart(seeds)
    values = [data, weights, batches[:2], *([initial_loss, losses] if on_cpu else _hardware())]
    return Probe(
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        initial_loss=initial_loss,
        fingerprint=fingerprint(task, files, values),
        content=first,
        files=tuple(files),
        evaluation_noise=noise,
        on_cpu=on_cpu,
        seen=(*trial.seen(again), trial.looked),
    )


class _Trial:
    """Calls a task's methods; whatever is wrong with one is said with its line."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.file = inspect.getsourcefile(type(task))
        self.examples: set[bytes] = set()
        self.looked = 0

    def model(self, seed: int) -> nn.Module:
        """A module with parameters."""
        seeding.seed(seed)
        with self.blaming("model"):
            model = self.task.model(seed)
        if not isinstance(model, nn.Module):
            raise self.wrong("model", f"returned {_shown(model)}", "a torch.nn.Module")
        if not any(p.requires_grad for p in model.parameters()):
            raise self.wrong("model", "returned a module without trainable parameters", "some to train")
        return model.to(self.task.device)

    def models(self) -> tuple[nn.Module, nn.Module]:
        """Two with the same weights, made from the same seed."""
        model, again = self.model(0), self.model(0)
        if digest(model.state_dict()) != digest(again.state_dict()):
            raise self.wrong(
                "model", "gave other weights for the same seed", "torch.manual_seed(seed) before they are made"
            )
        return model, again

    def batches(self) -> list[str]:
        """The digests of the first ones, the same for the same seed, from a stream that does not end."""
        first, second = self._drawn(0), self._drawn(0)
        same = [a == b for a, b in zip(first, second, strict=False)]
        if not all(same):
            raise self.wrong(
                "batches",
                f"gave other batches for the same seed, from number {same.index(False) + 1} on",
                "a generator made from the seed, as in torch.Generator().manual_seed(seed)",
            )
        return first

    def _stream(self, seed: int) -> Iterator[Any]:
        seeding.seed(seed)
        with self.blaming("batches"):
            stream: Any = self.task.batches(seed)
        if not isinstance(stream, Iterator | DataLoader):
            expected = "an iterator without end (while True: … yield batch), or a DataLoader"
            raise self.wrong("batches", f"returned {_shown(stream)}", expected)
        seeding.seed(seed)
        return endless(stream, seed, self.task.device)

    def _next(self, stream: Iterator[Any], count: int) -> Any:
        with self.blaming("batches"):
            try:
                return next(stream)
            except StopIteration:
                raise self.wrong(
                    "batches",
                    f"ended after {count} {'batch' if count == 1 else 'batches'}",
                    f"a stream without end (while True: …); a run takes {self.task.steps}",
                ) from None

    def _drawn(self, seed: int) -> list[str]:
        stream, marks, found, start = self._stream(seed), [], set(), time.monotonic()
        for count in range(self.task.steps):
            batch = self._next(stream, count)
            if seed == 0 and len(self.examples) < examples.MOST:
                self.examples.update(examples.rows(batch))
                self.looked = max(self.looked, count + 1)
            if count < STEPS:
                marks.append(digest(batch))
                found.add(other_rows(batch, self.task.batch_size))
            if count and time.monotonic() - start > PATIENCE:
                break
        self._as_declared(found)
        return marks

    def _as_declared(self, found: set[int | None]) -> None:
        """Batches of one clear size that is not ``batch_size``; the smaller last one of an epoch is no mistake."""
        if len(found) == 1 and (size := found.pop()) is not None:
            raise self.wrong(
                "batches",
                f"gave batches of {size} examples (the first dimension of their tensors)",
                f"batch_size = {self.task.batch_size} of them, or batch_size = {size} in the class",
            )

    def varies(self, weights: str, batches: list[str], losses: list[float]) -> None:
        """Seeds must matter: their spread is what a verdict is measured against."""
        model = self.model(1)
        same_model = digest(model.state_dict()) == weights
        same_batches = all(a == b for a, b in zip(batches, self._drawn(1), strict=False))
        self._as_fixed("model", same_model, "weights", "torch.manual_seed(seed) before they are made")
        self._as_fixed("batches", same_batches, "batches", "a generator made from the seed")
        if same_model and same_batches:
            other = self.losses(model, seed=1, patience=PATIENCE)
            if all(self._near(a, b, self.on_cpu(model)) for a, b in zip(losses, other, strict=False)):
                raise self.wrong(
                    "model",
                    "and batches are fixed, and the losses of the seeds 0 and 1 are equal: no run differs from another",
                    "something that varies with the seed, as a verdict is measured against that",
                )

    def apart(self, seeds: Iterable[int]) -> None:
        """No two seeds give the same weights, or the same batches; of batches, the first two tell it, or all drawn."""
        weights: dict[str, int] = {}
        beginnings: dict[str, int] = {}
        for seed in seeds:
            if "model" not in self.task.fixed:
                like = weights.setdefault(digest(self.model(seed).state_dict()), seed)
                self._other("model", like, seed, "weights", "torch.manual_seed(seed) before they are made")
            if "batches" not in self.task.fixed:
                stream = self._stream(seed)
                like = beginnings.setdefault(digest([self._next(stream, count) for count in range(2)]), seed)
                if like != seed and self._drawn(like)[:STEPS] == self._drawn(seed)[:STEPS]:
                    self._other("batches", like, seed, "batches", "a generator made from the whole seed")

    def _other(self, method: str, like: int, seed: int, what: str, remedy: str) -> None:
        if like != seed:
            raise self.wrong(method, f"gave the same {what} for the seeds {like} and {seed}", remedy)

    def _as_fixed(self, method: str, same: bool, what: str, remedy: str) -> None:
        fixed = method in self.task.fixed
        if same and not fixed:
            declare = f"fixed = {{{method!r}}} in the class, if the same {what} for all seeds are meant"
            raise self.wrong(method, f"gave the same {what} for the seeds 0 and 1", f"{remedy}; or {declare}")
        if fixed and not same:
            raise self.wrong(method, f"gave other {what} for another seed", f"the same, as fixed = {{{method!r}}} says")

    def groups(self, model: nn.Module) -> None:
        """The model runs on the sample, if there is one, and it can be told what each parameter is."""
        with self.blaming("sample"):
            groups.roles(model, sample_of(self.task), head=self.task.head)
        with self.blaming("groups"):
            rules, seen = self.task.groups(), {"sample": sample_of(self.task), "head": self.task.head}
            groups.multiplied(model, 1.0, 1.0, 0.1, rules=rules, **seen)

    def hooks(self, model: nn.Module) -> None:
        """A schedule gives factors, and the metrics are numbers."""
        with self.blaming("schedule"):
            own = self.task.schedule(self.task.steps)
            factors = [float(own(step)) for step in range(self.task.steps)] if own else []
        if wrong := [x for x in factors if not 0.0 <= x < math.inf]:
            raise self.wrong("schedule", f"gave the factor {wrong[0]!r}", "factors of the peak in [0, ∞)")
        with seeding.seeded(0), evaluating(model), self.blaming("metrics"):
            for name, value in self.task.metrics(model).items():
                float(value)
                str(name)

    def seen(self, model: nn.Module) -> tuple[int, int]:
        """How many of the examples that the evaluation feeds to the model are in the batches, and how many it feeds."""
        with seeding.seeded(0), self.blaming("evaluate"):
            return examples.seen(examples.fed(self.task, model), self.examples)

    def evaluate(self, model: nn.Module) -> tuple[float, float]:
        """A finite number, nearly the same each time, that leaves the model as it was; and by how much it differs."""
        model.train()
        before, standing = digest(model.state_dict()), _standing(model)
        value, again = self._evaluated(model, 0), self._evaluated(model, 1)
        if not isinstance(value, float):
            raise self.wrong("evaluate", f"returned {_shown(value)}", "a float (loss.item())")
        if not math.isfinite(value):
            raise self.wrong("evaluate", f"returned {value} before any training", "a finite loss")
        if not _within(value, again, EVALUATION_NOISE):
            raise self.wrong(
                "evaluate",
                f"is not deterministic: {value!r}, then {again!r} for the same model",
                "the same examples always, and the model in eval mode",
            )
        if not model.training:
            raise self.wrong("evaluate", "left the model in eval mode", "model.train() at its end")
        if changed := [what for what, was in _standing(model).items() if standing[what] != was]:
            raise self.wrong("evaluate", f"changed {changed[0]}", "all of it as it was, and no gradients")
        quiet = self._evaluated(model.eval(), 0)
        noisy = value != again or not self.on_cpu(model)
        if not (_within(value, quiet, EVALUATION_NOISE) if noisy else value == quiet):
            raise self.wrong(
                "evaluate",
                f"depends on the model's mode: {value!r} in train mode, {quiet!r} in eval mode",
                "model.eval() at its start",
            )
        model.train()
        if digest(model.state_dict()) != before:
            raise self.wrong("evaluate", "changed the model", "weights and buffers as they were (eval mode, no step)")
        return value, max(abs(value - again), abs(value - quiet))

    def _evaluated(self, model: nn.Module, seed: int) -> float:
        with seeding.seeded(seed), self.blaming("evaluate"):
            return self.task.evaluate(model)

    def losses(self, model: nn.Module, seed: int = 0, patience: float = math.inf) -> list[float]:
        """Of the first steps, each of which moves the weights a little down their gradient: two at least."""
        stream, losses, start = self._stream(seed), [], time.monotonic()
        for step in range(min(STEPS, self.task.steps)):
            if step > 1 and time.monotonic() - start > patience:
                break
            losses.append(self.loss(model, self._next(stream, step), step))
            _move(model)
        return losses

    def losses_again(self, model: nn.Module, losses: list[float]) -> None:
        """The same from the same weights."""
        again = self.losses(model, patience=PATIENCE)
        for step, (a, b) in enumerate(zip(losses, again, strict=False)):
            if not self._near(a, b, self.on_cpu(model)):
                raise self.wrong(
                    "loss",
                    f"is not the same for the same seed: {a!r}, then {b!r} at step {step}",
                    "random numbers from the global generators of torch, numpy or Python, which the race seeds",
                )

    def on_cpu(self, model: nn.Module) -> bool:
        """Whether all weights are there."""
        return all(p.device.type == "cpu" for p in model.parameters())

    def _near(self, a: float, b: float, on_cpu: bool) -> bool:
        return a == b if on_cpu else _within(a, b, DEVICE_NOISE)

    def loss(self, model: nn.Module, batch: Any, step: int) -> float:
        """A finite number that gives finite gradients."""
        with self.blaming("loss"):
            loss, parts = trained(self.task, model, batch)
        for one in (loss, *parts.values()):
            if not isinstance(one, Tensor) or one.ndim:
                expected = "a tensor without dimensions (a mean over the batch), or a dict or tuple of such"
                raise self.wrong("loss", f"returned {_shown(one)}", expected)
        if not math.isfinite(value := float(loss.detach())):
            moved = f"after {step} steps of {STRIDE:g} of the weights' length" if step else "before any training"
            raise self.wrong("loss", f"is {value} at step {step}, {moved}", "a finite loss")
        if not loss.requires_grad:
            raise self.wrong(
                "loss",
                "has no gradient (detached, or made under no_grad)",
                "a loss that depends on the model's parameters",
            )
        with self.blaming("loss"):
            loss.backward()  # type: ignore[no-untyped-call]
        if not step:
            self._gradients(model)
        return value

    def _gradients(self, model: nn.Module) -> None:
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        if not grads:
            raise self.wrong("loss", "gives no gradient to any parameter of the model", "one that depends on them")
        for name, grad in grads.items():
            values = grad.coalesce().values() if grad.is_sparse else grad
            if not values.isfinite().all():
                raise self.wrong("loss", f"gives {name} a gradient that is not finite at step 0", "finite ones")

    @contextmanager
    def blaming(self, method: str) -> Iterator[None]:
        """An exception from the user's code becomes one line that names the place; what is one line already stays."""
        try:
            yield
        except ThalwegError:
            raise
        except (Exception, SystemExit) as error:
            raise raised(error, self.file, method) from error

    def wrong(self, method: str, found: str, expected: str) -> ThalwegError:
        return ThalwegError(f"{place(getattr(type(self.task), method))}: {method} {found}; expected {expected}")


def _standing(model: nn.Module) -> dict[str, bool]:
    """What decides how a model trains on and is in no ``state_dict``; a gradient that is left adds to the next one."""
    found = {f"the mode of {name or 'the model'}": module.training for name, module in model.named_modules()}
    for name, p in model.named_parameters():
        found |= {f"requires_grad of {name}": p.requires_grad, f"the gradient of {name}": p.grad is not None}
    return found


def _hardware() -> list[str]:
    """What computes a task that is not on the CPU: with another the losses are others."""
    if not torch.cuda.is_available():
        return ["not CUDA"]
    return [torch.cuda.get_device_name(), str(torch.version.cuda)]


def _within(a: float, b: float, part: float) -> bool:
    return abs(a - b) <= part * max(abs(a), abs(b))


@torch.no_grad()
def _move(model: nn.Module) -> None:
    """One step down the gradient, of a fixed part of the weights' length; the gradients are dropped."""
    moving = [p for p in model.parameters() if p.grad is not None]
    length, slope = (math.hypot(*(float(x.norm()) for x in xs)) for xs in (moving, [_dense(p) for p in moving]))
    for p in moving:
        if 0.0 < slope < math.inf:
            p.sub_(_dense(p), alpha=STRIDE * max(length, 1.0) / slope)
        p.grad = None


def _dense(p: nn.Parameter) -> Tensor:
    assert p.grad is not None
    return p.grad.to_dense() if p.grad.is_sparse else p.grad


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"
