"""A small Fashion-MNIST of random pictures, in the files' own format."""

import gzip
from pathlib import Path

import torch


def idx(tensor: torch.Tensor) -> bytes:
    sizes = b"".join(size.to_bytes(4) for size in tensor.shape)
    return bytes([0, 0, 8, tensor.ndim]) + sizes + tensor.to(torch.uint8).numpy().tobytes()


def write_fashion(folder: Path, train: int = 256, held: int = 64, packed: bool = True) -> None:
    """Pictures whose class shows in their brightness, so that something can be learnt."""
    random = torch.Generator().manual_seed(0)
    for part, count in (("train", train), ("t10k", held)):
        labels = torch.arange(count) % 10
        pictures = torch.randint(0, 26, (count, 28, 28), generator=random) + 25 * labels[:, None, None]
        for name, tensor in ((f"{part}-images-idx3-ubyte", pictures), (f"{part}-labels-idx1-ubyte", labels)):
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(tensor), mtime=0))
            else:
                (folder / name).write_bytes(idx(tensor))
