"""One step of an optimizer: parameters sorted into batches, batches given to backends, stages run in order."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections import defaultdict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from operator import is_, itemgetter
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from thalweg.ir import counter_rng, fields
from thalweg.ir.trace import Host, RuleClass, Specialization, is_matrix, kept_states, specialize
from thalweg.ir.transforms import FIRSTS
from thalweg.native.compiler import CompilerError
from thalweg.runtime import sharding
from thalweg.runtime.backends import select
from thalweg.runtime.batch import BoundBatch, check_gradient
from thalweg.runtime.formats import Format, Storage
from thalweg.runtime.state import conform, formats_of, missing, new_state
from thalweg.runtime.tensors import is_dense, local, opaque

#: where a training loop may have left torch.autocast on
AUTOCAST = ("cpu", "cuda")
#: no state begins
GOES_ON = dict.fromkeys(("first", *FIRSTS), 0.0)


class Stepper:
    """Runs the steps of one optimizer, and remembers its batches while nothing about them changes.

    It holds no reference to the optimizer, so that a dropped one frees its state at once.

    Args:
        rule: the class of the optimizer.
        backend: the one that the user asked for, or ``"auto"``.
        storage: how parameters and states are kept.
        seed: of random bits, for groups that have none of their own.
    """

    def __init__(self, rule: type[RuleClass], backend: str, storage: Storage, seed: int) -> None:
        self.rule, self.backend, self.storage, self.seed = rule, backend, storage, seed
        self.shared = [spec for spec in rule.states.values() if spec.kind == "shared"]
        self.failed: dict[str, str] = {}  # backends whose compiler failed, and what it said
        self.said_by: dict[str, BoundBatch] = {}  # the batch that told the user of it
        self.hypers = itemgetter(*rule.hypers)
        self.state: dict[Any, Any] | None = None
        self.forget()

    def forget(self) -> None:
        """The groups have changed, or all that is kept has been replaced."""
        self.bound: dict[Any, list[BoundBatch]] = {}
        self.specializations: dict[int, tuple[tuple[Any, ...] | None, Specialization, SimpleNamespace]] = {}
        self.ids: dict[int, int] = {}
        self.before: list[tuple[Tensor, dict[str, Any], dict[str, Any]]] = []

    def run(
        self,
        groups: list[dict[str, Any]],
        state: dict[Any, Any],
        inverse_scale: float | None = None,
        only: tuple[int, Tensor] | None = None,
        begun: bool = False,
    ) -> None:
        """Update the parameters that have a gradient.

        Args:
            groups: the parameter groups.
            state: the dict from parameters to their states.
            inverse_scale: what gradients must be multiplied with; None for 1.
            only: a group's number and one of its parameters, to update that alone.
            begun: whether this goes on with an update, and does not begin one.
        """
        for device in AUTOCAST:
            if torch.is_autocast_enabled(device):
                with torch.autocast(device, enabled=False):  # a rule says for itself what it computes in
                    self.run(groups, state, inverse_scale, only, begun)
                return
        if self.state is not state:
            self.forget()
            self.state = state
        ready: list[BoundBatch] = []
        try:
            if only is not None:
                i, p = only
                ready = self._ready((i, id(p)), i, groups, state, [p], inverse_scale)
            else:
                for i, group in enumerate(groups):
                    ready += self._ready(i, i, groups, state, group["params"], inverse_scale)
        except BaseException:
            self._take_back(state)
            raise
        self.before = []
        if only is None and len(self.bound) > len(groups):
            self.keep([where for where in self.bound if not isinstance(where, int) or where < len(groups)])
        if draws(self.storage, groups):
            self._draw(groups, ready, begun)
        totals = _run_stages(ready)
        if self.shared:
            _share(groups, ready, totals)
        for bound in ready:
            _count(bound)
            bound.end()
            bound.batch.grads = []
            if bound.distributed:  # its parts are counted by themselves
                torch.autograd.graph.increment_version(bound.owners)

    def keep(self, wheres: Collection[Any]) -> None:
        """Forget the batches of groups and parameters that have left: they would keep their tensors alive."""
        self.bound = {where: found for where, found in self.bound.items() if where in wheres}

    def _take_back(self, state: dict[Any, Any]) -> None:
        """Leave no trace of a step that was refused: a state begun now would make the next step not the first."""
        for p, mine, before in reversed(self.before):
            mine.clear()
            mine.update(before)
            if not before:
                state.pop(p, None)
        self.forget()

    def _draw(self, groups: list[dict[str, Any]], ready: list[BoundBatch], begun: bool) -> None:
        """Count an update in the groups, so that checkpoints know, and give each batch the key of its random bits."""
        for group in groups:
            group["updates"] = group.get("updates", 0) + (not begun)
        for bound in ready:
            group = groups[bound.group]
            bound.batch.key = counter_rng.key(group.setdefault("seed", self.seed), group["updates"])

    # -- batches ----------------------------------------------------------------------------------------------------

    def _ready(
        self,
        where: Any,
        i: int,
        groups: list[dict[str, Any]],
        state: dict[Any, Any],
        params: list[Tensor],
        scale: float | None,
    ) -> list[BoundBatch]:
        """The batches of a group's parameters that have a gradient."""
        group = groups[i]
        key, h = self._numbers(i, group, scale is not None)
        shared = {spec.name: group[spec.name] for spec in self.shared}
        found = self._again(where, key, params, state)
        if found is None:
            owners = [p for p in params if p.grad is not None]
            found = self._again(where, key, owners, state) if len(owners) < len(params) else None
        if found is None:
            # what is created now may be written by later steps, also outside of inference mode
            with torch.inference_mode(False), torch.no_grad():
                found = self.bound[where] = self._bind(key, i, groups, state, owners) if owners else []
        fresh = [bound for bound in found if bound.work is None]
        if len(fresh) > 1:
            self._choose_side_by_side(fresh, group)
        for bound in fresh:
            if bound.work is None:
                self._choose(bound, group)
        ready = []
        for bound in found:
            numbers = bound.values
            mine = SimpleNamespace(**{**vars(h), **numbers, **shared}, **bound.firsts, inverse_scale=scale)
            mine.matrix = bound.batch.specialization.matrix
            if "step" in numbers:
                mine.step = int(numbers["step"]) + 1
            bound.batch.h, bound.batch.values = mine, Host.of(bound.batch.specialization)(mine)
            ready.append(bound)
        return ready

    def _numbers(self, i: int, group: dict[str, Any], scaled: bool) -> tuple[Specialization, SimpleNamespace]:
        """The specialization and the plain numbers of a group; checked when one of its values has changed."""
        rule = self.rule
        now = (scaled, group.get("initial_lr"), *self.hypers(group))
        if i in self.specializations:
            before, key, h = self.specializations[i]
            if before is not None and all(map(is_, now, before)):
                return key, h
        rule.check_hypers(group)
        key, h = specialize(rule, group, scaled), fields.read(rule.hypers, group)
        h.initial_lr = fields.plain(group.get("initial_lr", group.get("first_lr", group["lr"])))
        self.specializations[i] = (None if any(map(_may_change, now)) else now, key, h)
        return key, h

    def _again(
        self, where: Any, key: Specialization, owners: list[Tensor], state: dict[Any, Any]
    ) -> list[BoundBatch] | None:
        """The batches of the last step, if these parameters are theirs and nothing about them has changed."""
        found = self.bound.get(where)
        if not found or (found[0].asked is not key and found[0].asked != key):
            return None
        if sum(len(b.owners) for b in found) != len(owners):
            return None
        mine: list[Any] = owners
        here = set(map(id, owners)) if len(found) > 1 else set()
        for bound in found:
            if len(found) > 1:
                mine = bound.owners
                if not here.issuperset(map(id, mine)):
                    return None
            if not bound.again(mine, functools.partial(_states, state, mine)):
                return None
            bound.firsts = GOES_ON
        return found

    def _bind(
        self, key: Specialization, i: int, groups: list[dict[str, Any]], state: dict[Any, Any], owners: list[Tensor]
    ) -> list[BoundBatch]:
        """Sort parameters by what makes their step the same, creating what is missing of their state."""
        group, rule, storage, around = groups[i], self.rule, self.storage, set(FIRSTS.values())
        for p in owners:
            check_gradient(p, p.grad, rule)  # type: ignore[arg-type]
        if (
            len(owners) > 1 or id(owners[0]) not in self.ids
        ):  # anew, since the lists in the groups are the user's to change
            self.ids = {id(p): k for k, p in enumerate(p for g in groups for p in g["params"])}
        h = SimpleNamespace(**group)
        kinds = {is_matrix(rule, p) for p in owners}
        specs_of = {kind: [s for s in kept_states(rule, group, kind) if s.kind != "shared"] for kind in kinds}
        keys = {kind: key if kind else specialize(rule, group, key.scaled, kind) for kind in kinds}
        same: dict[Any, list[Tensor]] = defaultdict(list)
        formats_by: dict[tuple[bool, torch.dtype], dict[str, Format]] = {}
        for p in owners:
            matrix = is_matrix(rule, p)
            specs = specs_of[matrix]
            mine = state[p] if specs or storage.master else {}
            if specs or storage.master:
                self.before.append((p, mine, dict(mine)))
            begun = {spec.name for spec in specs if missing(spec, p, h, mine)}
            firsts = float(bool(begun - around)), *(float(name in begun) for name in FIRSTS.values())
            if (matrix, p.dtype) not in formats_by:
                formats_by[matrix, p.dtype] = formats_of(p.dtype, specs, storage)
            formats = formats_by[matrix, p.dtype]
            if mine:
                conform(p, formats, specs, h, mine)
            new_state(specs, p, h, formats, mine)
            numbers = tuple(float(mine[spec.name]) for spec in specs if spec.counted)
            here, g = local(p), local(p.grad)  # type: ignore[arg-type]
            kind = hasattr(p, "_local_tensor"), opaque(here) or opaque(g)
            same[here.device, here.dtype, g.dtype, is_dense(here), kind, numbers, firsts, matrix].append(p)
        bounds = []
        for (*_, firsts, matrix), ps in same.items():
            specs, ids = specs_of[matrix], [self.ids[id(p)] for p in ps]
            states = [state[p] if specs or storage.master else {} for p in ps]
            bound = BoundBatch(ps, states, specs, keys[matrix], storage, ids, state)
            bound.asked = key
            values = bound.count()
            assert values is not None
            bound.firsts, bound.group, bound.values = dict(zip(("first", *FIRSTS), firsts, strict=True)), i, values
            again = bound.again(ps, functools.partial(_states, state, ps))
            assert again
            bounds.append(bound)
        return bounds

    def _choose_side_by_side(self, bounds: list[BoundBatch], group: dict[str, Any]) -> None:
        """Let compilers run at the same time; once the interpreter ends no thread begins, and none is chosen."""
        chosen = []
        with ThreadPoolExecutor(min(len(bounds), os.cpu_count() or 1)) as threads, contextlib.suppress(RuntimeError):
            for bound in bounds:
                chosen.append(threads.submit(self._choose, bound, group))
        for one in chosen:
            one.result()

    def _choose(self, bound: BoundBatch, group: dict[str, Any]) -> None:
        batch = bound.batch
        if batch.sharded:  # asked for since its group was made
            sharding.check(self.rule, group, self.storage.state_dtype)
        while bound.work is None:
            bound.backend, bound.why = select.choose(self.backend, batch, self.failed)
            try:
                bound.work = select.prepare(bound.backend, batch)
            except CompilerError as error:
                if self.backend != "auto":
                    raise
                said = self.failed.setdefault(bound.backend, str(error))
                if self.said_by.setdefault(bound.backend, bound) is bound:  # of batches side by side one speaks
                    warnings.warn(f"a slower backend runs, since the compiler failed: {said}", stacklevel=2)
        bound.listed = getattr(bound.work, "reads_gradients", True)


def _states(state: dict[Any, Any], owners: list[Tensor]) -> list[Any]:
    """What is kept for each parameter; None for nothing."""
    if len(state) == len(owners) and all(map(is_, state, owners)):
        return list(state.values())  # many times faster than to look each up
    return [state.get(p) for p in owners]


def draws(storage: Storage, groups: list[dict[str, Any]]) -> bool:
    """Whether anything is rounded at random, or drawn."""
    if any(group["gradient_noise"] for group in groups):
        return True
    return storage.rounding == "stochastic" or storage.state_dtype not in (None, "float32")


def _may_change(value: Any) -> bool:
    """Whether a hyperparameter may have another value though it is the same object."""
    return isinstance(value, (Tensor, list)) or (isinstance(value, tuple) and any(isinstance(v, Tensor) for v in value))


def _run_stages(bounds: list[BoundBatch]) -> dict[str, Any]:
    """Run every stage of every batch; a total is complete when all batches that add to it have done so. Gives all."""
    if not any(stage.gives for bound in bounds for stage in bound.batch.plan.stages):
        for bound in bounds:
            for k in range(len(bound.batch.plan.stages)):
                bound.work.run(k, {})
        return {}
    at = dict.fromkeys(range(len(bounds)), 0)
    stages = [bound.batch.plan.stages for bound in bounds]
    shares: dict[str, list[Any]] = defaultdict(list)
    while at:
        pending = {name for i, k in at.items() for stage in stages[i][k:] for name in stage.gives}
        totals = {name: _sum(parts) for name, parts in shares.items() if name not in pending}
        runnable = [i for i, k in at.items() if not stages[i][k].needs & pending]
        for i in runnable:
            for name, share in bounds[i].work.run(at[i], totals).items():
                shares[name].append(share)
            at[i] += 1
            if at[i] == len(stages[i]):
                del at[i]
    return {name: _sum(parts) for name, parts in shares.items()}


def _share(groups: list[dict[str, Any]], bounds: list[BoundBatch], totals: dict[str, Any]) -> None:
    """Keep what the rule made of the numbers that stand in the groups.

    A group whose parameters had no gradient takes what follows from sums over all tensors from another group.
    """
    known = {name: float(total) for name, total in totals.items()}
    common: dict[str, float] = {}
    found: dict[int, dict[str, float]] = {}
    for bound in bounds:
        if bound.group not in found:
            traced = bound.batch.plan.traced
            values = Host.of(traced.specialization).with_totals(bound.batch.h, known)
            found[bound.group] = {spec.name: float(values[traced.outputs[spec.name]]) for spec in traced.shared}
            for name in traced.common:
                common.setdefault(name, found[bound.group][name])
    for i, group in enumerate(groups):
        group.update(found.get(i) or {name: value for name, value in common.items() if name in group})


def _sum(parts: list[Any]) -> Any:
    return sum(
        p.to(parts[0].device) if isinstance(p, Tensor) and isinstance(parts[0], Tensor) else float(p) for p in parts
    )


def _count(bound: BoundBatch) -> None:
    """Count the update, and keep what the rule made of the other numbers."""
    traced = bound.batch.plan.traced
    for spec in traced.numbers:
        bound.numbers[spec.name].fill_(bound.batch.values[traced.outputs[spec.name]])
    if "step" in bound.numbers:
        bound.places.count(bound.numbers["step"])
