"""A coordinate network: paint a photograph from where each pixel is."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.lab.tasks._supervised import Split, Supervised, seeded, split


class Fourier(nn.Module):
    """Random Fourier features (Tancik et al. 2020, eq. 5): (n, 2) to (n, 2·features), fixed."""

    frequencies: Tensor

    def __init__(self, features: int = 64, scale: float = 6.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(2, features))

    def forward(self, x: Tensor) -> Tensor:
        """Sines and cosines of random projections."""
        phase = 2 * torch.pi * x @ self.frequencies
        return torch.cat([phase.sin(), phase.cos()], -1)


class Photo(Supervised):
    """A coordinate network (Fourier features, 128-128-128-3) that paints a photograph."""

    name = "photo"
    steps = 500
    batch_size = 512
    source = "scikit-learn load_sample_image('china.jpg'), every sixth pixel"
    unit = "squared error"
    good_for = "fitting one signal with dense matrices; noise comes from the batches alone"

    @functools.cached_property
    def examples(self) -> Split:
        """Places in [0, 1]² and their colours in [0, 1]³; 1,000 pixels held out."""
        from sklearn.datasets import load_sample_image

        picture = torch.tensor(load_sample_image("china.jpg")[::6, ::6].copy(), dtype=torch.float32) / 255
        rows, columns = (torch.linspace(0, 1, n) for n in picture.shape[:2])
        places = torch.cartesian_prod(rows, columns)
        return split(places, picture.flatten(0, 1), 1000)

    def criterion(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of colours."""
        return F.mse_loss(output.sigmoid(), target)

    def model(self, seed: int) -> nn.Module:
        """Fixed features, four linear layers."""
        layers = lambda: nn.Sequential(  # noqa: E731
            *(Fourier(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()),
            *(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 3)),
        )
        return seeded(seed, layers)
