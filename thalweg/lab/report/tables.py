"""The tables of a report, cell by cell: what is read, what stands small below it, and what a column is sorted by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thalweg.lab.digits import fixed, halves, of_interval, of_spreads, size
from thalweg.lab.names import shown_class
from thalweg.lab.overview import Overview
from thalweg.lab.report.svg import number
from thalweg.lab.result import Comparison, ContestantResult, Finalist, RaceResult, Ratio, Run, Why, runs_of
from thalweg.lab.wording import WORDS


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is read.
        below: small, below it.
        value: what the column is sorted by; the text if empty.
        href: where the text leads.
    """

    text: str
    below: str = ""
    value: str = ""
    href: str = ""


@dataclass(frozen=True)
class Table:
    """Heads and rows of one length; the first cell of a row is its name. The foot is a row that is never sorted."""

    heads: list[str]
    rows: list[list[Cell]]
    foot: Sequence[Cell] = ()


def leaderboard(result: RaceResult) -> Table:
    """The contestants, the lowest mean loss first; what was chosen comes before what it cost."""
    heads = [
        "optimizer", f"held-out loss ({result['task']['unit']})", f"minus {result['contestants'][0]['label']}'s",
        "verdict", "steps to the same loss", "seconds to it", "lr", "× rest", "decay", "ms a step", "state",
        "training loss", *metrics(result), *["diverged"] * any(c["diverged"] for c in result["contestants"]),
    ]  # fmt: skip
    comparisons = {c["challenger"]: c for c in result["comparisons"]}
    digits = of_spreads(c["sd_loss"] for c in result["contestants"])
    ranked = sorted(result["contestants"], key=lambda c: c["mean_loss"])
    return Table(heads, [_contestant(result, c, comparisons.get(c["label"]), digits) for c in ranked])


def _contestant(result: RaceResult, c: ContestantResult, mine: Comparison | None, digits: int) -> list[Cell]:
    untuned = c.get("transferred") or "present recipe, not tuned"
    notes = [shown_class(c), *["baseline"] * (mine is None), *[untuned] * (not c["tuned"])]
    some_diverged = any(other["diverged"] for other in result["contestants"])
    verdict_runs = len(runs_of(result, "verdict", c["label"]))
    return [
        Cell(c["label"], " · ".join(notes)),
        Cell(loss(result, c, digits), value=repr(c["mean_loss"])),
        _difference(mine),
        Cell(mine["verdict"], value=str(WORDS.index(mine["verdict"]))) if mine else Cell("–", value="2.5"),
        _ratio(mine["steps_ratio"] if mine else None),
        _ratio(mine["seconds_ratio"] if mine else None),
        _chosen(c, "learning rate", "lr"),
        _chosen(c, "multiplier", "multiplier"),
        _chosen(c, "weight decay", "weight_decay"),
        _number(c["step_ms"]["total"]) if c["step_ms"] else Cell("–"),
        Cell(size(c["state_bytes"]), f"{c['bytes_per_parameter']:.1f} B/parameter", str(c["state_bytes"])),
        Cell(fixed(c["mean_train_loss"], digits), value=repr(c["mean_train_loss"])),
        *(_number(c["metrics"].get(name)) for name in metrics(result)),
        *[Cell(f"{c['diverged']} of {verdict_runs}", value=str(c["diverged"]))] * some_diverged,
    ]  # fmt: skip


def loss(result: RaceResult, c: ContestantResult, decimals: int) -> str:
    """``1.8590 ± 0.0076``: the mean and standard deviation over the verdict seeds, of one that trained."""
    runs = runs_of(result, "verdict", c["label"])
    if c["diverged"] == len(runs):
        return "did not train"
    spread = "" if c["sd_loss"] is None else f" ± {fixed(c['sd_loss'], decimals)}"
    return fixed(c["mean_loss"], decimals) + spread


def metrics(result: RaceResult) -> list[str]:
    """What the task measures beside the loss, by name."""
    return sorted({name for c in result["contestants"] for name in c["metrics"]})


def _difference(mine: Comparison | None) -> Cell:
    if mine is None:
        return Cell("–", value="0")
    digits = of_interval(mine["difference"], mine["low"], mine["high"], mine["margin"])
    if mine["low"] is None or mine["high"] is None:
        return Cell("no interval", value=repr(mine["difference"]))
    below = f"[{fixed(mine['low'], digits)}, {fixed(mine['high'], digits)}]"
    return Cell(fixed(mine["difference"], digits), below, repr(mine["difference"]))


def _ratio(ratio: Ratio | None) -> Cell:
    """The value with its interval below; what is not reached is sorted behind everything."""
    if ratio is None:
        return Cell("1")
    text, below = halves(ratio["text"])
    unknown = "0" if text.startswith("<") else "Infinity"
    return Cell(text, below, unknown if ratio["value"] is None else repr(ratio["value"]))


def _chosen(c: ContestantResult, knob: str, key: str) -> Cell:
    value = c["chosen"][key]
    return Cell(number(float(f"{value:.3g}")), "at an edge" if knob in c["edges"] else "", repr(value))


def _number(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(number(value), value=repr(value))


def why(result: RaceResult) -> Table | None:
    """What one watched run of each contestant has shown, the lowest mean loss first; None where there was none."""
    seen = [(c, c.get("why")) for c in sorted(result["contestants"], key=lambda c: c["mean_loss"])]
    rows = [_why(c["label"], one) for c, one in seen if one]
    heads = [
        "optimizer",
        "first ‖Δw‖ / ‖w‖",
        "in tuned runs",
        "steps clipped",
        "losses that spiked",
        "without gradients",
        "found",
    ]
    return Table(heads, rows) if rows else None


def _why(label: str, seen: Why) -> list[Cell]:
    band = seen["tuned"]
    usual = f"{number(band[0])} to {number(band[2])}" if band else "–"
    clipped = "–" if seen["clipped"] is None else f"{100 * seen['clipped']:.0f} %"
    return [
        Cell(label), _rounded(seen["update"]), Cell(usual, seen["tuned_of"], repr(band[1]) if band else ""),
        Cell(clipped, value=repr(seen["clipped"])), Cell(str(seen["spikes"])), Cell(", ".join(seen["dead"]) or "none"),
        Cell(", ".join(one["cause"] for one in seen["findings"]) or "nothing"),
    ]  # fmt: skip


def _rounded(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(number(float(f"{value:.2g}")), value=repr(value))


def finalists(result: RaceResult) -> Table | None:
    """The settings that ran on every verdict seed, each contestant's best of the search first.

    None where no contestant has two, so that nothing was chosen on fresh seeds.
    """
    if all(len(c["finalists"]) < 2 for c in result["contestants"]):
        return None
    digits = of_spreads(c["sd_loss"] for c in result["contestants"])
    seeds = len(runs_of(result, "verdict", result["contestants"][0]["label"]))
    loss_head, seeds_head = f"mean held-out loss ({result['task']['unit']})", f"scores, of {seeds} seeds"
    heads = ["optimizer", "lr", "× rest", "decay", "settings", loss_head, seeds_head]
    return Table(heads, [_finalist(c["label"], one, digits) for c in result["contestants"] for one in c["finalists"]])


def _finalist(label: str, one: Finalist, decimals: int) -> list[Cell]:
    settings = ", ".join(f"{k}={plain(v)}" for k, v in one["settings"].items())
    mean = Cell(fixed(one["mean_loss"], decimals), value=repr(one["mean_loss"]))
    chosen = map(_number, (one["lr"], one["multiplier"], one["weight_decay"]))
    return [Cell(label), *chosen, Cell(settings), mean, Cell(str(one["seeds"]))]


def runs(result: RaceResult) -> Table:
    """Every run of the race."""
    heads = [
        "optimizer", "role", "lr", "× rest", "decay", "settings", "seed", "steps", "held-out", "training", "seconds",
        "in optimizer", "state, bytes", "status", "key",
    ]  # fmt: skip
    return Table(heads, [_run(run) for run in result["runs"]])


def _run(run: Run) -> list[Cell]:
    settings = ", ".join(f"{k}={plain(v)}" for k, v in run["settings"].items())
    chosen = (run["lr"], run["multiplier"], run["weight_decay"])
    ends = (run["final_loss"], run["train_loss"], run["seconds"], run["optimizer_seconds"])
    return [
        Cell(run["optimizer"]), Cell(run["role"]), *map(_number, chosen), Cell(settings), Cell(str(run["seed"])),
        Cell(str(run["steps"])), *map(_number, ends), Cell(f"{run['state_bytes']:,}", value=str(run["state_bytes"])),
        Cell(run["status"]), Cell(run["key"][:10]),
    ]  # fmt: skip


def looks(result: RaceResult) -> Table | None:
    """The earlier looks at this question, with what they said; None if there were none."""
    earlier = result["protocol"].get("looks") or []
    if not earlier:
        return None
    rows = [
        [
            Cell(str(look.get("when", ""))[:16].replace("T", " ")), Cell(" and ".join(look.get("labels") or [])),
            Cell(plain(look.get("steps"))), Cell(plain(look.get("seeds"))), Cell(plain(look.get("margin"))),
            _outcome(look.get("outcome")),
        ]
        for look in earlier
    ]  # fmt: skip
    return Table(["when", "who", "steps", "seeds", "margin", "what it said"], rows)


def _outcome(said: object) -> Cell:
    """The word of an earlier verdict, with its difference and interval below."""
    if not isinstance(said, Mapping):
        return Cell(plain(said))
    numbers = [said.get(key) for key in ("difference", "low", "high")]
    difference, low, high = ("–" if value is None else number(float(value)) for value in numbers)
    return Cell(str(said.get("verdict")), f"{difference} [{low}, {high}]")


def over_tasks(seen: Overview, names: dict[str, str], pages: Sequence[str]) -> Table:
    """One row a task with its verdicts, and one for all of them together."""
    heads = ["task", *(names[one["challenger"]] for one in seen["challengers"])]
    rows = []
    for i, (task, page) in enumerate(zip(seen["tasks"], pages, strict=True)):
        cells = [one["tasks"][i] for one in seen["challengers"]]
        shown = [f"{'' if t['sign'] == '=' else t['sign'] + ' '}{t['ratio']:.2f} × the steps" if t["ratio"] else "–"
                 for t in cells]  # fmt: skip
        rows.append(
            [Cell(task, href=page), *(Cell(t["verdict"], s, str(WORDS.index(t["verdict"])))
                                      for t, s in zip(cells, shown, strict=True))]
        )  # fmt: skip
    halved = [halves(one["steps_ratio"]["text"]) for one in seen["challengers"]]
    foot = [Cell("all", "steps to the same loss"), *(Cell(text, below) for text, below in halved)]
    return Table(heads, rows, foot)


def plain(value: object) -> str:
    """A protocol's value as people write it."""
    if isinstance(value, dict):
        return "; ".join(f"{k}: {plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(v) for v in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return number(value) if isinstance(value, float) else str(value)
