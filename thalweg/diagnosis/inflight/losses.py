"""The losses of a run: the latest by update, the first ones for good, and which of them stand out."""

from __future__ import annotations

import math
import operator
import statistics
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice

from thalweg.diagnosis import limits

#: losses that are kept, and of these the first ones
KEPT, FIRST = 4096, 32
#: losses after which median and deviation of the window are reckoned again
REFRESHED = 16


class Losses(OrderedDict[int, float]):
    """The loss of each of the latest updates, by its step; of an update from several batches their mean.

    Attributes:
        first: the first ones.
        spikes: steps whose loss lies many deviations above those before it, the latest.
        burst: the first step whose loss lies far above all others, with the median before it.
        nonfinite: the first step whose loss is not finite.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: list[float] = []
        self.spikes: list[int] = []
        self.burst: tuple[int, float] | None = None
        self.nonfinite: int | None = None
        self.shares = self.usual = 1  # batches of the present update, and of the one before it
        self.middle = self.bound = math.nan  # of the window: the median, and what is a spike
        self.told = 0  # updates whose loss was told
        self.high = math.inf  # below this a loss is no burst

    def tell(self, step: int, value: float) -> bool:
        """Take in the loss of a batch.

        Returns:
            Whether the loss of its update is not finite, or lies far above those before it.
        """
        if step in self:
            self.shares += 1
            value = self[step] + (value - self[step]) / self.shares
        else:
            self._begin()
        self[step] = value
        if not math.isfinite(value):
            self.nonfinite = step if self.nonfinite is None else self.nonfinite
            return self.nonfinite == step
        return self.shares == self.usual and self._judge(step, value)

    def latest(self, count: int) -> list[float]:
        """The latest ones, in order."""
        return [self[step] for step in islice(reversed(self), count)][::-1]

    @property
    def falls(self) -> float:
        """By how much the loss falls from one update to the next: the slope of a line through the latest losses.

        NaN where there are too few of them.
        """
        latest = [pair for pair in islice(reversed(self.items()), limits.WINDOW) if math.isfinite(pair[1])]
        if len(latest) < limits.SETTLED:
            return math.nan
        steps, losses = zip(*latest, strict=True)
        middle = sum(steps) / len(steps)
        apart = [step - middle for step in steps]
        return float(-sum(map(operator.mul, apart, losses)) / sum(map(operator.mul, apart, apart)))

    def _begin(self) -> None:
        """An update is over, and its loss known."""
        if not self:
            return
        self.usual, self.shares = self.shares, 1
        self.told += 1
        if len(self.first) < FIRST:
            self.first.append(next(reversed(self.values())))
            self.high = self._least_burst()
        if len(self) > KEPT:
            self.popitem(last=False)
        if self.told % REFRESHED == 0 or math.isnan(self.middle):
            self._refresh()

    def _refresh(self) -> None:
        finite = [x for x in self.latest(limits.WINDOW) if math.isfinite(x)]
        if not finite:
            return
        self.middle = statistics.median(finite)
        deviation = 1.4826 * statistics.median([abs(x - self.middle) for x in finite])
        fallen = abs(self.first[0] - self.middle)
        self.bound = math.nan
        if len(finite) >= limits.SETTLED:
            least = max(limits.SPIKE_SHARE * fallen, limits.SPIKE_OVER * abs(self.middle))
            self.bound = self.middle + max(limits.SPIKE * deviation, least)
            if min(finite) > 0:  # of losses with a long tail, as of single examples, the logarithm has none
                logs = [math.log(x) for x in finite]
                middle = statistics.median(logs)
                spread = 1.4826 * statistics.median([abs(x - middle) for x in logs])
                self.bound = max(self.bound, math.exp(min(middle + limits.SPIKE * spread, 700.0)))

    def _judge(self, step: int, value: float) -> bool:
        burst = self.burst is None and value > self.high and self._is_burst(value)
        if burst:
            self.burst = step, statistics.median(self.latest(limits.WINDOW)[:-1])
        if value > self.bound:
            self.spikes = [*(at for at in self.spikes if at > step - limits.WINDOW), step]
            return True
        return burst

    def _least_burst(self) -> float:
        early = self.first[: limits.BURST_AFTER]
        return limits.BURST_OVER_FIRST * max(map(abs, early)) if len(early) == limits.BURST_AFTER else math.inf

    def _is_burst(self, value: float) -> bool:
        before: Sequence[float] = [abs(x) for x in self.latest(limits.WINDOW)[:-1] if math.isfinite(x)]
        return bool(before) and value > limits.LOSS_BURST * max(before)
