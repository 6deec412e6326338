"""What a schedule is: a function of the step; and what may be asked of one beyond its value."""

from __future__ import annotations

from typing import Protocol


class Schedule(Protocol):
    """What loops and schedulers ask of a schedule; any function of the step will do."""

    def __call__(self, step: int, /) -> float:
        """The factor of the peak for the update after ``step`` others."""
        ...


def at(schedule: Schedule, step: float) -> float:
    """The value at ``step``; a fraction of a step where the schedule takes one, as all of this package do."""
    return schedule(step)  # type: ignore[arg-type]


def length_of(schedule: Schedule) -> int | None:
    """Updates after which it rests; None if it never does, or does not say."""
    return _asked(schedule, "length")


def span_of(schedule: Schedule) -> int | None:
    """Updates within which a picture of it shows its character; None if there is nothing to see, or it does not say."""
    return _asked(schedule, "span")


def _asked(schedule: Schedule, name: str) -> int | None:
    value = getattr(schedule, name, None)
    return value if isinstance(value, int) else None
