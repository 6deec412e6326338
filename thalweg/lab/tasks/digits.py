"""A perceptron on scikit-learn's 8×8 digits."""

from __future__ import annotations

import functools
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks._supervised import Split, Supervised, split
from thalweg.lab.tasks.scaled import width

SOURCE = "scikit-learn load_digits (UCI, optical recognition of handwritten digits)"
#: pictures held out of the 1,797
HELD = 500


@functools.cache
def pictures() -> tuple[Tensor, Tensor]:
    """All 1,797 pictures (n, 1, 8, 8), grey in [0, 1], and their digits (n,).

    From the file that ``sklearn.datasets.load_digits`` reads: each worker would take a second to import scikit-learn.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    rows = np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    x, y = torch.from_numpy(rows[:, :-1]).float(), torch.from_numpy(rows[:, -1]).long()
    return x.view(-1, 1, 8, 8) / 16, y


@functools.cache
def flat() -> Split:
    """Pictures as vectors (n, 64)."""
    x, y = pictures()
    return split(x.flatten(1), y, HELD)


class Digits(Supervised):
    """A perceptron 64-128-128-10 on 8×8 digits, over-fitted on purpose."""

    name = "digits"
    steps = 500
    batch_size = 64
    source = SOURCE
    good_for = "a model that fits its data perfectly: seeds differ about as much as optimizers do"
    seconds_per_run = 0.2

    def examples(self) -> Split:
        """1,297 to train on, 500 held out."""
        return flat()

    def model(self, seed: int, size: float = 1) -> nn.Module:
        """Some 26,000 parameters; of another size its hidden layers are wider."""
        hidden = width(lambda h: perceptron(64, h, h, 10), 128, size)
        return fresh(seed, lambda: perceptron(64, hidden, hidden, 10))


def perceptron(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
