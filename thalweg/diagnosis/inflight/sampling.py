"""One update measured: norms of all tensors, and what it does to some of their elements.

Everything is computed on the tensors' device, before and after the update, and is one vector of numbers there. It is
moved to the host when the next step is looked at, so that a GPU is not waited for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.diagnosis import measures
from thalweg.diagnosis.inflight.elements import Elements
from thalweg.diagnosis.inflight.record import FIRST
from thalweg.shards.pieces import ranks_of

#: what a sampler gives for each parameter, in this order
NUMBERS = ("gradient", "weight", "update", "cosine", "changed", "small", "undone", "bound", "total")
#: after the first looks, the optimizer's own means of squared gradients are looked at once in so many
SELDOM = 32


class Sampler:
    """Looks at the update of some parameters.

    Args:
        parameters: all, in one order.
        eps_of: for a parameter, ε and β₂ of the optimizer that divides its step by √v + ε, its v and the number of
            updates that v has seen; None where there is no such thing.
    """

    def __init__(self, parameters: Sequence[Tensor], eps_of: Callable[[int], _Second | None]) -> None:
        by_device: dict[torch.device, list[int]] = defaultdict(list)
        for i, p in enumerate(parameters):
            by_device[p.device].append(i)
        self.parameters, self.eps_of, self.looks = parameters, eps_of, 0
        self.devices = [(at, Elements([parameters[i] for i in at])) for at in by_device.values()]
        self.before: list[dict[str, Tensor]] = []
        self.made: list[tuple[Tensor, Tensor]] = []  # of the last update looked at: the weights after it, and its steps

    @torch.no_grad()
    def begin(self, follows: bool = False) -> None:
        """Look at gradients and weights; the update follows.

        Args:
            follows: whether the update before this one was looked at too.
        """
        self.looks += 1
        self.before = [
            {**self._weights(at, elements), **self._gradients(at, elements)} for at, elements in self.devices
        ]
        if follows and self.made:
            for known, then, (_, elements) in zip(self.before, self.made, self.devices, strict=True):
                known["between"] = _between(known["w"], *then, elements)
        self.made = []

    @torch.no_grad()
    def computed(self, which: Sequence[bool]) -> None:
        """Gradients of some parameters were computed since, as by a closure: look at these."""
        for known, (at, elements) in zip(self.before, self.devices, strict=True):
            new, its = self._gradients(at, elements), torch.tensor([which[i] for i in at]).to(elements.counts.device)
            known["gradient"] = torch.where(its, new["gradient"], known["gradient"])
            known["g"] = torch.where(elements.spread(its), new["g"], known["g"])

    @torch.no_grad()
    def end(self) -> Callable[[], dict[str, list[float]]]:
        """Look at the weights after the update.

        Returns:
            What moves the numbers to the host, when they are asked for.
        """
        given = [
            self._after(at, elements, known) for (at, elements), known in zip(self.devices, self.before, strict=True)
        ]
        self.before = []
        return lambda: self._collected(given)

    @torch.no_grad()
    def sums(self) -> Tensor:
        """The sum over some elements of each parameter, float32, on the first device."""
        found = torch.zeros(len(self.parameters), device=self.parameters[0].device)
        for at, elements in self.devices:
            found[at] = elements.sums(elements.of([self.parameters[i] for i in at])).to(found.device)
        return found

    def _weights(self, at: Sequence[int], elements: Elements) -> dict[str, Tensor]:
        weights = [self.parameters[i] for i in at]
        return {"weight": over_ranks(measures.norms(weights).square(), weights).sqrt(), "w": elements.of(weights)}

    def _gradients(self, at: Sequence[int], elements: Elements) -> dict[str, Tensor]:
        weights = [self.parameters[i] for i in at]
        grads = [self.parameters[i].grad for i in at]
        norms = torch.zeros_like(elements.counts)
        present = [k for k, g in enumerate(grads) if g is not None]
        if present:
            norms[present] = measures.norms([numbers_of(g) for g in grads if g is not None]).to(norms.device)
        dense = [g if g is not None and g.layout is torch.strided else None for g in grads]
        return {"gradient": over_ranks(norms.square(), weights).sqrt(), "g": elements.of(dense)}

    def _after(self, at: Sequence[int], elements: Elements, known: dict[str, Tensor]) -> Tensor:
        weights = [self.parameters[i] for i in at]
        g, w = known["g"], known["w"]
        new = elements.of(weights)
        moved = new - w
        self.made.append((new, moved))
        has_gradient = (g != 0).float()
        changed = has_gradient * (moved != 0)
        least, v = self._seconds(at, elements)
        alive = v > 0
        parts = [moved.square(), w.square(), g.square(), -g * moved, changed, has_gradient, alive, alive & (v < least)]
        parts += [w, *known.get("between", torch.full((4, len(w)), torch.nan, device=w.device))]
        sums = elements.sums(torch.stack([x.float() for x in parts]))
        distance, size, slope, product, changed, asked, alive, small, total, *between = over_ranks(sums, weights)
        undone, stepped, bound, there = between
        return torch.stack(
            [
                known["gradient"],
                known["weight"],
                measures.ratios(distance.sqrt(), size.sqrt()),
                measures.ratios(product, (slope * distance).sqrt()),
                measures.ratios(changed, asked),
                measures.ratios(small, alive),
                undone / stepped,
                bound / there,
                total,
            ]
        )

    def _seconds(self, at: Sequence[int], elements: Elements) -> tuple[Tensor, Tensor]:
        """For each element, below which number √v is below ε, and v; zeros where there is no v, or none is looked at.

        It is looked at as long as findings are made from it, and then seldom.
        """
        seconds = [self.eps_of(i) for i in at] if self.looks <= FIRST or self.looks % SELDOM == 0 else []
        if not any(seconds):
            nothing = torch.zeros(elements.total, device=elements.counts.device)
            return nothing, nothing
        least = torch.tensor([one.least if one else 0.0 for one in seconds], device=elements.counts.device)
        return elements.spread(least), elements.of([one.v if one else None for one in seconds])

    def _collected(self, given: Sequence[Tensor]) -> dict[str, list[float]]:
        if len(given) == 1:
            return dict(zip(NUMBERS, given[0].tolist(), strict=True))
        table = torch.full((len(NUMBERS), len(self.parameters)), torch.nan)
        for (at, _), numbers in zip(self.devices, given, strict=True):
            table[:, at] = numbers.cpu()
        return {name: row.tolist() for name, row in zip(NUMBERS, table, strict=True)}


def _between(now: Tensor, then: Tensor, moved: Tensor, elements: Elements) -> Tensor:
    """What was written into the weights since an update: four numbers for each element, whose sums are asked for.

    How much of the update it takes back, of how much; whether it leaves the element at the bound, the largest absolute
    value of its tensor, and 1. Zeros are left out: what is pruned is set to zero after each update.
    """
    kept = (now != 0).float()
    written = (now - then).float()
    most = elements.largest(now.abs().float())
    at_bound = kept * (written != 0) * (now.abs().float() == elements.spread(most))
    moved = kept * moved.float()
    return torch.stack([-written * moved, moved.square(), at_bound, torch.ones_like(kept)])


def numbers_of(gradient: Tensor) -> Tensor:
    """A gradient, or of a sparse one the numbers that it has, of rows that were met several times their sum."""
    if gradient.layout is torch.strided:
        return gradient
    return gradient.coalesce().values() if gradient.layout is torch.sparse_coo else gradient.values()


class _Second:
    """A mean of squared gradients, and below which number its root is below ε."""

    def __init__(self, v: Tensor, eps: float, beta: float, updates: float) -> None:
        self.v, self.eps, self.correction = v, eps, 1 - beta**updates if beta < 1 and updates > 0 else 1.0
        self.least = eps * eps * self.correction


def second(optimizer: torch.optim.Optimizer, group: dict[str, Any], p: Tensor) -> _Second | None:
    """The mean of squared gradients of a parameter under Adam and its kin; None for other optimizers."""
    state = optimizer.state.get(p) or {}
    v, eps, betas = state.get("exp_avg_sq"), group.get("eps"), group.get("betas")
    if not isinstance(v, Tensor) or v.shape != p.shape or not v.is_floating_point():
        return None
    if not isinstance(eps, float) or not isinstance(betas, (tuple, list)) or len(betas) < 2:
        return None
    return _Second(v, eps, float(betas[1]), float(state.get("step", 0)))


def over_ranks(sums: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Sums of the parts that are here, added up over the ranks that hold the others."""
    apart = [k for k, p in enumerate(weights) if ranks_of(p)]
    if not apart:
        return sums
    import torch.distributed as dist

    mesh: Any = weights[apart[0]].device_mesh  # type: ignore[attr-defined]
    placements: Any = weights[apart[0]].placements  # type: ignore[attr-defined]
    parts = sums[..., apart].contiguous()
    for dim, placement in enumerate(placements):
        if placement.is_shard():
            dist.all_reduce(parts, group=mesh.get_group(dim))
    sums = sums.clone()
    sums[..., apart] = parts
    return sums
