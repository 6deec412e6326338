"""Values themselves, where a factor of what the optimizer was given is not what one thinks in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from thalweg.schedule import checks
from thalweg.schedule.drawing import Drawn
from thalweg.schedule.protocol import Schedule, at, length_of, span_of


@dataclass(frozen=True)
class Between(checks.Checked, Drawn):
    r"""It gives the value itself, not a factor of one: ``zero`` where a schedule gives 0, ``one`` where it gives 1.

    $$v(t) = v_0 + (v_1 - v_0)\,g(t)$$

    A momentum is thought of as 0.85 or 0.95, not as a factor of something, and in opposition to a learning rate:
    ``Scheduler(optimizer, f, momentum=Between(0.95, 0.85, f))``. A warmup of the momentum is
    ``Between(0.95, 0.85, Linear(300))``, since :class:`Linear` falls. Whatever was in the optimizer plays no part.

    It does not compose further: compose what is inside, ``Between(a, b, f.then(g))``.

    Args:
        zero: $v_0$, a number.
        one: $v_1$, a number; it may be below $v_0$.
        schedule: $g$, a schedule of factors.

    Strength: It says what the number is, and that number is the same for all groups.
    Weakness: Used for learning rates, it makes groups equal that were given different ones.
    Source: ``base_momentum`` and ``max_momentum`` of Smith 2018, "A disciplined approach to neural network
    hyper-parameters: part 1", section 4, https://arxiv.org/abs/1803.09820
    Example: Between(0.85, 0.95, Cosine(100))
    """

    zero: Annotated[float, "(-∞, ∞)"]
    one: Annotated[float, "(-∞, ∞)"]
    schedule: Schedule

    #: tells the scheduler not to multiply
    gives_values: ClassVar[bool] = True

    def __call__(self, step: float, /) -> float:
        """The value at ``step``."""
        share = at(self.schedule, step)
        return self.zero * (1.0 - share) + self.one * share

    @property
    def length(self) -> int | None:
        """Its schedule's."""
        return length_of(self.schedule)

    @property
    def span(self) -> int | None:
        """Its schedule's."""
        return span_of(self.schedule)
