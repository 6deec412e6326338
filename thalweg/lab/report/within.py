"""What a watch has seen within the model: attention logits, the load of routers, the ranks of gradients and updates."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from thalweg.diagnosis.inflight.router_load import RouterLoad
from thalweg.lab.report.record import Line, WatchRecord
from thalweg.lab.report.svg import number
from thalweg.lab.report.tables import Cell, Table

#: names of lines, each with its points by step
Lines = dict[str, list[tuple[float, float]]]


def logit_lines(seen: WatchRecord) -> Lines:
    """The largest attention logit over the steps: the largest of all layers, and of the median layer."""
    return _lines(seen, "logits", lambda value: value, ("largest", max))


def expert_lines(seen: WatchRecord) -> Lines:
    """The experts that are used in effect: by the router that uses fewest, and by the median one."""
    return _lines(seen, "routers", lambda value: load_of(value).used, ("fewest", min))


def _lines(
    seen: WatchRecord, kind: str, value: Callable[[Any], float], extreme: tuple[str, Callable[[list[float]], float]]
) -> Lines:
    known = [(s["step"], [value(x) for x in s[kind].values() if x is not None]) for s in looks_within(seen, kind)]
    filled = [(step, values) for step, values in known if values]
    name, choose = extreme
    lines: Lines = {name: [(step, choose(values)) for step, values in filled]}
    if any(len(values) > 1 for _, values in filled):
        lines["median"] = [(step, statistics.median(values)) for step, values in filled]
    return lines


def looks_within(seen: WatchRecord, kind: str) -> Iterator[Line]:
    """The samples that have numbers of a kind."""
    return (sample for sample in seen.samples if sample.get(kind))


def load_of(value: Line) -> RouterLoad:
    """A router's load, of the numbers that a record has."""
    return RouterLoad(tuple(value["counts"]), value["chosen"])


def logits_by_layer(seen: WatchRecord) -> Table | None:
    """The largest attention logit of each layer: at first, at most, at last."""
    heads = ["attention", "first", "largest", "at step", "last"]
    rows = []
    for layer, line in _by_name(seen, "logits").items():
        step, largest = max(line, key=lambda point: point[1])
        rows.append([Cell(layer), cell(line[0][1]), cell(largest), Cell(f"{step:,}"), cell(line[-1][1])])
    return Table(heads, rows) if rows else None


def load_by_router(seen: WatchRecord) -> Table | None:
    """The load of each router at the last look, and at first."""
    heads = ["router", "experts", "for a token", "used, first", "used, last", "largest share", "without a token"]
    rows = []
    for layer, line in _by_name(seen, "routers").items():
        first, last = load_of(line[0][1]), load_of(line[-1][1])
        counts = [Cell(str(len(last.counts))), Cell(str(last.chosen)), cell(first.used), cell(last.used)]
        rows.append([Cell(layer), *counts, cell(max(last.shares)), Cell(str(last.idle))])
    return Table(heads, rows) if rows else None


def ranks_by_name(seen: WatchRecord) -> dict[str, tuple[float | None, float | None]]:
    """The effective ranks of gradient and update of each matrix, as they were seen last."""
    return {name: line[-1][1] for name, line in _by_name(seen, "ranks").items()}


def _by_name(seen: WatchRecord, kind: str) -> dict[str, list[tuple[int, Any]]]:
    found: dict[str, list[tuple[int, Any]]] = {}
    for sample in looks_within(seen, kind):
        for name, value in sample[kind].items():
            if value is not None:
                found.setdefault(name, []).append((sample["step"], value))
    return found


def cell(value: float | None) -> Cell:
    """A number with three digits; a dash where there is none."""
    return Cell("–") if value is None else Cell(number(float(f"{value:.3g}")), value=repr(value))
