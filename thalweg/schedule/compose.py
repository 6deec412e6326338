"""What every shape can do: be called, followed by another, multiplied, printed, drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from thalweg._base.errors import bad_argument
from thalweg.schedule import checks
from thalweg.schedule.drawing import Drawn
from thalweg.schedule.protocol import Schedule, at, length_of, span_of


class Shape(checks.Checked, Drawn, ABC):
    """A schedule that composes; base of all in this package, and of your own.

    A subclass is a frozen dataclass of plain numbers with a ``__call__``. It then compares, pickles, reads back from
    its ``repr``, prints with its curve, and has the methods below. What its annotations say is checked:
    ``steps: Annotated[int, "[1, ∞)"]``, ``gamma: Annotated[float, "(0, 1]"]``.
    """

    @abstractmethod
    def __call__(self, step: float, /) -> float:
        """The factor of the peak for the update after ``step`` others; steps may be fractions."""

    @property
    def length(self) -> int | None:
        """Updates after which the factor stays as it is (0 if it never changes); None if it never comes to rest."""
        return None

    @property
    def span(self) -> int | None:
        """Updates that a picture shows; None if there is nothing to see."""
        return self.length or None

    def then(self, schedule: Schedule, after: int | None = None) -> Then:
        """This one for ``after`` updates (by default its ``length``), then another, which starts counting there.

        Raises:
            ValueError: if ``after`` is not given where this one has no end.
        """
        if after is None:
            after = self.length
            if not after:
                raise bad_argument("after", None, "a number of updates, since this schedule does not end by itself")
        return Then(self, after, schedule)

    def __mul__(self, other: Schedule | float) -> Product:
        """The product of the two at each step: a schedule, or a number that scales this one."""
        return Product(self, _schedule(other)) if _multiplies(other) else NotImplemented

    def __rmul__(self, other: Schedule | float) -> Product:
        """As ``__mul__``."""
        return Product(_schedule(other), self) if _multiplies(other) else NotImplemented


def _multiplies(other: object) -> bool:
    return checks.is_real(other) or callable(other)


def _schedule(other: Schedule | float) -> Schedule:
    return other if callable(other) else Constant(other)


@dataclass(frozen=True)
class Constant(Shape):
    r"""The learning rate stays the same: the peak, or a fixed ``factor`` of it.

    $$f(t) = c$$

    Args:
        factor: $c$, in [0, ∞).

    Strength: There is nothing to tune, and a run may have any length; it is the right schedule where weights are
    averaged (Schedule-Free, EMA).
    Weakness: The noise of the gradients keeps the last weights from settling; a decay at the end gains much at once.
    Source: Defazio et al. 2024, "The road less scheduled" (with averaging), https://arxiv.org/abs/2405.15682
    Example: Constant()
    """

    factor: Annotated[float, "[0, ∞)"] = 1.0

    def __call__(self, step: float, /) -> float:
        """The factor."""
        return self.factor

    @property
    def length(self) -> int:
        """0: it is at rest from the start."""
        return 0


@dataclass(frozen=True)
class Then(Shape):
    r"""One schedule is followed for ``after`` updates, then another, which starts counting there.

    $$f(t) = \begin{cases} a(t) & t < n \\ b(t - n) & t \ge n \end{cases}$$

    What ``torch.optim.lr_scheduler.SequentialLR`` does with two schedulers. ``a.then(b)`` is shorter. The second starts
    at its own factor: ``Linear(90, 0.1).then(0.1 * Cosine(10))`` goes on without a jump.

    Args:
        first: $a$.
        after: $n$, in updates, at least 1.
        second: $b$.

    Strength: It makes one function of any plan in phases, which can be looked at before the run.
    Weakness: There is a jump at the joint, unless you scale the second schedule to where the first ends.
    Source: composition of functions, as ``torch.optim.lr_scheduler.SequentialLR``,
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.SequentialLR.html
    Example: Then(Linear(60, final=0.3), 60, 0.3 * Cosine(40))
    """

    first: Schedule
    after: Annotated[int, "[1, ∞)"]
    second: Schedule

    def __call__(self, step: float, /) -> float:
        """The factor of the phase that ``step`` is in."""
        return at(self.first, step) if step < self.after else at(self.second, step - self.after)

    @property
    def length(self) -> int | None:
        """Until the second rests."""
        rest = length_of(self.second)
        return None if rest is None else self.after + rest

    @property
    def span(self) -> int:
        """Both; as much again of a second that has nothing to show."""
        return self.after + (span_of(self.second) or self.after)


@dataclass(frozen=True)
class Product(Shape):
    r"""Two schedules act at once and are multiplied; both count the same steps.

    $$f(t) = a(t) \cdot b(t)$$

    What ``torch.optim.lr_scheduler.ChainedScheduler`` does with two schedulers that multiply. ``a * b`` is shorter, and
    ``0.1 * a`` scales one.

    Args:
        left: $a$.
        right: $b$.

    Strength: It keeps things apart: a warmup, a decay, and a drop at a known step.
    Weakness: The schedule may leave the peak before the warmup has reached it; :class:`Warmup` moves the decay behind
    the rise.
    Source: composition of functions, as ``torch.optim.lr_scheduler.ChainedScheduler``,
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ChainedScheduler.html
    Example: Product(UntunedWarmup(beta2=0.9), Cosine(100))
    """

    left: Schedule
    right: Schedule

    def __call__(self, step: float, /) -> float:
        """The product at ``step``."""
        return at(self.left, step) * at(self.right, step)

    @property
    def length(self) -> int | None:
        """Until both rest."""
        left, right = length_of(self.left), length_of(self.right)
        return None if left is None or right is None else max(left, right)

    @property
    def span(self) -> int | None:
        """The longer one's."""
        return max(span_of(self.left) or 0, span_of(self.right) or 0) or None
