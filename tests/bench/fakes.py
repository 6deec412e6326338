"""Peers and optimizers that behave as the tests need."""

from types import SimpleNamespace

import torch


class Lion(torch.optim.SGD):
    """A peer's optimizer of that name."""


class AdamW(torch.optim.AdamW):
    """A peer's that cannot step."""

    def step(self, closure=None):
        raise NotImplementedError("no sparse bananas")


class RMSprop(torch.optim.RMSprop):
    """A peer's that works."""


PEER = SimpleNamespace(Lion=Lion, AdamW=AdamW, rms_prop=RMSprop, SGD=torch.optim.SGD, Adam="a word", __version__="1.2")
