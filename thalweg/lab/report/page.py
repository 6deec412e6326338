"""The page: a template, the figures, and the tables beside them."""

from __future__ import annotations

import contextlib
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from thalweg._base.errors import ThalwegError
from thalweg.lab.report import figures
from thalweg.lab.report.svg import number
from thalweg.lab.result import RaceResult, Run


def write_report(result: RaceResult, folder: Path) -> Path:
    """Write ``report.html`` and the picture ``race.svg`` into a folder, each whole or not at all; the page's path.

    Raises:
        ThalwegError: if one cannot be written; the runs themselves are in the store.
    """
    _write_whole(folder / "race.svg", figures.picture(result))
    page = folder / "report.html"
    _write_whole(page, render(result))
    return page


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ThalwegError(f"cannot write {path}: {error.strerror}; the runs are kept in the store") from error


def render(result: RaceResult) -> str:
    """The page as one HTML text that loads nothing."""
    environment = Environment(
        loader=PackageLoader(__package__, "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = lambda value: "–" if value is None else number(float(value))
    environment.filters["plain"] = _plain
    template = environment.get_template("report.html.j2")
    return template.render(
        result=result,
        css=Markup(files(__package__).joinpath("chart.css").read_text(encoding="utf-8")),
        figures={name: Markup(svg) for name, svg in _figures(result).items() if svg},
        sensitivities=[(c, Markup(figures.sensitivity(result, c))) for c in result["contestants"] if c["trials"]],
        multipliers=figures.multiplier_legend(result),
        comparisons={c["challenger"]: c for c in result["comparisons"]},
        ranked=sorted(result["contestants"], key=lambda c: c["mean_loss"]),
        verdict_runs={c["label"]: len(figures.runs_of(result, c["label"], "verdict")) for c in result["contestants"]},
        numbers=figures.series(result),
        rows=[_row(run) for run in result["runs"]],
    )


def _figures(result: RaceResult) -> dict[str, str | None]:
    return {
        "verdicts": figures.verdicts(result) if result["comparisons"] else None,
        "steps": figures.curves(result),
        "seconds": figures.curves(result, seconds=True),
        "horizons": figures.horizons(result),
        "tuning": figures.tuning_curves(result) if any(c["trials"] for c in result["contestants"]) else None,
        "time": figures.time_split(result),
        "memory": figures.memory(result),
    }


def _row(run: Run) -> list[str]:
    """One line of the table of all runs."""
    settings = ", ".join(f"{k}={_plain(v)}" for k, v in run["settings"].items())
    numbers = (run["lr"], run["multiplier"], run["weight_decay"])
    ends = (run["final_loss"], run["train_loss"], run["seconds"], run["optimizer_seconds"])
    return [
        run["optimizer"], run["role"], *(number(v) for v in numbers), settings, str(run["seed"]), str(run["steps"]),
        *("–" if v is None else number(v) for v in ends), f"{run['state_bytes']:,}", run["status"], run["key"][:10],
    ]  # fmt: skip


def _plain(value: Any) -> str:
    """A protocol's value as people write it."""
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(v) for v in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return number(value) if isinstance(value, float) else str(value)
