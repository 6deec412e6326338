"""A rise before any schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from thalweg._base.errors import bad_argument
from thalweg.schedule.compose import Shape
from thalweg.schedule.protocol import Schedule, at, length_of, span_of


@dataclass(frozen=True)
class Warmup(Shape):
    r"""The learning rate rises over ``steps`` updates and then follows another schedule, which starts counting there.

    $$f(t) = \begin{cases} r\!\left(\frac{t+1}{n}\right) g(0) & t < n \\ g(t - n) & t \ge n \end{cases} \qquad
    r(x) = s + (1 - s)\,x, \quad s + (1 - s)\,\frac{1 - \cos \pi x}{2} \quad\text{or}\quad s^{1 - x}$$

    The first update already moves, the last one of the rise is at the peak; the horizon of $g$ is what comes after.

    Args:
        steps: $n$, in updates.
        schedule: $g$, a function of the step to a factor.
        shape: ``"linear"``, ``"cosine"`` or ``"exponential"`` (the same ratio at every step).
        start: $s$, the factor that the rise sets out from, a step before the first update; in [0, 1), and above 0 for
            ``"exponential"``.

    Strength: Before steps become large, statistics settle and sharp first layers flatten, which allows a higher peak.
    Weakness: It has one more number to tune, and short runs spend much of their length below the peak.
    Source: Goyal et al. 2017, "Accurate, large minibatch SGD: training ImageNet in 1 hour", section 2.2,
    https://arxiv.org/abs/1706.02677
    Example: Warmup(20, Cosine(80))
    """

    steps: Annotated[int, "[1, ∞)"]
    schedule: Schedule
    shape: Literal["linear", "cosine", "exponential"] = "linear"
    start: Annotated[float, "[0, 1)"] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape == "exponential" and self.start == 0.0:
            raise bad_argument(
                "start", self.start, "a number in (0, 1)", "An exponential never leaves 0: say start=0.01"
            )

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        if step >= self.steps:
            return at(self.schedule, step - self.steps)
        return self._risen(min(1.0, (step + 1) / self.steps)) * self.schedule(0)

    def _risen(self, share: float) -> float:
        if self.shape == "exponential":
            return float(self.start ** (1.0 - share))
        if self.shape == "cosine":
            share = (1.0 - math.cos(math.pi * share)) / 2
        return self.start * (1.0 - share) + share

    @property
    def length(self) -> int | None:
        """With what comes after."""
        rest = length_of(self.schedule)
        return None if rest is None else self.steps + rest

    @property
    def span(self) -> int:
        """With what comes after; as much again of what has nothing to show."""
        return self.steps + (span_of(self.schedule) or self.steps)


@dataclass(frozen=True)
class UntunedWarmup(Shape):
    r"""This is the warmup that Adam's β₂ asks for, as a factor of any schedule: ``UntunedWarmup(0.999) *
    Cosine(10_000)``.

    $$f(t) = 1 - e^{-(1 - \beta_2)(t + 1)} \quad\text{or}\quad \min\left(1,\ \frac{1 - \beta_2}{2}(t + 1)\right)$$

    Args:
        beta2: $\beta_2$ of the optimizer, in [0, 1).
        shape: ``"exponential"`` or ``"linear"``.

    Strength: There is nothing to tune, and it does for Adam what RAdam's rectification does.
    Weakness: It considers the variance of v alone; large batches and a steep loss at the start may need a longer
    warmup.
    Source: Ma & Yarats 2021, "On the adequacy of untuned warmup for adaptive optimization",
    https://arxiv.org/abs/1910.04209
    Example: UntunedWarmup(beta2=0.95)
    """

    beta2: Annotated[float, "[0, 1)"] = 0.999
    shape: Literal["exponential", "linear"] = "exponential"

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        pace = (1.0 - self.beta2) * (step + 1)
        return -math.expm1(-pace) if self.shape == "exponential" else min(1.0, pace / 2)

    @property
    def length(self) -> int | None:
        r"""$2/(1 - \beta_2) - 1$ where it is linear."""
        return max(0, math.ceil(2 / (1.0 - self.beta2)) - 1) if self.shape == "linear" else None

    @property
    def span(self) -> int:
        """Until 99 % of it are over."""
        return math.ceil(5 / (1.0 - self.beta2))
