"""The load of a router of experts: how its choices are shared out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thalweg.diagnosis import limits


@dataclass(frozen=True)
class RouterLoad:
    """What a router has chosen for the tokens of a batch.

    Attributes:
        counts: how often each expert was chosen.
        chosen: experts that one token is given to.
    """

    counts: tuple[int, ...]
    chosen: int

    @property
    def shares(self) -> list[float]:
        """The share of the choices that each expert has."""
        total = sum(self.counts)
        return [count / total if total else math.nan for count in self.counts]

    @property
    def used(self) -> float:
        """Experts that are used in effect, exp(entropy of the shares): from ``chosen`` to all."""
        return math.exp(-sum(share * math.log(share) for share in self.shares if share > 0))

    @property
    def idle(self) -> int:
        """Experts that no token was given to."""
        return self.counts.count(0)

    @property
    def is_collapsed(self) -> bool:
        """Whether hardly more experts are used than must be, or most of them get no token."""
        count = len(self.counts)
        if sum(self.counts) < limits.ROUTED * count:
            return False
        least = self.chosen + limits.COLLAPSED * (count - self.chosen)
        return self.used < least or self.idle > limits.IDLE_EXPERTS * count
