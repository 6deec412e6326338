"""A ravine: linear regression of a matrix whose features have a steep spectrum; its excess risk is known exactly."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks._model import evaluating

D = 64
NOISE = 0.1


@functools.cache
def truth() -> Tensor:
    """The matrix $W^*$ (64, 64) to be found."""
    W: Tensor = torch.randn(D, D, generator=torch.Generator().manual_seed(0)) / D**0.5
    return W


@functools.cache
def scales() -> Tensor:
    """Standard deviations of the features along their own axes: $i^{-1.25}$, so variances $i^{-2.5}$."""
    i: Tensor = torch.arange(1, D + 1)
    return i.pow(-1.25)


@functools.cache
def axes() -> Tensor:
    """A rotation (64, 64), drawn once and for all."""
    Q, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(1)))
    return Q


class Ravine(Task):
    """Find a 64×64 matrix from noisy products; the features' spectrum falls like i^-2.5."""

    name = "ravine"
    steps = 300
    batch_size = 64
    unit = "excess risk"
    head = ()  # its one matrix stands for a hidden one
    good_for = "conditioning alone, with an exact loss; a matrix method's home ground"

    def root(self) -> Tensor:
        """A root $R$ of the features' covariance, $x = Rz$ with $z$ standard normal."""
        return axes() * scales()

    def model(self, seed: int) -> nn.Module:
        """One matrix, at zero: the seed moves the data alone."""
        matrix = nn.Linear(D, D, bias=False)
        nn.init.zeros_(matrix.weight)
        return matrix

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        r"""$x = Rz$ and $y = W^* x + 0.1\,\epsilon$, fresh ones at each step."""
        root, generator = self.root(), torch.Generator().manual_seed(seed)
        while True:
            x = torch.randn(self.batch_size, D, generator=generator) @ root.T
            yield x, x @ truth().T + NOISE * torch.randn(self.batch_size, D, generator=generator)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        r"""$\frac12 \|Wx - y\|^2$, mean over the batch."""
        x, y = batch
        return 0.5 * F.mse_loss(model(x), y, reduction="sum") / len(x)

    def evaluate(self, model: nn.Module) -> float:
        r"""$\frac12 \|(W - W^*) R\|_F^2$: the expected loss above that of $W^*$, exactly."""
        x = self.root().T
        with evaluating(model):
            return float(0.5 * (model(x) - x @ truth().T).square().sum())

    def sample(self) -> Tensor:
        """Two features."""
        return torch.zeros(2, D)

    def data(self) -> Mapping[str, str]:
        """Made up."""
        return {"source": f"generated; spectrum i^-2.5, label noise {NOISE}"}
