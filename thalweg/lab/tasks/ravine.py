"""A ravine: linear regression of a matrix whose features have a steep spectrum; its excess risk is known exactly."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks._model import evaluating

D = 64
NOISE = 0.1


@functools.cache
def _drawn() -> tuple[Tensor, Tensor]:
    """Two Gaussian matrices, drawn once and for all."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(D, D, generator=generator), torch.randn(D, D, generator=generator)


def truth() -> Tensor:
    """The matrix $W^*$ (64, 64) to be found."""
    return _drawn()[0] / math.sqrt(D)


def scales() -> Tensor:
    """Standard deviations of the features along their own axes: $i^{-1.25}$, so variances $i^{-2.5}$."""
    return torch.pow(torch.arange(1, D + 1), -1.25)


@functools.cache
def axes() -> Tensor:
    """A rotation (64, 64) that no coordinate knows of."""
    Q: Tensor = torch.linalg.qr(_drawn()[1]).Q
    return Q


class Ravine(Task):
    """Find a 64×64 matrix from noisy products; the features' spectrum falls like i^-2.5."""

    name = "ravine"
    steps = 300
    batch_size = 64
    unit = "excess risk"
    fixed = frozenset({"model"})
    head = ()  # its one matrix stands for a hidden one
    good_for = "a badly conditioned problem with an exact loss: Muon is ahead, AdamW is behind momentum"
    seconds_per_run = 0.06

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
        W, root, generator = truth(), self.root(), torch.Generator().manual_seed(seed)
        while True:
            x = torch.randn(self.batch_size, D, generator=generator) @ root.T
            yield x, x @ W.T + NOISE * torch.randn(self.batch_size, D, generator=generator)

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
        return {"source": f"generated, seed 0; spectrum i^-2.5, label noise {NOISE}"}
