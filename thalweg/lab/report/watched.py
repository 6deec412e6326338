"""The page of a watched run: what was found, the four pillars over time, and every parameter at the last look.

Of several runs it is one that compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from thalweg.lab.report import data, within
from thalweg.lab.report.figures.common import COLOURS, is_log, name_ends, room
from thalweg.lab.report.page import rendered, write_whole
from thalweg.lab.report.record import Line, WatchRecord, read_record
from thalweg.lab.report.svg import Chart, number, padded
from thalweg.lab.report.tables import Cell, Table
from thalweg.lab.report.within import cell

#: rows of the table of looks; of more, some between the first and the last are left out
ROWS = 40
#: points of a line; a screen shows no more
POINTS = 400
PARTS = ("data", "forward", "backward", "optimizer")


def write_watched(record: Path, page: Path) -> WatchRecord:
    """Write the page of a record, whole or not at all.

    Raises:
        ThalwegError: where the record cannot be read or the page not be written.
    """
    seen = read_record(record)
    write_whole(page, render_watched(seen, record.name, record.read_text(encoding="utf-8")))
    return seen


def write_compared(records: Sequence[Path], page: Path) -> dict[str, WatchRecord]:
    """Write the page of several records, whole or not at all.

    Returns:
        They by name.

    Raises:
        ThalwegError: where one cannot be read or the page not be written.
    """
    runs = dict(zip(_names(records), map(read_record, records), strict=True))
    write_whole(page, render_compared(runs))
    return runs


def _names(records: Sequence[Path]) -> list[str]:
    """The names of the files, with their folders where these tell them apart."""
    names = [path.stem for path in records]
    return names if len({*names}) == len(names) else [str(path.with_suffix("")) for path in records]


def render_compared(runs: Mapping[str, WatchRecord]) -> str:
    """The page of several runs, by name, as one HTML text that loads nothing."""
    figures = {
        "Loss": ("loss", {name: seen.series("loss") for name, seen in runs.items()}),
        "Norm of all gradients": ("norm of all", {name: seen.series("norm") for name, seen in runs.items()}),
        "Update ratio, the median over all matrices": (
            "update ratio",
            {name: seen.hidden("update") for name, seen in runs.items()},
        ),
        "Learning rate of the first group": ("lr", {name: _rates(seen)["lr"] for name, seen in runs.items()}),
        "Decrease of the loss, an update": ("loss, an update", {n: seen.series("falls") for n, seen in runs.items()}),
        "Noise scale": ("micro-batches", {name: seen.series("noise_scale") for name, seen in runs.items()}),
        "Largest attention logit": ("logit", {n: within.logit_lines(seen)["largest"] for n, seen in runs.items()}),
    }
    drawn = {title: _chart(title, label, lines, [], named=False) for title, (label, lines) in figures.items()}
    return rendered(
        "compared.html.j2",
        headline=", ".join(runs),
        colours={name: f"s{i % COLOURS}" for i, name in enumerate(runs)},
        figures={title: Markup(svg) for title, svg in drawn.items() if svg},
        summary=_summary(runs),
        looks={name: _looks(seen) for name, seen in runs.items()},
        links=[],
    )


def _summary(runs: Mapping[str, WatchRecord]) -> Table:
    """A line for each run: how long it is, its losses, what was found."""
    rows = []
    for name, seen in runs.items():
        losses: list[float | None] = [loss for _, loss in seen.series("loss")] or [None]
        causes = ", ".join(_since(found) for found in seen.findings) or "nothing found"
        made = [Cell(name), Cell(", ".join(seen.optimizers)), Cell(f"{_steps(seen):,}")]
        rows.append([*made, cell(losses[0]), cell(losses[-1]), Cell(causes)])
    return Table(["run", "optimizer", "steps", "first loss", "last loss", "findings"], rows)


def _since(found: Line) -> str:
    return f"{found['cause']}, since step {found['step']}" if found["step"] is not None else str(found["cause"])


def render_watched(seen: WatchRecord, name: str, text: str) -> str:
    """The page as one HTML text that loads nothing.

    Args:
        seen: the record.
        name: of its file.
        text: in it, which the page offers to take along; left out beyond a megabyte.
    """
    links = [("the record", name, data.link(text, "application/jsonl"))] if len(text) < 1_000_000 else []
    return rendered(
        "watched.html.j2",
        headline=headline(seen),
        findings=seen.findings,
        figures={key: Markup(svg) for key, svg in _figures(seen).items() if svg},
        looks=_looks(seen),
        logits=within.logits_by_layer(seen),
        routers=within.load_by_router(seen),
        layers=_layers(seen) if seen.samples else None,
        links=links,
    )


def headline(seen: WatchRecord) -> str:
    """The run in one line."""
    of = f" of {seen.steps:,}" if seen.steps else ""
    count = len(seen.findings)
    found = f"{count} finding{'' if count == 1 else 's'}" if count else "nothing found"
    return f"{', '.join(seen.optimizers)}: {_steps(seen):,}{of} steps, {found}"


def _steps(seen: WatchRecord) -> int:
    """The updates that were made, or of a run that goes on those up to the last look."""
    looked = seen.samples[-1]["step"] + 1 if seen.samples else 0
    return looked if seen.updates is None else seen.updates


def _figures(seen: WatchRecord) -> dict[str, str | None]:
    return {
        "loss": _chart("Loss", "loss", {"loss": seen.series("loss")}, seen.findings),
        "gradients": _chart("Gradients", "norm of all", {"norm": seen.series("norm")}, seen.findings),
        "updates": _chart("Updates", "update ratio", {"median": seen.hidden("update")}, seen.findings),
        "schedule": _chart("Learning rate", "lr", _rates(seen), seen.findings),
        "decrease": _chart("Decrease of the loss", "loss, an update", decrease(seen), seen.findings),
        "noise": _chart("Noise scale", "micro-batches", {"noise": seen.series("noise_scale")}, seen.findings),
        "logits": _chart("Attention logits", "largest logit", within.logit_lines(seen), seen.findings),
        "experts": _chart("Experts", "used in effect", within.expert_lines(seen), seen.findings),
    }


def decrease(seen: WatchRecord) -> dict[str, list[tuple[float, float]]]:
    """By how much an update lowers the loss: as the gradients promise, and as the loss falls."""
    return {"promised": seen.series("promised"), "seen": seen.series("falls")}


def _rates(seen: WatchRecord) -> dict[str, list[tuple[float, float]]]:
    return {"lr": [(s["step"], s["rates"][0][0]) for s in seen.samples if s["rates"] and s["rates"][0]]}


def _chart(
    title: str, label: str, lines: dict[str, list[tuple[float, float]]], findings: list[Line], named: bool = True
) -> str | None:
    """Lines over the steps, with a dashed line where something was found to begin; ``named``: at their ends."""
    thinned = {name: _thinned(line) for name, line in lines.items()}
    values = [value for line in thinned.values() for _, value in line]
    if len(values) < 2:
        return None
    steps = [step for line in thinned.values() for step, _ in line]
    log = is_log(values)
    chart = Chart(f"{title} over steps", f"From {number(values[0])} to {number(values[-1])}.")
    drawn = {name: i for i, name in enumerate(thinned) if thinned[name]}
    named = named and len(drawn) > 1
    left, top, right, bottom = chart.margins
    widest = max(
        len(number(tick)) for tick in chart.scales((0, 1), padded(values, log), log_x=False, log_y=log)[1].ticks()
    )
    chart.margins = max(left, 24 + 7 * widest), top, room(drawn) if named else right, bottom
    x, y = chart.scales((min(steps), max(steps)), padded(values, log), log_x=False, log_y=log)
    chart.axes(x, y, "step", label)
    for step in sorted({found["step"] for found in findings if found["step"] is not None}):
        chart.line([(x(step), y.start), (x(step), y.end)], "target", _begun(findings, step))
    for i, (name, line) in enumerate(thinned.items()):
        chart.line([(x(a), y(b)) for a, b in line], f"thick s{i % COLOURS}", name)
    if named:
        name_ends(chart, x, y, {name: y(thinned[name][-1][1]) for name in drawn}, drawn)
    return chart.svg()


def _thinned(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """About as many points as are seen: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(line) <= POINTS:
        return line
    size = -(-2 * len(line) // POINTS)
    parts = [line[i : i + size] for i in range(0, len(line), size)]
    kept = {line[0], line[-1], *(choose(part, key=lambda point: point[1]) for part in parts for choose in (min, max))}
    return sorted(kept)


def _begun(findings: list[Line], step: int) -> str:
    return f"step {step}: " + ", ".join(found["cause"] for found in findings if found["step"] == step)


def _looks(seen: WatchRecord) -> Table:
    """Looks, with the numbers that the record has; what is seldom seen is told as it was last."""
    lines = {
        "promised": seen.series("promised"),
        "seen": seen.series("falls"),
        "noise scale": seen.series("noise_scale"),
        **{f"{name} logit": line for name, line in within.logit_lines(seen).items()},
        **{f"experts, {name}": line for name, line in within.expert_lines(seen).items()},
    }
    known = {head: line for head, line in lines.items() if line}
    heads = ["step", "loss", "gradient norm", "update, median", "lr", *known, *PARTS]
    stride = max(1, -(-len(seen.samples) // ROWS))
    shown = [*seen.samples[:-1:stride], *seen.samples[-1:]]
    updates = dict(seen.hidden("update"))
    rows = [
        _look(sample, updates.get(sample["step"]), [_last(line, sample["step"]) for line in known.values()])
        for sample in shown
    ]
    return Table(heads, rows)


def _last(line: list[tuple[float, float]], step: int) -> float | None:
    """The last value of a line up to a step."""
    return next((value for at, value in reversed(line) if at <= step), None)


def _look(sample: Line, update: float | None, further: list[float | None]) -> list[Cell]:
    whole = sum(sample["parts"].values()) or 1.0
    numbers = [sample["loss"], sample["norm"], update, sample["rates"][0][0], *further]
    shares = [f"{100 * sample['parts'].get(part, 0) / whole:.0f} %" for part in PARTS]
    return [Cell(f"{sample['step']:,}"), *map(cell, numbers), *map(Cell, shares)]


def _layers(seen: WatchRecord) -> Table:
    heads = ["parameter", "shape", "weight", "gradient", "‖Δw‖ / ‖w‖", "cosine", "changed", "√v < ε"]
    columns = [_latest(seen, name) for name in ("weight", "gradient", "update", "cosine", "changed", "small")]
    ranks = within.ranks_by_name(seen)
    if ranks:
        heads += ["rank of gradient", "rank of update"]
        columns += [[ranks.get(name, (None, None))[i] for name in seen.names] for i in range(2)]
    rows = zip(seen.names, seen.shapes, *columns, strict=True)
    return Table(heads, [[Cell(name), Cell(" × ".join(map(str, shape))), *map(cell, x)] for name, shape, *x in rows])


def _latest(seen: WatchRecord, name: str) -> list[float | None]:
    """A list of the last look, or of the last one that has any of its numbers: some are seldom looked at."""
    lists: list[list[float | None]] = [s[name] for s in reversed(seen.samples)]
    return next((one for one in lists if any(x is not None for x in one)), lists[0])
