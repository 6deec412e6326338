"""The text that the language tasks read: the source code of the interpreter's own standard library."""

from __future__ import annotations

import functools
import hashlib
import sysconfig
from pathlib import Path

import torch
from torch import Tensor

from thalweg._base.errors import ThalwegError

#: one file in so many is held out
HELD = 10


@functools.cache
def bytes_of_stdlib() -> tuple[Tensor, Tensor, str]:
    """Training bytes, held-out bytes (uint8, one dimension), and the SHA-256 of all of them.

    A file is held out by the hash of its name, so that a version with one more file keeps the split of the others.
    """
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    if not files:
        raise ThalwegError("this Python has no source of its standard library; the bytes-* tasks need it")
    parts: dict[bool, list[bytes]] = {False: [], True: []}
    for file in files:
        held = hashlib.sha256(file.name.encode()).digest()[0] % HELD == 0
        parts[held].append(file.read_bytes())
    train, out = (b"".join(parts[held]) for held in (False, True))
    digest = hashlib.sha256(train + out).hexdigest()
    return _tensor(train), _tensor(out), digest


def _tensor(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)
