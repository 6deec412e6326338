"""What a backend must have."""

from __future__ import annotations

from typing import Any, Protocol

from thalweg.runtime.batch import Batch


class Executor(Protocol):
    """A batch made ready. Its tensors stay where they are; its gradients and numbers are new at each step."""

    def run(self, stage: int, totals: dict[str, Any]) -> dict[str, Any]:
        """Do one stage of the plan.

        Args:
            stage: which; they come in order, from 0.
            totals: the sums over all tensors that are complete, by name.

        Returns:
            By the name of each total that the stage gathers, numbers that add up to this batch's share.
        """
        ...


class Backend(Protocol):
    """A module with two functions."""

    def refusal(self, batch: Batch) -> str | None:
        """Why it cannot serve this batch, as a clause; None if it can."""
        ...

    def prepare(self, batch: Batch) -> Executor:
        """Make a batch ready."""
        ...
