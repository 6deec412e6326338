r"""The shapes: pure functions of the step.

A schedule $f$ is called with the number of updates made so far, $t = 0$ for the first one, and gives the factor in
[0, 1] of the peak for the next. One of $T$ steps is used at $t = 0 … T-1$, where a decay to zero has not yet reached
zero: no update is wasted. From $t = T$ on it stays at its ``final`` factor, exactly.

The classes are the shapes, each with a length of its own; they compare, pickle, and read back from their ``repr``.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from thalweg._base.errors import bad_argument
from thalweg.schedule import checks
from thalweg.schedule.compose import Shape


@dataclass(frozen=True)
class _Decay(Shape):
    """What falls from 1 to ``final`` in ``steps`` updates."""

    steps: Annotated[int, "[1, ∞)"]
    final: Annotated[float, "[0, 1]"] = 0.0

    @property
    def length(self) -> int:
        """``steps``."""
        return self.steps

    def _done(self, step: float) -> float:
        """The share in [0, 1] of the steps that is over."""
        return min(1.0, step / self.steps)

    def _left(self, share: float) -> float:
        """The factor where a share in [0, 1] of the fall is left; without rounding at either end."""
        return self.final + (1.0 - self.final) * share


@dataclass(frozen=True)
class Linear(_Decay):
    r"""The learning rate follows a straight line from ``start`` to ``final``.

    $$f(t) = s + (f_T - s)\,t/T$$

    With ``start`` below ``final`` it rises. As ``torch.optim.lr_scheduler.LinearLR``.

    Args:
        steps: $T$, in updates.
        final: $f_T$, factor of the peak in [0, 1].
        start: $s$, factor of the peak in [0, 1].

    Strength: Where the length of the run is known, a fall to zero is hard to beat, in theory and in large comparisons.
    Weakness: The length must be known at the start, and a run that is stopped early has not decayed.
    Source: Defazio et al. 2023, "Optimal linear decay learning rate schedules and further refinements",
    https://arxiv.org/abs/2310.07831
    Example: Linear(100)
    """

    start: Annotated[float, "[0, 1]"] = 1.0

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        left = 1.0 - self._done(step)
        return self._left(left) if self.start == 1.0 else self.final * (1.0 - left) + self.start * left


@dataclass(frozen=True)
class Cosine(_Decay):
    r"""The learning rate follows half a cosine from 1 to ``final``: it is flat at first, steepest in the middle, and
    flat at the end.

    $$f(t) = f_T + (1 - f_T)\,\frac{1 + \cos(\pi t/T)}{2}$$

    As ``torch.optim.lr_scheduler.CosineAnnealingLR``, which rises again after $T$ where this stays.

    Args:
        steps: $T$, in updates.
        final: $f_T$, factor of the peak in [0, 1].

    Strength: It has been the default of vision and language models for a decade, and it is hard to get badly wrong.
    Weakness: The length must be known at the start, and the last updates are so small that they gain little.
    Source: Loshchilov & Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", eq. 5 without restarts,
    https://arxiv.org/abs/1608.03983
    Example: Cosine(100)
    """

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        return self._left(1.0 - (1.0 - math.cos(math.pi * self._done(step))) / 2)


@dataclass(frozen=True)
class Polynomial(_Decay):
    r"""The learning rate is a power of the share of the run that is left.

    $$f(t) = f_T + (1 - f_T)\,(1 - t/T)^p$$

    ``power=1`` is :class:`Linear`; 0.9 is usual in segmentation. As ``torch.optim.lr_scheduler.PolynomialLR``.

    Args:
        steps: $T$, in updates.
        final: $f_T$, factor of the peak in [0, 1].
        power: $p$, in (0, ∞); below 1 it falls late, above 1 early.

    Strength: One number leads from an almost constant rate (small p) to a quick fall (large p).
    Weakness: It has one more number to tune, and with a large p most of the run is spent at small rates.
    Source: Liu et al. 2015, "ParseNet: looking wider to see better", https://arxiv.org/abs/1506.04579
    Example: Polynomial(100, power=2.0)
    """

    power: Annotated[float, "(0, ∞)"] = 1.0

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        return self._left((1.0 - self._done(step)) ** self.power)


@dataclass(frozen=True)
class Rex(_Decay):
    r"""The learning rate follows a reflected exponential: it stays near the peak for long, and then falls ever faster.

    $$f(t) = f_T + (1 - f_T)\,\frac{1 - z}{\tfrac12 + \tfrac12(1 - z)}, \quad z = t/T$$

    Args:
        steps: $T$, in updates.
        final: $f_T$, factor of the peak in [0, 1]; 0 in the paper.

    Strength: It does well with short and long budgets, and there is nothing to tune.
    Weakness: It falls steeply at the very end, so the last updates count much, and no earlier checkpoint is of use.
    Source: Chen et al. 2022, "REX: revisiting budgeted training with an improved schedule",
    https://arxiv.org/abs/2107.04197
    Example: Rex(100)
    """

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        left = 1.0 - self._done(step)
        return self._left(left / (0.5 + 0.5 * left))


@dataclass(frozen=True)
class Wsd(_Decay):
    r"""Warmup-stable-decay: the learning rate is stable and then decays over the last ``decay`` of the steps; put a
    :class:`Warmup` before it.

    With the share $x = \max(0,\, t - (1-d)T) / (dT)$ of the decay that is over,

    $$f(t) = f_T + (1 - f_T)\,r(x), \qquad
    r(x) = 1 - x, \quad \frac{1 + \cos \pi x}{2} \quad\text{or}\quad 1 - \sqrt{x}$$

    Args:
        steps: $T$, in updates.
        final: $f_T$, factor of the peak in [0, 1].
        decay: $d$, share of the steps in (0, 1].
        shape: ``"linear"``, ``"cosine"`` or ``"1-sqrt"``.

    Strength: One long stable run serves every length: branch off, decay, and continue the stable run from where the
    branch began.
    Weakness: While the rate is stable the loss looks bad; only the decay shows what was learned.
    Source: Hu et al. 2024, "MiniCPM: unveiling the potential of small language models with scalable training
    strategies", section 4, https://arxiv.org/abs/2404.06395; ``"1-sqrt"``: Hägele et al. 2024, "Scaling laws and
    compute-optimal training beyond fixed training durations", https://arxiv.org/abs/2405.18392
    Example: Wsd(100, shape="1-sqrt")
    """

    decay: Annotated[float, "(0, 1]"] = 0.2
    shape: Literal["linear", "cosine", "1-sqrt"] = "linear"

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        left = min(1.0, max(0.0, self.steps - step) / (self.decay * self.steps))
        if self.shape == "cosine":
            left = (1.0 - math.cos(math.pi * left)) / 2
        elif self.shape == "1-sqrt":
            left = 1.0 - math.sqrt(1.0 - left)
        return self._left(left)


@dataclass(frozen=True)
class Exponential(Shape):
    r"""The learning rate is multiplied by the same number at every step.

    $$f(t) = \gamma^t$$

    As ``torch.optim.lr_scheduler.ExponentialLR``. :meth:`reaching` finds γ from where you want to arrive.

    Args:
        gamma: $\gamma$, in (0, 1].

    Strength: It needs no length: a run may be stopped, or go on, at any time.
    Weakness: γ means little by itself (0.999 halves in 693 steps), and must be chosen again for another length.
    Source: Ge et al. 2019, "The step decay schedule: a near optimal, geometrically decaying learning rate procedure for
    least squares", https://arxiv.org/abs/1904.12838
    Example: Exponential(0.95)
    """

    gamma: Annotated[float, "(0, 1]"]

    @classmethod
    def reaching(cls, final: float, steps: int) -> Exponential:
        r"""The one with $f(T) = f_T$: $\gamma = f_T^{1/T}$.

        Args:
            final: $f_T$, factor of the peak in (0, 1].
            steps: $T$, in updates.
        """
        return cls(checks.real("final", final, "(0, 1]") ** (1 / checks.whole("steps", steps)))

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        return float(self.gamma**step)

    @property
    def span(self) -> int | None:
        """To a hundredth of the peak."""
        return max(1, math.ceil(math.log(0.01) / math.log(self.gamma))) if self.gamma < 1 else None


@dataclass(frozen=True)
class Step(Shape):
    r"""The learning rate is multiplied by ``gamma`` after every ``step_size`` steps.

    $$f(t) = \gamma^{\lfloor t/n \rfloor}$$

    As ``torch.optim.lr_scheduler.StepLR``.

    Args:
        step_size: $n$, in updates (or epochs, inside :class:`ByEpoch`).
        gamma: $\gamma$, in (0, 1].

    Strength: A run may stay at each level until the loss no longer falls, and it needs no length.
    Weakness: How often and how far it falls must be tuned together, and a fall that comes late or early does so by a
    whole level.
    Source: Ge et al. 2019, "The step decay schedule: a near optimal, geometrically decaying learning rate procedure for
    least squares", https://arxiv.org/abs/1904.12838
    Example: Step(25, gamma=0.5)
    """

    step_size: Annotated[int, "[1, ∞)"]
    gamma: Annotated[float, "(0, 1]"] = 0.1

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        return float(self.gamma ** (step // self.step_size))

    @property
    def span(self) -> int | None:
        """Four levels."""
        return 4 * self.step_size if self.gamma < 1 else None


@dataclass(frozen=True)
class MultiStep(Shape):
    r"""The learning rate is multiplied by ``gamma`` at each of the given steps.

    $$f(t) = \gamma^{\,\#\{m \in M : m \le t\}}$$

    As ``torch.optim.lr_scheduler.MultiStepLR``.

    Args:
        milestones: $M$, increasing, in updates (or epochs, inside :class:`ByEpoch`).
        gamma: $\gamma$, in (0, 1].

    Strength: It is the classic of image classification, with drops after 30, 60 and 90 epochs, and many papers report
    it.
    Weakness: The milestones are tuned for one length and one data set.
    Source: He et al. 2016, "Deep residual learning for image recognition", section 4.2,
    https://arxiv.org/abs/1512.03385
    Example: MultiStep([30, 60, 90], gamma=0.3)
    """

    milestones: Sequence[int]
    gamma: Annotated[float, "(0, 1]"] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = self.milestones
        allowed = "increasing integers of at least 1"
        if not isinstance(steps, (list, tuple)) or not steps:
            raise bad_argument("milestones", steps, f"a list of {allowed}")
        kept = tuple(checks.whole(f"milestones[{i}]", m) for i, m in enumerate(steps))
        if any(a >= b for a, b in pairwise(kept)):
            raise bad_argument("milestones", steps, allowed)
        checks.keep(self, milestones=kept)

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        return float(self.gamma ** bisect_right(self.milestones, step))

    @property
    def length(self) -> int:
        """The last milestone."""
        return self.milestones[-1]

    @property
    def span(self) -> int:
        """A third more than the last milestone, so that the last level is seen."""
        return math.ceil(self.milestones[-1] * 4 / 3)


@dataclass(frozen=True)
class InverseSqrt(Shape):
    r"""The learning rate rises linearly over ``warmup`` updates and then falls with the root of the step; it is the
    schedule of the Transformer.

    $$f(t) = \min\left(\frac{t+1}{n},\ \sqrt{\frac{n}{t+1}}\right)$$

    The paper's rate, $d^{-1/2} \min(s^{-1/2},\ s\,n^{-3/2})$ with $s = t + 1$, has its peak $(d\,n)^{-1/2}$ at $s = n$,
    where $f = 1$. ``rise=False`` holds the peak for $n$ updates instead of rising, as T5 does.

    Args:
        warmup: $n$, in updates.
        rise: False for the peak from the first update on.

    Strength: It needs no length, and late in most runs it is small enough, whenever they end.
    Weakness: It has a long tail that never reaches zero, so a decay to zero at the end still gains much.
    Source: Vaswani et al. 2017, "Attention is all you need", eq. 3, https://arxiv.org/abs/1706.03762; without the rise:
    Raffel et al. 2020, "Exploring the limits of transfer learning with a unified text-to-text transformer", section
    3.1.2, https://arxiv.org/abs/1910.10683
    Example: InverseSqrt(20)
    """

    warmup: Annotated[int, "[1, ∞)"] = 4000
    rise: bool = True

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        if step + 1 <= self.warmup:
            return (step + 1) / self.warmup if self.rise else 1.0
        return math.sqrt(self.warmup / (step + 1))

    @property
    def span(self) -> int:
        """Down to a third of the peak."""
        return 9 * self.warmup
