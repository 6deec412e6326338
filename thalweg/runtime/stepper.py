"""One step: parameters are sorted into batches, backends make them ready, and their stages run in order."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.ir import counter_rng
from thalweg.ir.trace import RuleClass
from thalweg.native.compiler import CompilerError
from thalweg.runtime import guards, sharding, together
from thalweg.runtime.backends import select
from thalweg.runtime.batch import BoundBatch
from thalweg.runtime.binding import Binder, Binding, uncollected
from thalweg.runtime.formats import Storage
from thalweg.runtime.group_numbers import GroupNumbers, GroupReader
from thalweg.runtime.state import SideBySide
from thalweg.runtime.together import FlowingExecutor
from thalweg.runtime.totals import TotalSums
from thalweg.shards.agreement import TAKEN, Agreement, Member, Terms
from thalweg.shards.exchange import Trouble
from thalweg.shards.pieces import ranks_of

#: where a training loop may have left torch.autocast on
AUTOCAST = ("cpu", "cuda")
#: backends that run mixed batches
MIXING = ("cpu", "triton")
#: ranks that exchange nothing compare their settings at the first step, and then once in so many
EVERY = 100


class _CannotMixError(Exception):
    """The chosen backend needs batches in which all tensors take the same numbers."""


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
        self.binder = Binder(rule, storage, backend in ("auto", *MIXING) and guards.available())
        self.agreement = Agreement()
        self.binder.gapped = self.agreement.gapped
        self.steps = 0
        self.lent: list[Tensor] = []  # parameters that have a gradient for this step alone
        self.state: dict[Any, Any] = {}  # of the step at hand, as :meth:`run` is given it
        self.laid: Sequence[SideBySide] = []  # numbers that a checkpoint has brought, for the next step
        self.forget()

    def forget(self) -> None:
        """Make all batches again at the next step: the groups have changed, or the states were replaced."""
        self.bindings: dict[int | None, Binding] = {}  # of some parameters by the id of the first; of all by None
        self.reader = GroupReader(self.rule)
        self.binder.ids = {}

    def _follow(self, state: dict[Any, Any]) -> None:
        """Go on with another dict of states, as of a loaded checkpoint: with all batches as they are, or none."""
        bounds = [bound for binding in self.bindings.values() for bound in binding.bounds]
        if not all(bound.follow(state, self.laid) for bound in bounds):
            self.forget()
        self.state, self.laid = state, []

    def run(
        self,
        groups: list[dict[str, Any]],
        state: dict[Any, Any],
        inverse_scale: float | None = None,
        only: Sequence[tuple[int, Tensor]] | None = None,
        begun: bool = False,
    ) -> None:
        """Update the parameters that have a gradient.

        Args:
            groups: the parameter groups.
            state: the dict from parameters to their states.
            inverse_scale: what gradients must be multiplied with; None for 1.
            only: some parameters, each with the number of its group, to update these alone.
            begun: whether this goes on with an update, and does not begin one.
        """
        if torch._C._is_any_autocast_enabled():
            for device in AUTOCAST:
                if torch.is_autocast_enabled(device):
                    with torch.autocast(device, enabled=False):  # a rule says for itself what it computes in
                        self.run(groups, state, inverse_scale, only, begun)
                    return
        if self.state is not state:
            self._follow(state)
        if only is None:
            self.steps += 1
        try:
            binding = self._read(groups, inverse_scale, only)
            updates = [group.get("updates", 0) + (not begun) for group in groups] if binding.draws else []
            prepare = self._agree if self._must_agree(binding) else self._prepare
            ready = prepare(binding, groups, updates)
        except BaseException:
            self._roll_back()
            raise
        self.binder.undo = []
        if updates:
            for group, count in zip(groups, updates, strict=True):
                group["updates"] = count  # where checkpoints keep it
        self.agreement.trouble.error = None  # of a step before, which a collective may have ended
        try:
            totals = _run_stages(ready, self.agreement.trouble)
            if self.shared:
                _store_shared(groups, ready, totals)
            for bound in ready:
                bound.finish()
        finally:
            if self.lent:
                self._return_lent()

    def _read(
        self,
        groups: list[dict[str, Any]],
        scale: float | None,
        only: Sequence[tuple[int, Tensor]] | None,
    ) -> Binding:
        """The parameters that a step is about, and its numbers.

        Where these cannot be read, other ranks that wait for this one are told.
        """
        try:
            if only is None:
                found: Sequence[GroupNumbers] = self.reader.read_all(groups, scale)
                binding = self.bindings.get(None)
                if binding is not None and binding.found is found:
                    return binding
                return self._binding(None, found, range(len(groups)), [group["params"] for group in groups], groups)
            chosen = list(dict.fromkeys(i for i, _ in only))
            found = [self.reader.read(i, groups[i], scale) for i in chosen]
            lists = [[p for k, p in only if k == i] for i in chosen]
            return self._binding(id(only[0][1]), found, chosen, lists, groups)
        except Exception as error:
            if only is None:
                parts, watched = self._apart([*map(self._read_or_default, groups)], range(len(groups)))
                self.agreement.refuse(error, _members(groups, parts), self._due(watched))
            raise

    def _set_numbers(
        self, ready: list[BoundBatch], binding: Binding, groups: list[dict[str, Any]], updates: list[int]
    ) -> None:
        """Give the batches the numbers of this step."""
        numbers = binding.of_group
        for i in binding.chosen if updates else ():
            numbers[i]["key"] = counter_rng.key(groups[i].setdefault("seed", self.seed), updates[i])
        for spec in self.shared:
            for i in binding.chosen:
                numbers[i][spec.name] = groups[i][spec.name]
        for bound in ready:
            bound.set_numbers(numbers)

    # -- batches ----------------------------------------------------------------------------------------------------

    def _prepare(self, binding: Binding, groups: list[dict[str, Any]], updates: list[int]) -> list[BoundBatch]:
        """The batches of the parameters with a gradient, each with its backend and its numbers.

        Args:
            binding: the parameters, and the numbers of their groups.
            groups: all groups.
            updates: of each, how many updates there are with this one; empty where no random bits are drawn.
        """
        try:
            ready = binding.refresh(groups, self.state, self.binder)
            if not binding.whole and any(bound.batch.plan.over_all for bound in ready):
                for i in binding.chosen:
                    sharding.check_alone(self.rule, groups[i])
            fresh = [bound for bound in ready if bound.executor is None]
            if fresh:
                with uncollected():
                    self._assign_all(fresh, groups)
        except _CannotMixError:
            self._restore_states()
            self.binder.mixing = False
            binding.start_over()
            return self._prepare(binding, groups, updates)
        self._set_numbers(ready, binding, groups, updates)
        return ready

    # -- other ranks ------------------------------------------------------------------------------------------------

    def _due(self, watched: Iterable[tuple[int, Tensor]]) -> list[Tensor]:
        """Of parameters that ranks exchange nothing of, those among whose ranks settings are compared at this step."""
        return [p for _, p in watched] if self.steps % EVERY == 1 else []

    def _must_agree(self, binding: Binding) -> bool:
        return bool(binding.parts or (binding.watched and binding.whole and self._due(binding.watched)))

    def _agree(self, binding: Binding, groups: list[dict[str, Any]], updates: list[int]) -> list[BoundBatch]:
        """Find with the other ranks which parameters move; where only others have a gradient, it is 0 here."""
        if not binding.whole:
            raise bad_argument(
                "rounding", self.storage, "nothing rounded at random, for these parts inside backward: their "
                "owners draw", "Call step() after backward",
            )  # fmt: skip
        common = {
            "optimizer": self.rule.__name__, "backend": self.backend, "the compiler": self._compiler(),
            "storage": str(self.storage),
        }  # fmt: skip
        apart = {i for i, _ in (*binding.parts, *binding.watched)}
        numbers = [
            {**one.numbers, "seed": groups[i].get("seed"), TAKEN: self._taken(groups[i])} if i in apart else {}
            for i, one in zip(binding.chosen, binding.found, strict=True)
        ]
        ready: list[BoundBatch] = []
        binding.mark()

        def prepare() -> str:
            # what was prepared before gradients were lent is taken back, so that all ranks make the same batches
            self._restore_states()
            binding.go_back()
            ready[:] = self._prepare(binding, groups, updates)
            return ", ".join(sorted(self.failed)) or "none"

        terms = Terms(common, numbers, prepare, self._lend)
        self.agreement.moving(_members(groups, binding.parts), terms, self._due(binding.watched))
        return ready

    def _taken(self, group: dict[str, Any]) -> float | None:
        """How many steps the states of a group have seen; of a rule that sends nothing only whether there are any.

        There a parameter may have no gradient on some ranks, so only states that a checkpoint has brought must agree.
        """
        mine: dict[str, Any] = next((kept for p in group["params"] if (kept := self.state.get(p))), {})
        if not self._exchanges(group):
            return float(bool(mine)) if self.steps == 1 else None
        counts = (mine[name] for name, spec in self.rule.states.items() if spec.counted and name in mine)
        return float(next(counts, bool(mine)))

    def _lend(self, p: Tensor) -> None:
        """Give a parameter a gradient for this step alone: zeros, where only other ranks have one."""
        p.grad = torch.zeros_like(p)
        self.lent.append(p)

    def _compiler(self) -> str:
        return "found" if guards.available() and not self.failed else "none"

    def _return_lent(self) -> None:
        """Take the gradients back that parameters have for this step alone."""
        while self.lent:
            self.lent.pop().grad = None

    def _binding(
        self,
        where: int | None,
        found: Sequence[GroupNumbers],
        chosen: Sequence[int],
        lists: list[list[Tensor]],
        groups: list[dict[str, Any]],
    ) -> Binding:
        """The binding of these parameters; a new one if they or their specializations have changed."""
        binding = self.bindings.get(where)
        if binding is not None and binding.holds(found, lists):
            binding.take(found)
        else:
            if where is None:
                self.binder.ids = {}  # of parameters that have left or moved
            binding = self.bindings[where] = Binding(found, chosen, lists, where is None)
            parts, watched = self._apart(groups, chosen)
            here = {*map(id, binding.params)}
            binding.parts, binding.watched = [(i, p) for i, p in parts if id(p) in here], watched
        binding.draws = draws(self.rule, self.storage, groups)
        return binding

    def _apart(
        self, groups: list[dict[str, Any]], chosen: Iterable[int]
    ) -> tuple[list[tuple[int, Tensor]], list[tuple[int, Tensor]]]:
        """Parameters of which other ranks have parts that a step looks at; and of the others one for each mesh."""
        parts: list[tuple[int, Tensor]] = []
        others: list[tuple[int, Tensor]] = []
        for i in chosen:
            apart = [(i, p) for p in groups[i]["params"] if ranks_of(p)]
            (parts if apart and self._exchanges(groups[i]) else others).extend(apart)
        met = {ranks_of(p) for _, p in parts}
        watched = {(i, ranks): p for i, p in reversed(others) if (ranks := ranks_of(p)) not in met}
        return parts, [(i, p) for (i, _), p in watched.items()]

    def _exchanges(self, group: dict[str, Any]) -> bool:
        """Whether ranks exchange something at a step of a group of which each has parts."""
        placed = not self.storage.rounds or all(
            together.places_draws(p, self.backend) for p in group["params"] if ranks_of(p)
        )
        return not (placed and sharding.moves_alone(self.rule, group))

    def _read_or_default(self, group: dict[str, Any]) -> dict[str, Any]:
        """A group; with the defaults of the rule in the place of values that are refused."""
        bad = {}
        for name, h in self.rule.hypers.items():
            try:
                h.check(group[name])
            except (KeyError, TypeError, ValueError):
                bad[name] = h.default
        return {**group, **bad}

    def _roll_back(self) -> None:
        """Undo a step that was refused: with a state that it began, the next step would not be the first."""
        self._return_lent()
        self._restore_states()
        self.forget()

    def _restore_states(self) -> None:
        for p, mine, before in reversed(self.binder.undo):
            mine.clear()
            mine.update(before)
            if not before:
                self.state.pop(p, None)
        self.binder.undo = []

    def _assign_all(self, fresh: list[BoundBatch], groups: list[dict[str, Any]]) -> None:
        if len(fresh) > 1:
            self._assign_in_parallel(fresh, groups)
        for bound in fresh:
            if bound.executor is None:
                self._assign(bound, groups)

    def _assign_in_parallel(self, bounds: list[BoundBatch], groups: list[dict[str, Any]]) -> None:
        """Assign backends to several batches at once, so that compilers run in parallel.

        While the interpreter shuts down no thread can start; then the caller assigns them one by one.
        """
        chosen = []
        with ThreadPoolExecutor(min(len(bounds), os.cpu_count() or 1)) as threads, contextlib.suppress(RuntimeError):
            for bound in bounds:
                chosen.append(threads.submit(self._assign, bound, groups))
        for one in chosen:
            one.result()

    def _assign(self, bound: BoundBatch, groups: list[dict[str, Any]]) -> None:
        batch, exchange = bound.batch, None
        if batch.sharded:  # asked for since its group was made
            for i in set(bound.groups):
                sharding.check(self.rule, groups[i], self.storage.state_dtype)
            if bound.kind.ranks and (batch.rounds or not batch.plan.shape_blind):
                exchange = self.agreement.exchange(bound.owners[0])
        while bound.executor is None:
            backend, why = select.choose(self.backend, batch, self.failed)
            if batch.mixed and backend not in MIXING:
                raise _CannotMixError
            try:
                if exchange is None or together.moves_alone(batch, backend):
                    ready = select.prepare(backend, batch)
                else:
                    ready = together.executor(bound, backend, exchange)
                bound.set_executor(backend, why, ready)
            except CompilerError as error:
                if self.backend != "auto":
                    raise
                said = self.failed.setdefault(backend, str(error))
                if self.warned_by.setdefault(backend, bound) is bound:  # one batch of several warns
                    warnings.warn(f"a slower backend runs, since the compiler failed: {said}", stacklevel=2)


def draws(rule: type[RuleClass], storage: Storage, groups: list[dict[str, Any]]) -> bool:
    """Whether a step needs random bits."""
    for switch in rule.drawing:
        for group in groups:
            if not switch or group[switch]:
                return True
    return storage.rounds


def _members(groups: list[dict[str, Any]], parts: Iterable[tuple[int, Tensor]]) -> list[Member]:
    return [Member(_name(groups[i], p), i, p) for i, p in parts]


def _name(group: dict[str, Any], p: Tensor) -> str:
    """How a message calls a parameter."""
    k = next(k for k, one in enumerate(group["params"]) if one is p)
    return str(group["param_names"][k]) if "param_names" in group else f"parameter {k}"


def _run_stages(bounds: list[BoundBatch], trouble: Trouble) -> dict[str, Any]:
    """Run every stage of every batch, and return all totals.

    A total is complete when all batches that add to it have done so. Where ranks exchange parts, one that has failed
    goes on as far as the next collective, and there tells the others.
    """
    totals: dict[str, Any] = {}
    waiting = [bound for bound in bounds if bound.waits]
    if not waiting:
        for bound in bounds:
            for k in range(len(bound.batch.plan.stages)):
                bound.executor.run(k, {})
    elif any(bound.batch.plan.over_all for bound in waiting):
        totals = _run_with_totals(bounds, trouble)
    else:
        _run_overlapping([_flow(bound, trouble) for bound in bounds])
    if trouble.error is not None:
        trouble.end()
    return totals


def _flow(bound: BoundBatch, trouble: Trouble) -> Iterator[None]:
    """All stages of a batch; yields wherever tensors travel."""
    executor = bound.executor
    for k in range(len(bound.batch.plan.stages)):
        if isinstance(executor, FlowingExecutor):
            yield from executor.flow(k, {})
        else:
            trouble.attempt(functools.partial(executor.run, k, {}), None)


def _run_overlapping(flows: list[Iterator[None]]) -> None:
    """While the tensors of one batch travel, begin the next, then go on with those before it; on all ranks alike."""
    begun: list[Iterator[None]] = []
    while flows or begun:
        begun = [*flows[:1], *begun]
        flows = flows[1:]
        begun = [flow for flow in begun if next(flow, begun) is None]


def _run_with_totals(bounds: list[BoundBatch], trouble: Trouble) -> dict[str, Any]:
    """Run the stages as soon as the totals that they need are complete."""
    at = dict.fromkeys(range(len(bounds)), 0)
    stages = [bound.batch.plan.stages for bound in bounds]
    totals = TotalSums()
    while at:
        pending = {name for i, k in at.items() for stage in stages[i][k:] for name in stage.gives}
        known = totals.complete(pending)
        runnable = [i for i, k in at.items() if not stages[i][k].needs & pending]
        for i in runnable:
            executor = bounds[i].executor
            exchange = getattr(executor, "exchange", None)
            if exchange is None:
                nothing: dict[str, Any] = {name: [] for name in stages[i][at[i]].gives}
                shares = trouble.attempt(functools.partial(executor.run, at[i], known), nothing)
            else:
                shares = executor.run(at[i], known)
            totals.add(shares, exchange)
            at[i] += 1
            if at[i] == len(stages[i]):
                del at[i]
    return totals.complete(set())


def _store_shared(groups: list[dict[str, Any]], bounds: list[BoundBatch], totals: dict[str, Any]) -> None:
    """Store the new values of the numbers that all parameters of a group have in common.

    A group whose parameters had no gradient takes what follows from sums over all tensors from another group.
    """
    known = {name: float(total) for name, total in totals.items()}
    common: dict[str, float] = {}
    found: dict[int, dict[str, float]] = {}
    for bound in bounds:
        group = bound.groups[0]
        if group not in found:
            traced = bound.batch.plan.traced
            values = bound.host.with_totals(bound.batch.h, known)
            found[group] = {spec.name: float(values[traced.outputs[spec.name]]) for spec in traced.shared}
            for name in traced.common:
                common.setdefault(name, found[group][name])
    for k, one in enumerate(groups):
        one.update(found.get(k) or {name: value for name, value in common.items() if name in one})
