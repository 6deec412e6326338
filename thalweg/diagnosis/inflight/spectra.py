r"""How many directions the gradient and the update of a hidden matrix have: effective ranks, from a sketch.

The effective rank is $(\sum\sigma_i^2)^2 / \sum\sigma_i^4$: it is 1 where one singular value is alone, and the number
of singular values where all are equal. With a matrix X of independent normal numbers and $S = X^T M^T M X$ the mean of
S on its diagonal is $\sum\sigma_i^2$, and its mean square beside it $\sum\sigma_i^4$, both in expectation. So thin
products take the place of a decomposition, and no copy of a matrix is kept: for the update M X is the difference of
W X after and before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thalweg.diagnosis.inflight.sampling import over_ranks
from thalweg.runtime.tensors import local

#: columns of a sketch: a rank is known to some 15 per cent
SKETCH = 16
#: matrices at one look, and their elements in all, beyond which the next one waits
AT_ONCE, ELEMENTS = 8, 2**20
#: elements beyond which a matrix is left out, as large embeddings are
LARGEST = 2**24
_SEED = 20230

#: for the number of a parameter, the effective ranks of its gradient and of its update
Ranks = dict[int, tuple[float, float]]


class Spectra:
    """Looks at a few matrices at a time, in turn.

    Args:
        parameters: all.
        matrices: numbers of those that are hidden matrices.
    """

    def __init__(self, parameters: Sequence[Tensor], matrices: Sequence[int]) -> None:
        self.parameters = parameters
        self.matrices = [i for i in matrices if _rows(parameters[i]) is not None]
        self.next = 0
        self.sketches: dict[tuple[int, torch.device], Tensor] = {}  # of this look: kept, they would take memory
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def begin(self) -> None:
        """Look at the gradients and weights of the next few; their update follows."""
        self.before = {}
        for i in self._chosen():
            gradient = self.parameters[i].grad
            if gradient is not None and gradient.layout is torch.strided:
                self.before[i] = self._sketched(gradient), self._sketched(self.parameters[i])

    @torch.no_grad()
    def end(self) -> Callable[[], Ranks]:
        """Look at the weights after the update.

        Returns:
            What moves the ranks to the host, when they are asked for.
        """
        at, seen = list(self.before), self.before
        self.before = {}
        if not at:
            return dict
        pairs = [(seen[i][0], self._sketched(self.parameters[i]) - seen[i][1]) for i in at]
        self.sketches = {}
        columns = torch.stack([torch.stack([x.T @ x for x in pair]).flatten() for pair in pairs], dim=1)
        columns = over_ranks(columns, [self.parameters[i] for i in at])
        return lambda: self._ranks(at, columns.T.reshape(len(at), 2, SKETCH, SKETCH))

    def _chosen(self) -> list[int]:
        chosen: list[int] = []
        size = 0
        while len(chosen) < min(AT_ONCE, len(self.matrices)) and (not chosen or size < ELEMENTS):
            chosen.append(self.matrices[self.next % len(self.matrices)])
            size += self.parameters[chosen[-1]].numel()
            self.next += 1
        return chosen

    def _sketched(self, matrix: Tensor) -> Tensor:
        rows = _rows(matrix)
        assert rows is not None
        return rows.float() @ self._sketch(rows.shape[1], rows.device)

    def _sketch(self, columns: int, device: torch.device) -> Tensor:
        """The same numbers at every look, which disturb no generator of the program."""
        if (columns, device) not in self.sketches:
            generator = torch.Generator(device).manual_seed(_SEED)
            self.sketches[columns, device] = torch.randn(columns, SKETCH, generator=generator, device=device)
        return self.sketches[columns, device]

    def _ranks(self, at: Sequence[int], grams: Tensor) -> Ranks:
        most = [min(p.shape[0], p.numel() // p.shape[0]) for p in (self.parameters[i] for i in at)]
        ranks = _effective(grams).tolist()
        return {i: (min(g, top), min(u, top)) for i, (g, u), top in zip(at, ranks, most, strict=True)}


def _effective(grams: Tensor) -> Tensor:
    """Effective ranks of (…, sketch, sketch); NaN where the matrix is zero."""
    diagonal = grams.diagonal(dim1=-2, dim2=-1)
    beside = (grams.square().sum((-2, -1)) - diagonal.square().sum(-1)) / (SKETCH * (SKETCH - 1))
    return (diagonal.mean(-1).square() / beside).clamp(min=1)


def _rows(matrix: Tensor) -> Tensor | None:
    """The part that is here as a matrix, a row for each output; None where it is none, or cut otherwise."""
    if matrix.ndim not in (2, 4, 5) or matrix.numel() > LARGEST or matrix.is_complex():
        return None
    placements = getattr(matrix, "placements", ())
    if any(placement.is_shard() and placement.dim != 0 for placement in placements):
        return None
    return local(matrix.detach()).flatten(1)
