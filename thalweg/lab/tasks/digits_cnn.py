"""A small separable convolutional network on scikit-learn's 8×8 digits."""

from __future__ import annotations

import functools

from torch import nn

from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks._supervised import Split, Supervised, split
from thalweg.lab.tasks.digits import HELD, SOURCE, pictures

CHANNELS = 32


@functools.cache
def grey() -> Split:
    """Pictures with one channel (n, 1, 8, 8)."""
    return split(*pictures(), HELD)


class DigitsCnn(Supervised):
    """A depthwise-separable CNN with batch normalization (32 channels, 3 blocks) on 8×8 digits."""

    name = "digits-cnn"
    steps = 300
    batch_size = 64
    source = SOURCE
    good_for = "AdamW"

    def examples(self) -> Split:
        """1,297 to train on, 500 held out."""
        return grey()

    def model(self, seed: int) -> nn.Module:
        """Some 5,000 parameters."""
        return fresh(seed, mobile)


def mobile() -> nn.Sequential:
    """A convolution, three separable blocks (Howard et al. 2017, "MobileNets", figure 3), the mean over places, a head.

    In a depthwise convolution each channel has a 3×3 filter of its own: its weight (32, 1, 3, 3) is a list of filters,
    not a map from channels to channels.
    """
    first = normed(nn.Conv2d(1, CHANNELS, 3, padding=1, bias=False))
    blocks = [layer for _ in range(3) for layer in (*depthwise(), *pointwise())]
    return nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10))


def depthwise() -> list[nn.Module]:
    """A 3×3 filter for each channel."""
    return normed(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS, bias=False))


def pointwise() -> list[nn.Module]:
    """One matrix for all places."""
    return normed(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False))


def normed(convolution: nn.Conv2d) -> list[nn.Module]:
    """Followed by batch normalization and ReLU."""
    return [convolution, nn.BatchNorm2d(CHANNELS), nn.ReLU()]
