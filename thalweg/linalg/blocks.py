"""Several matrices in one tensor: where they are, as a view and an axis that is cut."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg._base.errors import answer, bad_argument

#: what a dimension of a tensor may be: it numbers matrices, or belongs to what a matrix gives, or to what it takes
WORDS = ("n", "out", "in")
#: of how many parts the sizes are shown
_SHOWN = 6
_REMEDY = "Let it give None, for one matrix, where it has no other answer"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True)
class Blocks:
    """How matrices lie in a tensor.

    ``Blocks(3)`` are three equal matrices one behind the other, as q, k and v in one weight. ``Blocks((64, 32, 32))``
    are three of these sizes. ``Blocks(3, repeats=12)`` are q, k and v of twelve heads, head by head: the first matrix
    has the first third of each head's rows. ``Blocks(layout="n in out")`` is a stack of matrices, each kept as
    (in, out). ``Blocks(12, along="in")`` cuts columns: what an output projection takes from each of twelve heads.

    Args:
        parts: how many equal parts, or their sizes; or sizes in proportion, in lowest terms: (2, 1, 1) at any width.
        repeats: how often the parts follow one another along the dimension that is cut, ≥ 1.
        along: which dimension that is: the one that a matrix gives, or the one that it takes.
        layout: what each dimension of the tensor is, in order: ``n`` numbers matrices, ``out`` and ``in`` are what a
            matrix gives and takes; several of a kind count as one. Dimensions beyond the last word, as of a
            convolution's kernel, are as that.

    Raises:
        ValueError: for a part or a repeat below 1, or another word.
    """

    parts: int | tuple[int, ...] = 1
    repeats: int = 1
    along: Literal["out", "in"] = "out"
    layout: str = "out in"

    def __post_init__(self) -> None:
        sizes = self.parts if isinstance(self.parts, tuple) else (self.parts,)
        if not (sizes and all(map(_is_count, sizes))):
            raise bad_argument("parts", self.parts, "a number of equal parts ≥ 1, or a tuple of sizes ≥ 1")
        if not _is_count(self.repeats):
            raise bad_argument("repeats", self.repeats, "an integer ≥ 1")
        if self.along == "in" and not isinstance(self.parts, int):
            raise bad_argument("parts", self.parts, "a number of equal parts where along='in'")
        if self.along not in WORDS[1:]:
            raise bad_argument("along", self.along, "'out' or 'in'")
        words = self.layout.split()
        if not {*words} <= {*WORDS} or not {"out", "in"} <= {*words}:
            raise bad_argument("layout", self.layout, "one word for each dimension: 'n', 'out' or 'in', as 'n out in'")

    @property
    def even(self) -> bool:
        """Whether all matrices of a tensor have one shape."""
        return isinstance(self.parts, int) or len({*self.parts}) == 1

    @property
    def stacked(self) -> bool:
        """Whether a dimension numbers matrices."""
        return "n" in self.layout.split()

    @property
    def one(self) -> bool:
        """Whether nothing is cut and nothing stacked: a tensor is one matrix, as without blocks."""
        return self.layout == "out in" and self.lowest.parts == 1

    def shapes(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """(out, in) of each matrix in a tensor of this shape, stack by stack."""
        n, gives, takes = self._sizes(shape)
        cut = gives if self.along == "out" else takes
        sizes = [self.repeats * size for size in self._parts(cut)]
        one = [(size, takes) if self.along == "out" else (gives, size) for size in sizes]
        return one * n

    @property
    def lowest(self) -> Blocks:
        """The same with sizes in lowest proportion, or their number where they are equal; nothing is repeated alone."""
        if isinstance(self.parts, int):
            return replace(self, repeats=1) if self.parts == 1 else self
        divisor = math.gcd(*self.parts)
        parts = tuple(size // divisor for size in self.parts)
        return replace(self, parts=len(parts)).lowest if len({*parts}) == 1 else replace(self, parts=parts)

    def fitted(self, shape: Sequence[int], what: str = "a tensor") -> Blocks:
        """The same in lowest terms, as tensors of other widths may share it.

        Raises:
            ValueError: where the parts do not make up the dimension; ``what`` is the name of the tensor.
        """
        self._check(shape, what)
        return self.lowest

    def matrices(self, x: Tensor) -> list[Tensor]:
        """The matrices of a tensor in batches (k, m, n): one where all are of one shape, else one for each part."""
        n, gives, takes = self._sizes(x.shape)
        y = x.permute(self._order(x.ndim)).reshape(n, gives, takes)
        y = y if self.along == "out" else y.mT
        sizes, rest = self._parts(y.shape[1]), y.shape[2]
        if self.even:
            y = y.reshape(n, self.repeats, len(sizes), sizes[0], rest).transpose(1, 2)
            cut = [y.reshape(n * len(sizes), self.repeats * sizes[0], rest)]
        else:
            y = y.reshape(n, self.repeats, sum(sizes), rest)
            cut = [part.reshape(n, self.repeats * part.shape[2], rest) for part in torch.split(y, sizes, 2)]
        return cut if self.along == "out" else [part.mT for part in cut]

    def joined(self, batches: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """The tensor of this shape of which :meth:`matrices` makes these batches."""
        n, gives, takes = self._sizes(shape)
        parts = list(batches) if self.along == "out" else [part.mT for part in batches]
        cut, rest = (gives, takes) if self.along == "out" else (takes, gives)
        sizes = self._parts(cut)
        if self.even:
            y = parts[0].reshape(n, len(sizes), self.repeats, sizes[0], rest).transpose(1, 2)
        else:
            pairs = zip(parts, sizes, strict=True)
            y = torch.cat([part.reshape(n, self.repeats, size, rest) for part, size in pairs], 2)
        y = y.reshape(n, cut, rest)
        order = self._order(len(shape))
        back = sorted(range(len(order)), key=order.__getitem__)
        return (y if self.along == "out" else y.mT).reshape([shape[dim] for dim in order]).permute(back)

    def row_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of a tensor with a number for each row of each matrix in one of this shape."""
        words = self._words(len(shape))
        sizes = [1 if word == "in" else size for word, size in zip(words, shape, strict=True)]
        if self.along == "in":
            sizes[words.index("in")] = len(self._terms)
        return tuple(sizes)

    @property
    def rows(self) -> Blocks:
        """How the rows of matrices lie in a tensor of :meth:`row_shape`."""
        return self if self.along == "out" else replace(self, repeats=1)

    def __str__(self) -> str:
        one = self.lowest.parts == 1
        equal = isinstance(self.parts, int)
        shown = [*map(str, self._terms[:_SHOWN]), *(["…"] if len(self._terms) > _SHOWN else [])]
        sizes = f"{self.parts} equal parts" if equal else f"{len(self._terms)} parts {':'.join(shown)}"
        words = [] if one else [f"{sizes} of {self.along}"]
        words += [f"{self.repeats} times"] if self.repeats > 1 else []
        words += [f"({self.layout.replace(' ', ', ')})"] if self.layout != "out in" else []
        return ", ".join(words) or "one matrix"

    @property
    def _terms(self) -> tuple[int, ...]:
        """The sizes of the parts in proportion."""
        return (1,) * self.parts if isinstance(self.parts, int) else self.parts

    # -- within -----------------------------------------------------------------------------------------------------

    def _words(self, ndim: int) -> list[str]:
        words = self.layout.split()
        return words + [words[-1]] * (ndim - len(words))

    def _order(self, ndim: int) -> list[int]:
        """The dimensions of a tensor, those that number matrices first, then what they give, then what they take."""
        words = self._words(ndim)
        return sorted(range(ndim), key=lambda dim: WORDS.index(words[dim]))

    def _sizes(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """How many matrices are stacked, what they give in all and what they take in all."""
        words = self._words(len(shape))
        n, gives, takes = (math.prod(s for s, w in zip(shape, words, strict=True) if w == word) for word in WORDS)
        return n, gives, takes

    def _parts(self, cut: int) -> list[int]:
        """The sizes of the parts of a dimension, of one repeat."""
        period = cut // self.repeats
        unit = period // sum(self._terms)
        return [unit * part for part in self._terms]

    def _check(self, shape: Sequence[int], what: str) -> None:
        words = self.layout.split()
        if len(shape) < len(words) or (self.stacked and len(shape) > len(words)):
            raise bad_argument(
                "blocks", self, f"a layout with a word for each dimension of {what}, of shape {tuple(shape)}"
            )
        _, gives, takes = self._sizes(shape)
        cut = gives if self.along == "out" else takes
        total = sum(self._terms) * self.repeats
        if cut != total and not (math.gcd(*self._terms) == 1 and cut % total == 0):
            times = f", {self.repeats} times," if self.repeats > 1 else ""
            raise bad_argument(
                "blocks", self.parts, f"parts that{times} make up the {cut} {self._side()} of {what}, {tuple(shape)}",
                "Give their number (3), their sizes, or sizes in lowest proportion such as (2, 1, 1)",
            )  # fmt: skip

    def _side(self) -> str:
        return "outputs" if self.along == "out" else "inputs"


#: a tensor that is one matrix
WHOLE = Blocks()


def blocks_of(value: Any) -> Blocks | None:
    """What a number of equal parts, sizes, or None for one matrix says, as blocks.

    Raises:
        ValueError: for anything else.
    """
    if value is None or isinstance(value, Blocks):
        return value
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if sizes and all(map(_is_count, sizes)):
        return Blocks(value if _is_count(value) else sizes)
    raise bad_argument(
        "blocks", value, "a number of equal parts, a tuple of sizes, Blocks(…), None, or a function of a parameter"
    )


def blocks_given(value: Any, p: Tensor, what: str) -> Blocks | None:
    """The blocks that a value says a parameter has, or a function of it.

    Args:
        value: as :func:`blocks_of` takes it, or a function of a parameter that gives such a value.
        p: the parameter. what: its name.

    Raises:
        ValueError: for anything else, and for whatever such a function raises.
    """
    if not callable(value):
        return blocks_of(value)

    @functools.wraps(value)
    def asked(p: Tensor) -> Blocks | None:
        return blocks_of(value(p))

    return answer("blocks", asked, (p,), f"{what}, of shape {tuple(p.shape)}", _REMEDY)


def over(
    function: Callable[[list[Tensor]], Sequence[Tensor]], xs: Sequence[Tensor], blocks: Blocks | None
) -> list[Tensor]:
    """Tensors whose matrices a function made, all at once, of the matrices of these.

    Args:
        function: of matrices (m, n), to as many of the same shapes.
        xs: tensors.
        blocks: how matrices lie in each of them; None: each is one, a kernel (out, in, …) as (out, in·…).
    """
    if blocks is None:
        return [Y.reshape(x.shape) for Y, x in zip(function([x.flatten(1) for x in xs]), xs, strict=True)]
    batches = [blocks.matrices(x) for x in xs]
    found = iter(function([X for of_one in batches for batch in of_one for X in batch.unbind()]))
    return [
        blocks.joined([torch.stack(list(islice(found, len(batch)))) for batch in of_one], x.shape)
        for x, of_one in zip(xs, batches, strict=True)
    ]
