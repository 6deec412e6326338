"""What a comparison's word is qualified by: its warnings, and contestants that never trained."""

from __future__ import annotations

from collections.abc import Iterable

from thalweg.lab import stats
from thalweg.lab.names import join
from thalweg.lab.result import Comparison, ContestantResult, Flag, RaceResult


def entry(result: RaceResult, label: str) -> ContestantResult:
    """A contestant by its label."""
    return next(c for c in result["contestants"] if c["label"] == label)


def level(result: RaceResult, c: Comparison) -> float:
    """The alpha of a comparison's look."""
    return stats.alpha_at_look(c["look"], result["protocol"].get("alpha", 0.05))


def doubts(result: RaceResult, c: Comparison) -> list[Flag]:
    """The warnings that concern a comparison."""
    pair = {c["baseline"], c["challenger"]}
    return [f for f in result["flags"] if f["level"] == "warning" and (not f["labels"] or pair & set(f["labels"]))]


def untrained(result: RaceResult, c: Comparison) -> list[str]:
    """Whose runs all diverged, where that alone decides; see :func:`thalweg.lab.verdict.compare`."""
    counts = {label: entry(result, label)["diverged"] for label in (c["challenger"], c["baseline"])}
    idle = [label for label, n in counts.items() if n == c["seeds"]]
    return idle if all(n in (0, c["seeds"]) for n in counts.values()) else []


def told(result: RaceResult, c: Comparison) -> list[Flag]:
    """The warnings that add to the word, but those that the claim itself tells or that qualify nothing that is said.

    That runs diverged is the claim where all did; implementations differ in seconds, where any are stated.
    """
    silent = {"divergences"} if untrained(result, c) else set()
    if not stats.is_stated(c["seconds_ratio"]):
        silent.add("same-implementation")
    return [flag for flag in doubts(result, c) if flag["short"] and flag["id"] not in silent]


def qualified(shorts: Iterable[str]) -> str:
    """What is put behind a claim: ``, on an over-fitted task and at an edge of what was tried``."""
    said = list(dict.fromkeys(shorts))
    return f", {join(said)}" if said else ""
