"""Thalweg: optimizers and schedules for PyTorch, and a fair race between them."""

from thalweg._base.version import __version__

__all__ = ["__version__"]
