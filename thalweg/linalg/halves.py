"""Symmetric products on a GPU at half the work: off, since no GPU was there to measure them on."""

from __future__ import annotations

import importlib
from types import ModuleType

from torch import Tensor

from thalweg._base.errors import ThalwegError, bad_argument

_is_on = False


def halve_products(on: bool = True) -> None:
    """Whether :func:`newton_schulz` and what calls it compute only one half of a symmetric product on a GPU, by Triton.

    Off unless this is called: the kernel gives what torch's product gives, which is tested in Triton's interpreter, but
    its speed was not measured on a GPU. Batches of matrices whose shorter side has 512 elements or more are where it
    may pay. It holds for the whole process.

    Args:
        on: True or False.

    Raises:
        ThalwegError: if Triton is not installed.
        ValueError: for anything else than True or False.
    """
    global _is_on
    if not isinstance(on, bool):
        raise bad_argument("on", on, "True or False")
    if on:
        _kernels()
    _is_on = on


def kernels(X: Tensor) -> ModuleType | None:
    """``gram`` and ``product`` for this tensor; None where torch's own products serve it."""
    return _kernels() if _is_on and X.is_cuda and X.ndim <= 3 else None


def _kernels() -> ModuleType:
    try:
        return importlib.import_module("thalweg.linalg.halves_triton")
    except ImportError as error:
        raise ThalwegError(
            f"halve_products needs Triton, which cannot be imported ({error}): pip install triton"
        ) from error
