"""The pages: a template each, the figures, and the tables beside them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from thalweg._base.errors import ThalwegError
from thalweg.lab.names import named
from thalweg.lab.overview import Overview, overview
from thalweg.lab.report import data, figures, tables
from thalweg.lab.report.figures.common import series
from thalweg.lab.report.svg import number
from thalweg.lab.result import RaceResult


def write_report(result: RaceResult, folder: Path) -> Path:
    """Write ``report.html`` into a folder, and beside it the picture ``race.svg``, ``race.json`` and ``runs.csv``.

    Each is written whole or not at all. The page needs none of the others: it holds their content.

    Returns:
        The page's path.

    Raises:
        ThalwegError: if one cannot be written; the runs themselves are in the store.
    """
    page = folder / "report.html"
    write_whole(folder / "race.svg", figures.picture(result))
    write_whole(folder / "race.json", data.as_json([result]))
    write_whole(folder / "runs.csv", data.as_csv([result]))
    write_whole(page, render(result))
    return page


def write_overview(results: Sequence[RaceResult], folder: Path, pages: Sequence[str]) -> Path:
    """Write ``index.html``, the page over several tasks, into a folder, with ``races.json`` and ``runs.csv``.

    Args:
        results: of the tasks.
        folder: where to.
        pages: of each task its report's address, seen from the folder.

    Returns:
        The page's path.

    Raises:
        ThalwegError: as :func:`write_report`.
    """
    page = folder / "index.html"
    write_whole(folder / "races.json", data.as_json(results))
    write_whole(folder / "runs.csv", data.as_csv(results))
    write_whole(page, render_overview(results, pages))
    return page


def write_whole(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8", newline="")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ThalwegError(f"cannot write {path}: {error.strerror}; the runs are kept in the store") from error


def render(result: RaceResult) -> str:
    """The report as one HTML text that loads nothing."""
    return rendered(
        "report.html.j2",
        result=result,
        figures=_markup(_figures(result)),
        sensitivities=[(c, Markup(figures.sensitivity(result, c))) for c in result["contestants"] if c["trials"]],
        multipliers=figures.multiplier_legend(result),
        leaderboard=tables.leaderboard(result),
        finalists=tables.finalists(result),
        why=tables.why(result),
        looks=tables.looks(result),
        runs=tables.runs(result),
        ranked=sorted(result["contestants"], key=lambda c: c["mean_loss"]),
        names={c["label"]: named(c) for c in result["contestants"]},
        shares={c["challenger"]: c["tuning_share"] for c in result["comparisons"] if c["tuning_share"]},
        command=result["protocol"].get("command"),
        links=_links([result], "race.json"),
    )


def render_overview(results: Sequence[RaceResult], pages: Sequence[str]) -> str:
    """The page over several tasks as one HTML text that loads nothing."""
    seen = overview(results)
    names = {c["label"]: named(c) for c in results[0]["contestants"]}
    return rendered(
        "overview.html.j2",
        overview=seen,
        results=list(zip(results, pages, strict=True)),
        tasks=tables.over_tasks(seen, names, pages) if seen["challengers"] else None,
        figures=_markup(_overview_figures(results, seen)),
        command=results[0]["protocol"].get("command"),
        links=_links(results, "races.json"),
    )


def rendered(template: str, **content: Any) -> str:
    """A template, filled in."""
    environment = Environment(
        loader=PackageLoader(__package__, "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = lambda value: "–" if value is None else number(float(value))
    environment.filters["plain"] = tables.plain
    css = "\n".join(_text(name) for name in ("chart.css", "page.css"))
    return environment.get_template(template).render(css=Markup(css), script=Markup(_text("page.js")), **content)


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _links(results: Sequence[RaceResult], name: str) -> list[tuple[str, str, str]]:
    """Of each file to take along: what it is, its name, its address."""
    return [
        ("everything as JSON", name, data.link(data.as_json(results, indent=None), "application/json")),
        ("the runs as CSV", "runs.csv", data.link(data.as_csv(results), "text/csv")),
    ]


def _markup(drawn: Mapping[str, str | None]) -> dict[str, Markup]:
    return {name: Markup(svg) for name, svg in drawn.items() if svg}


def _figures(result: RaceResult) -> dict[str, str | None]:
    return {
        "verdicts": figures.verdicts(result) if result["comparisons"] else None,
        "steps": figures.curves(result),
        "training": figures.curves(result, "train_curve"),
        "seconds": figures.curves(result, seconds=True),
        "horizons": figures.horizons(result),
        "tuning": figures.tuning_curves(result),
        "time": figures.time_split(result),
        "memory": figures.memory(result),
    }


def _overview_figures(results: Sequence[RaceResult], seen: Overview) -> dict[str, str | None]:
    if not seen["challengers"]:
        return {}
    return {"tasks": figures.tasks(results), "profile": figures.profile(seen, series(results[0]))}
