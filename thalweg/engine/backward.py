"""Updates inside backward: each parameter steps as its gradient arrives, and the gradient is freed at once.

The memory of all gradients is never there together. What needs all of them, or gradients of several backward passes, cannot be
combined with it: clipping by the global norm, totals in a rule, accumulation, ``GradScaler``, a closure.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.engine import ops
from thalweg.engine.trace import trace, variant

if TYPE_CHECKING:
    from thalweg.engine.optimizer import Optimizer


def fuse(optimizer: Optimizer) -> None:
    """Register the hooks.

    Raises:
        ValueError: where an update needs more than one parameter's gradient, or a gradient is there already.
    """
    if optimizer._hooks:
        return
    for group in optimizer.param_groups:
        if group["clip_global_norm"] is not None:
            raise bad_argument(
                "clip_global_norm", group["clip_global_norm"], "None: it needs all gradients at once", "clip_norm bounds each tensor's"
            )
        totals = [n for n in trace(variant(type(optimizer), group)).graph.nodes if isinstance(n.target, ops.Total)]
        if totals:
            raise bad_argument("optimizer", type(optimizer).__name__, "a rule that updates each tensor by itself: this one sums over all")
        for p in group["params"]:
            if p.grad is not None:
                raise bad_argument("grad", "a gradient that is there already", "none: call zero_grad() first")
    me = weakref.ref(optimizer)
    done: set[int] = set()
    optimizer._fused_done = done

    @torch.no_grad()
    def hook(p: Tensor) -> None:
        opt = me()
        if opt is None:
            return
        if getattr(opt, "grad_scale", None) is not None:
            raise bad_argument("grad_scale", opt.grad_scale, "none: GradScaler needs all gradients before a step")
        if id(p) in done:
            raise RuntimeError(
                "a second gradient arrived before step() was called: gradients cannot be accumulated when updates are fused into "
                "backward. Call step() after each backward, or use a larger batch, or leave fuse_into_backward() out"
            )
        if not done:
            opt.updates += 1
        done.add(id(p))
        opt._steps.run(opt.param_groups, only=p)
        p.grad = None

    optimizer._hooks = [
        p.register_post_accumulate_grad_hook(hook) for g in optimizer.param_groups for p in g["params"] if p.requires_grad
    ]


def end(optimizer: Optimizer) -> None:
    """An update has ended: the next gradients belong to the next one."""
    optimizer._fused_done.clear()


