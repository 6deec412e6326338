"""The text of the ``bytes-`` tasks: the source code of the interpreter's own standard library."""

from __future__ import annotations

import functools
import hashlib
import platform
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks._model import evaluating

VOCABULARY = 256
CONTEXT = 64
#: windows of the held-out text that an evaluation reads
WINDOWS = 256


@dataclass(frozen=True, eq=False)
class Corpus:
    """Bytes to train on and bytes held out (uint8, one dimension), and the SHA-256 of all files in turn."""

    train: Tensor
    held: Tensor
    sha256: str


@functools.cache
def standard_library() -> Corpus:
    """The files ``lib/*.py`` of this interpreter, some 4 MB.

    About one file in ten is held out, by the hash of its name: another version of Python has some other files, and
    the same split of those that are in both.

    Raises:
        ThalwegError: if this Python came without the source of its library.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py"))
    texts = {True: bytearray(), False: bytearray()}
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        texts[_is_held_out(file.name)] += content
        digest.update(file.name.encode() + b"\0" + content)
    if any(len(text) <= CONTEXT for text in texts.values()):
        raise ThalwegError(f"the bytes- tasks read the source of Python's standard library, which is not in {folder}")
    train, held = (torch.frombuffer(texts[side], dtype=torch.uint8) for side in (False, True))
    return Corpus(train, held, digest.hexdigest())


def _is_held_out(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] % 10 == 0


class NextByte(Task):
    """Predict each next byte of windows of Python source."""

    batch_size = 16
    unit = "nats per byte"

    def batches(self, seed: int) -> Iterator[Tensor]:
        """Windows (16, 65) of bytes as int64, at random places of the training text."""
        text = standard_library().train
        generator = torch.Generator().manual_seed(seed)
        while True:
            starts = torch.randint(len(text) - CONTEXT, (self.batch_size,), generator=generator)
            yield _windows(text, starts)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean cross-entropy of the bytes 1 to 64, each predicted from those before it in the window."""
        return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def evaluate(self, model: nn.Module) -> float:
        """Mean over 256 windows, evenly spaced over the held-out files."""
        text = standard_library().held
        batch = _windows(text, torch.linspace(0, len(text) - CONTEXT - 1, WINDOWS).long())
        with evaluating(model):
            losses = [self.loss(model, part).item() for part in torch.split(batch, WINDOWS // 4)]
        return sum(losses) / len(losses)

    def sample(self) -> Tensor:
        """One short window."""
        return torch.zeros(1, 4, dtype=torch.long)

    def data(self) -> Mapping[str, str]:
        """The text differs by version of Python, so it is named with its hash."""
        python = f"{platform.python_implementation()} {platform.python_version()}"
        return {"source": "lib/*.py of the interpreter", "python": python, "sha256": standard_library().sha256}


def _windows(text: Tensor, starts: Tensor) -> Tensor:
    return text[starts[:, None] + torch.arange(CONTEXT + 1)].long()
