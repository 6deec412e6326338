"""Thalweg: optimizers and schedules for PyTorch, and a fair race between them."""

from thalweg import groups, optim, schedule, train, wrap
from thalweg._base.version import __version__
from thalweg.optim import *  # noqa: F403 - the list of optimizers stands in thalweg/optim/__init__.py
from thalweg.registry import create, optimizers
from thalweg.wrap import ASAM, EMA, SAM, Lookahead, Mechanic

__all__ = [
    "ASAM",
    "EMA",
    "SAM",
    "Lookahead",
    "Mechanic",
    "__version__",
    "create",
    "groups",
    "optim",
    "optimizers",
    "schedule",
    "train",
    "wrap",
]
__all__ += optim.__all__
