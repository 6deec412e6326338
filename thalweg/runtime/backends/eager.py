"""The rule itself, tensor by tensor: the oracle that every other backend is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.ir import counter_rng, ops
from thalweg.ir.names import Hypers, State
from thalweg.ir.transforms import update
from thalweg.runtime.batch import Batch


def refusal(batch: Batch) -> str | None:
    """It serves everything."""
    return None


@dataclass
class EagerExecutor:
    """One batch."""

    batch: Batch

    def run(self, stage: int, totals: dict[str, Any]) -> dict[str, Any]:
        """Run the rule on every tensor: for its share of the totals, or to update it."""
        batch = self.batch
        stages = batch.plan.stages
        last = stage == len(stages) - 1
        gives = stages[stage].gives
        if not last and not gives:
            return {}
        ops.totals.known, ops.totals.shares = as_tensors(totals, batch), {}
        try:
            for i in range(len(batch.params)):
                with torch.inference_mode(False), torch.no_grad():  # whose tensors tell when they are written
                    new = self._update(i)
                if last:
                    for name, value in new.items():
                        store(batch, name, i, value)
            return {name: ops.totals.shares[name] for name in gives}
        finally:
            ops.totals.known, ops.totals.shares = {}, {}

    def _update(self, i: int) -> dict[str, Any]:
        batch = self.batch
        counter_rng.drawing.key, counter_rng.drawing.ids = batch.key, batch.ids[i : i + 1]
        # copies: a rule may make one the new value of another, or write into it
        p, g = load(batch, "p", i).clone(), batch.grads[i].to(batch.compute, copy=True)
        old: dict[str, Any] = {name: load(batch, name, i).clone() for name in batch.states}
        traced, rule = batch.plan.traced, batch.specialization.rule
        old |= {spec.name: getattr(batch.h, spec.name) for spec in (*traced.numbers, *traced.shared)}
        old |= {name: views[i].clone() for name, views in batch.views.items()}
        old |= {name: ops.Aside(tensors[i]) for name, tensors in batch.asides.items()}
        s = State(rule, old)
        version = {name: x._version for name, x in old.items() if isinstance(x, Tensor)}
        new = {"p": update(rule, p, g, s, Hypers(rule, vars(batch.h)))}
        kept = (*batch.states, *batch.views, *batch.asides)
        now = {name: getattr(s, name) for name in kept}
        return new | {n: x for n, x in now.items() if x is not old[n] or (n in version and x._version != version[n])}


def prepare(batch: Batch) -> EagerExecutor:
    """Nothing to make ready."""
    return EagerExecutor(batch)


def as_tensors(totals: dict[str, Any], batch: Batch) -> dict[str, Any]:
    """Totals as torch computes with them."""
    return {name: torch.as_tensor(x, dtype=batch.compute, device=batch.device) for name, x in totals.items()}


def _kept(batch: Batch, name: str, i: int) -> tuple[Tensor, Tensor | None]:
    """The tensor that carries ``p`` or a state, and the second one of formats that have one."""
    kept = batch.params[i] if name == "p" else batch.states[name][i]
    return kept, batch.beside[name][i] if name in batch.beside else None


def load(batch: Batch, name: str, i: int) -> Tensor:
    """The numbers of one tensor, in the dtype of computation."""
    return batch.formats[name].decode(*_kept(batch, name, i)).to(batch.compute)


def store(batch: Batch, name: str, i: int, numbers: Any) -> None:
    """Write what one tensor is, or what is kept of it, back in its format."""
    if name in batch.asides:
        batch.asides[name][i] = numbers.kept
        return
    if name in batch.views:
        if batch.params[i].numel():
            batch.views[name][i].copy_(torch.as_tensor(numbers))
        return
    kept, beside = _kept(batch, name, i)
    f = batch.formats[name]
    if f.plain:
        kept.copy_(numbers)
        return
    if numbers.stride() != kept.stride():
        numbers = numbers.new_empty_strided(kept.shape, kept.stride()).copy_(numbers)
    runs = batch.runs[i] if batch.runs else None
    f.encode(numbers, kept, beside, counter_rng.draw(batch.key, batch.ids[i], batch.slots[name], kept.device, runs))
