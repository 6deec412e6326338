"""The rows as a picture: how near the ceiling, and how much faster than torch."""

from __future__ import annotations

from pathlib import Path

from thalweg._base.errors import ThalwegError
from thalweg._base.optional import require_matplotlib
from thalweg.bench.machine import in_words
from thalweg.bench.result import BenchResult, BenchRow
from thalweg.bench.works import WORKS

#: marker and colour of each work; the colours stay apart for colour-blind readers
LOOKS = {"gpt": ("o", "#0072b2"), "large": ("s", "#d55e00"), "small": ("^", "#009e73"), "scalars": ("D", "#cc79a7")}

FORMATS = (".png", ".svg", ".pdf")


def plot(result: BenchResult, path: Path) -> None:
    """Write the picture; the format follows the file's suffix (one of :data:`FORMATS`).

    Left: the ceiling's time over the step's, 1 is the speed of memory. Right: the time of torch's fastest over ours, on
    a logarithmic axis, 1 is torch. A line for each optimizer, a mark for each work, of the rows of ``backend="auto"``.


    Raises:
        ThalwegError: if matplotlib is missing or the file cannot be written.
    """
    require_matplotlib("--plot")
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, NullFormatter

    rows = fastest(result["rows"])
    labels = sorted({label(row) for row in rows}, key=str.lower, reverse=True)
    figure = Figure(figsize=(10, 1.9 + 0.27 * max(3, len(labels))), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key in ((left, "ceiling_fraction"), (right, "vs_torch")):
        for row in rows:
            value = row[key]  # type: ignore[literal-required]
            if value:
                marker, colour = LOOKS[row["work"]]
                axes.plot(
                    value,
                    labels.index(label(row)),
                    marker,
                    color=colour,
                    markersize=6,
                    alpha=0.85,
                    clip_on=False,
                    zorder=3,
                )
        axes.axvline(1, color="0.35", linewidth=1)
        axes.grid(axis="both", color="0.9", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    left.set_yticks(range(len(labels)), labels)
    left.set_ylim(-0.7, len(labels) - 0.3)
    left.set_xlim(0, max(1.1, *(row["ceiling_fraction"] or 0 for row in rows)) if rows else 1.1)
    left.set_title("share of the ceiling: 1 is the speed of memory", fontsize=10)
    right.set_title("times as fast as torch's fastest", fontsize=10)
    right.set_xscale("log")
    ratios = [row["vs_torch"] for row in rows if row["vs_torch"]]
    right.set_xlim(min([0.8, *(0.8 * x for x in ratios)]), max([2.0, *(1.25 * x for x in ratios)]))
    low, high = right.get_xlim()
    right.set_xticks([x for x in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low <= x <= high])
    right.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    right.xaxis.set_minor_formatter(NullFormatter())
    handles = [
        Line2D([], [], color=LOOKS[w][1], marker=LOOKS[w][0], linestyle="", label=w)
        for w in WORKS
        if any(row["work"] == w for row in rows)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(WORKS), frameon=False)
    figure.supxlabel(in_words(result["machine"]), fontsize=8, color="0.35")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ThalwegError(f"cannot write {path}: {error}") from error


def fastest(rows: list[BenchRow]) -> list[BenchRow]:
    """Of each optimizer, setting and work the first row that was measured: that of ``backend="auto"``."""
    first: dict[tuple[str, str], BenchRow] = {}
    for row in rows:
        if row["ms"]:
            first.setdefault((label(row), row["work"]), row)
    return list(first.values())


def label(row: BenchRow) -> str:
    """The optimizer, with what it was given beyond its defaults, and the dtype of the parameters."""
    extras = ", ".join(filter(None, ("" if row["dtype"] == "float32" else row["dtype"], row["setting"])))
    return f"{row['optimizer']} ({extras})" if extras else row["optimizer"]
