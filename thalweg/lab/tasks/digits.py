"""Scikit-learn's 8×8 digits: a perceptron, a small CNN, and a deep auto-encoder of the enlarged pictures."""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.lab.tasks._supervised import Split, Supervised, seeded, split

SOURCE = "scikit-learn load_digits (UCI optical recognition of handwritten digits)"
HELD = 500


@functools.cache
def pictures() -> tuple[Tensor, Tensor]:
    """1,797 pictures (n, 8, 8) in [0, 1], and their digits (n,)."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32).view(-1, 8, 8) / 16, torch.tensor(y, dtype=torch.long)


class Digits(Supervised):
    """A perceptron 64-128-128-10 on 8×8 digits, over-fitted on purpose."""

    name = "digits"
    steps = 500
    batch_size = 64
    source = SOURCE
    good_for = "seeing 'not settled': it fits its data perfectly, and seeds differ as much as optimizers"

    @functools.cached_property
    def examples(self) -> Split:
        """1,297 to train on, 500 held out."""
        x, y = pictures()
        return split(x.flatten(1), y, HELD)

    def model(self, seed: int) -> nn.Module:
        """Three linear layers."""
        return seeded(
            seed,
            lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)),
        )


class DigitsCnn(Supervised):
    """A CNN (16-32-32 channels) on 8×8 digits."""

    name = "digits-cnn"
    steps = 300
    batch_size = 64
    source = SOURCE
    good_for = "a convolutional net on few data; all sound optimizers come close"

    @functools.cached_property
    def examples(self) -> Split:
        """1,297 to train on, 500 held out."""
        x, y = pictures()
        return split(x[:, None], y, HELD)

    def model(self, seed: int) -> nn.Module:
        """Three convolutions and a linear layer."""
        return seeded(seed, cnn, 8)


def cnn(size: int) -> nn.Module:
    """Three 3×3 convolutions (16, 32, 32 channels), two poolings, one linear layer, for size×size grey pictures."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten()),
        nn.Linear(32 * (size // 4) ** 2, 10),
    )


class Autoencoder(Supervised):
    """A deep tanh auto-encoder 784-128-64-12-64-128-784 on the digits enlarged to 28×28."""

    name = "autoencoder"
    steps = 500
    batch_size = 64
    source = SOURCE + ", enlarged bilinearly"
    unit = "nats per pixel"
    good_for = "an ill-conditioned landscape with a plateau: to predict the mean picture"

    @functools.cached_property
    def examples(self) -> Split:
        """Pictures that are their own targets."""
        x, _ = pictures()
        large = F.interpolate(x[:, None], size=28, mode="bilinear").flatten(1)
        return split(large, large, HELD)

    def criterion(self, output: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy of grey values."""
        return F.binary_cross_entropy_with_logits(output, target)

    def model(self, seed: int) -> nn.Module:
        """Six linear layers with tanh between."""
        sizes = (784, 128, 64, 12, 64, 128, 784)
        return seeded(seed, _tanh_layers, sizes)


def _tanh_layers(sizes: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
