"""Curves in the manner of MNIST-1D (Greydanus & Kobak 2024, "Scaling down deep learning with MNIST-1D", section 2).

Ten templates are padded, stretched, scaled, moved, covered with noise and sheared, with the paper's numbers. The
templates are drawn again, so losses are not those of the published set.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks._supervised import Split, Supervised
from thalweg.lab.tasks.digits import perceptron

#: how far right of the middle a pen is that draws 0 to 9 from top to bottom
TEMPLATES = (
    (0, 2, 3, 4, 4, 4, 4, 4, 4, 3, 2, 0),
    (0, -1, -2, 1, 1, 1, 1, 1, 1, 1, 1, 0),
    (0, 3, 4, 3, 1, -1, -3, -4, -4, 0, 4, 0),
    (0, 3, 4, 3, 1, 0, 1, 3, 4, 4, 2, 0),
    (0, -1, -2, -3, -4, -4, 2, 2, 2, 2, 2, 0),
    (0, -4, -4, -4, -1, 2, 4, 4, 3, 0, -3, 0),
    (0, -2, -4, -4, -4, -2, 1, 2, 1, -2, -3, 0),
    (0, 4, 4, 3, 2, 1, 0, -1, -2, -3, -4, 0),
    (0, 3, 3, 0, -3, 0, 3, 4, 3, 0, -3, 0),
    (0, -3, -4, -2, 2, 3, 3, 3, 3, 3, 2, 0),
)
EXAMPLES, TRAIN, SEED = 5000, 4000, 42
#: points of a curve: as drawn, with the longest padding, and as the network sees it
DRAWN, PADDED, SEEN = 12, 72, 40


@functools.cache
def curves() -> Split:
    """4,000 curves to train on and 1,000 held out, (n, 40), zero mean and unit variance; classes (n,) in turn."""
    random = torch.Generator().manual_seed(SEED)
    y = torch.arange(EXAMPLES) % len(TEMPLATES)
    x = _sheared(_noisy(*_moved(*_drawn(y, random), random), random), random)
    x = F.interpolate(x[:, None], SEEN, mode="linear", align_corners=True)[:, 0]
    x = (x - x.mean()) / x.std()
    return Split(x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:])


def _drawn(y: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Templates with 36 to 60 points of padding, stretched to 72 points, scaled by 0.8 to 1.2; and where they are."""
    templates = torch.tensor(TEMPLATES, dtype=torch.float32)
    templates = templates / templates.std(1, keepdim=True) / 6
    padded = F.pad(templates, (0, PADDED - DRAWN + 1))[y]
    padding = torch.randint(36, 61, (len(y), 1), generator=random)
    place = torch.linspace(0, 1, PADDED) * (DRAWN + padding - 1)
    left = place.long()
    curve = torch.lerp(padded.gather(1, left), padded.gather(1, left + 1), place - left)
    return curve * _uniform(len(y), 0.8, 1.2, random), place < DRAWN


def _moved(curve: Tensor, drawn: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each rotated by 0 to 47 points."""
    shift = torch.randint(48, (len(curve), 1), generator=random)
    place = (torch.arange(PADDED) - shift) % PADDED
    return curve.gather(1, place), drawn.gather(1, place)


def _noisy(curve: Tensor, drawn: Tensor, random: torch.Generator) -> Tensor:
    """Smooth noise (σ = 0.25, then a Gaussian filter of width 2) beside the drawing, white noise (0.02) everywhere."""
    kernel = torch.exp(-0.5 * (torch.arange(-8, 9) / 2) ** 2)
    noise = F.pad(0.25 * torch.randn(curve.shape, generator=random), (8, 8), mode="reflect")
    smooth = F.conv1d(noise[:, None], (kernel / kernel.sum())[None, None])[:, 0]
    return torch.where(drawn, curve, smooth) + 0.02 * torch.randn(curve.shape, generator=random)


def _sheared(curve: Tensor, random: torch.Generator) -> Tensor:
    """Each with a slope between -0.375 and 0.375 over its length added."""
    return curve + _uniform(len(curve), -0.375, 0.375, random) * torch.linspace(-0.5, 0.5, PADDED)


def _uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, generator=random)


class Mnist1d(Supervised):
    """A perceptron 40-100-100-10 on curves in the manner of MNIST-1D."""

    name = "mnist1d"
    steps = 600
    batch_size = 64
    source = f"generated after Greydanus & Kobak 2024, with templates of our own, seed {SEED}"
    good_for = "a model that over-fits at once: momentum, SGD and RMSprop are ahead of AdamW"
    seconds_per_run = 0.2

    def examples(self) -> Split:
        """4,000 to train on, 1,000 held out."""
        return curves()

    def model(self, seed: int) -> nn.Module:
        """Some 15,000 parameters."""
        return fresh(seed, lambda: perceptron(SEEN, 100, 100, 10))
