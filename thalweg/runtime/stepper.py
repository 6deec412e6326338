"""One step: parameters are sorted into batches, backends make them ready, and their stages run in order."""

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
from thalweg.native.compiler import CompilerError
from thalweg.runtime import sharding
from thalweg.runtime.backends import select
from thalweg.runtime.batch import BoundBatch, check_gradient
from thalweg.runtime.formats import Format, Storage
from thalweg.runtime.state import conform, formats_of, missing, new_state
from thalweg.runtime.tensors import is_dense, local, opaque

#: where a training loop may have left torch.autocast on
AUTOCAST = ("cpu", "cuda")


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
        self.warned_by: dict[str, BoundBatch] = {}  # the batch that warned the user of it
        self.hypers = itemgetter(*rule.hypers)
        self.no_firsts = dict.fromkeys(("first", *rule.firsts.values()), 0.0)  # what tells which states begin: none
        self.state: dict[Any, Any] | None = None
        self.forget()

    def forget(self) -> None:
        """Make all batches anew at the next step: the groups have changed, or the states were replaced."""
        self.batches: dict[Any, list[BoundBatch]] = {}
        self.specializations: dict[int, tuple[tuple[Any, ...] | None, Specialization, SimpleNamespace]] = {}
        self.ids: dict[int, int] = {}
        self.undo: list[tuple[Tensor, dict[str, Any], dict[str, Any]]] = []  # states as they were before this step

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
                ready = self._prepare((i, id(p)), i, groups, state, [p], inverse_scale)
                if any(bound.batch.plan.over_all for bound in ready):
                    sharding.check_alone(self.rule, groups[i])
            else:
                for i, group in enumerate(groups):
                    ready += self._prepare(i, i, groups, state, group["params"], inverse_scale)
        except BaseException:
            self._roll_back(state)
            raise
        self.undo = []
        if only is None and len(self.batches) > len(groups):
            self.keep_only([where for where in self.batches if not isinstance(where, int) or where < len(groups)])
        if draws(self.rule, self.storage, groups):
            self._draw(groups, ready, begun)
        totals = _run_stages(ready)
        if self.shared:
            _store_shared(groups, ready, totals)
        for bound in ready:
            bound.finish()

    def keep_only(self, wheres: Collection[Any]) -> None:
        """Drop the batches of groups and parameters that were removed, since they keep tensors alive."""
        self.batches = {where: found for where, found in self.batches.items() if where in wheres}

    def _roll_back(self, state: dict[Any, Any]) -> None:
        """Undo a step that was refused: with a state that it began, the next step would not be the first."""
        for p, mine, before in reversed(self.undo):
            mine.clear()
            mine.update(before)
            if not before:
                state.pop(p, None)
        self.forget()

    def _draw(self, groups: list[dict[str, Any]], ready: list[BoundBatch], begun: bool) -> None:
        """Count the update in the groups, which checkpoints hold, and give each batch the key of its random bits."""
        for group in groups:
            group["updates"] = group.get("updates", 0) + (not begun)
        for bound in ready:
            group = groups[bound.group]
            bound.batch.key = counter_rng.key(group.setdefault("seed", self.seed), group["updates"])

    # -- batches ----------------------------------------------------------------------------------------------------

    def _prepare(
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
        found = self._reuse(where, key, params, state)
        if found is None:
            owners = [p for p in params if p.grad is not None]
            found = self._reuse(where, key, owners, state) if len(owners) < len(params) else None
        if found is None:
            # what is created now may be written by later steps, also outside of inference mode
            with torch.inference_mode(False), torch.no_grad():
                found = self.batches[where] = self._bind(key, i, groups, state, owners) if owners else []
        fresh = [bound for bound in found if bound.executor is None]
        if len(fresh) > 1:
            self._assign_in_parallel(fresh, group)
        for bound in fresh:
            if bound.executor is None:
                self._assign(bound, group)
        for bound in found:
            bound.set_numbers(h, shared, scale)
        return found

    def _numbers(self, i: int, group: dict[str, Any], scaled: bool) -> tuple[Specialization, SimpleNamespace]:
        """The specialization and the plain numbers of a group; checked when one of its values has changed."""
        rule = self.rule
        now = (scaled, group.get("initial_lr"), *self.hypers(group))
        if i in self.specializations:
            before, key, h = self.specializations[i]
            if before is not None and all(map(is_, now, before)):
                return key, h
            changed = self._changed_floats(before, now)
            if changed is not None:
                for name in changed:
                    rule.hypers[name].check(group[name])
                h = SimpleNamespace(**{**vars(h), **{name: group[name] for name in changed}})
                h.initial_lr = _initial_lr(group)
                self.specializations[i] = now, key, h
                return key, h
        rule.check_hypers(group)
        key, h = specialize(rule, group, scaled), fields.read(rule.hypers, group)
        h.initial_lr = _initial_lr(group)
        self.specializations[i] = (None if any(map(_is_mutable, now)) else now, key, h)
        return key, h

    def _changed_floats(self, before: tuple[Any, ...] | None, now: tuple[Any, ...]) -> list[str] | None:
        """The hyperparameters that differ, where those are plain floats and none of them was switched on or off."""
        if before is None or not all(map(is_, before[:2], now[:2])):
            return None
        changed = []
        for h, old, new in zip(self.rule.hypers.values(), before[2:], now[2:], strict=True):
            if new is not old:
                plain = h.annotation == "float" and type(old) is type(new) is float
                if not plain or (h.switchable and (old == h.off) != (new == h.off)):
                    return None
                changed.append(h.name)
        return changed

    def _reuse(
        self, where: Any, key: Specialization, owners: list[Tensor], state: dict[Any, Any]
    ) -> list[BoundBatch] | None:
        """The batches of the last step, if they hold these parameters and nothing about them has changed."""
        found = self.batches.get(where)
        if not found or (found[0].requested is not key and found[0].requested != key):
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
            if not bound.refresh(mine, functools.partial(_states, state, mine)):
                return None
            bound.firsts = self.no_firsts
        return found

    def _bind(
        self, key: Specialization, i: int, groups: list[dict[str, Any]], state: dict[Any, Any], owners: list[Tensor]
    ) -> list[BoundBatch]:
        """Sort parameters into batches that take the same step, and create what is missing of their states."""
        group, rule, storage = groups[i], self.rule, self.storage
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
                self.undo.append((p, mine, dict(mine)))
            firsts = frozenset(rule.firsts.get(spec.name, "first") for spec in specs if missing(spec, p, h, mine))
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
            begin = {**self.no_firsts, **dict.fromkeys(firsts, 1.0)}
            bound = BoundBatch(ps, states, specs, keys[matrix], storage, ids, state, i, begin)
            bound.requested = key
            unmoved = bound.refresh(ps, functools.partial(_states, state, ps))
            assert unmoved
            bounds.append(bound)
        return bounds

    def _assign_in_parallel(self, bounds: list[BoundBatch], group: dict[str, Any]) -> None:
        """Assign backends to several batches at once, so that compilers run in parallel.

        While the interpreter shuts down no thread can start; then the caller assigns them one by one.
        """
        chosen = []
        with ThreadPoolExecutor(min(len(bounds), os.cpu_count() or 1)) as threads, contextlib.suppress(RuntimeError):
            for bound in bounds:
                chosen.append(threads.submit(self._assign, bound, group))
        for one in chosen:
            one.result()

    def _assign(self, bound: BoundBatch, group: dict[str, Any]) -> None:
        batch = bound.batch
        if batch.sharded:  # asked for since its group was made
            sharding.check(self.rule, group, self.storage.state_dtype)
        while bound.executor is None:
            backend, why = select.choose(self.backend, batch, self.failed)
            try:
                bound.set_executor(backend, why, select.prepare(backend, batch))
            except CompilerError as error:
                if self.backend != "auto":
                    raise
                said = self.failed.setdefault(backend, str(error))
                if self.warned_by.setdefault(backend, bound) is bound:  # one batch of several warns
                    warnings.warn(f"a slower backend runs, since the compiler failed: {said}", stacklevel=2)


def _initial_lr(group: dict[str, Any]) -> Any:
    """What the learning rate was before any schedule changed it."""
    return fields.plain(group.get("initial_lr", group.get("first_lr", group["lr"])))


def _states(state: dict[Any, Any], owners: list[Tensor]) -> list[Any]:
    """The state of each parameter; None where it has none."""
    if len(state) == len(owners) and all(map(is_, state, owners)):
        return list(state.values())  # many times faster than to look each up
    return [state.get(p) for p in owners]


def draws(rule: type[RuleClass], storage: Storage, groups: list[dict[str, Any]]) -> bool:
    """Whether a step needs random bits."""
    if any(not switch or group[switch] for switch in rule.drawing for group in groups):
        return True
    return storage.rounding == "stochastic" or storage.state_dtype not in (None, "float32")


def _is_mutable(value: Any) -> bool:
    """Whether the value of a hyperparameter may change while the object stays the same."""
    return isinstance(value, (Tensor, list)) or (isinstance(value, tuple) and any(isinstance(v, Tensor) for v in value))


def _run_stages(bounds: list[BoundBatch]) -> dict[str, Any]:
    """Run every stage of every batch, and return all totals.

    A total is complete when all batches that add to it have done so.
    """
    if not any(stage.gives for bound in bounds for stage in bound.batch.plan.stages):
        for bound in bounds:
            for k in range(len(bound.batch.plan.stages)):
                bound.executor.run(k, {})
        return {}
    at = dict.fromkeys(range(len(bounds)), 0)
    stages = [bound.batch.plan.stages for bound in bounds]
    shares: dict[str, list[Any]] = defaultdict(list)
    while at:
        pending = {name for i, k in at.items() for stage in stages[i][k:] for name in stage.gives}
        totals = {name: _sum(parts) for name, parts in shares.items() if name not in pending}
        runnable = [i for i, k in at.items() if not stages[i][k].needs & pending]
        for i in runnable:
            for name, share in bounds[i].executor.run(at[i], totals).items():
                shares[name].append(share)
            at[i] += 1
            if at[i] == len(stages[i]):
                del at[i]
    return {name: _sum(parts) for name, parts in shares.items()}


def _store_shared(groups: list[dict[str, Any]], bounds: list[BoundBatch], totals: dict[str, Any]) -> None:
    """Store the new values of the numbers that all parameters of a group have in common.

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
