"""The same ravine, turned: its axes are those of the parameters."""

from __future__ import annotations

from torch import Tensor

from thalweg.lab.tasks.ravine import Ravine, scales


class RavineAligned(Ravine):
    """The ravine with features along the coordinates: a spectrum that a diagonal preconditioner can undo."""

    name = "ravine-aligned"
    good_for = "the same valley along the coordinates: AdamW is ahead of Muon and momentum"
    seconds_per_run = 0.06

    def root(self) -> Tensor:
        """Diagonal."""
        return scales().diag()
