"""Updates inside backward: parameters step as their gradients arrive, and the gradients are freed at once.

Gradients of small parameters wait for each other, up to ``POOL`` elements, since a step of many costs little more than
that of one. So the memory of all gradients of a larger model is never there together. What needs all of them, or
gradients of several backward passes, cannot be combined with it: clipping by the global norm, totals in a rule,
accumulation, ``GradScaler``, a closure. Nor can what changes a gradient once it has arrived, as DistributedDataParallel
and FSDP1 do, which average it.
"""

from __future__ import annotations

import functools
import weakref
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable

from thalweg._base.errors import bad_argument
from thalweg.engine.protocol import SteppedOptimizer
from thalweg.runtime.sharding import averaged_later, check_alone

#: elements of gradients that may wait to be used together; a megabyte in float32
POOL = 1 << 18


class InBackward:
    """The hooks of one optimizer, and which of its parameters have stepped in the update that is under way.

    Attributes:
        hooks: parameters and their hooks; ``groups``: numbers of their groups; ``done``: those whose gradient has
            arrived in this update. All of them by the id of a parameter, which ``hooks`` or ``params`` keeps alive: a
            tensor takes longer to look up.
        pool: those whose gradient waits to be used, each with the number of its group; ``size`` elements in all.
        task: the number of the backward pass, as torch counts them, in which they arrived.
    """

    def __init__(self, optimizer: SteppedOptimizer) -> None:
        """Register the hooks.

        Raises:
            ValueError: where an update needs more than one parameter's gradient, or a gradient is there already.
        """
        self._optimizer = weakref.ref(optimizer)  # hooks must not keep it alive
        self.hooks: dict[int, tuple[Tensor, Any]] = {}
        self.params: list[Tensor] = []
        self.lengths: list[int] = []
        self.groups: dict[int, int] = {}
        self.done: set[int] = set()
        self.pool: list[tuple[int, Tensor]] = []
        self.size, self.task = 0, -1
        self.begun = False  # whether a part of this update has been made
        self.looked = False
        self._refuse_averaged_later()
        for group in optimizer.param_groups:
            check_alone(optimizer.rule, group)
            if any(p.grad is not None for p in group["params"]):
                raise bad_argument("grad", "a gradient that is there already", "none: call zero_grad() first")
        for i in range(len(optimizer.param_groups)):
            self.watch(i)

    @property
    def optimizer(self) -> SteppedOptimizer:
        """The optimizer that owns this object."""
        optimizer = self._optimizer()
        assert optimizer is not None
        return optimizer

    def join(self, i: int) -> None:
        """Watch a group that is new.

        Raises:
            ValueError: where its updates need more than one parameter's gradient. Of one that comes to need them later
                the step says so.
        """
        check_alone(self.optimizer.rule, self.optimizer.param_groups[i])
        self.watch(i)

    def watch(self, i: int) -> None:
        """Register the hooks that are missing in a group; a parameter that asks for no gradient now may do so later."""
        for p in self.optimizer.param_groups[i]["params"]:
            if id(p) not in self.hooks and p.requires_grad:
                hook = functools.partial(_arrived, weakref.ref(self))
                self.hooks[id(p)] = p, p.register_post_accumulate_grad_hook(hook)

    def arrive(self, p: Tensor) -> None:
        """Take the gradient that a parameter has now, to be used and freed soon; not of one that has left its group."""
        if not self.done:  # an update begins: the groups are the user's to change between two
            self._begin()
        key = id(p)
        i = self.groups.get(key)
        if i is None:
            return
        if key in self.done:
            p.grad = None
            raise RuntimeError(
                "a second gradient arrived before step() was called: gradients cannot be accumulated when updates are "
                "fused into backward. Call step() after each backward, or use a larger batch, or leave "
                "fuse_into_backward() out"
            )
        self.done.add(key)
        task = torch._C._current_graph_task_id()
        if task != self.task:
            self._begin_pass(task)
        self.pool.append((i, p))
        self.size += p.numel()
        if self.size >= POOL:
            self.use()

    def _begin_pass(self, task: int) -> None:
        """Use what waits, which is of a pass around this one, or of one that failed."""
        self.pool = [(k, q) for k, q in self.pool if q.grad is not None]
        if self.pool:
            self.use()
        self.size, self.task = 0, task
        Variable._execution_engine.queue_callback(functools.partial(_ended, weakref.ref(self)))

    @torch.no_grad()
    def use(self) -> None:
        """Update the parameters whose gradients wait, and free those."""
        pool, self.pool, self.size = self.pool, [], 0
        if any(p.grad is None for _, p in pool):
            raise RuntimeError(
                "a gradient was used and freed inside backward before this optimizer saw it: "
                "another optimizer of the same parameter is fused into backward too"
            )
        if pool:
            optimizer = self.optimizer
            optimizer._stepper.run(optimizer.param_groups, optimizer.state, only=pool, begun=self.begun)
            self.begun = True
        for _, p in pool:
            p.grad = None

    def _begin(self) -> None:
        _refuse_scaler(self.optimizer)
        lists = [group["params"] for group in self.optimizer.param_groups]
        params, lengths = [*chain.from_iterable(lists)], [*map(len, lists)]
        if lengths != self.lengths or not all(map(is_, params, self.params)):
            self.params, self.lengths = params, lengths
            self.groups = {id(p): i for i, of_group in enumerate(lists) for p in of_group}
            self.optimizer._stepper.forget()  # batches hold their parameters, and where each stands
            for gone in self.hooks.keys() - self.groups.keys():
                self.hooks.pop(gone)[1].remove()
        if not self.looked:  # it may have been put around the model since
            self.looked = True
            self._refuse_averaged_later()

    def _refuse_averaged_later(self) -> None:
        who = averaged_later({p for group in self.optimizer.param_groups for p in group["params"]})
        if who:
            raise bad_argument(
                "optimizer", "fused into backward", f"a step after backward: {who}, so the processes would drift apart",
                "Leave fuse_into_backward() out, or shard with fully_shard (FSDP2), which reduces first",
            )  # fmt: skip

    def end(self) -> None:
        """An update has ended: the next gradients belong to the next one.

        Gradients that came to no hook, given by hand or to parameters that were frozen before, are used now.
        """
        optimizer = self.optimizer
        _refuse_scaler(optimizer)
        late = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if late:
            optimizer._stepper.run(optimizer.param_groups, optimizer.state, begun=self.begun)
        for p in late:
            p.grad = None
        self.pool, self.size = [], 0  # of a pass that failed; its gradients are among these, or were set to None
        self.done.clear()
        self.begun = False
        for i in range(len(optimizer.param_groups)):
            self.watch(i)


def _arrived(me: weakref.ref[InBackward], p: Tensor) -> None:
    """Autograd calls this when a gradient has arrived. It holds no reference that keeps the optimizer alive."""
    here = me()
    if here is not None:
        here.arrive(p)


def _ended(me: weakref.ref[InBackward]) -> None:
    """Autograd calls this at the end of a backward pass that raised no error."""
    here = me()
    if here is not None:
        here.task = -1
        here.use()


def _refuse_scaler(optimizer: SteppedOptimizer) -> None:
    """Refuse a ``GradScaler``: it shows itself only at ``step``, after the first scaled gradients have been used."""
    if hasattr(optimizer, "found_inf") or hasattr(optimizer, "grad_scale"):
        raise bad_argument(
            "scaler", "GradScaler", "none: the gradients were used, still scaled, inside backward", "Train in bfloat16"
        )
