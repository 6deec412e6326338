"""Shapes that rise: cycles, restarts, and the one cycle of super-convergence."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal

from thalweg._base.errors import bad_argument
from thalweg.schedule.compose import Shape
from thalweg.schedule.values import Between


@dataclass(frozen=True)
class CosineRestarts(Shape):
    r"""The learning rate falls along half a cosine and at once jumps up again; each cycle may be longer, or lower, than
    the one before it.

    $$f(t) = f_T + (\max(d^i, f_T) - f_T)\,\frac{1 + \cos(\pi\,t_{cur}/T_i)}{2}, \qquad T_i = t_0\,m^i$$

    in cycle $i$, with $t_{cur}$ steps since its start. With ``decay=1`` as
    ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``.

    Args:
        t_0: length of the first cycle, in updates.
        t_mult: $m$, an integer of at least 1: how much longer each cycle is.
        final: $f_T$, factor of the peak at the foot of every cycle, in [0, 1].
        decay: $d$, in (0, 1]: each cycle's peak as a factor of the last one's.
        cycles: stay at ``final`` after this number of them; None to go on for ever.

    Strength: There are good weights at the foot of every cycle, for ensembles or to stop at, and it needs no length.
    Weakness: Each restart loses progress; at equal length one plain cosine mostly ends lower.
    Source: Loshchilov & Hutter 2017, "SGDR: stochastic gradient descent with warm restarts",
    https://arxiv.org/abs/1608.03983
    Example: CosineRestarts(20, t_mult=2, decay=0.8)
    """

    t_0: Annotated[int, "[1, ∞)"]
    t_mult: Annotated[int, "[1, ∞)"] = 1
    final: Annotated[float, "[0, 1]"] = 0.0
    decay: Annotated[float, "(0, 1]"] = 1.0
    cycles: Annotated[int, "[1, ∞)"] | None = None

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        if self.length is not None and step >= self.length:
            return self.final
        i, current, size = self._place(step)
        peak = max(self.decay**i, self.final)
        return self.final + (peak - self.final) * (1.0 + math.cos(math.pi * current / size)) / 2

    def _place(self, step: float) -> tuple[int, float, int]:
        """The cycle, the steps since its start, and its length."""
        if self.t_mult == 1:
            return int(step // self.t_0), step % self.t_0, self.t_0
        i, size = 0, self.t_0
        while step >= size:  # a handful of turns: the cycles grow
            i, step, size = i + 1, step - size, size * self.t_mult
        return i, step, size

    def _end(self, cycles: int) -> int:
        return sum(self.t_0 * self.t_mult**i for i in range(cycles)) if self.t_mult > 1 else self.t_0 * cycles

    @property
    def length(self) -> int | None:
        """The end of the last cycle, where ``cycles`` says which that is."""
        return None if self.cycles is None else self._end(self.cycles)

    @property
    def span(self) -> int:
        """All cycles, or three."""
        return self._end(self.cycles or 3)


class _Opposed(Shape):
    """What comes with a momentum that is low where the learning rate is high."""

    def momentum(self, base: float = 0.85, max: float = 0.95) -> Between:
        """Momentum (or β₁) in opposition: ``max`` where the cycle is at its foot, ``base`` at its peak.

        Give it to ``Scheduler(optimizer, cycle, momentum=cycle.momentum())``.

        Args:
            base, max: values of the momentum itself, as ``torch.optim.lr_scheduler`` calls them.
        """
        return Between(max, base, self._from_zero())

    @abstractmethod
    def _from_zero(self) -> Shape:
        """The same cycle between 0 and 1."""


@dataclass(frozen=True)
class Cyclic(_Opposed):
    r"""The learning rate follows a triangle again and again: it rises to the peak in ``step_size_up`` steps and falls
    in ``step_size_down``.

    $$f(t) = b + (1 - b)\,\Delta(t)\,s, \qquad s = 1, \quad 2^{-i} \quad\text{or}\quad \gamma^t$$

    with the triangle $\Delta$ between 0 and 1, in cycle $i = 0, 1, …$ As ``torch.optim.lr_scheduler.CyclicLR``, whose
    ``base_lr`` is $b$ times its ``max_lr``.

    Args:
        step_size_up: updates from the foot to the peak.
        step_size_down: updates back; None for as many.
        base: $b$, factor of the peak at the foot, in [0, 1].
        mode: ``"triangular"``: the same for ever; ``"triangular2"``: half as high each time; ``"exp_range"``:
            $\gamma^t$ as high.
        gamma: $\gamma$, in (0, 1], of ``"exp_range"``.

    Strength: One rise shows which learning rates are too high (a range test), and it needs no length.
    Weakness: Half of the time is spent going up, and the last weights depend on where in a cycle you stop.
    Source: Smith 2017, "Cyclical learning rates for training neural networks", https://arxiv.org/abs/1506.01186
    Example: Cyclic(20, base=0.1, mode="triangular2")
    """

    step_size_up: Annotated[int, "[1, ∞)"] = 2000
    step_size_down: Annotated[int, "[1, ∞)"] | None = None
    base: Annotated[float, "[0, 1]"] = 0.1
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: Annotated[float, "(0, 1]"] = 1.0

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        up, down = self.step_size_up, self.step_size_down or self.step_size_up
        cycle, current = divmod(step, up + down)
        height = current / up if current <= up else 1.0 - (current - up) / down
        if self.mode == "triangular2":
            height *= 0.5**cycle
        elif self.mode == "exp_range":
            height *= self.gamma**step
        return self.base + (1.0 - self.base) * height

    def _from_zero(self) -> Cyclic:
        return replace(self, base=0.0)

    @property
    def span(self) -> int:
        """Three cycles."""
        return 3 * (self.step_size_up + (self.step_size_down or self.step_size_up))


@dataclass(frozen=True)
class OneCycle(_Opposed):
    r"""The learning rate rises to the peak and falls far below where it began, once, in ``steps`` updates; the momentum
    goes the other way.

    From ``start`` to 1 until step $pT - 1$, then to ``final`` at step $T - 1$; with ``three_phase`` to 1 until
    $pT - 1$, back to ``start`` until $2pT - 2$, and to ``final``. From $a$ to $b$ in a phase of which a share $x$ is
    over,

    $$f = b + (a - b)\,\frac{1 + \cos \pi x}{2} \quad\text{or}\quad a + (b - a)\,x$$

    As ``torch.optim.lr_scheduler.OneCycleLR``, whose ``div_factor`` is 1 / ``start`` and whose ``final_div_factor`` is
    ``start`` / ``final``; :meth:`momentum` is what its ``cycle_momentum`` does.

    Args:
        steps: $T$, in updates.
        pct_start: $p$, share of the steps that rise, in [0, 1]; at most 1/2 with ``three_phase``.
        start: factor of the peak at the first update, in [0, 1].
        final: factor of the peak at the last update, in [0, 1].
        anneal_strategy: ``"cos"`` or ``"linear"``.
        three_phase: come back symmetrically before the last fall, as in the paper.

    Strength: It allows very large learning rates in short runs, where they regularise, and trains image classifiers in
    few epochs.
    Weakness: Peak, length and momentum are tuned together, and runs with more data or epochs gain little from it.
    Source: Smith & Topin 2018, "Super-convergence: very fast training of neural networks using large learning rates",
    https://arxiv.org/abs/1708.07120
    Example: OneCycle(100)
    """

    steps: Annotated[int, "[1, ∞)"]
    pct_start: Annotated[float, "[0, 1]"] = 0.3
    start: Annotated[float, "[0, 1]"] = 1 / 25
    final: Annotated[float, "[0, 1]"] = 1 / 25e4
    anneal_strategy: Literal["cos", "linear"] = "cos"
    three_phase: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.three_phase and self.pct_start > 0.5:
            raise bad_argument("pct_start", self.pct_start, "a number in [0, 0.5], since two phases take as much each")

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        rise = self.pct_start * self.steps - 1.0
        knots = [(0.0, self.start), (rise, 1.0), (self.steps - 1.0, self.final)]
        if self.three_phase:
            knots.insert(2, (2 * self.pct_start * self.steps - 2.0, self.start))
        for (begin, a), (end, b) in pairwise(knots):
            if step <= end and begin < end:
                return self._annealed(a, b, (step - begin) / (end - begin))
        return self.final

    def _annealed(self, a: float, b: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return a + (b - a) * share
        return b + (a - b) * (1.0 + math.cos(math.pi * share)) / 2

    def _from_zero(self) -> OneCycle:
        return replace(self, start=0.0, final=0.0)

    @property
    def length(self) -> int:
        """``steps``."""
        return self.steps
