"""A finished race at one glance, as one drawing that stands alone."""

from __future__ import annotations

from importlib.resources import files

from thalweg.lab.report.figures import verdicts
from thalweg.lab.report.figures.curves import curves
from thalweg.lab.report.svg import Chart
from thalweg.lab.result import RaceResult

STYLE = "chart.css"


def picture(result: RaceResult) -> str:
    """Every seed's curve, and the verdicts beside it."""
    wide = Chart("A race between optimizers", result["headline"], width=920, height=400)
    wide.box(0, 0, wide.width, wide.height, "paper")
    wide.text(24, 34, result["headline"].split(":")[0], "title")
    left = Chart("", "", width=520, height=380, margins=(56, 64, 16, 44))
    curves(result, chart=left)
    wide.marks += left.marks
    if result["comparisons"]:
        right = Chart("", "", width=890, height=380, margins=(560, 64, 0, 44))
        baseline = result["comparisons"][0]["baseline"]
        verdicts.draw(right, result, f"final loss minus {baseline}'s; left is better; grey: immaterial")
        wide.marks += right.marks
    return wide.svg(style())


def style() -> str:
    """The CSS of all drawings."""
    return files("thalweg.lab.report").joinpath(STYLE).read_text(encoding="utf-8")
