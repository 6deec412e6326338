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
def truth() -> tuple[Tensor, Tensor]:
    r"""The matrix $W^*$ (64, 64) to be found, and the root of the features' covariance, with eigenvalues $i^{-2.5}$."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(D, D, generator=generator) / D**0.5
    Q, _ = torch.linalg.qr(torch.randn(D, D, generator=generator))
    root = Q * torch.arange(1, D + 1) ** -1.25
    return W, root


class Ravine(Task):
    """Find a 64×64 matrix from noisy products; the features' spectrum falls like i^-2.5."""

    name = "ravine"
    steps = 300
    batch_size = 64
    unit = "excess risk"
    head = ()  # its one matrix stands for a hidden one
    good_for = "conditioning alone, with an exact loss; a matrix method's home ground"

    def model(self, seed: int) -> nn.Module:
        """One matrix, at zero: the seed moves the data alone."""
        matrix = nn.Linear(D, D, bias=False)
        nn.init.zeros_(matrix.weight)
        return matrix

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        r"""$x = \Sigma^{1/2} z$ and $y = W^* x + 0.1\,\epsilon$, fresh ones at each step."""
        W, root = truth()
        generator = torch.Generator().manual_seed(seed)
        while True:
            x = torch.randn(self.batch_size, D, generator=generator) @ root.T
            yield x, x @ W.T + NOISE * torch.randn(self.batch_size, D, generator=generator)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        r"""$\frac12 \|Wx - y\|^2$, mean over the batch."""
        x, y = batch
        return 0.5 * F.mse_loss(model(x), y, reduction="sum") / len(x)

    def evaluate(self, model: nn.Module) -> float:
        r"""$\frac12 \mathrm{tr}\,(W-W^*)\,\Sigma\,(W-W^*)^T$: the expected loss above the noise, exactly."""
        W, root = truth()
        with evaluating(model):
            return float(0.5 * (model(root.T) - root.T @ W.T).square().sum())

    def sample(self) -> Tensor:
        """Two features."""
        return torch.zeros(2, D)

    def data(self) -> Mapping[str, str]:
        """Generated."""
        return {"source": "generated, seed 0; spectrum i^-2.5, label noise 0.1"}
