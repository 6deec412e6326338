"""From C source to a loaded library: compiled once for each machine and compiler, then kept in the user's cache."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from thalweg._base import fork
from thalweg._base.errors import ThalwegError
from thalweg.native import disk_cache, openmp

#: not -ffast-math: NaN and Inf keep their meaning
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp-simd")
#: the first that the compiler knows is taken
TUNINGS = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ("-mcpu=native",), ())
OPENMP = (("-fopenmp",), ("-Xclang", "-fopenmp"), ())
LINK = ("-shared", "-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-shared",)
TIMEOUT = 120  # seconds
SHOWN = 12  # lines of the compiler's complaint

REMEDY = "install gcc or clang, or set $CC"


class CompilerError(ThalwegError):
    """There is no C compiler, or it failed.

    Attributes:
        command: what was run; empty where there is no compiler.
        code: its exit code; None where it did not come to an end.
        stderr: all that it said.
    """

    def __init__(self, reason: str, command: Sequence[str] = (), code: int | None = None, stderr: str = "") -> None:
        lines = stderr.strip().splitlines()
        cut = [f"… {len(lines) - SHOWN} more lines"] if len(lines) > SHOWN else []
        super().__init__("\n".join([reason, *lines[:SHOWN], *cut]))
        self.command, self.code, self.stderr = tuple(command), code, stderr


@dataclass(frozen=True)
class Library:
    """A loaded library.

    Attributes:
        cdll: its functions.
        parallel: whether ``#pragma omp`` in its source had effect.
        note: the compiler and the threads, as a clause: ``gcc 12.2, OpenMP from torch's libgomp.so.1``.
    """

    cdll: ctypes.CDLL
    parallel: bool
    note: str


@dataclass(frozen=True)
class Toolchain:
    """A compiler on this machine and how to call it.

    Attributes:
        name: ``gcc 12.2``.
        command: the program and the flags of every call.
        openmp: the flags that switch OpenMP on; empty where the compiler has none.
        entry: the function of the OpenMP runtime that starts a parallel region.
        stamp: a hash of the compiler's version and of the instructions that it may use here.
    """

    name: str
    command: tuple[str, ...]
    openmp: tuple[str, ...]
    entry: str
    stamp: str


_libraries: dict[str, Library] = {}
_warned = False
_lock = threading.Lock()
_in_work: dict[str, threading.Lock] = {}  # by source: several compile at once, each of them once


@fork.in_child
def _new_lock() -> None:
    """Make new locks in a forked child, where no thread exists that would release the old ones."""
    global _lock
    _lock = threading.Lock()
    _in_work.clear()


def available() -> tuple[bool, str]:
    """Whether there is a C compiler (nothing is compiled), and where there is none, what to do about it."""
    reason = _find(os.environ.get("CC", ""), os.environ.get("PATH"))[1]
    return not reason, reason


def identity() -> str:
    """Which compiler with which flags makes the kernels here, in a few words; or that there is none."""
    compiler, reason = _find(os.environ.get("CC", ""), os.environ.get("PATH"))
    if reason:
        return "none"
    try:
        with _lock:
            tools = _toolchain(compiler)
    except CompilerError:
        return "one that does not work"
    flags = (word for word in (*tools.command, *tools.openmp, *LINK) if word.startswith("-"))
    return f"{tools.name}, flags and processor {_digest(tools.stamp, *flags)[:12]}"


def library(source: str) -> Library:
    """The library of a C source: from this process, from the user's cache, or compiled; from any thread.

    OpenMP comes from the runtime that torch has loaded. The source may ask ``#ifdef _OPENMP`` and should declare the
    ``omp_…`` functions that it calls, since ``omp.h`` may be missing where the runtime is not. The source is kept
    beside the library, for the curious.

    Args:
        source: C11 with GNU extensions; its functions must not be ``static`` to be found.

    Raises:
        CompilerError: where there is no compiler or it fails.
    """
    found = _libraries.get(source)
    if found is None:
        with _lock:
            mine = _in_work.setdefault(source, threading.Lock())
        with mine:
            found = _libraries[source] = _libraries.get(source) or _library(source)
    return found


def forget() -> None:
    """Drop what this process knows of compilers and libraries; what is loaded stays loaded."""
    global _warned
    with _lock:
        _warned = False
        _libraries.clear()
        _find.cache_clear()
        _toolchain.cache_clear()


def _library(source: str) -> Library:
    """The library: parallel where the compiler's OpenMP works with torch's runtime, else for one thread."""
    compiler, reason = _find(os.environ.get("CC", ""), os.environ.get("PATH"))
    if reason:
        raise CompilerError(reason)
    with _lock:
        tools = _toolchain(compiler)
    try:
        if not tools.openmp:
            raise LookupError("it has no OpenMP")
        with _lock:
            runtime = openmp.share(tools.entry)
        return Library(_load(source, tools, tools.openmp), True, f"{tools.name}, OpenMP from torch's {runtime}")
    except LookupError as error:
        reason = str(error)
    except CompilerError as error:  # its OpenMP is half installed, or too new for torch's runtime
        complaint = [line for line in str(error).splitlines() if "error:" in line]
        reason = f"with OpenMP, {(complaint or str(error).splitlines())[0]}"
    return Library(_load(source, tools, ()), False, f"{tools.name}, one thread: {reason}")


def _load(source: str, tools: Toolchain, openmp_flags: tuple[str, ...]) -> ctypes.CDLL:
    """The library from the cache; where the cache has none, or a damaged one, built and put there."""
    global _warned
    command = (*tools.command, *openmp_flags)
    name = _digest("library 1", tools.stamp, *command, *LINK, source)
    kept = disk_cache.read(f"{name}.so")
    # a damaged library must not reach the linker: mapping a truncated file can kill the process
    if kept is not None and disk_cache.read(f"{name}.c") == _listing(source, command, kept):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(str(disk_cache.folder() / f"{name}.so"))
    try:
        with tempfile.TemporaryDirectory(prefix="thalweg-", ignore_cleanup_errors=True) as build:
            built = _compile(source, tools.command, openmp_flags, build)
            try:
                code = built.read_bytes()
                path = disk_cache.write(f"{name}.so", code)
                disk_cache.write(f"{name}.c", _listing(source, command, code))
                return ctypes.CDLL(str(path))
            except OSError as error:
                unkept = error
            loaded = ctypes.CDLL(str(built))  # the file may go, once mapped
    except OSError as error:
        raise CompilerError(f"what {tools.name} made cannot be loaded: {error}", command) from None
    with _lock:
        first, _warned = not _warned, True
    if first:
        warnings.warn(
            f"{disk_cache.folder()} cannot keep compiled kernels ({unkept}), so each process compiles its own; let "
            "$XDG_CACHE_HOME name a folder that only you can write, on a disk with room",
            stacklevel=2,
        )
    return loaded


def _listing(source: str, command: Sequence[str], code: bytes) -> bytes:
    """What is kept beside a library: its source, how it was compiled, and the checksum of the result."""
    return f"{source}\n// {shlex.join(command)}\n// sha256 {hashlib.sha256(code).hexdigest()}\n".encode()


def _compile(source: str, command: Sequence[str], openmp_flags: Sequence[str], build: str) -> Path:
    """Compile in the folder ``build``; the library's path."""
    Path(build, "kernel.c").write_text(source, encoding="utf-8")
    _run((*command, *openmp_flags, "-c", "kernel.c", "-o", "kernel.o"), build)
    # the flags of OpenMP would link a runtime of the compiler's own
    _run((*command, *LINK, "kernel.o", "-o", "kernel.so", "-lm"), build)
    return Path(build, "kernel.so")


@functools.cache
def _find(cc: str, path: str | None) -> tuple[tuple[str, ...], str]:
    """The compiler with its own flags, or the reason why there is none."""
    if sys.platform == "win32":
        return (), "C kernels need Linux or macOS, and this is Windows"
    try:
        given = shlex.split(cc)
    except ValueError as error:
        return (), f"$CC={cc!r} cannot be read as a command: {error}"
    for word in given[:1] or ("cc", "gcc", "clang"):
        if program := shutil.which(word, path=path):
            # OpenMP is switched on and off here
            return (os.path.abspath(program), *(flag for flag in given[1:] if flag != "-fopenmp")), ""
    return (), f"$CC={cc!r} names no program; {REMEDY}" if given else f"there is no C compiler; {REMEDY}"


@functools.cache
def _toolchain(compiler: tuple[str, ...]) -> Toolchain:
    """What ``compiler`` can do here; asked once, and again when its file or the machine changes."""
    programs = tuple(takewhile(lambda word: not word.startswith("-"), compiler))  # such as: ccache gcc
    files = [os.stat(path) for program in programs if (path := shutil.which(program))]
    versions = [f"{file.st_mtime_ns} {file.st_size}" for file in files]
    memo = _digest("toolchain 1", *compiler, *versions, _machine(), repr((FLAGS, TUNINGS, OPENMP)))
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        kept = json.loads(disk_cache.read(f"{memo}.json") or b"")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
        return Toolchain(**fields)
    own = compiler[len(programs) :]  # last, so that they win
    command, macros = _first_accepted(programs, [(*FLAGS, *tuning, *own) for tuning in TUNINGS])
    with_openmp, _ = _first_accepted(command, OPENMP)
    clang = "#define __clang__ " in macros
    version = ("__clang_major__", "__clang_minor__") if clang else ("__GNUC__", "__GNUC_MINOR__")
    numbers = [number for name in version for number in re.findall(rf"#define {name} (\d+)", macros)]
    tools = Toolchain(
        name=" ".join(["clang" if clang else "gcc", ".".join(numbers)]),
        command=command,
        openmp=with_openmp[len(command) :],
        entry="__kmpc_fork_call" if clang else "GOMP_parallel",
        stamp=_digest(macros, _machine()),
    )
    with contextlib.suppress(OSError):
        disk_cache.write(f"{memo}.json", json.dumps(asdict(tools)).encode())
    return tools


def _first_accepted(command: tuple[str, ...], choices: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], str]:
    """``command`` with the first of these flags that it accepts, and the macros that it then predefines.

    The macros tell its version and every instruction set that it may use.
    """
    refusal = None
    for flags in choices:
        try:
            return (*command, *flags), _run((*command, *flags, "-dM", "-E", "-x", "c", os.devnull))
        except CompilerError as error:
            refusal = error
    assert refusal is not None
    raise refusal


def _run(command: Sequence[str], folder: str | None = None) -> str:
    """What ``command`` prints; it may take two minutes."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise CompilerError(f"no answer within {TIMEOUT} s: {shlex.join(command)}", command) from None
    except OSError as error:
        raise CompilerError(f"{error.strerror}: {shlex.join(command)}", command) from None
    if done.returncode:
        reason = f"exit code {done.returncode}: {shlex.join(command)}"
        raise CompilerError(reason, command, done.returncode, done.stderr)
    return done.stdout


def _machine() -> str:
    """The processor's model and instruction sets: a home folder can be shared by unlike machines."""
    processor = _brand() if sys.platform == "darwin" else _first_processor()
    return "\n".join([platform.system(), platform.machine(), *processor])


def _brand() -> list[str]:
    """The processor's model, as macOS tells it."""
    brand = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t(len(brand))
    ctypes.CDLL(None).sysctlbyname(b"machdep.cpu.brand_string", brand, ctypes.byref(size), None, 0)
    return [os.fsdecode(brand.value)]


def _first_processor() -> list[str]:
    """What Linux tells of it, the first speaking for all, without what changes by itself."""
    facts = []
    changing = ("cpu MHz", "bogomips", "BogoMIPS", "microcode", "physical id", "core id", "apicid", "initial apicid")
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if not line.strip():
                break
            if not line.startswith(changing):
                facts.append(line.strip())
    return facts


def _digest(*parts: str) -> str:
    """A short name for ``parts``."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
