"""What is measured of parameters, gradients and updates: a number for each tensor, all tensors in one pass.

Every function takes lists of tensors in the same order and returns a float32 vector with one entry for each tensor, on
the tensors' device: nothing is moved to the host, so nothing waits. Of a distributed tensor the part that is here is
measured; squares of norms are what may be added up over ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.runtime.tensors import local

Tensors = Sequence[Tensor]
#: below this a norm counts as zero: a ratio to it says nothing
TINY = 1e-30


def locals_of(tensors: Tensors) -> list[Tensor]:
    """The parts that are here, detached."""
    return [local(x.detach()) for x in tensors]


def norms(tensors: Tensors, order: float = 2.0) -> Tensor:
    """Norm of each tensor: √Σx², or with ``order=inf`` the largest |x|; NaN and infinities show in it."""
    if not tensors:
        return torch.zeros(0)
    parts = [x if x.is_floating_point() else x.float() for x in locals_of(tensors)]
    if order == float("inf"):
        return torch.stack(
            [x.abs().amax().float() if x.numel() else x.new_zeros((), dtype=torch.float32) for x in parts]
        )
    return torch.stack(torch._foreach_norm(parts, order, dtype=_wide(parts))).float()


def rms(tensors: Tensors) -> Tensor:
    """Root mean square of each tensor, √(Σx² / n)."""
    counts = [max(1, x.numel()) for x in locals_of(tensors)]
    return norms(tensors) / torch.tensor(counts, dtype=torch.float32, device=_device(tensors)).sqrt()


def distances(new: Tensors, old: Tensors) -> Tensor:
    """‖new − old‖ of each tensor: how far an update has moved it."""
    return norms(differences(new, old))


def differences(new: Tensors, old: Tensors) -> list[Tensor]:
    """New − old, in float32 at least, so that no difference of 16-bit numbers is rounded again."""
    if not new:
        return []
    return list(torch._foreach_sub([_widened(x) for x in locals_of(new)], [_widened(x) for x in locals_of(old)]))


def ratios(moved: Tensor, size: Tensor) -> Tensor:
    """‖Δw‖ / ‖w‖; NaN where the weights are all zero, for which there is none."""
    return torch.where(size > TINY, moved / size.clamp_min(TINY), torch.nan)


def cosines(a: Tensors, b: Tensors) -> Tensor:
    """Cosine of the angle between each pair of tensors, in [-1, 1]; NaN where one is zero."""
    if not a:
        return torch.zeros(0)
    left, right = ([_widened(x) for x in locals_of(side)] for side in (a, b))
    dots = torch.stack([product.sum() for product in torch._foreach_mul(left, right)]).float()
    return ratios(dots, norms(left) * norms(right))


def changed(new: Tensors, old: Tensors) -> Tensor:
    """Share of the elements that differ, in [0, 1]."""
    pairs = zip(locals_of(new), locals_of(old), strict=True)
    shares = [(x != y).float().mean() if x.numel() else torch.ones(()) for x, y in pairs]
    return torch.stack(shares) if shares else torch.zeros(0)


def units_moved(new: Tensors, old: Tensors) -> Tensor:
    """Mean of |new − old| in units in the last place of the old number, in the dtype in which it is kept."""
    moved = []
    for x, y, gap in zip(locals_of(new), locals_of(old), differences(new, old), strict=True):
        size = y.abs()
        unit = _widened(torch.nextafter(size, torch.full_like(size, torch.inf))) - _widened(size)
        moved.append((gap.abs() / unit.clamp_min(TINY)).mean().float() if x.numel() else torch.zeros(()))
    return torch.stack(moved) if moved else torch.zeros(0)


def nonzero(tensors: Tensors) -> Tensor:
    """Share of the elements that are not exactly zero, in [0, 1]."""
    shares = [(x != 0).float().mean() if x.numel() else torch.ones(()) for x in locals_of(tensors)]
    return torch.stack(shares) if shares else torch.zeros(0)


def _wide(parts: Tensors) -> torch.dtype:
    return torch.float64 if any(x.dtype == torch.float64 for x in parts) else torch.float32


def _widened(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _device(tensors: Tensors) -> torch.device:
    return tensors[0].device if tensors else torch.device("cpu")
