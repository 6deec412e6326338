"""Every global random generator that a task or a model may draw from, at a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from thalweg.train import rng


def seed(value: int) -> None:
    """Seed Python's, numpy's and torch's global generators.

    Args:
        value: at least 0; numpy takes its last 32 bits.
    """
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


@contextmanager
def seeded(value: int) -> Iterator[None]:
    """The generators at a seed; afterwards they are where they were."""
    state = rng.capture()
    seed(value)
    try:
        yield
    finally:
        rng.restore(state)
