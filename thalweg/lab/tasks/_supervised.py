"""What tasks on a fixed set of examples share: batches by epochs, a fixed held-out set."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.lab.tasks._base import Task

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Split:
    """Inputs and targets, to train on and held out; examples along the first dimension."""

    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor

    def sha256(self) -> str:
        """Of all four tensors."""
        digest = hashlib.sha256()
        for tensor in (self.x, self.y, self.held_x, self.held_y):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def split(x: Tensor, y: Tensor, held: int, seed: int = 0) -> Split:
    """Hold out ``held`` examples, the same ones always."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, out = order[held:], order[:held]
    return Split(x[train], y[train], x[out], y[out])


class Supervised(Task):
    """Epochs of shuffled batches; cross-entropy unless :meth:`criterion` says otherwise."""

    source: ClassVar[str]
    unit = "nats"

    @property
    @abc.abstractmethod
    def examples(self) -> Split:
        """The data; cached by the subclass."""

    def criterion(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss over a batch."""
        return F.cross_entropy(output, target)

    def batches(self, seed: int) -> Iterator[Batch]:
        """Shuffled epochs without end; a last, smaller batch is left out."""
        examples = self.examples
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(examples.x), generator=generator)
            for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
                part = order[start : start + self.batch_size]
                yield examples.x[part], examples.y[part]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The criterion on one batch."""
        x, y = batch
        return self.criterion(model(x), y)

    def evaluate(self, model: nn.Module) -> float:
        """The criterion on all held-out examples."""
        examples = self.examples
        with evaluating(model):
            return float(self.criterion(model(examples.held_x), examples.held_y))

    def sample(self) -> Tensor:
        """Two examples."""
        return self.examples.x[:2]

    def data(self) -> Mapping[str, str]:
        """Source and hash."""
        return {"source": self.source, "sha256": self.examples.sha256()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No gradients and eval mode; the modes are put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def seeded(seed: int, build: Callable[..., nn.Module], *args: object) -> nn.Module:
    """``build(*args)`` with torch's global generator at ``seed``, which is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(*args)
