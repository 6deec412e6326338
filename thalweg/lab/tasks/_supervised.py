"""What tasks on a fixed set of examples share: batches by epochs, and a fixed held-out set."""

from __future__ import annotations

import abc
import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks._model import evaluating

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs and targets, to train on and held out; examples along the first dimension."""

    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor

    @functools.cached_property
    def sha256(self) -> str:
        """Of the bytes of all four tensors, in the order of the fields."""
        digest = hashlib.sha256()
        for tensor in (self.x, self.y, self.held_x, self.held_y):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def split(x: Tensor, y: Tensor, held: int) -> Split:
    """Hold out ``held`` examples, drawn once and for all."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    out, train = order[:held], order[held:]
    return Split(x[train], y[train], x[out], y[out])


class Supervised(Task):
    """Shuffled epochs; cross-entropy unless :meth:`criterion` says otherwise.

    Attributes:
        source: where the examples come from.
    """

    source: ClassVar[str]
    unit = "nats"

    @abc.abstractmethod
    def examples(self) -> Split:
        """The data; made or read once a process."""

    def criterion(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch."""
        return F.cross_entropy(output, target)

    def batches(self, seed: int) -> Iterator[Batch]:
        """Shuffled epochs without end; the incomplete batch at the end of each is left out."""
        examples = self.examples()
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(examples.x), generator=generator)
            for part in torch.split(order, self.batch_size):
                if len(part) == self.batch_size:
                    yield examples.x[part], examples.y[part]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The criterion on one batch."""
        x, y = batch
        return self.criterion(model(x), y)

    def evaluate(self, model: nn.Module) -> float:
        """The criterion on all held-out examples."""
        examples = self.examples()
        with evaluating(model):
            return self.criterion(model(examples.held_x), examples.held_y).item()

    def sample(self) -> Tensor:
        """Two examples."""
        return self.examples().x[:2]

    def data(self) -> Mapping[str, str]:
        """The source, and the hash of the very numbers that are trained on."""
        return {"source": self.source, "sha256": self.examples().sha256}
