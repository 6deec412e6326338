"""Schedules as a picture, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from thalweg._base.errors import bad_argument
from thalweg._base.optional import require_matplotlib
from thalweg.schedule import checks
from thalweg.schedule.checks import gives_values
from thalweg.schedule.protocol import Schedule, length_of, span_of
from thalweg.schedule.sparkline import summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: of the lines, in their order; they stay apart for colour-blind readers (Okabe & Ito)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
#: of a line, at most; more would not be seen
POINTS = 4000


class Drawn:
    """Can be printed and drawn."""

    def __str__(self: Any) -> str:
        """How it is spelt, with the curve below."""
        return summary(self)

    def plot(self: Any, steps: int | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw it; see :func:`thalweg.schedule.plot`."""
        return plot(self, steps, ax=ax)


def plot(schedules: Schedule | Mapping[str, Schedule], steps: int | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw a schedule, or several with their names.

    Each update's value is a level: the lines are stairs, which show where the updates are few.

    Args:
        schedules: a function of the step, or a mapping of labels to such.
        steps: how many updates to show; None for as many as the schedules themselves suggest.
        ax: matplotlib axes to draw on; None for new ones (``plot(f).figure.savefig("f.png")`` writes them to a file).

    Returns:
        The axes.

    Raises:
        ThalwegError: if matplotlib is not installed.
        ValueError: if ``steps`` is needed and is not given.
    """
    require_matplotlib("plot()")
    named = dict(schedules) if isinstance(schedules, Mapping) else {"": schedules}
    for label, schedule in named.items():
        if not callable(schedule):
            raise bad_argument(f"schedules[{label!r}]" if label else "schedules", schedule, "a function of the step")
    end = _end(named, steps)
    ax = _new_axes() if ax is None else ax
    for i, (label, schedule) in enumerate(named.items()):
        ax.plot(
            *_levels(schedule, end),
            color=COLOURS[i % len(COLOURS)],
            drawstyle="steps-post",
            linewidth=1.8,
            label=label or None,
        )
    _finish(ax, end, values=all(map(gives_values, named.values())))
    if isinstance(schedules, Mapping):
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _levels(schedule: Schedule, end: int) -> tuple[list[int], list[float]]:
    """Steps and values; what would begin again at the end is not shown beginning."""
    steps = sorted({round(i * end / POINTS) for i in range(POINTS + 1)}) if end > POINTS else list(range(end + 1))
    values = [schedule(step) for step in steps[:-1]]
    rests = length_of(schedule)
    return steps, [*values, schedule(end) if rests is not None and rests <= end else schedule(end - 1)]


def _end(named: Mapping[str, Schedule], steps: int | None) -> int:
    if steps is not None:
        return checks.whole("steps", steps)
    spans = [span for span in map(span_of, named.values()) if span]
    if not spans:
        raise bad_argument("steps", steps, "how many updates to show: these schedules do not say")
    return max(spans)


def _new_axes() -> Axes:
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(6.4, 3.0), layout="constrained")[1]


def _finish(ax: Axes, end: int, values: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlim(0, end)
    if not values:
        ax.set_ylim(0, max(1.06 * ax.dataLim.ymax, 1e-3))
    ax.set_xlabel("update")
    ax.set_ylabel("value" if values else "factor of the peak")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=True))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.grid(color="0.9", linewidth=0.7)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
