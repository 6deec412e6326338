"""Thalweg: optimizers and schedules for PyTorch, and a fair race between them."""

from thalweg import groups, schedule, train
from thalweg._base.version import __version__
from thalweg.optim import SGD, Adam, AdamW, Muon, RMSprop

__all__ = ["SGD", "Adam", "AdamW", "Muon", "RMSprop", "__version__", "groups", "schedule", "train"]
