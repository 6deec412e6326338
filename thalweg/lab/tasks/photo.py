"""A coordinate network: paint a photograph from where each pixel is."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks._supervised import Split, Supervised, split
from thalweg.lab.tasks.digits import perceptron

#: distance of the pixels that are kept, each way
STRIDE = 2
#: pixels held out
HELD = 4000


class Fourier(nn.Module):
    """Random Fourier features (Tancik et al. 2020, eq. 5): (n, 2) to (n, 2·features), fixed."""

    frequencies: Tensor

    def __init__(self, features: int = 64, scale: float = 10.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(2, features))

    def forward(self, x: Tensor) -> Tensor:
        """Sines and cosines of random projections."""
        phase = 2 * torch.pi * x @ self.frequencies
        return torch.cat([phase.sin(), phase.cos()], -1)


@functools.cache
def pixels() -> Split:
    """Places (n, 2) in [0, 1]² and their colours (n, 3) in [0, 1]³."""
    from sklearn.datasets import load_sample_image

    picture = torch.tensor(load_sample_image("china.jpg")[::STRIDE, ::STRIDE].copy(), dtype=torch.float32) / 255
    rows, columns = (torch.linspace(0, 1, n) for n in picture.shape[:2])
    return split(torch.cartesian_prod(rows, columns), picture.flatten(0, 1), HELD)


class Photo(Supervised):
    """A coordinate network (Fourier features, 128-128-128-3) that paints a photograph."""

    name = "photo"
    steps = 500
    batch_size = 512
    source = "scikit-learn load_sample_image('china.jpg'), every second pixel of every second row"
    unit = "squared error"
    good_for = "a network that learns one picture: AdamW and Muon are nearly equal, momentum is behind"
    seconds_per_run = 1.1

    def examples(self) -> Split:
        """64,480 pixels to train on, 4,000 held out."""
        return pixels()

    def criterion(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of colours."""
        return F.mse_loss(output.sigmoid(), target)

    def model(self, seed: int) -> nn.Module:
        """Some 50,000 parameters, beside the fixed frequencies."""
        return fresh(seed, lambda: nn.Sequential(Fourier(), *perceptron(128, 128, 128, 128, 3)))
