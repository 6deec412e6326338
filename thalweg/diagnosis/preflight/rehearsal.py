"""A rehearsal: some steps of the real optimizer on one batch, at the rates that the schedule will reach."""

from __future__ import annotations

import inspect
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg.diagnosis import measures
from thalweg.diagnosis.families import ADAPTIVE, UNCORRECTED
from thalweg.diagnosis.preflight.reading import Read, copied
from thalweg.diagnosis.preflight.subject import Owner, Subject
from thalweg.diagnosis.symmetry import alike, held
from thalweg.schedule.per_group import put
from thalweg.train import rng, update

#: steps of a rehearsal, and over how many of them the rate rises where the schedule begins with a warmup
STEPS, RAMP = 24, 12
#: fewer are taken where they would take longer than this many seconds, but not fewer than this
SECONDS, LEAST = 20.0, 6
#: the step at which ε is compared with √v: the averages hold something, and nothing is learnt yet
EARLY = 2

#: steps that count as the first ones
FIRST = 5

#: rates of the groups of each optimizer
Rates = Sequence[Sequence[float]]


@dataclass
class Rehearsal:
    """What it has shown; everything by the name of a parameter.

    Attributes:
        losses: of the batch, before each step, and after the last one.
        gradients: norm of all gradients together, at each step, before clipping.
        sizes: ‖g‖ at the first step.
        weights: ‖w‖ before it.
        updates: ‖Δw‖ / ‖w‖ of a step at the peak rate, against the weights at the beginning; the median over
            all steps. early: over the first :data:`FIRST`, before the gradients have answered.
        silent: trainable parameters without a gradient, or with zeros only, at every step and on every batch.
        nonfinite: the first one whose gradient was not finite; empty if there was none.
        lively: share of the gradient's elements that were not zero, at the last step.
        changed: share of the elements with a gradient that a step at the peak rate changed.
        units: by how many units in the last place such a step moves an element, on average.
        moved: parameters that are not what they were, frozen ones too.
        buffers: buffers that are not what they were.
        below: share of the elements with a gradient whose √v was below ε.
        seconds: of forward, backward and optimizer in a step, the medians.
        raised: what the optimizer's step raised; empty if it did not.
        alike: weights whose rows began as copies of one another, and whose gradients keep them so.
    """

    losses: list[float] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    sizes: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    updates: dict[str, float] = field(default_factory=dict)
    early: dict[str, float] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    nonfinite: str = ""
    lively: dict[str, float] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    buffers: set[str] = field(default_factory=set)
    below: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    raised: str = ""
    alike: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether steps were taken, and none of them failed."""
        return bool(self.gradients) and not self.raised

    @property
    def steps(self) -> int:
        """How many were taken."""
        return len(self.gradients)

    @property
    def end(self) -> float:
        """The loss over the last quarter, its median; infinite where it is not finite."""
        last = self.losses[-max(1, len(self.losses) // 4) :]
        return statistics.median(last) if all(map(math.isfinite, last)) else math.inf

    @property
    def fall(self) -> float:
        """By how much of itself the loss falls; negative where it rises."""
        begin = self.losses[0]
        return (begin - self.end) / max(abs(begin), 1e-12)


def rehearse(subject: Subject, batch: Any, peaks: Rates, ramp: bool, limit: int = STEPS) -> Rehearsal:
    """Take the steps. What is touched is for the caller to put back.

    The same random numbers are drawn at every step, so that the loss is one function of the weights.

    Args:
        subject: the run.
        batch: on which.
        peaks: the rates.
        ramp: whether they rise to the peaks over the first :data:`RAMP` steps.
        limit: steps at most.
    """
    return _Walk(subject, batch, peaks, ramp).run(limit)


class _Walk:
    def __init__(self, subject: Subject, batch: Any, peaks: Rates, ramp: bool) -> None:
        self.subject, self.batch, self.peaks, self.ramp = subject, batch, peaks, ramp
        self.names, self.tensors = list(subject.trainable), list(subject.trainable.values())
        self.found = Rehearsal(silent=set(self.names))
        self.draws = rng.capture()
        self.ratios: dict[str, list[float]] = {name: [] for name in self.names}
        self.laps: dict[str, list[float]] = {}

    def run(self, limit: int) -> Rehearsal:
        found = self.found
        everything = {**self.subject.parameters, **dict(self.subject.model.named_buffers())}
        first = {name: x.detach().clone() for name, x in everything.items()}
        self.begin = measures.norms(self.tensors)
        suspects = alike(self.subject.trainable)
        found.weights = self._by_name(self.begin)
        began = time.perf_counter()
        for step in range(limit):
            if not self._step(step) or (step + 1 >= LEAST and time.perf_counter() - began > SECONDS):
                break
        else:
            self._forward()
        found.alike = held(self.subject.trainable, suspects)
        for name, x in everything.items():
            if not torch.equal(x, first[name]):
                (found.moved if name in self.subject.parameters else found.buffers).add(name)
        found.seconds = {name: statistics.median(laps) for name, laps in self.laps.items()}
        seen = {name: ratios for name, ratios in self.ratios.items() if ratios}
        found.updates = {name: statistics.median(ratios) for name, ratios in seen.items()}
        found.early = {name: statistics.median(ratios[:FIRST]) for name, ratios in seen.items()}
        return found

    def _step(self, step: int) -> bool:
        """One step; False where there is nothing to go on with."""
        clock = _LapClock(self.tensors[0].device)
        factor = min(1.0, (step + 1) / RAMP) if self.ramp else 1.0
        for optimizer, peaks in zip(self.subject.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                put(group, "lr", factor * peak)
        self._clear()
        loss = self._forward()
        clock.lap("forward")
        if not math.isfinite(self.found.losses[-1]):
            return False
        loss.backward()  # type: ignore[no-untyped-call]
        clock.lap("backward")
        if not self._look_at_gradients(step):
            return False
        before = [p.detach().clone() for p in self.tensors]
        masks = [
            _dense(p.grad) != 0 if p.grad is not None else torch.zeros_like(p, dtype=torch.bool) for p in self.tensors
        ]
        clock.lap("")
        if not self._update():
            return False
        clock.lap("optimizer")
        for name, passed in clock.seconds.items() if step else ():  # the first one allocates and compiles
            self.laps.setdefault(name, []).append(passed)
        self._look_at_update(step, factor, before, masks)
        return True

    def _clear(self) -> None:
        for p in self.subject.parameters.values():
            p.grad = None

    def _forward(self) -> Tensor:
        rng.restore(self.draws)
        loss: Tensor = self.subject.value(self.batch)
        self.found.losses.append(float(loss.detach()))
        return loss.reshape(())

    def _update(self) -> bool:
        """The optimizers' steps; False where one raises, such as for a call that the user's loop makes before."""
        try:
            for optimizer in self.subject.optimizers:
                if needs_closure(optimizer):
                    optimizer.step(self._closure)
                else:
                    update(optimizer, self.found.losses[-1])
        except Exception as error:  # whatever a stranger's optimizer may raise
            self.found.raised = f"{type(error).__name__}: {error}"
        return not self.found.raised

    def _closure(self) -> Any:
        self._clear()
        rng.restore(self.draws)
        with torch.enable_grad():
            loss = self.subject.value(self.batch).reshape(())
            loss.backward()
        return loss

    def _look_at_gradients(self, step: int) -> bool:
        found = self.found
        having = {name: _dense(p.grad) for name, p in self.subject.trainable.items() if p.grad is not None}
        sizes = dict(zip(having, measures.norms(list(having.values())).tolist(), strict=True))
        bad = [name for name, size in sizes.items() if not math.isfinite(size)]
        if bad and step == 0:
            found.nonfinite = bad[-1]  # the backward pass comes from the end: there it began
        if bad:
            found.losses.append(math.inf)
            return False
        found.silent -= {name for name, size in sizes.items() if size > 0 or bool(having[name].any())}
        found.gradients.append(math.hypot(*sizes.values()) if sizes else 0.0)
        if step == 0:
            found.sizes = sizes
        found.lively = dict(zip(having, measures.nonzero(list(having.values())).tolist(), strict=True))
        if self.subject.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.tensors, self.subject.clip)
        return True

    def _look_at_update(self, step: int, factor: float, before: list[Tensor], masks: list[Tensor]) -> None:
        gone = measures.distances(self.tensors, before)
        for name, ratio in self._by_name(measures.ratios(gone, self.begin) / factor).items():
            if math.isfinite(ratio):
                self.ratios[name].append(ratio)
        if step == EARLY:
            self.found.below = dict(_below_eps(self.subject, dict(zip(self.names, masks, strict=True))))
        if factor == 1.0:
            self.found.units = self._by_name(measures.units_moved(self.tensors, before))
            for name, p, old, mask in zip(self.names, self.tensors, before, masks, strict=True):
                if mask.any():
                    share = ((p.detach() != old) & mask).sum() / mask.sum()
                    self.found.changed[name] = max(self.found.changed.get(name, 0.0), float(share))

    def _by_name(self, numbers: Tensor) -> dict[str, float]:
        return dict(zip(self.names, numbers.tolist(), strict=True))


class _LapClock:
    """Seconds between laps; waits for an accelerator, which works behind the program."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self.device = device
        self.last = self._now()

    def lap(self, name: str) -> None:
        """What has passed since the last lap belongs to a name; to none where it is empty."""
        now = self._now()
        if name:
            self.seconds[name] = now - self.last
        self.last = now

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step cannot do without the loss as a function."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def silent_on(subject: Subject, read: Read, silent: set[str]) -> set[str]:
    """Of some parameters those that get no gradient, or zeros only, from any of the batches."""
    left = set(silent)
    for batch in read.batches:
        if not left:
            break
        for p in subject.parameters.values():
            p.grad = None
        subject.value(copied(batch)).reshape(()).backward()
        left -= {name for name in left if (g := subject.parameters[name].grad) is not None and _dense(g).any()}
    return left


def _below_eps(subject: Subject, masks: dict[str, Tensor]) -> list[tuple[str, float]]:
    found = []
    for name, p in subject.trainable.items():
        owner, mask = subject.owner(name), masks[name]
        eps = owner.group.get("eps") if owner else None
        v = second_moment(owner, p) if owner else None
        known = owner is not None and owner.family in (ADAPTIVE, UNCORRECTED)
        if known and isinstance(eps, float) and v is not None and v.shape == p.shape and mask.any():
            found.append((name, float(((v < eps**2) & mask).sum() / mask.sum())))
    return found


def second_moment(owner: Owner, p: Tensor) -> Tensor | None:
    """The mean of squared gradients that a step divides by, without ε; None where it keeps none as it is."""
    state = owner.optimizer.state.get(p, {})
    v, betas = state.get("exp_avg_sq"), owner.group.get("betas")
    if isinstance(v, Tensor) and v.is_floating_point() and betas:
        made = float(state.get("step", EARLY + 1))
        share: float = 1 - float(betas[-1]) ** max(1.0, made)  # without bias correction it would begin near zero
        return v.float() / share
    v = state.get("square_avg")
    return v.float() if isinstance(v, Tensor) and v.is_floating_point() else None


def _dense(g: Tensor) -> Tensor:
    g = g.detach()
    return g.to_dense() if g.is_sparse else g
