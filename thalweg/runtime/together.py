"""How a batch of parts is stepped: by the owners of the wholes, or where they are, with owners for sums and leaves."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from thalweg.ir.ops import PER_TENSOR
from thalweg.ir.passes import Plan, Stage
from thalweg.runtime.backends import select
from thalweg.runtime.backends.staged import StagedExecutor
from thalweg.runtime.batch import Batch, BoundBatch
from thalweg.runtime.demands import Demand, demands, inputs, serves_parts, slot
from thalweg.runtime.tensors import in_runs
from thalweg.runtime.wholes import Wholes
from thalweg.shards.exchange import Exchange

#: a stage, which yields wherever tensors travel, and gives what it adds to totals
Flow = Generator[None, None, dict[str, Any]]
#: backends that run one pass after the other, so that something may happen between
STAGED = ("cpu", "triton")
#: backends that draw for an element of a part what they would in the whole
DRAWING = ("cpu", "eager", "foreach")


class FlowingExecutor:
    """What runs a batch of parts, and may do something else while they travel."""

    waits = True

    def flow(self, stage: int, totals: dict[str, Any]) -> Flow:
        """Do one stage of the plan; yields wherever tensors travel."""
        raise NotImplementedError

    def run(self, stage: int, totals: dict[str, Any]) -> dict[str, Any]:
        """Do one stage, and wait wherever tensors travel."""
        flow = self.flow(stage, totals)
        while True:
            try:
                next(flow)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]


@dataclass
class OwnersExecutor(FlowingExecutor):
    """A batch of parts, stepped by the executor of the wholes.

    Attributes:
        wholes: the parameters.
        inner: what runs those that this rank owns; None where there are none.
    """

    wholes: Wholes
    inner: Any
    reads_gradients = True

    @property
    def exchange(self) -> Exchange:
        """The collectives among the ranks that have the other parts."""
        return self.wholes.exchange

    def flow(self, stage: int, totals: dict[str, Any]) -> Flow:
        """Do one stage of the plan; the first begins with putting wholes together, the last ends with sending back."""
        stages, attempt = self.wholes.bound.batch.plan.stages, self.exchange.trouble.attempt
        shares: dict[str, Any] = {name: [] for name in stages[stage].gives}
        if stage == 0:
            yield from self.wholes.bring(self.wholes.kept, lambda: _begin(self.wholes, self.inner))
        if self.inner:
            shares = attempt(lambda: self._run(stage, totals), shares)
        if stage == len(stages) - 1:
            yield from self.wholes.send_back(self.wholes.changed, sent=self.wholes.release)
        return shares

    def _run(self, stage: int, totals: dict[str, Any]) -> dict[str, Any]:
        """Do one stage of the wholes, and free their gradients before its leaves if nothing reads them any more."""
        inner = self.inner
        if isinstance(inner, StagedExecutor) and not reads_gradients_behind(inner.batch.plan, stage):
            return inner.run(stage, totals, self.wholes.free_gradients)
        return inner.run(stage, totals)  # type: ignore[no-any-return]


@dataclass
class PartsExecutor(FlowingExecutor):
    """A batch of parts, each stepped where it is; the owners compute sums over whole tensors, and leaves.

    Attributes:
        wholes: the parameters.
        here: what runs the parts.
        inner: what runs the wholes that this rank owns; None where there are none.
        demands: of each stage.
    """

    wholes: Wholes
    here: StagedExecutor
    inner: StagedExecutor | None
    demands: tuple[Demand, ...]
    reads_gradients = True

    @property
    def exchange(self) -> Exchange:
        """The collectives among the ranks that have the other parts."""
        return self.wholes.exchange

    def flow(self, stage: int, totals: dict[str, Any]) -> Flow:
        """Do one stage of the plan."""
        stages, attempt = self.wholes.bound.batch.plan.stages, self.exchange.trouble.attempt
        this, demand, inner = stages[stage], self.demands[stage], self.inner
        if stage == 0:
            attempt(self._start, None)
        if demand.before:
            yield from self.wholes.bring(self.wholes.with_beside(demand.before))
        shares: dict[str, Any] = {name: [] for name in this.gives}
        if this.sums and inner:
            shares = attempt(lambda: inner.run_pass(stage, totals), shares)
        attempt(lambda: self.here.run_pass(stage, totals), None)
        self._tell_sums(this)
        if this.leaves:
            yield from self._run_leaves(this, demand, stage)
        if stage == len(stages) - 1:
            attempt(lambda: self._end(totals), None)
        return shares

    def _end(self, totals: dict[str, Any]) -> None:
        for executor in self._executors():
            executor.end(totals)
        self.wholes.parts_between, self.wholes.wholes_between = {}, {}
        self.wholes.release()

    def _executors(self) -> Iterable[StagedExecutor]:
        return (self.here, self.inner) if self.inner else (self.here,)

    def _start(self) -> None:
        wholes = self.wholes
        _begin(wholes, self.inner)
        for executor in self._executors():
            executor.start()
        wholes.parts_between = self.here.lists
        wholes.wholes_between = self.inner.lists if self.inner else {}

    def _tell_sums(self, stage: Stage) -> None:
        """Write the sums over each whole tensor, which its owner knows, to where the next pass looks."""
        nodes = [n for n in stage.sums if n.meta["extent"] == PER_TENSOR]
        if not nodes:
            return
        wholes = self.wholes
        ranks, inner = range(len(wholes.exchange.ranks)), self.inner
        forms = [[((len(nodes), n), torch.float64)] if n else [] for n in map(wholes.owner.count, ranks)]
        mine = forms[wholes.exchange.me]
        come = wholes.exchange.swap(
            lambda: [[torch.stack([inner.vector(n) for n in nodes])] if inner else [] for _ in ranks],
            [mine for _ in ranks], forms,
        )  # fmt: skip
        self.exchange.trouble.attempt(lambda: self._write_sums(nodes, come), None)

    def _write_sums(self, nodes: Sequence[fx.Node], come: Sequence[Sequence[Tensor]]) -> None:
        for rank, found in enumerate(come):
            at = [i for i, owner in enumerate(self.wholes.owner) if owner == rank]
            for sums in found:
                for node, values in zip(nodes, sums, strict=True):
                    self.here.vector(node)[at] = values.to(self.wholes.bound.batch.device)

    def _run_leaves(self, this: Stage, demand: Demand, stage: int) -> Iterator[None]:
        wholes, inner, attempt = self.wholes, self.inner, self.exchange.trouble.attempt

        def make_room() -> None:
            if inner and not this.sums:
                inner.make_room(this)

        def make_lists() -> None:
            for name in demand.gives:
                self.here.make_list(name)

        def drop_results() -> None:
            if inner:
                self._drop(inner, stage, demand.gives)

        yield from wholes.bring(
            wholes.with_beside(demand.behind), make_room, functools.partial(self._drop, self.here, stage)
        )
        if inner:
            attempt(lambda: inner.run_leaves(this), None)
            self._drop(inner, stage)
        yield from wholes.send_back(demand.gives, make_lists, drop_results)

    def _drop(self, executor: StagedExecutor, stage: int, sent: Sequence[str] = ()) -> None:
        """Free what lives within the step, was sent, or read by a leaf, and is read by no pass or leaf to come."""
        plan = self.wholes.bound.batch.plan
        later = [one for one in plan.stages[stage + 1 :] if executor is self.here or one.sums or one.leaves]
        read = {slot(plan, n) for one in later for n in (*one.loads, *inputs(one))}
        for name in {*sent, *(slot(plan, n) for n in inputs(plan.stages[stage]))} - read:
            executor.lists.pop(name, None)


def moves_alone(batch: Batch, backend: str) -> bool:
    """Whether parts are stepped where they are, without a word to other ranks."""
    return batch.plan.shape_blind and draws_in_place(batch, backend)


def draws_in_place(batch: Batch, backend: str) -> bool:
    """Whether what this backend rounds at random is rounded as it would be in the whole."""
    return not batch.rounds or (bool(batch.runs) and backend in DRAWING)


def places_draws(p: Any, backend: str) -> bool:
    """Whether this is so for a parameter, whichever backend ``"auto"`` stands for."""
    return in_runs(p) and (p.device.type == "cpu" or backend in ("eager", "foreach"))


def executor(bound: BoundBatch, backend: str, exchange: Exchange) -> Any:
    """Make a batch of parts ready for a backend."""
    batch = bound.batch
    if backend in STAGED and may_part(batch, backend):
        asked = demands(batch.plan)
        needed = _needed(batch.plan, asked)
        wholes = Wholes(bound, exchange)
        wholes = Wholes(bound, exchange, wholes.with_beside(needed))
        return PartsExecutor(wholes, select.prepare(backend, batch), _prepared(backend, wholes), asked)
    wholes = Wholes(bound, exchange)
    return OwnersExecutor(wholes, _prepared(backend, wholes))


def _prepared(backend: str, wholes: Wholes) -> Any:
    """What runs the wholes of this rank, which have no memory before a step begins; None where there are none."""
    inner = select.prepare(backend, wholes.batch) if wholes.batch else None
    wholes.release()
    return inner


def _begin(wholes: Wholes, inner: Any) -> None:
    """Give the wholes memory, and tell what runs them where it is."""
    wholes.begin()
    if isinstance(inner, StagedExecutor):
        for name, tensors in inner.held().items():
            inner.point(name, tensors)


def may_part(batch: Batch, backend: str) -> bool:
    """Whether parts may be stepped where they are, and only some of what a step reads needs to be whole.

    Else something must be computed where a tensor is whole, or random bits be drawn there.
    """
    return batch.dense and draws_in_place(batch, backend) and serves_parts(batch.plan)


def reads_gradients_behind(plan: Plan, stage: int) -> bool:
    """Whether gradients are read by a leaf behind this pass, or by what comes later."""
    loads = [n for one in plan.stages[stage + 1 :] for n in one.loads]
    leaves = [n for one in plan.stages[stage:] for leaf in one.leaves for n in leaf.all_input_nodes]
    return any(n.op == "placeholder" and n.target == "g" for n in (*loads, *leaves))


def _needed(plan: Plan, asked: Iterable[Demand]) -> set[str]:
    """What must be whole: what is sent, and what passes write that owners run."""
    stored = {name for stage in plan.stages if stage.sums for name in stage.stores}
    return {name for demand in asked for name in (*demand.before, *demand.behind)} | stored
