"""One run of the user's loss, with what was seen meanwhile: calls of losses, ReLUs, the model's input and output."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from thalweg.diagnosis.latents import Latent, latent
from thalweg.diagnosis.nodes import walk
from thalweg.diagnosis.preflight.losses import LossCall, finite, leaves_behind, loss_call, scalar_of
from thalweg.diagnosis.preflight.reading import tensors_of
from thalweg.diagnosis.preflight.softmaxes import Astray, astray
from thalweg.groups.twin import unwrapped

#: what a policy draws its actions with
_DRAWS = (torch.multinomial, Tensor.multinomial, torch.normal)
_RELUS = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu_)


@dataclass
class Forward:
    """What one run has shown.

    Attributes:
        calls: of losses, in their order.
        dead: for each ReLU, by the layer before it and its number, which units gave zero for all examples.
        inputs: the positional and keyword arguments of the model's first call; None where the loss did not call it.
        output: what that call returned.
        nonfinite: the first layer that gave something that is not finite for finite input; empty if there was none.
        value: what the loss returned.
        leaves: the ``id`` of each tensor that its backward gives a gradient to.
        astray: a softmax over another dimension than that over which its weights weigh; None without one.
        latent: of a variational auto-encoder; None of other models.
        acts: whether it draws actions by the model's outputs, so that the loss is no one function of the weights.
    """

    calls: list[LossCall] = field(default_factory=list)
    dead: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    output: Any = None
    nonfinite: str = ""
    value: Any = None
    leaves: set[int] = field(default_factory=set)
    astray: Astray | None = None
    latent: Latent | None = None
    acts: bool = False


def observe(model: nn.Module, loss: Callable[[nn.Module, Any], Any], batch: Any, seen: Forward) -> None:
    """Run ``loss(model, batch)`` once and write down what is seen, also where it raises; hooks are gone afterwards."""
    with _hooked(model, seen) as mode, mode:
        seen.value = loss(model, batch)
        value = scalar_of(seen.value)
        seen.leaves = leaves_behind(value)
        if (root := getattr(value, "grad_fn", None)) is not None:
            names = {id(p): name for name, p in model.named_parameters()}
            seen.astray, seen.latent = astray(walk(root), names), latent(value, names)


@contextlib.contextmanager
def _hooked(model: nn.Module, seen: Forward) -> Iterator[_Looking]:
    mode, handles = _Looking(seen), []
    try:
        handles += _at_the_top(model, seen)
        for name, module in unwrapped(model)[1].named_modules():
            handles.append(module.register_forward_hook(mode.after(name, module)))
        yield mode
    finally:
        for handle in handles:
            handle.remove()


def _at_the_top(model: nn.Module, seen: Forward) -> list[RemovableHandle]:
    def before(_: nn.Module, args: Any, kwargs: Any) -> None:
        if seen.inputs is None:
            seen.inputs = (args, dict(kwargs))

    def after(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if seen.output is None:
            seen.output = output

    return [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, with_kwargs=True),
    ]


class _Looking(TorchFunctionMode):
    """Sees each call of torch; modules tell it which of them was the last with parameters of its own."""

    def __init__(self, seen: Forward) -> None:
        super().__init__()
        self.seen = seen
        self.layer, self.channels_last = "", True

    def after(self, name: str, module: nn.Module) -> Callable[[nn.Module, Any, Any], None]:
        """A hook for a module that has given its output."""
        owns = bool(module._parameters)
        convolves = isinstance(module, (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm))

        def hook(_: nn.Module, args: Any, output: Any) -> None:
            if owns:
                self.layer, self.channels_last = name, not convolves
            if not self.seen.nonfinite and not _all_finite(output) and _all_finite(args):
                self.seen.nonfinite = name

        return hook

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call, as it is."""
        kwargs = kwargs or {}
        if call := loss_call(func, args, kwargs):
            self.seen.calls.append(call)
        self.seen.acts |= func in _DRAWS and isinstance(args[0] if args else None, Tensor)
        result = func(*args, **kwargs)
        if func in _RELUS and isinstance(result, Tensor) and result.ndim > 1:
            self.seen.dead[self.layer, len(self.seen.dead)] = self._dead(result.detach())
        return result

    def _dead(self, x: Tensor) -> Tensor:
        units = x.ndim - 1 if self.channels_last else 1
        return (x == 0).movedim(units, 0).flatten(1).all(dim=1)


def _all_finite(value: Any) -> bool:
    return all(finite(x) for x in tensors_of(value))
