"""Fashion-MNIST, from the idx files that the user has."""

from __future__ import annotations

import functools
import gzip
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks._supervised import Split, Supervised
from thalweg.lab.tasks.digits_cnn import cnn

#: the user's folder, else where Debian's package puts the files
VARIABLE = "THALWEG_FASHION_MNIST"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
HELD = 1000


def read_idx(folder: Path, name: str) -> Tensor:
    """An idx file (unsigned bytes), gzipped or not, as a uint8 tensor of its own shape.

    Raises:
        ThalwegError: if it is not there, or not of that format.
    """
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            break
    else:
        raise ThalwegError(
            f"fashion-cnn needs {name} (or {name}.gz), which is not in {folder}; name the folder with Fashion-MNIST's "
            f"four idx files in the variable {VARIABLE}, or install Debian's package dataset-fashion-mnist"
        )
    dimensions = content[3] if len(content) > 4 and content[:3] == b"\x00\x00\x08" else 0
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i]) for i in range(dimensions)]
    if not dimensions or len(content) - start != torch.Size(shape).numel():
        raise ThalwegError(f"{path} is no idx file of bytes")
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).view(shape)


@functools.cache
def pictures(folder: Path) -> Split:
    """60,000 pictures (n, 1, 28, 28) to train on; the first 1,000 of the test set held out."""
    files = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    x, y, held_x, held_y = (read_idx(folder, name) for name in files)
    return Split(_grey(x), y.long(), _grey(held_x[:HELD]), held_y[:HELD].long())


def _grey(x: Tensor) -> Tensor:
    return x[:, None].float() / 255


class FashionCnn(Supervised):
    """A CNN (16-32-32 channels) on Fashion-MNIST, 28×28."""

    name = "fashion-cnn"
    steps = 500
    batch_size = 64
    source = "Fashion-MNIST (Xiao et al. 2017), idx files"
    good_for = "real pictures, less than one epoch; no over-fitting"

    def examples(self) -> Split:
        """The user's files, or Debian's."""
        return pictures(Path(os.environ.get(VARIABLE) or DEBIAN))

    def model(self, seed: int) -> nn.Module:
        """Three convolutions and a linear layer."""
        return fresh(seed, lambda: cnn(28))
