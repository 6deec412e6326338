"""Which backend runs a batch, and the words that say why."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from thalweg._base.errors import bad_argument
from thalweg.runtime.backends.protocol import Backend
from thalweg.runtime.batch import Batch

#: fastest first
BACKENDS = ("triton", "cpu", "foreach", "eager")


def backend(name: str) -> Backend:
    """The module of that name, imported when it is first asked."""
    return cast(Backend, importlib.import_module(f"thalweg.runtime.backends.{name}"))


def requested(name: Any, use_foreach: bool | None, fused: bool | None) -> Any:
    """The backend that the constructor's arguments ask for; ``foreach=`` and ``fused=`` are torch's spelling of it.

    Raises:
        ValueError: for an unknown backend, or for arguments that ask for two different ones.
    """
    names = ("auto", *BACKENDS)
    if name not in names:
        raise bad_argument("backend", name, "one of " + ", ".join(map(repr, names)))
    for argument, value in (("foreach", use_foreach), ("fused", fused)):
        if value not in (None, False, True):
            raise bad_argument(argument, value, "None, False or True")
    if use_foreach and fused:
        raise bad_argument("fused", fused, "False or None where foreach=True: a step runs on one of them")
    asked = "foreach" if use_foreach else "auto" if fused or use_foreach is None else "eager"
    if name == "auto":
        return asked
    if asked not in ("auto", name):
        raise bad_argument("backend", name, f"the same as foreach={use_foreach} asks for")
    return name


def choose(asked: str, batch: Batch, failed: Mapping[str, str]) -> tuple[str, str]:
    """The backend that serves a batch, and why; ``failed`` are those that were tried, and what they said.

    Raises:
        ValueError: if the user asked for one by name that cannot serve it.
    """
    if asked != "auto":
        why = backend(asked).refusal(batch)
        if why:
            raise bad_argument("backend", asked, f"one that serves these parameters: {why}", 'backend="auto" finds one')
        return asked, "as asked"
    refused: list[tuple[str, str]] = []
    for name in BACKENDS:
        if _obvious(name, batch):
            continue
        why = failed.get(name) or backend(name).refusal(batch)
        if why is None:
            others = [f"not {other}: {reason}" for other, reason in refused]
            return name, "; ".join(["the fastest that serves", *others])
        refused.append((name, why))
    raise AssertionError("eager serves everything")


def _obvious(name: str, batch: Batch) -> bool:
    """Whether a refusal needs no mention: a GPU's backend for tensors on the CPU, or the other way round."""
    return (name == "triton") != (batch.device.type != "cpu") and name in ("triton", "cpu")


def prepare(name: str, batch: Batch) -> Any:
    """Make a batch ready for a backend."""
    return backend(name).prepare(batch)
