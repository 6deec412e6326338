"""What else than task, contestant and seed can change a loss: our own code, versions, the compiler, the processor."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

import thalweg
from thalweg.lab.tasks import imports
from thalweg.native import compiler, disk_cache

#: of our package, what takes part in a run
TAKES_PART = (
    *("_base", "engine", "groups", "ir", "linalg", "native", "optim", "runtime", "schedule", "train", "wrap"),
    *("rule.py", "lab/run.py", "lab/passes.py", "lab/evaluation.py", "lab/tasks/seeding.py", "lab/tasks/training.py"),
    *("lab/contestant.py", "lab/contestants.py", "lab/field.py", "lab/classes.py", "lab/trial.py", "lab/conduct.py"),
)
SOURCES = ("*.py", "*.c", "*.h")


@functools.cache
def setting(device: str = "cpu") -> dict[str, str]:
    """Our own code, the versions beneath it, the compiler of its kernels and the kind of processor.

    Args:
        device: of the task; of a GPU, its name and what torch was built for are part of it.
    """
    return {
        "code": _code(),
        "torch": f"{torch.__version__} {torch.version.git_version or ''}".strip(),
        "python": platform.python_version(),
        "compiler": compiler.identity(),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": "1",
        **_accelerator(torch.device(device)),
    }


def _accelerator(device: torch.device) -> dict[str, str]:
    """The GPU, where one is computed on."""
    if device.type != "cuda":
        return {}
    if not torch.cuda.is_available():
        return {"accelerator": "none"}
    return {"accelerator": f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda or torch.version.hip}"}


def _code() -> str:
    """Hash of what our sources mean; comments and docstrings of Python are not part of it, those of C are.

    It takes a second to find out, so it is kept in the user's cache under the hash of the texts.
    """
    root = Path(thalweg.__file__).parent
    texts = {file.relative_to(root).as_posix(): file.read_bytes() for file in _files(root)}
    raw = _hash({name: hashlib.sha256(text).digest() for name, text in texts.items()})
    name = f"code-{platform.python_version()}-{raw}.txt"
    if kept := disk_cache.read(name):
        return kept.decode()
    code = _hash({name: imports.meaning(text) if name.endswith(".py") else text for name, text in texts.items()})
    with contextlib.suppress(OSError):
        disk_cache.write(name, code.encode())
    return code


def _files(root: Path) -> Iterator[Path]:
    for part in TAKES_PART:
        path = root / part
        found = sorted(f for kind in SOURCES for f in path.rglob(kind)) if path.is_dir() else [path]
        yield from (f for f in found if f.name != "version.py")  # a release of the same code gives the same runs


def _hash(contents: dict[str, bytes]) -> str:
    return hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()[:16]
