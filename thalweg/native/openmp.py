"""The one OpenMP runtime of the process: torch's. A second one would fight it for the cores."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from thalweg._base import fork

#: below this much work, in elements, a second thread costs more than it brings
ALONE = 1 << 15

_forked = False


@fork.in_child
def _after_fork() -> None:
    """The OpenMP threads of the parent do not exist in the child."""
    global _forked
    _forked = True


def threads(size: int) -> int:
    """On how many threads a loop over so many elements is to run."""
    return 1 if _forked or size < ALONE else torch.get_num_threads()


class _DlInfo(ctypes.Structure):
    """``Dl_info`` of the dynamic linker: which file an address comes from."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def share(entry: str) -> str:
    """Let libraries that are loaded from now on find torch's OpenMP runtime, without naming it.

    Wheels rename the runtime (``libgomp-a34b3233.so.1``), so that a library linked to ``libgomp.so.1`` would bring its
    own. Instead the linker is asked where torch itself finds ``entry``, and that file becomes visible to all.

    Args:
        entry: the function that starts a parallel region: ``GOMP_parallel`` in code of gcc, ``__kmpc_fork_call`` in
            code of clang.

    Returns:
        The runtime's file name.

    Raises:
        LookupError: with a clause that says why code which calls ``entry`` cannot share torch's runtime.
    """
    if sys.platform == "win32":
        raise LookupError("Windows has no linker that could be asked for torch's OpenMP runtime")
    try:
        runtime = _file(ctypes.CDLL(torch._C.__file__), entry)
        ctypes.CDLL(runtime, mode=os.RTLD_NOLOAD | ctypes.RTLD_GLOBAL)
        seen = _file(ctypes.CDLL(None), entry)
    except (AttributeError, OSError):
        raise LookupError(f"torch has loaded no OpenMP runtime with {entry}") from None
    # a preloaded runtime stands before torch's own, and for torch too; one that came later, only for us
    if seen != runtime and not _is_torchs(ctypes.CDLL(None)):
        raise LookupError(f"{seen} hides torch's OpenMP runtime {runtime}")
    return os.path.basename(seen)


def _is_torchs(runtime: ctypes.CDLL) -> bool:
    """Whether this is torch's own runtime: torch's number of threads changes when this one's is set."""
    own, torchs = runtime.omp_get_max_threads(), torch.get_num_threads()
    runtime.omp_set_num_threads(torchs + 1)
    heard = torch.get_num_threads() == torchs + 1
    runtime.omp_set_num_threads(own)
    return heard


def _file(library: ctypes.CDLL, function: str) -> str:
    """The file in which ``library``, or what it was linked to, finds ``function``."""
    symbol = _DlInfo()
    address = ctypes.cast(library[function], ctypes.c_void_p)
    if not ctypes.CDLL(None).dladdr(address, ctypes.byref(symbol)):
        raise OSError(f"no file holds {function}")
    return os.fsdecode(symbol.file)
