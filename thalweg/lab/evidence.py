"""What goes into a verdict: the runs of one contestant, and the rules declared before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from thalweg.lab import stats


@dataclass(frozen=True)
class Evidence:
    """What the runs of one contestant brought.

    Attributes:
        label: its name in this race.
        losses: final held-out loss by index in its list of verdict seeds; a diverged run's is what it counts with
            (:mod:`thalweg.lab.diverged`).
        horizons: complete shorter runs: steps → index → final loss.
        block_seconds: seconds a step in each block of the timing pass, in order; empty if there was none.
        quiet: whether that pass had a core to itself; nothing is said of seconds where it had not.
        diverged: how many of the verdict runs diverged.
        diverged_shorter: how many of the shorter runs diverged.
        state_bytes: of optimizer state; None if not known.
        tuning: variance of its expected loss over repeated searches, below and above it, in squared units of the loss.
    """

    label: str
    losses: Mapping[int, float]
    horizons: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    block_seconds: Sequence[float] = ()
    quiet: bool = True
    diverged: int = 0
    diverged_shorter: int = 0
    state_bytes: int | None = None
    tuning: stats.Luck = stats.NO_LUCK


@dataclass(frozen=True)
class Rules:
    """What was declared before the runs of a comparison.

    Attributes:
        margin: what matters, in the unit of the loss, ≥ 0.
        comparisons: with the baseline, in this race.
        alpha: of all comparisons together, at the first look.
        look: 1, or more if verdicts on the same two classes were drawn before (see :mod:`thalweg.lab.looks`).
    """

    margin: float
    comparisons: int = 1
    alpha: float = 0.05
    look: int = 1

    @property
    def level(self) -> float:
        """The alpha of this look."""
        return stats.alpha_at_look(self.look, self.alpha)
