"""A small convolutional network on scikit-learn's 8×8 digits."""

from __future__ import annotations

import functools

from torch import nn

from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks._supervised import Split, Supervised, split
from thalweg.lab.tasks.digits import HELD, SOURCE, pictures


@functools.cache
def grey() -> Split:
    """Pictures with one channel (n, 1, 8, 8)."""
    return split(*pictures(), HELD)


class DigitsCnn(Supervised):
    """A CNN (16-32-32 channels) on 8×8 digits."""

    name = "digits-cnn"
    steps = 300
    batch_size = 64
    source = SOURCE
    good_for = "a small CNN, over-fitted: AdamW ahead of Muon by less than eight seeds could settle"
    seconds_per_run = 0.5

    def examples(self) -> Split:
        """1,297 to train on, 500 held out."""
        return grey()

    def model(self, seed: int) -> nn.Module:
        """Some 15,000 parameters."""
        return fresh(seed, lambda: cnn(8))


def cnn(size: int) -> nn.Sequential:
    """Three 3×3 convolutions (16, 32, 32 channels), two poolings, one linear layer, for grey pictures size×size."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten()),
        nn.Linear(32 * (size // 4) ** 2, 10),
    )
