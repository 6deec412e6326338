"""The backward passes between two updates: what each begins with, how much it counts, and that an update follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thalweg.diagnosis import measures
from thalweg.diagnosis.inflight.graph import averages

#: parameters whose gradients are looked at before a pass
LOOKED_AT = 4


@dataclass
class Pass:
    """One backward pass of a loss that was told.

    Attributes:
        weight: the derivative of what is descended by the loss: 1, or one over the number of passes.
        left: norm of gradients that were there before it, and after the update before; None where there were none.
        averages: whether the loss is a mean, which nothing has divided.
        batch: its number, where it is known.
    """

    weight: Tensor
    left: tuple[Tensor, Tensor] | None
    averages: bool
    batch: int | None


@dataclass
class Update:
    """The passes that an update was made from, as numbers; ``cleared``: they did not begin with old gradients."""

    weights: list[float]
    cleared: bool
    averages: bool
    batches: list[int | None]

    @property
    def undivided(self) -> bool:
        """Whether several mean losses, of a batch each, were added up."""
        count = len(self.weights)
        apart = len({*self.batches}) == count if None not in self.batches else count > 2
        return count > 1 and self.averages and apart and all(weight == 1.0 for weight in self.weights)


@dataclass
class Passes:
    """Notes what the losses' hooks see.

    Attributes:
        parameters: some that are trained.
        now: the passes since the last update.
        idle: how often gradients were cleared since then although no update was made.
    """

    parameters: Sequence[Tensor]
    now: list[Pass] = field(default_factory=list)
    idle: int = 0
    closed: list[list[Pass]] = field(default_factory=list)
    begun: int = 0
    weight: Tensor | None = None
    before: Tensor | None = None
    after: Tensor | None = None
    stale: Tensor | None = None
    one: Tensor | None = None
    count: int = 0

    def attend(self, loss: Tensor, early: bool, batch: int | None) -> None:
        """Look at a loss's backward, when it comes.

        Args:
            loss: that was told.
            early: whether its numbers are kept; else it is only noted that gradients were cleared.
            batch: its number, where it is known.
        """
        mean = early and averages(loss)

        def hook(gradient: Tensor) -> None:
            grads = [p.grad for p in self.parameters if p.grad is not None and p.grad.layout is torch.strided]
            self.idle += self.begun > 0 and not grads
            self.begun += 1
            self.weight = gradient.detach()
            if early:
                left = self._left() if not self.now else None
                self.now.append(Pass(gradient.detach(), left, mean, batch))

        loss.register_hook(hook)  # type: ignore[no-untyped-call]

    def passed(self) -> None:
        """A backward pass is over: look at the gradients, before they are clipped."""
        self.before, self.after = self._norm(), None
        self.count += 1
        if self.count == 1:
            self.one = self.before

    def stepping(self) -> None:
        """The optimizer takes them: look at them again."""
        self.after = self._norm()

    def clip(self) -> float:
        """By how much they have become smaller since; NaN where a scaler has scaled them, or nothing was seen."""
        before, after, weight = self.before, self.after, self.weight
        self.before = self.after = None
        if before is None or after is None or (weight is not None and float(weight) > 1):
            return math.nan
        size = float(after)
        return float(before) / size if size > 0 else math.nan

    def noise(self) -> tuple[float, float]:
        """Of an update from k micro-batches, estimates of tr Σ and of ‖∇L‖², for micro-batches as the unit.

        With n₁ and n, the squared norms of one micro-batch's gradient and of the mean of all, they are
        (n₁ − n) / (1 − 1/k) and (k n − n₁) / (k − 1). Each look's are very noisy; NaN where one batch makes the update.
        """
        one, whole, k = self.one, self.before, self.count
        self.one, self.count = None, 0
        if one is None or whole is None or k < 2:
            return math.nan, math.nan
        single, mean = (k * float(one)) ** 2, float(whole) ** 2
        return (single - mean) / (1 - 1 / k), (k * mean - single) / (k - 1)

    def _left(self) -> tuple[Tensor, Tensor] | None:
        now, then = self._norm(), self.stale
        return None if now is None or then is None else (now, then)

    def _norm(self) -> Tensor | None:
        grads = [p.grad for p in self.parameters if p.grad is not None and p.grad.layout is torch.strided]
        return measures.norms(grads).square().sum().sqrt() if grads else None

    def end(self) -> None:
        """An update was made from them."""
        if self.now:
            self.closed.append(self.now)
            self.stale = self._norm()
        self.now, self.idle, self.begun = [], 0, 0

    def drain(self) -> list[Update]:
        """The updates since the last call, their numbers moved to the host."""
        closed, self.closed = self.closed, []
        return [_numbers(passes) for passes in closed]


def _numbers(passes: Sequence[Pass]) -> Update:
    weights = [float(one.weight) for one in passes]
    cleared = all(one.left is None or float(one.left[0]) != float(one.left[1]) or not one.left[0] for one in passes)
    return Update(weights, cleared, all(one.averages for one in passes), [one.batch for one in passes])
