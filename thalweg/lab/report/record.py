"""The record that `thalweg.watch` writes: lines of JSON, of which the last may be half written."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thalweg._base.errors import ThalwegError

Line = dict[str, Any]


@dataclass(frozen=True)
class WatchRecord:
    """A watched run.

    Attributes:
        names: of the parameters; the lists of a sample have an entry for each.
        shapes: of these.
        optimizers: names of the classes.
        steps: of the run, where they were told.
        samples: of the updates that were looked at.
        findings: what was found.
        updates: that were made in all, of a run that has ended.
    """

    names: list[str]
    shapes: list[list[int]]
    optimizers: list[str]
    steps: int | None
    samples: list[Line] = field(default_factory=list)
    findings: list[Line] = field(default_factory=list)
    updates: int | None = None

    def series(self, name: str) -> list[tuple[float, float]]:
        """One number of each sample, by step; samples that lack it are left out."""
        return [(s["step"], s[name]) for s in self.samples if s.get(name) is not None]

    def hidden(self, name: str) -> list[tuple[float, float]]:
        """The median over the matrices of one of the lists, by step."""
        at = [i for i, shape in enumerate(self.shapes) if len(shape) >= 2]
        medians = [(s["step"], _median([s[name][i] for i in at])) for s in self.samples]
        return [(step, value) for step, value in medians if value is not None]


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def read_record(path: Path) -> WatchRecord:
    """Read a record, also one that is being written.

    Raises:
        ThalwegError: where there is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        hint = f"thalweg.watch(..., log={str(path)!r}) writes it"
        raise ThalwegError(f"{path} cannot be read: {error.strerror}; {hint}") from error
    lines = [line for line in map(_parsed, text.splitlines()) if line is not None]
    heads = [line for line in lines if "names" in line]
    if not heads:
        raise ThalwegError(f"{path} is not a record of thalweg.watch: it has no line with the parameters' names")
    head = heads[-1]
    updates = next((line["updates"] for line in reversed(lines) if "updates" in line), None)
    made = WatchRecord(head["names"], head["shapes"], head["optimizers"], head["steps"], updates=updates)
    count = len(head["names"])
    made.samples.extend(line for line in lines if len(line.get("update", ())) == count and "step" in line)
    made.findings.extend(line["finding"] for line in lines if "finding" in line)
    return made


def _parsed(line: str) -> Line | None:
    try:
        found = json.loads(line)
    except ValueError:  # it is being written
        return None
    return found if isinstance(found, dict) else None
