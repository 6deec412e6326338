"""The shapes of work: which tensors an optimizer steps, and fresh ones to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from thalweg._base.errors import unknown_name
from thalweg.train.gpt import Gpt

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """A set of shapes.

    Attributes:
        name: as the command line and the rows spell it.
        shapes: one for each tensor.
        matrices: what an optimizer that takes matrices only gets of them: for each tensor whether it is such a matrix.
        gradients: how many sets of gradients take turns. A real training step brings new gradient tensors; two sets
            keep whoever remembers tensors from looking faster than it is, where looking them up is most of the work.
        device: where the tensors are.
    """

    name: str
    shapes: tuple[Shape, ...]
    matrices: tuple[bool, ...]
    gradients: int = 2
    device: str = "cpu"

    @property
    def numel(self) -> int:
        """Elements of all tensors."""
        return sum(torch.Size(shape).numel() for shape in self.shapes)

    def load(self, dtype: torch.dtype) -> Load:
        """Fresh parameters and gradients: the same numbers for everyone."""
        generator = torch.Generator().manual_seed(0)
        stock = torch.randn(min(self.numel, 1 << 22), generator=generator, dtype=torch.float32)
        stock = stock.to(self.device, dtype)
        params = [nn.Parameter(x) for x in filled(self.shapes, stock, 0.02)]
        gradients = [filled(self.shapes, stock, 1e-3 * (1 + i)) for i in range(self.gradients)]
        return Load(self, params, gradients)


@dataclass(frozen=True)
class Load:
    """A work in memory, for one optimizer: nobody shares it."""

    work: Work
    params: list[nn.Parameter]
    gradients: list[list[Tensor]]

    def matrices(self) -> list[nn.Parameter]:
        """The parameters that are hidden matrices."""
        return [p for p, matrix in zip(self.params, self.work.matrices, strict=True) if matrix]

    def rest(self) -> list[nn.Parameter]:
        """All others."""
        return [p for p, matrix in zip(self.params, self.work.matrices, strict=True) if not matrix]


def filled(shapes: Sequence[Shape], stock: Tensor, scale: float) -> list[Tensor]:
    """Tensors of their own memory with the numbers of ``stock`` times ``scale``, over again where one is longer."""
    numbers = {shape: _first(stock, shape) for shape in set(shapes)}
    return list(torch._foreach_mul([numbers[shape] for shape in shapes], scale))


def _first(stock: Tensor, shape: Shape) -> Tensor:
    size = torch.Size(shape).numel()
    return (stock if size <= len(stock) else stock.repeat(-(-size // len(stock))))[:size].view(shape)


def _gpt(scale: float) -> Work:
    layers, width, vocabulary = (12, 320, 16_384) if scale == 1 else (1, 16, 64)
    with torch.device("meta"):  # shapes without their memory
        model = Gpt(layers, width, 1, vocabulary, context=512 if scale == 1 else 8, like_gpt2=True)
    shapes = tuple(tuple(p.shape) for p in model.parameters())
    matrices = tuple(name.startswith("blocks.") and p.ndim == 2 for name, p in model.named_parameters())
    return Work("gpt", shapes, matrices)


def _large(scale: float) -> Work:
    side = _scaled(4096, scale)
    return Work("large", ((side, side),) * 4, (True,) * 4, gradients=1)


def _small(scale: float) -> Work:
    count = _scaled(2000, scale)
    return Work("small", ((1000,),) * count, (False,) * count)


def _scalars(scale: float) -> Work:
    count = _scaled(50_000, scale)
    return Work("scalars", ((),) * count, (False,) * count)


def _scaled(size: int, scale: float) -> int:
    return max(2, int(size * scale))


def small_matrices(scale: float = 1.0) -> Work:
    """What `small` means to an optimizer of matrices: 500 of 64 × 64."""
    count = _scaled(500, scale)
    return Work("small", ((64, 64) if scale == 1 else (8, 8),) * count, (True,) * count)


WORKS: dict[str, Callable[[float], Work]] = {"gpt": _gpt, "large": _large, "small": _small, "scalars": _scalars}

#: the work whose tensors are those of :mod:`thalweg.bench.changing`
CHANGING = "changing"
#: all that the command line takes
NAMES = (*WORKS, CHANGING)

WHAT = {
    "gpt": "a GPT-2 of 20 M parameters in 148 tensors",
    "large": "four 4096 × 4096 matrices",
    "small": "2,000 tensors of 1,000 elements; 500 matrices of 64 × 64 for optimizers of matrices",
    "scalars": "50,000 0-dim tensors",
}


def work(name: str, scale: float = 1.0, device: str = "cpu") -> Work:
    """The work of that name on that device; ``scale`` below 1 makes it small, for tests.

    Raises:
        ThalwegError: for an unknown name.
    """
    if name not in WORKS:
        raise unknown_name("work", name, NAMES)
    return replace(WORKS[name](scale), device=device)
