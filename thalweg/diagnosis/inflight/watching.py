"""``thalweg.watch``: a run looked at from the side of its optimizer, while any loop trains."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import bad_argument
from thalweg._base.version import __version__
from thalweg.diagnosis import limits
from thalweg.diagnosis.families import ADAPTIVE
from thalweg.diagnosis.finding import Finding
from thalweg.diagnosis.inflight import batches, replicas
from thalweg.diagnosis.inflight.batches import Batches
from thalweg.diagnosis.inflight.detectors import DETECTORS
from thalweg.diagnosis.inflight.detectors.gradients import unstepped
from thalweg.diagnosis.inflight.detectors.loss import is_spike
from thalweg.diagnosis.inflight.memory import allocated
from thalweg.diagnosis.inflight.record import History, Sample, WatchedParameter, as_line
from thalweg.diagnosis.inflight.sampling import Sampler, second
from thalweg.diagnosis.inflight.sinks import JsonLines, Sink
from thalweg.diagnosis.preflight.subject import Subject, subject

#: the first updates, each of which is looked at: what goes wrong at the beginning is best seen there
EARLY = 12
#: updates after which a run's replicas are compared, in samples
COMPARED = 5

_WATCHED: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Watch]] = weakref.WeakKeyDictionary()


class WatchWarning(UserWarning):
    """Something that a watch found, or that it cannot do."""


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    scheduler: Any = None,
    *,
    every: int = 10,
    steps: int | None = None,
    log: str | Path | None = None,
    sinks: Iterable[Sink] = (),
) -> Watch:
    """Watch a run: loss, gradients, updates and schedule, by layer, beside any loop.

    >>> w = watch(model, optimizer, scheduler, log="run.jsonl")
    >>> for batch in w.batches(loader):
    ...     loss = w.loss(f(model, batch))
    ...     loss.backward()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    >>> print(w)

    It hangs on the optimizer's step, so that it sees what the optimizer gets and does: with accumulation, clipping,
    ``GradScaler``, ``torch.compile``, and on shards. The loss is seen where :meth:`Watch.loss` is told it. The first
    twelve updates are looked at, then each ``every``-th. What is found is told once, as a :class:`WatchWarning`.

    Args:
        model: what is trained; give the wrapped one (DistributedDataParallel, ``torch.compile``) where there is one.
        optimizer: that steps it, or several, which step one after the other.
        scheduler: of these, where there is one, or several.
        every: how often to look, in updates; an integer of at least 1.
        steps: how many updates the run has, where it is known.
        log: a file for the record, a line of JSON for each look; ``thalweg watch FILE`` shows it.
        sinks: functions of a step and its numbers; see :mod:`thalweg.diagnosis.inflight.sinks`.

    Raises:
        ValueError: for arguments that cannot be right, and for a model that another watch is looking at.
    """
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise bad_argument("every", every, "a number of updates, an integer of at least 1")
    about = subject(model, optimizer, _no_loss, scheduler, steps)
    bare = unwrapped(model)
    other = _WATCHED.get(bare)
    if other is not None and (known := other()) is not None and not known.closed:
        remedy = "Close it first: w.close(), or use it as `with thalweg.watch(...) as w:`"
        raise bad_argument("model", f"a watched {type(bare).__name__}", "one that no other watch looks at", remedy)
    found = Watch(about, every, log, sinks)
    _WATCHED[bare] = weakref.ref(found)
    return found


class Watch:
    """What :func:`watch` returns.

    Attributes:
        history: the samples and losses.
        findings: what was found, in the order of discovery.
        closed: whether it looks no more.
    """

    def __init__(self, about: Subject, every: int, log: str | Path | None, sinks: Iterable[Sink]) -> None:
        self.about, self.every, self.sinks = about, every, list(sinks)
        self.findings: list[Finding] = []
        self.closed = False
        self.source: Batches | None = None
        self.begun = self.last_end = time.perf_counter()
        self.pending: Callable[[], dict[str, list[float]]] | None = None
        self.open: Sample | None = None
        self.waiting: list[tuple[int, Tensor]] = []  # losses on a device, not yet moved
        self.passes, self.backward_begun, self.backward = 0, 0.0, 0.0
        self.told: set[str] = set()
        self.shares = self.looks = 0
        self.history = History([], about.steps)
        self.record = None if log is None else JsonLines(log)
        self._begin()
        self.handles = [*self._on_steps(), *self._on_gradients()]

    # -- what the loop calls ----------------------------------------------------------------------------------------

    def loss(self, value: Any) -> Any:
        """Tell the loss of the batch that is being computed.

        Args:
            value: a 0-dim tensor or a number; of several before one update the mean counts.

        Returns:
            The same, for ``w.loss(f(model, batch)).backward()``.
        """
        with self._safely("the loss"):
            step = self.history.updates
            if not isinstance(value, Tensor):
                self._loss(step, float(value))
            elif value.device.type == "cpu":
                self._loss(step, float(value.detach()))
            else:
                self.waiting.append((step, value.detach().float()))
        return value

    def batches(self, source: Iterable[Any]) -> Batches:
        """The batches of an iterable, as they are: the watch notes which one a step is made from, and the wait."""
        self.source = Batches(source)
        return self.source

    def save_batch(self, path: str | Path) -> None:
        """Save the present batch of :meth:`batches` with ``torch.save``.

        Raises:
            ValueError: where :meth:`batches` has given none.
        """
        if self.source is None or self.source.index < 0:
            raise bad_argument(
                "path", str(path), "a call while w.batches(loader) gives batches", "Loop over w.batches(loader)"
            )
        torch.save(self.source.present, path)

    def close(self) -> None:
        """Look no more: take the hooks off, write the last numbers, close the record."""
        if self.closed:
            return
        self.closed = True
        for handle in self.handles:
            handle.remove()
        with self._safely("the last numbers"):
            self._take()
        if self.record is not None:
            with contextlib.suppress(OSError):
                self.record.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        """The advice: every finding with evidence and remedy, or that nothing was found, and what was looked at."""
        self._drain()
        looked = f"{self.looks} of {self.history.updates} updates were looked at"
        blind = "" if self.history.losses else "; the loss was not told: w.loss(loss)"
        return "\n\n".join([*map(str, self.findings), f"{len(self.findings)} findings; {looked}{blind}"])

    # -- setting up -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Take stock of the parameters."""
        about = replace(self.about)  # whose parameters and owners are read again
        self.about = about
        self.params = list(about.parameters.values())
        before = self.history
        self.history = History(self._watched(), about.steps, losses=before.losses, updates=before.updates)
        self.sampler = Sampler(self.params, self._second)
        if self.record is not None:
            shapes = [list(one.shape) for one in self.history.watched]
            names = [one.name for one in self.history.watched]
            header = {"thalweg": __version__, "names": names, "shapes": shapes, "steps": about.steps}
            self._write({**header, "optimizers": [type(one).__name__ for one in about.optimizers]})

    def _watched(self) -> list[WatchedParameter]:
        return [self._one(name, p) for name, p in self.about.parameters.items()]

    def _one(self, name: str, p: nn.Parameter) -> WatchedParameter:
        owner = self.about.owner(name)
        low = p.dtype in (torch.bfloat16, torch.float16)
        plain = name.replace("_orig_mod.", "").removeprefix("module.").replace("_fsdp_wrapped_module.", "")
        if owner is None:
            return WatchedParameter(plain, p.requires_grad, None, 0, None, tuple(p.shape), low)
        return WatchedParameter(plain, p.requires_grad, owner.number, owner.place, owner.family, tuple(p.shape), low)

    def _second(self, i: int) -> Any:
        one = self.history.watched[i]
        if one.optimizer is None or one.family is not ADAPTIVE:  # elsewhere ε has another unit
            return None
        optimizer = self.about.optimizers[one.optimizer]
        return second(optimizer, optimizer.param_groups[one.group], self.params[i])

    def _on_steps(self) -> Iterator[Any]:
        first, last = self.about.optimizers[0], self.about.optimizers[-1]
        yield first.register_step_pre_hook(lambda *_: self._before())
        yield last.register_step_post_hook(lambda *_: self._after())

    def _on_gradients(self) -> Iterator[Any]:
        """Backward passes are counted by the gradients of two parameters, of which one comes first and one last."""
        asking = [p for p in self.params if p.requires_grad and p.is_leaf]
        for p in {id(p): p for p in (asking[:1] + asking[-1:])}.values():
            yield p.register_post_accumulate_grad_hook(self._counts(p is asking[0]))  # type: ignore[no-untyped-call]

    def _counts(self, last: bool) -> Callable[[Tensor], None]:
        def count(_: Tensor) -> None:
            now = time.perf_counter()
            if not last:
                self.backward_begun = now
                return
            self.passes += 1
            if self.backward_begun:
                self.backward += now - self.backward_begun
            self.history.skipped = self.passes
            if self.passes % 16 == 0 and not self.closed:
                with self._safely("backward passes"):
                    self._tell(unstepped(self.history))

        return count

    # -- one update -------------------------------------------------------------------------------------------------

    def _before(self) -> None:
        with self._safely("the step"):
            self.step_begun = time.perf_counter()
            if not self._due():
                return
            self._take()
            self._refresh()
            self.open = self._sample()
            self.sampler.begin()

    def _after(self) -> None:
        with self._safely("the step"):
            now = time.perf_counter()
            if self.open is not None:
                skipped = any(_was_skipped(one) for one in self.about.optimizers)
                self.open.parts = self._parts(now)
                self.pending = None if skipped else self.sampler.end()
                if skipped:
                    self.open = None
                elif all(p.device.type == "cpu" for p in self.params):
                    self._take()
            self.history.updates += 1
            self.passes, self.history.skipped, self.backward, self.backward_begun = 0, 0, 0.0, 0.0
            if self.source is not None:
                self.source.waited = 0.0
            self.last_end = time.perf_counter()

    def _due(self) -> bool:
        step = self.history.updates
        return not self.closed and (step < EARLY or step % self.every == 0)

    def _refresh(self) -> None:
        """Look again at who updates what: layers are replaced, unfrozen, added to the optimizer."""
        about = replace(self.about)
        if [id(p) for p in about.parameters.values()] != [id(p) for p in self.params]:
            self._begin()
            return
        self.about = about
        self.history.watched = self._watched()

    def _sample(self) -> Sample:
        return Sample(
            self.history.updates,
            time.perf_counter() - self.begun,
            [[float(group["lr"]) for group in one.param_groups] for one in self.about.optimizers],
            [p.grad is None for p in self.params],
            self.passes or None,
            [_count_of(one) for one in self.about.schedulers],
            self.about.model.training,
        )

    def _parts(self, now: float) -> dict[str, float]:
        whole, optimizer = now - self.last_end, now - self.step_begun
        data = self.source.waited if self.source is not None else 0.0
        parts = {"data": data, "backward": self.backward, "optimizer": optimizer}
        return {**parts, "forward": max(0.0, whole - sum(parts.values()))}

    def _take(self) -> None:
        """Move the numbers of the open sample to the host, and let the detectors look."""
        self._drain()
        sample, pending = self.open, self.pending
        self.open = self.pending = None
        if sample is None or pending is None:
            return
        for name, numbers in pending().items():
            setattr(sample, name, numbers)
        scale = _scale(self.about.optimizers)
        sample.gradient = [g / scale for g in sample.gradient]
        sample.memory = allocated(self.params[0].device)
        self.history.add(sample)
        self.looks += 1
        for detector in DETECTORS:
            with self._safely(f"{detector.__module__.rpartition('.')[2]}.{detector.__name__}"):
                self._tell(detector(self.history))
        if len(self.history.recent) % COMPARED == 0:
            self._tell(replicas.drift(self.about.model, self.history, self.sampler))
        self._send(sample)

    # -- losses -----------------------------------------------------------------------------------------------------

    def _loss(self, step: int, value: float) -> None:
        losses = self.history.losses
        if step in losses:
            self.shares += 1
            value = losses[step] + (value - losses[step]) / self.shares
        else:
            self.shares = 1
        losses[step] = value
        if self.source is not None and self._is_spike(step, value):
            self.history.batches[step] = (self.source.index, batches.hash_of(self.source.present))

    def _is_spike(self, step: int, value: float) -> bool:
        if not math.isfinite(value):
            return True
        losses = self.history.losses.values()
        return is_spike([*islice(reversed(losses), 1, limits.WINDOW + 1)], value, next(iter(losses)))

    def _drain(self) -> None:
        """Move the losses that are on a device to the host, all at once."""
        waiting, self.waiting = self.waiting, []
        if waiting:
            for (step, _), value in zip(
                waiting, torch.stack([loss.reshape(()) for _, loss in waiting]).tolist(), strict=True
            ):
                self._loss(step, value)

    # -- what is found ----------------------------------------------------------------------------------------------

    def _tell(self, found: Iterable[Finding]) -> None:
        for one in found:
            key = f"{one.cause} {one.pillar}"
            if key in self.told:
                continue
            self.told.add(key)
            self.findings.append(one)
            self._write({"finding": one.as_dict()})
            warnings.warn(str(one), WatchWarning, stacklevel=2)

    def _send(self, sample: Sample) -> None:
        if self.record is not None:
            self._write(as_line(sample, self.history.losses))
        if not self.sinks:
            return
        numbers: dict[str, float | str] = {"norm": sample.norm, "lr": sample.rates[0][0]}
        if (loss := self.history.losses.get(sample.step)) is not None:
            numbers["loss"] = loss
        for one, update in zip(self.history.watched, sample.update, strict=True):
            if math.isfinite(update):
                numbers[f"update/{one.name}"] = update
        for one, gradient in zip(self.history.watched, sample.gradient, strict=True):
            if math.isfinite(gradient):
                numbers[f"gradient/{one.name}"] = gradient
        numbers |= {f"finding/{found.cause}": str(found) for found in self.findings if found.step == sample.step}
        for sink in list(self.sinks):
            try:
                sink(sample.step, numbers)
            except Exception as error:
                self.sinks.remove(sink)
                self._say(
                    f"a sink raised {type(error).__name__}: {error}; it gets no more numbers, and training goes on"
                )

    def _write(self, line: dict[str, Any]) -> None:
        record = self.record
        if record is None:
            return
        try:
            record.write(line)
        except OSError as error:
            self.record = None
            with contextlib.suppress(OSError):
                record.close()
            self._say(f"{record.path} cannot be written ({error}); the record ends here, and training goes on")

    def _say(self, text: str) -> None:
        if text not in self.told:
            self.told.add(text)
            warnings.warn(f"thalweg.watch: {text}", WatchWarning, stacklevel=2)

    @contextlib.contextmanager
    def _safely(self, what: str) -> Iterator[None]:
        """A watch must not end a training: what goes wrong in it is said once."""
        try:
            yield
        except WatchWarning:
            raise  # of a user who wants an error of each warning
        except Exception as error:
            self.open = self.pending = None
            self._say(f"{what} could not be looked at ({type(error).__name__}: {error}); training goes on")


def unwrapped(model: Any) -> Any:
    """A model without what torch.compile and DistributedDataParallel put around it."""
    while isinstance(inner := getattr(model, "_orig_mod", None) or _replica(model), nn.Module):
        model = inner
    return model


def _replica(model: Any) -> Any:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else None


def _no_loss(*_: Any) -> Any:
    raise AssertionError("a watch computes no loss")


def _was_skipped(optimizer: Any) -> bool:
    """Whether a GradScaler has told the optimizer to leave this step out."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _scale(optimizers: Sequence[Any]) -> float:
    """By what gradients are too large, where the optimizer itself divides them."""
    scale = next((s for one in optimizers if (s := getattr(one, "grad_scale", None)) is not None), None)
    return 1.0 if scale is None else float(scale)


def _count_of(scheduler: Any) -> int | None:
    count = getattr(scheduler, "_step_count", None)
    if not isinstance(count, int):
        count = getattr(scheduler, "last_epoch", None)
    return count if isinstance(count, int) else None
