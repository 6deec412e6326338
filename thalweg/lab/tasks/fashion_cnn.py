"""A small convolutional network on Fashion-MNIST (Xiao, Rasul & Vollgraf 2017), read from the user's idx files."""

from __future__ import annotations

import functools
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks._supervised import Batch, Split, Supervised
from thalweg.lab.tasks.digits_cnn import cnn

#: names the user's folder; else the files are looked for where Debian's package puts them
VARIABLE = "THALWEG_FASHION_MNIST"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
#: how many of the 10,000 test pictures are evaluated
HELD = 1000


@functools.cache
def pictures(folder: Path) -> Split:
    """60,000 pictures (n, 1, 28, 28) to train on, as bytes; the first 1,000 of the test set, in [0, 1], held out.

    Raises:
        ThalwegError: if a file is missing or not in the idx format.
    """
    x, y, held_x, held_y = (read_idx(folder, name) for name in FILES)
    return Split(x[:, None], y.long(), held_x[:HELD, None] / 255, held_y[:HELD].long())


def read_idx(folder: Path, name: str) -> Tensor:
    """An idx file of unsigned bytes, gzipped or not, as a uint8 tensor of the shape that it states.

    The format: two zero bytes, the type (8 for unsigned bytes), the number of dimensions, each size in four bytes with
    the most significant first, then the content.

    Raises:
        ThalwegError: if it is missing or not in that format.
    """
    path = next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
    if path is None:
        raise ThalwegError(
            f"fashion-cnn needs Fashion-MNIST, and {name}[.gz] is not in {folder}. Install Debian's package "
            "dataset-fashion-mnist, or fetch the four files from https://github.com/zalandoresearch/fashion-mnist and "
            f"name their folder in the environment variable {VARIABLE}"
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ThalwegError(f"cannot read {path}: {error}") from error
    start = 4 + 4 * content[3] if content[:3] == b"\0\0\x08" and len(content) > 4 else 0
    shape = [int.from_bytes(content[i : i + 4]) for i in range(4, start, 4)]
    if not shape or len(content) - start != torch.Size(shape).numel():
        raise ThalwegError(f"{path} is not an idx file of unsigned bytes, or is cut short")
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).view(shape)


class FashionCnn(Supervised):
    """A CNN (16-32-32 channels) on Fashion-MNIST, 28×28."""

    name = "fashion-cnn"
    steps = 500
    batch_size = 64
    source = "Fashion-MNIST, idx files; the first 1,000 test pictures held out"
    good_for = "real pictures, none of them seen twice: Muon is ahead, then AdamW"
    seconds_per_run = 4.6

    def examples(self) -> Split:
        """From the user's folder, or Debian's."""
        return pictures(Path(os.environ.get(VARIABLE) or DEBIAN))

    def batches(self, seed: int) -> Iterator[Batch]:
        """Shuffled epochs; grey in [0, 1]."""
        for x, y in super().batches(seed):
            yield x / 255, y

    def sample(self) -> Tensor:
        """Two held-out pictures."""
        return self.examples().held_x[:2]

    def model(self, seed: int) -> nn.Module:
        """Some 30,000 parameters."""
        return fresh(seed, lambda: cnn(28))
