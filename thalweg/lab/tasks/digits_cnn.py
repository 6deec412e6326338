"""A small convolutional network on scikit-learn's 8×8 digits."""

from __future__ import annotations

import functools

from torch import nn

from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks._supervised import Split, Supervised, split
from thalweg.lab.tasks.digits import HELD, SOURCE, pictures
from thalweg.lab.tasks.scaled import width


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
    good_for = "a small CNN that over-fits: eight seeds cannot settle whether Muon or AdamW is ahead"
    seconds_per_run = 0.5

    def examples(self) -> Split:
        """1,297 to train on, 500 held out."""
        return grey()

    def model(self, seed: int, size: float = 1) -> nn.Module:
        """Some 15,000 parameters; of another size it has more channels."""
        channels = width(lambda c: cnn(8, c), 16, size)
        return fresh(seed, lambda: cnn(8, channels))


def cnn(size: int, channels: int = 16) -> nn.Sequential:
    """Three 3×3 convolutions, two poolings, one linear layer, for grey pictures size×size.

    The convolutions have ``channels``, and then twice as many.
    """
    twice = 2 * channels
    return nn.Sequential(
        *(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(channels, twice, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(twice, twice, 3, padding=1), nn.ReLU(), nn.Flatten()),
        nn.Linear(twice * (size // 4) ** 2, 10),
    )
