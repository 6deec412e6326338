"""Everything that a rehearsal touches, kept, and put back as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.diagnosis.families import innermost
from thalweg.train import rng

#: what holds other values
_CONTAINERS = (dict, list)


class Snapshot:
    """The values of a model, of optimizers and of random generators; ``restore`` puts them back, as often as asked.

    Snapshot are parameters, buffers and gradients, whatever else modules hold as attributes (modes, counters, caches of
    tensors, generators), the states and groups of optimizers, and the generators of torch, numpy and Python. Tensors
    stay the objects that they are: their values are copied back into them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self._rng = rng.capture()
        self._tensors: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._containers: dict[int, tuple[Any, Any]] = {}
        self._generators: dict[int, tuple[torch.Generator, Tensor]] = {}
        self._gradients: list[tuple[Tensor, Tensor | None, bool]] = []
        for generator in generators:
            self._keep(generator)
        for p in _parameters(model, optimizers):
            self._gradients.append((p, p.grad, p.requires_grad))
            self._keep(p)
            self._keep(p.grad)
        for module in model.modules():
            self._keep(vars(module))
        for optimizer in optimizers:
            for layer in _layers(optimizer):
                self._keep(vars(layer))

    def restore(self) -> None:
        """Put everything back as it was."""
        for container, content in self._containers.values():
            container.clear()
            container.update(content) if isinstance(container, dict) else container.extend(content)
        with torch.no_grad():
            for tensor, data, value in self._tensors.values():
                if tensor.data_ptr() != data.data_ptr() or tensor.shape != data.shape:
                    tensor.data = data
                tensor.copy_(value)
        for p, gradient, trainable in self._gradients:
            p.requires_grad_(trainable)
            p.grad = gradient
        for generator, state in self._generators.values():
            generator.set_state(state)
        rng.restore(self._rng)

    def _keep(self, value: Any) -> None:
        if isinstance(value, Tensor):
            if id(value) not in self._tensors and value.layout == torch.strided and not value.is_meta:
                self._tensors[id(value)] = (value, value.detach(), value.detach().clone())
        elif isinstance(value, torch.Generator):
            self._generators.setdefault(id(value), (value, value.get_state()))
        elif isinstance(value, _CONTAINERS):
            if id(value) not in self._containers:
                self._containers[id(value)] = (value, value.copy())
                for one in list(value.values() if isinstance(value, dict) else value):
                    self._keep(one)
        elif isinstance(value, tuple):
            for one in value:
                self._keep(one)


def _parameters(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[Tensor]:
    held = (p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"])
    yield from {id(p): p for p in (*model.parameters(), *held)}.values()


def _layers(optimizer: torch.optim.Optimizer) -> Iterator[torch.optim.Optimizer]:
    """An optimizer, and those that it stands around."""
    yield optimizer
    while optimizer is not innermost(optimizer):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]
        yield optimizer
