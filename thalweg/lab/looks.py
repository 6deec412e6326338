"""The looks at a task: every verdict that was drawn from a store on it, by pair of classes, and what the next one pays.

A look is one more chance to be wrong. It makes no difference what else was changed between two looks at the same pair
of classes: the seeds and their offset, the horizon, the margin, a label, a setting, which of the two is the baseline,
who else races. All are counted. Two comparisons of one pair in the same race are one look; what they cost is in the
interval, which holds for all comparisons together. The same verdict drawn again from the same runs is no new look.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from thalweg.lab.contestant import Contestant
from thalweg.lab.result import Comparison, Run


@dataclass(frozen=True)
class Look:
    """A verdict on a pair of classes.

    Attributes:
        task: hash of the task's content.
        pair: the two classes in alphabetical order.
        number: from 1, in the order in which they were drawn.
        evidence: hash of all that the verdict rests on.
        when: in UTC.
        verdicts: of each comparison of the pair: labels, steps, seeds, margin, outcome.
    """

    task: str
    pair: str
    number: int
    evidence: str
    when: datetime
    verdicts: Sequence[Mapping[str, Any]]

    def told(self) -> list[dict[str, Any]]:
        """As a report lists it."""
        shared = {"look": self.number, "when": self.when.isoformat(timespec="seconds"), "classes": self.pair}
        return [{**shared, **verdict} for verdict in self.verdicts]


@dataclass(frozen=True)
class Side:
    """One contestant of a verdict, with all its runs."""

    contestant: Contestant
    runs: Sequence[Run]

    @property
    def facts(self) -> list[Any]:
        """What a verdict rests on."""
        runs = {run["key"]: run["final_loss"] if run["status"] == "finished" else run["status"] for run in self.runs}
        return [self.contestant.label, sorted(runs.items())]


class Ledger:
    """The looks at one task: those in the store, and those that a race takes.

    Args:
        task: hash of the task's content.
        earlier: all looks at it so far.
    """

    def __init__(self, task: str, earlier: Sequence[Look]) -> None:
        self.task, self.earlier = task, earlier
        self._asked: dict[str, tuple[str, str, int]] = {}  # label of the challenger → pair, evidence, number

    def open(self, baseline: Side, challengers: Sequence[Side], *declared: object) -> dict[str, int]:
        """Which look each challenger's comparison is.

        Args:
            baseline: the one that all are compared with.
            challengers: the others.
            declared: what the words rest on beside the runs, such as the margin.

        Returns:
            Label of the challenger → number, from 1; in the order of ``challengers``.
        """
        for pair, members in _by_pair(baseline, challengers).items():
            facts = [baseline.facts, [side.facts for side in members], declared]
            evidence = hashlib.sha256(json.dumps(facts, default=repr).encode()).hexdigest()
            number = self._number(pair, evidence)
            self._asked |= {side.contestant.label: (pair, evidence, number) for side in members}
        return {side.contestant.label: self._asked[side.contestant.label][2] for side in challengers}

    def others(self) -> list[dict[str, Any]]:
        """The looks at the pairs of this race, without those that this race takes or repeats."""
        pairs = {pair for pair, _, _ in self._asked.values()}
        mine = {(pair, number) for pair, _, number in self._asked.values()}
        found = [one for one in self.earlier if one.pair in pairs and (one.pair, one.number) not in mine]
        return [told for one in sorted(found, key=lambda one: one.when) for told in one.told()]

    def taken(self, comparisons: Sequence[Comparison], steps: int) -> list[Look]:
        """The new looks, with their outcome; none where all was said before."""
        known = {(one.pair, one.number) for one in self.earlier}
        verdicts: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        for c in comparisons:
            verdicts.setdefault(self._asked[c["challenger"]], []).append(_verdict(c, steps))
        now = datetime.now(UTC)
        return [
            Look(self.task, pair, number, evidence, now, told)
            for (pair, evidence, number), told in verdicts.items()
            if (pair, number) not in known
        ]

    def _number(self, pair: str, evidence: str) -> int:
        """That of the look that saw the same, or the next."""
        mine = {one.evidence: one.number for one in self.earlier if one.pair == pair}
        return mine.get(evidence, max(mine.values(), default=0) + 1)


def _by_pair(baseline: Side, challengers: Sequence[Side]) -> dict[str, list[Side]]:
    groups: dict[str, list[Side]] = {}
    for side in challengers:
        groups.setdefault(pair_of(baseline.contestant, side.contestant), []).append(side)
    return groups


def pair_of(a: Contestant, b: Contestant) -> str:
    """``AdamW, Muon``: the classes by their own names, wherever they come from and whatever is fixed about them."""
    return ", ".join(sorted(one.class_name for one in (a, b)))[:200]


def _verdict(c: Comparison, steps: int) -> dict[str, Any]:
    return {
        "labels": [c["baseline"], c["challenger"]],
        "steps": steps,
        "seeds": c["seeds"],
        "margin": c["margin"],
        "outcome": {key: c[key] for key in ("verdict", "difference", "low", "high")},
    }
