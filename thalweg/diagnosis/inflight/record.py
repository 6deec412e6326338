"""What is known of one step that was looked at, and of the steps before it."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from thalweg.diagnosis import limits
from thalweg.diagnosis.bands import Band, TunedRuns, phase_of
from thalweg.diagnosis.families import Family
from thalweg.diagnosis.inflight.losses import Losses
from thalweg.diagnosis.inflight.passes import Update
from thalweg.diagnosis.inflight.router_load import RouterLoad

#: samples that are kept besides the first ones
KEPT = 256
#: the first samples, which are kept for good: what a learning rate does shows best at the beginning
FIRST = 32
#: samples from which the noise scale is reckoned
NOISY = 20
#: what a record leaves out: it is for detectors alone
_OWN = ("undone", "bound", "total")


@dataclass(frozen=True)
class WatchedParameter:
    """One parameter, and who updates it.

    Attributes:
        name: in the model.
        trainable: whether it asked for a gradient when the watch began.
        optimizer: the number of its optimizer; None where it is in none.
        group: the number of its group there.
        family: what kind of steps that takes, where it is known. tuned: the runs that these are compared with.
        shape: of the whole tensor.
        decay: strength of its weight decay. coupled: whether that is added to the gradient.
        low_precision: whether it is kept in 16 bits or fewer.
    """

    name: str
    trainable: bool
    optimizer: int | None
    group: int
    family: Family | None
    shape: tuple[int, ...]
    low_precision: bool = False
    decay: float = 0.0
    coupled: bool = False
    tuned: TunedRuns | None = None

    @functools.cached_property
    def hidden(self) -> bool:
        """Whether it has the shape of a hidden matrix."""
        return len(self.shape) >= 2 and min(self.shape[0], math.prod(self.shape[1:])) > 1


@dataclass
class Sample:
    """One update that was looked at. Lists have an entry for each watched parameter; NaN where there is no number.

    Attributes:
        step: updates made before this one.
        seconds: since the watch began.
        rates: learning rate of each group of each optimizer.
        absent: parameters without a gradient.
        gradient: norm of the gradient, as the optimizer got it; infinite or NaN where an element is.
        weight: norm before the update.
        update: ‖Δw‖ / ‖w‖, from some of the elements.
        cosine: of the angle between −gradient and update, in [-1, 1].
        changed: share of the elements with a gradient that the update changed.
        small: share of the elements with √v below ε, of optimizers that have both.
        undone: share of the update before that was taken back from outside of the optimizer since; NaN where that one
            was not looked at. bound: share of the elements that were then set to the largest value of their tensor.
        total: sum of the elements that are looked at, before the update: two looks with the same sums see the same.
        backwards: backward passes since the update before; None where they cannot be counted.
        scheduler: how often each scheduler has been stepped.
        training: whether the model is in training mode.
        parts: seconds of the step that went before it, by part.
        clip: by how much gradients have become smaller between backward and step; 1 where nothing clips them, NaN where
            that cannot be seen.
        memory: bytes that are allocated on the device, or that the process takes.
        norm: of all gradients together; infinite where one is not finite.
        noise: what :meth:`Passes.noise` gives, of an update from several micro-batches.
        noise_scale: :attr:`History.noise_scale` so far; None where that is not known.
        promise: by how much the update lowers the loss of its batch to first order, −⟨gradient, Δw⟩, before clipping;
            from some elements.
        promised: the mean of that over the updates of the latest window, of which some were looked at.
        falls: by how much the loss falls from one update to the next in that window: :attr:`Losses.falls`.
        logits: the largest attention logit by layer; routers: the load of each router, by layer; ranks: the
            effective ranks of the gradient and of the update of a few matrices. All three are empty at most looks.
    """

    step: int
    seconds: float
    rates: list[list[float]]
    absent: list[bool]
    backwards: int | None
    scheduler: list[int | None]
    training: bool
    gradient: list[float] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    small: list[float] = field(default_factory=list)
    undone: list[float] = field(default_factory=list)
    bound: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    clip: float = math.nan
    norm: float = math.nan
    noise: tuple[float, float] = (math.nan, math.nan)
    noise_scale: float | None = None
    promise: float = math.nan
    promised: float = math.nan
    falls: float = math.nan
    logits: dict[str, float] = field(default_factory=dict)
    routers: dict[str, RouterLoad] = field(default_factory=dict)
    ranks: dict[str, tuple[float, float]] = field(default_factory=dict)

    def fill(self, numbers: Mapping[str, list[float]], scale: float) -> None:
        """Take in what was measured; the gradients were ``scale`` times too large."""
        vars(self).update(numbers)
        self.gradient = [g / scale for g in self.gradient]
        present = [g for g, gone in zip(self.gradient, self.absent, strict=True) if not gone]
        self.norm = math.sqrt(sum(g * g for g in present)) if all(map(math.isfinite, present)) else math.inf

    def foretell(self) -> None:
        """Reckon the promise, from the parameters for which all that it needs is known."""
        parts = zip(self.cosine, self.gradient, self.update, self.weight, strict=True)
        known = [product for part in parts if math.isfinite(product := math.prod(part))]
        self.promise = math.fsum(known) * (self.clip if math.isfinite(self.clip) else 1.0) if known else math.nan

    @property
    def is_finite(self) -> bool:
        """Whether all gradients are."""
        return math.isfinite(self.norm)

    def rate(self, at: WatchedParameter) -> float:
        """The learning rate of a parameter; NaN where it was in no group then."""
        return math.nan if at.optimizer is None else self.rate_of(at.optimizer, at.group)

    def rate_of(self, optimizer: int, group: int) -> float:
        """The learning rate of a group; NaN where it did not exist then."""
        rates = self.rates[optimizer]
        return rates[group] if group < len(rates) else math.nan


@dataclass
class History:
    """All that a watch has seen.

    Attributes:
        watched: the parameters.
        steps: of the run, where they were told.
        first: the first samples.
        recent: the latest.
        inside: those of them that hold attention logits or the load of routers.
        peaks: the highest rate that each group has had in a sample, by optimizer and number.
        noises: the latest of :attr:`Sample.noise` that are known.
        losses: of each update, where it was told, by its step.
        updates: how many there were.
        skipped: backward passes that no update followed, one after the other.
        guess: the loss of guessing, where the first one is not below it; None where that is not known.
        ahead: the sum of the rates of the whole run, for groups whose schedule is stepped at each update.
        batches: number and hash of the batch of a loss that is a spike, by step.
        poisoned: steps whose batch holds numbers that are not finite.
        made: the latest updates whose backward passes were looked at.
        idle: how often gradients were cleared since the last update.
        silent: for each parameter, the latest samples in a row without a gradient. heard: whether it ever had one.
        intermittent: those that had gradients again after a pause.
        evaluated: updates in a row of a model in eval mode.
        modal: the layers that this changes.
        rises: groups, by optimizer and number, that the schedule gives a rate at some step.
        fits: whether the loss compares outputs with targets, in a function that torch has for it.
        apart: whether optimizers step by losses of their own, as those of a generator and a critic.
        dtypes: in which each attention that was seen holds its logits, by layer.
    """

    watched: Sequence[WatchedParameter]
    steps: int | None = None
    first: list[Sample] = field(default_factory=list)
    recent: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT))
    inside: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT))
    peaks: dict[tuple[int, int], float] = field(default_factory=dict)
    noises: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=KEPT))
    losses: Losses = field(default_factory=Losses)
    updates: int = 0
    skipped: int = 0
    guess: float | None = None
    ahead: dict[tuple[int, int], float] = field(default_factory=dict)
    batches: dict[int, tuple[int, str]] = field(default_factory=dict)
    poisoned: set[int] = field(default_factory=set)
    made: deque[Update] = field(default_factory=lambda: deque(maxlen=16))
    idle: int = 0
    silent: list[int] = field(default_factory=list)
    heard: list[bool] = field(default_factory=list)
    intermittent: set[int] = field(default_factory=set)
    evaluated: int = 0
    modal: list[str] = field(default_factory=list)
    rises: set[tuple[int, int]] = field(default_factory=set)
    fits: bool = False
    apart: bool = False
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.silent, self.heard = [0] * len(self.watched), [False] * len(self.watched)

    def add(self, sample: Sample) -> None:
        """Take in a further sample."""
        if len(self.first) < FIRST:
            self.first.append(sample)
        self.recent.append(sample)
        if sample.logits or sample.routers:
            self.inside.append(sample)
        if math.isfinite(sample.noise[0]):
            self.noises.append(sample.noise)
        for number, rates in enumerate(sample.rates):
            for group, rate in enumerate(rates):
                if rate > self.peaks.get((number, group), 0.0):
                    self.peaks[number, group] = rate
        self._listen(sample)

    def _listen(self, sample: Sample) -> None:
        for i, gone in enumerate(sample.absent):
            if gone or sample.gradient[i] == 0:
                self.silent[i] += 1
                continue
            if self.silent[i] and self.heard[i]:
                self.intermittent.add(i)
            self.heard[i], self.silent[i] = True, 0

    @property
    def is_suspect(self) -> bool:
        """Whether what may become a finding has begun, not for long yet, so that it is worth to look closely.

        A layer that had gradients at every sample has none, a rate has become zero, a layer is strained.
        """
        rates = [[rate for rates in s.rates for rate in rates] for s in self.latest(2)]
        stopped = len(rates) == 2 and any(now == 0 < was for was, now in zip(*rates, strict=False))
        return (
            self.is_strained
            or stopped
            or any(
                0 < silent < limits.DEAD_FOR and self.heard[i] and i not in self.intermittent
                for i, silent in enumerate(self.silent)
            )
        )

    @property
    def is_strained(self) -> bool:
        """Whether the last look within shows logits beyond the bound, or a collapsed router, and this is new."""
        row = self.in_a_row(self._strains)
        return bool(row) and row[-1].step - row[0].step <= limits.ROUTED_FOR

    def _strains(self, sample: Sample) -> bool:
        beyond = any(self.is_beyond(sample, layer) for layer in sample.logits)
        return beyond or any(load.is_collapsed for load in sample.routers.values())

    def in_a_row(self, holds: Callable[[Sample], bool]) -> list[Sample]:
        """The latest looks within the model of which something holds, back to the first of which it does not."""
        return list(itertools.takewhile(holds, reversed(self.inside)))[::-1]

    @property
    def last(self) -> Sample:
        """The latest sample."""
        return self.recent[-1]

    def latest(self, count: int) -> list[Sample]:
        """The latest ``count`` samples, or fewer, in order."""
        return list(self.recent)[-count:]

    def trainable(self) -> Iterator[tuple[int, WatchedParameter]]:
        """The parameters that ask for a gradient, by number."""
        return ((i, one) for i, one in enumerate(self.watched) if one.trainable)

    @property
    def noise_scale(self) -> float | None:
        """tr Σ / ‖∇L‖², in micro-batches, from the means of both over the samples; None where that is not known."""
        if len(self.noises) < NOISY:
            return None
        spread, slope = (statistics.fmean(column) for column in zip(*self.noises, strict=True))
        return spread / slope if slope > 0 < spread else None

    @property
    def promised(self) -> float:
        """The mean promise of an update of the latest window; a look stands for the updates since the one before it."""
        since = self.updates - limits.WINDOW
        latest = itertools.takewhile(lambda s: s.step >= since, reversed(self.recent))
        known = [(s.step, s.promise) for s in latest if math.isfinite(s.promise)][::-1]
        if not known:
            return math.nan
        gaps = [1, *(b - a for (a, _), (b, _) in itertools.pairwise(known))]
        return math.fsum(gap * promise for gap, (_, promise) in zip(gaps, known, strict=True)) / sum(gaps)

    @property
    def kept(self) -> float:
        """The share of the decrease that gradients promised by which the loss has fallen of late; NaN if unknown."""
        promised = self.promised
        return self.losses.falls / promised if promised > 0 else math.nan

    def bearable(self, layer: str) -> float:
        """The largest attention logit that is expected of a layer."""
        return min(limits.LOGIT, limits.LOGIT_UNITS / torch.finfo(self.dtypes[layer]).eps)

    def is_beyond(self, sample: Sample, layer: str) -> bool:
        """Whether a layer's largest attention logit was more than that."""
        return sample.logits.get(layer, 0.0) > self.bearable(layer)

    def updates_of(self, tuned: TunedRuns, at: WatchedParameter) -> Band:
        """What the updates of hidden matrices are in tuned runs, at the last sample's part of the run and its rate."""
        peak = self.peak(at)
        factor = self.last.rate(at) / peak if peak > 0 else 1.0
        return tuned.updates(phase_of(self.last.step, self.steps)).times(factor)

    def peak(self, at: WatchedParameter) -> float:
        """The highest rate that a parameter has had in a sample."""
        return 0.0 if at.optimizer is None else self.peaks.get((at.optimizer, at.group), 0.0)


def as_line(sample: Sample, losses: Losses) -> dict[str, Any]:
    """A sample as a line of a record: numbers that JSON does not have are null."""
    loss = losses.get(sample.step)
    shown = {key: value for key, value in vars(sample).items() if key not in _OWN}
    line = {"step": sample.step, "loss": loss, **shown}
    return {key: _plain(value) for key, value in line.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, RouterLoad):
        return vars(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
