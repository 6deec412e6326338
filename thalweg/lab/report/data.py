"""A race as files for programs: JSON of everything, CSV of the runs."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from thalweg.lab.overview import overview
from thalweg.lab.result import RaceResult
from thalweg.lab.summary import SCHEMA


def as_json(results: Sequence[RaceResult], indent: int | None = 1) -> str:
    """One race as it is; several as ``races``, with the ``overview`` over them.

    Args:
        results: at least one.
        indent: of each level; None writes no space at all.
    """
    content: object = results[0]
    if len(results) > 1:
        content = {"schema": SCHEMA, "races": list(results), "overview": overview(results)}
    separators = (",", ":") if indent is None else None
    return json.dumps(content, indent=indent, separators=separators, allow_nan=False, default=str) + "\n"


def as_csv(results: Sequence[RaceResult]) -> str:
    """One line for each run, without its curves."""
    return table([run for result in results for run in result["runs"]])


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Runs as CSV, a line for each, without their curves; what only some of them have is empty in the others."""
    return "".join(csv_lines(lambda: runs))


def csv_lines(runs: Callable[[], Iterable[Mapping[str, Any]]]) -> Iterator[str]:
    """The same line by line; the runs are asked for twice, so that not all of them need be in memory."""
    names = dict.fromkeys(name for run in runs() for name in run if not name.endswith("curve"))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(names), extrasaction="ignore")
    writer.writeheader()
    for run in runs():
        yield text.getvalue()
        text.seek(0)
        text.truncate()
        writer.writerow(run)
    yield text.getvalue()


def link(text: str, kind: str) -> str:
    """A file's content as an address, so that a page that offers it needs no file beside it.

    Args:
        text: the content.
        kind: its media type, such as ``text/csv``.
    """
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
