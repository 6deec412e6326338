"""A model's double, to be run or traced in its place."""

from __future__ import annotations

import contextlib
import copy
import re
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from thalweg.groups import unsharded
from thalweg.groups.shapes import META
from thalweg.shards.pieces import is_distributed


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


def twin(model: nn.Module, *, values: bool, hooks: bool = False) -> nn.Module:
    """A deep copy in eval mode, so that nothing a forward does can reach the model; every parameter needs a gradient.

    What torch.compile has compiled of it runs as it was written, and so does what is sharded, with whole weights.

    Args:
        model: any module; what ``copy.deepcopy`` raises is passed on.
        values: whether its tensors are copied too; else they are on ``meta`` and take no memory.
        hooks: whether forward hooks are kept, which may write what they see to where the user looks. Hooks that come
            before a forward are, since some make the weights.
    """
    memo: dict[int, Any] = {}
    for p in model.parameters():
        value = _copied(p.detach(), values)
        memo[id(p)] = nn.Parameter(value, requires_grad=p.is_floating_point() or p.is_complex())
    changed = list(unsharded.changed(model))
    memo.update((id(module), unsharded.shell(module)) for module in changed)
    with _Copies(values):
        for module in changed:
            unsharded.fill(memo[id(module)], module, memo)
        double = copy.deepcopy(model, memo).eval()
    for module in double.modules():
        if not hooks:
            module._forward_hooks.clear()
        if (inner := dict(module.named_children()).get("_orig_mod")) is not None:
            vars(module)["forward"] = inner.__call__
    return double


def _copied(x: Tensor, values: bool) -> Tensor:
    """A copy of a tensor, or its shape alone; of a part of one, the whole."""
    if is_distributed(x):
        return unsharded.whole(x, values)
    return x.clone() if values else torch.empty_like(x, device=META)


class _Copies(TorchFunctionMode):
    """How ``copy.deepcopy`` copies tensors, in this thread: those that a hook has computed, too."""

    def __init__(self, values: bool) -> None:
        super().__init__()
        self.values = values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A copy of a tensor; any other call as it is."""
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        x, memo = args
        if id(x) not in memo:
            copied = _copied(x.detach(), self.values)
            memo[id(x)] = copied.requires_grad_(x.requires_grad and x.is_leaf)
        return memo[id(x)]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Gradients on, and no function compiled, in this thread alone."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # this turns gradients on, too
        if "torch._dynamo" in sys.modules:  # something may be compiled; else it would be a slow import for nothing
            stack.enter_context(torch._guards.tracing(_uncompiled()))
        yield


def _uncompiled() -> Any:
    """What makes compiled functions run as they were written, in this thread; torch's own switch is for all threads."""
    running: Any = SimpleNamespace(in_kernel_invocation=True, shape_env=None)
    return torch._guards.TracingContext(running)


@contextlib.contextmanager
def randomness_kept(model: nn.Module) -> Iterator[None]:
    """Torch's random states, of the model's devices too, put back at the end, if this thread has drawn from them.

    They belong to the process: where nothing was drawn, what other threads have drawn meanwhile stays drawn.
    """
    devices = [device for device in {p.device for p in model.parameters()} if device.type not in ("cpu", "meta")]
    states = [getattr(torch, device.type).get_rng_state(*_which(device)) for device in devices]
    before = torch.get_rng_state()
    with (watch := _Draws()):
        yield
    if watch.drew:
        torch.set_rng_state(before)
        for device, state in zip(devices, states, strict=True):
            getattr(torch, device.type).set_rng_state(state, *_which(device))


def _which(device: torch.device) -> tuple[torch.device, ...]:
    """The argument that tells a device of its kind; ``mps`` is one alone."""
    return () if device.type == "mps" else (device,)


_DRAWS = re.compile(
    r"rand|dropout|rrelu|gumbel|bernoulli|multinomial|poisson|fractional_max_pool|scaled_dot_product|multi_head|"
    r"^(normal|uniform|exponential|cauchy|log_normal|geometric|random|lstm|gru|rnn_tanh|rnn_relu)_?$"
)


class _Draws(TorchFunctionMode):
    """Notes whether a function was called, in this thread, that may draw random numbers."""

    drew = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of torch, as it is."""
        self.drew = self.drew or bool(_DRAWS.search(getattr(func, "__name__", "")))
        return func(*args, **(kwargs or {}))
