"""The state of every random generator that training may draw from, in types that any checkpoint can hold."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


def capture() -> dict[str, Any]:
    """Torch's generators (CPU and, where it is in use, CUDA), Python's, and numpy's if it was imported."""
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": [version, list(words), gauss]}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy"] = [name, keys.tolist(), *rest]
    return state


def marks() -> tuple[Any, ...]:
    """What tells whether any of these generators was drawn from; cheaper than :func:`capture`."""
    numpy = sys.modules["numpy"].random.get_state()[1:3] if "numpy" in sys.modules else ()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    states = [state.numpy().tobytes() for state in (torch.get_rng_state(), *gpus)]
    return (*states, random.getstate(), *(part.tobytes() if hasattr(part, "tobytes") else part for part in numpy))


def restore(state: dict[str, Any]) -> None:
    """Put the generators back to a captured state."""
    torch.set_rng_state(state["torch"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "numpy" in state and "numpy" in sys.modules:
        name, keys, *rest = state["numpy"]
        sys.modules["numpy"].random.set_state((name, keys, *rest))
