"""What a step is: updates, epochs, shares of a run.

A scheduler counts the calls of its ``step()``. Call it after every update, and lengths are in updates; call it once an
epoch, and they are in epochs. Better is to call it after every update and convert: :func:`epochs` and :func:`share`
give lengths in updates, :class:`ByEpoch` and :class:`ByFraction` read the time of a whole schedule in another unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from thalweg._base.errors import bad_argument
from thalweg.schedule import checks
from thalweg.schedule.compose import Shape
from thalweg.schedule.protocol import Schedule, at, length_of, span_of


def epochs(count: float, per_epoch: int) -> int:
    """Updates in ``count`` epochs: ``cosine(epochs(90, per_epoch=n), warmup=epochs(5, per_epoch=n))``.

    Args:
        count: of epochs, a number above 0; half ones too.
        per_epoch: updates in an epoch: ``len(loader)``, divided by the micro-batches that go into an update.

    Returns:
        The nearest integer, at least 1.
    """
    count, per_epoch = checks.real("count", count, "(0, ∞)"), checks.whole("per_epoch", per_epoch)
    return max(1, round(count * per_epoch))


def share(fraction: float, of: int) -> int:
    """Updates in a fraction of a run: ``share(0.05, of=10_000)`` is 500.

    Args:
        fraction: in (0, 1].
        of: updates in the run.

    Returns:
        The nearest integer, at least 1.
    """
    fraction, of = checks.real("fraction", fraction, "(0, 1]"), checks.whole("of", of)
    return max(1, round(fraction * of))


@dataclass(frozen=True)
class ByEpoch(Shape):
    r"""This schedule counts epochs, for a scheduler that is stepped after every update.

    $$f(t) = g(\lfloor t/n \rfloor) \quad\text{or, smooth,}\quad g(t/n)$$

    Args:
        schedule: $g$, in epochs: ``ByEpoch(MultiStep([30, 60, 80]), len(loader))``.
        per_epoch: $n$, updates in an epoch.
        smooth: move within an epoch too; $g$ must then take fractions, as all shapes here do.

    Strength: Recipes that are stated in epochs can be copied as they stand.
    Weakness: A change of the batch size changes the number of updates at each level.
    Source: the ``epoch + i / iters`` of ``CosineAnnealingWarmRestarts``,
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.CosineAnnealingWarmRestarts.html
    Example: ByEpoch(Cosine(8), 25)
    """

    schedule: Schedule
    per_epoch: Annotated[int, "[1, ∞)"]
    smooth: bool = False

    def __call__(self, step: float, /) -> float:
        """The factor of the epoch that ``step`` is in."""
        return at(self.schedule, step / self.per_epoch if self.smooth else int(step // self.per_epoch))

    @property
    def length(self) -> int | None:
        """Its schedule's, in updates."""
        rest = length_of(self.schedule)
        return None if rest is None else rest * self.per_epoch

    @property
    def span(self) -> int | None:
        """Its schedule's, in updates."""
        return (span_of(self.schedule) or 0) * self.per_epoch or None


@dataclass(frozen=True)
class ByFraction(Shape):
    r"""The learning rate is any function of the fraction of the run that is over.

    $$f(t) = g\left(\min(1,\ t/T)\right)$$

    Args:
        function: $g$, from [0, 1] to a factor: ``ByFraction(lambda x: (1 - x) ** 2, 1000)``. One that is defined at the
            top level of a module pickles.
        steps: $T$, in updates.

    Strength: It gives a shape of your own in one line, which stretches with the run.
    Weakness: A lambda cannot be pickled or read back from its repr; derive from Shape where that matters.
    Source: the profiles of Chen et al. 2022, "REX: revisiting budgeted training with an improved schedule",
    https://arxiv.org/abs/2107.04197
    Example: ByFraction(lambda x: (1 - x**2) ** 2, 100)
    """

    function: Schedule
    steps: Annotated[int, "[1, ∞)"]

    def __call__(self, step: float, /) -> float:
        """The factor at ``step``."""
        return at(self.function, min(1.0, step / self.steps))

    @property
    def length(self) -> int:
        """``steps``."""
        return self.steps


def warmup_steps(warmup: float, steps: int) -> int:
    """The updates of a warmup within a run of ``steps``, given as an integer, or as a share of the run: a float.

    Raises:
        ValueError: unless 0 ≤ warmup < steps, or 0 ≤ warmup < 1 where it is a float.
    """
    if isinstance(warmup, float) and 0.0 <= warmup < 1.0:
        return min(share(warmup, of=steps), steps - 1) if warmup else 0
    try:
        number = checks.whole("warmup", warmup, least=0)
    except ValueError:
        number = steps
    if number >= steps:
        allowed = f"an integer in [0, {steps}), fewer than all steps, or a share of them: a float in [0, 1)"
        raise bad_argument("warmup", warmup, allowed)
    return number
