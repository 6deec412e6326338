"""Every global random generator that a task or a model may draw from, at a seed."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
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
    _accelerators_too()(value)


@functools.cache
def _accelerators_too() -> Callable[[int], torch.Generator]:
    """``torch.manual_seed`` where there is an accelerator. Where there is none, it keeps what is to be done with each
    kind at its first use, with the stack of the caller: a fifth of the time of a short run, and memory at each call.
    """
    return torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed


@contextmanager
def seeded(value: int) -> Iterator[None]:
    """The generators at a seed; afterwards they are where they were."""
    state = rng.capture()
    seed(value)
    try:
        yield
    finally:
        rng.restore(state)
