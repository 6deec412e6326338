"""A deep auto-encoder, the classical ill-conditioned network (Hinton & Salakhutdinov 2006; Martens 2010)."""

from __future__ import annotations

import functools
import itertools

from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks._supervised import Split, Supervised, split
from thalweg.lab.tasks.digits import HELD, SOURCE, pictures

SIDE = 28


@functools.cache
def enlarged() -> Split:
    """Pictures (n, 784) that are their own targets."""
    small, _ = pictures()
    large = F.interpolate(small, size=SIDE, mode="bilinear").flatten(1)
    return split(large, large, HELD)


class Autoencoder(Supervised):
    """A deep tanh auto-encoder 784-128-64-12-64-128-784 on digits enlarged to 28×28."""

    name = "autoencoder"
    steps = 500
    batch_size = 64
    source = f"{SOURCE}, enlarged bilinearly to {SIDE}×{SIDE}"
    unit = "nats per pixel"
    good_for = "an ill-conditioned landscape: Muon is ahead of AdamW, and momentum is far behind"
    seconds_per_run = 0.9

    def examples(self) -> Split:
        """1,297 to train on, 500 held out."""
        return enlarged()

    def criterion(self, output: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy of grey values in [0, 1]; its least value is their entropy, not 0."""
        return F.binary_cross_entropy_with_logits(output, target)

    def model(self, seed: int) -> nn.Module:
        """Some 0.22 M parameters."""
        return fresh(seed, lambda: tanh_layers(SIDE**2, 128, 64, 12, 64, 128, SIDE**2))


def tanh_layers(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes with tanh between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
