"""Which backend runs, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Callable

from thalweg._base.errors import bad_argument
from thalweg.engine.backends import eager, foreach
from thalweg.engine.batch import Batch

BACKENDS: dict[str, Callable[[Batch], None]] = {"eager": eager.run, "foreach": foreach.run}


def requested(backend: str, use_foreach: bool | None, fused: bool | None) -> str:
    """The backend that the constructor's arguments ask for; ``foreach=`` and ``fused=`` are torch's spelling of it.

    Raises:
        ValueError: for an unknown backend, or for arguments that ask for two different ones.
    """
    names = ("auto", *BACKENDS)
    if backend not in names:
        raise bad_argument("backend", backend, "one of " + ", ".join(map(repr, names)))
    if use_foreach and fused:
        raise bad_argument("fused", fused, "False or None where foreach=True: a step runs on one of them")
    asked = "foreach" if use_foreach else "auto" if fused or use_foreach is None else "eager"
    if backend == "auto":
        return asked
    if asked not in ("auto", backend):
        raise bad_argument("backend", backend, f"the same as foreach={use_foreach} asks for")
    return backend


def chosen(backend: str) -> tuple[str, str]:
    """The backend that runs for a request, and why."""
    if backend == "auto":
        return "foreach", "the fastest that runs without a compiler"
    return backend, "as asked"
