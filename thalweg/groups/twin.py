"""A model's double, to be run or traced in its place."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator

import torch
from torch import nn


def unwrapped(model: nn.Module) -> tuple[str, nn.Module]:
    """The model inside DataParallel, DistributedDataParallel and torch.compile, and the prefix of its names there."""
    prefix = ""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            name = "module"
        elif "_orig_mod" in model._modules:
            name = "_orig_mod"
        else:
            return prefix, model
        prefix, model = f"{prefix}{name}.", model.get_submodule(name)


def twin(model: nn.Module, *, values: bool) -> nn.Module:
    """A deep copy in eval mode, so that nothing a forward does can reach the model; every parameter needs a gradient.

    Args:
        model: any module; what ``copy.deepcopy`` raises is passed on.
        values: whether the parameters are copied too; else they are on ``meta`` and take no memory.
    """
    memo = {}
    for p in model.parameters():
        value = p.detach().clone() if values else torch.empty_like(p, device="meta")
        memo[id(p)] = nn.Parameter(value, requires_grad=p.is_floating_point() or p.is_complex())
    return copy.deepcopy(model, memo).eval()


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Gradients on, compilation off, and torch's random states, of the model's devices too, put back at the end."""
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([]))
        for device in devices:
            stack.enter_context(torch.random.fork_rng([device], device_type=device.type))
        stack.enter_context(torch.inference_mode(False))  # this turns gradients on, too
        if "torch._dynamo" in sys.modules:  # something may be compiled; else it would be a slow import for nothing
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
