"""What is known of one step that was looked at, and of the steps before it."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thalweg.diagnosis import limits
from thalweg.diagnosis.families import Family
from thalweg.diagnosis.inflight.losses import Losses
from thalweg.diagnosis.inflight.passes import Update

#: samples that are kept besides the first ones
KEPT = 256
#: the first samples, which are kept for good: what a learning rate does shows best at the beginning
FIRST = 32
#: samples from which the noise scale is reckoned
NOISY = 20


@dataclass(frozen=True)
class WatchedParameter:
    """One parameter, and who updates it.

    Attributes:
        name: in the model.
        trainable: whether it asked for a gradient when the watch began.
        optimizer: the number of its optimizer; None where it is in none.
        group: the number of its group there.
        family: what kind of steps that takes, where it is known.
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

    @property
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
        backwards: backward passes since the update before; None where they cannot be counted.
        scheduler: how often each scheduler has been stepped.
        training: whether the model is in training mode.
        parts: seconds of the step that went before it, by part.
        clip: by how much gradients have become smaller between backward and step; 1 where nothing clips them, NaN where
            that cannot be seen.
        memory: bytes that are allocated on the device, or that the process takes.
        norm: of all gradients together; infinite where one is not finite.
        noise: what :meth:`Passes.noise` gives, of an update from several micro-batches.
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
    parts: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    clip: float = math.nan
    norm: float = math.nan
    noise: tuple[float, float] = (math.nan, math.nan)

    def fill(self, numbers: Mapping[str, list[float]], scale: float) -> None:
        """Take in what was measured; the gradients were ``scale`` times too large."""
        vars(self).update(numbers)
        self.gradient = [g / scale for g in self.gradient]
        present = [g for g, gone in zip(self.gradient, self.absent, strict=True) if not gone]
        self.norm = math.sqrt(sum(g * g for g in present)) if all(map(math.isfinite, present)) else math.inf

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
    """

    watched: Sequence[WatchedParameter]
    steps: int | None = None
    first: list[Sample] = field(default_factory=list)
    recent: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT))
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

    def __post_init__(self) -> None:
        self.silent, self.heard = [0] * len(self.watched), [False] * len(self.watched)

    def add(self, sample: Sample) -> None:
        """Take in a further sample."""
        if len(self.first) < FIRST:
            self.first.append(sample)
        self.recent.append(sample)
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
        """Whether a layer that had gradients at every sample has none, or a rate has become zero, not for long yet."""
        rates = [[rate for rates in s.rates for rate in rates] for s in self.latest(2)]
        stopped = len(rates) == 2 and any(now == 0 < was for was, now in zip(*rates, strict=False))
        return stopped or any(
            0 < silent < limits.DEAD_FOR and self.heard[i] and i not in self.intermittent
            for i, silent in enumerate(self.silent)
        )

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
        pairs = [s.noise for s in self.recent if math.isfinite(s.noise[0])]
        if len(pairs) < NOISY:
            return None
        spread, slope = (statistics.fmean(column) for column in zip(*pairs, strict=True))
        return spread / slope if slope > 0 < spread else None

    def peak(self, at: WatchedParameter) -> float:
        """The highest rate that a parameter has had in a sample."""
        rates = [sample.rate(at) for sample in (*self.first, *self.recent)]
        return max((rate for rate in rates if rate == rate), default=0.0)


def as_line(sample: Sample, losses: Losses) -> dict[str, Any]:
    """A sample as a line of a record: numbers that JSON does not have are null."""
    loss = losses.get(sample.step)
    line = {"step": sample.step, "loss": loss, **vars(sample)}
    return {key: _plain(value) for key, value in line.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
