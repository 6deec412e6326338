"""How a tensor lies in memory, and as what a rule sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.ir.counter_rng import Runs
from thalweg.shards.pieces import Piece, layout_of, piece_here, ranks_of
from thalweg.shards.pieces import is_dense as is_dense

#: classes of tensors that are nothing else
ORDINARY = (Tensor, torch.nn.Parameter)


def local(x: Tensor) -> Tensor:
    """The part of a distributed tensor that is here and has arrived, and a complex one as pairs of reals."""
    if type(x) in ORDINARY and not x.is_complex():
        return x
    if hasattr(x, "_local_tensor"):
        x = x._local_tensor
    if hasattr(x, "trigger_wait"):  # what a functional collective gives
        x = x.trigger_wait()
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def in_runs(p: Any) -> bool:
    """Whether the elements that each rank has of a distributed tensor lie in even runs in the whole."""
    return p.is_contiguous() and all(_runs(piece, p.shape) for piece in layout_of(p).pieces)


def runs_of(params: Sequence[Any]) -> list[Runs]:
    """Where in the wholes the elements lie that this rank has; nothing where some lie in no even runs.

    Complex numbers are pairs of real ones.
    """
    if not all(map(in_runs, params)):
        return []
    found = [(p, _runs(piece_here(p), p.shape)) for p in params]
    return [Runs(*(x * (1 + p.is_complex()) for x in runs)) for p, runs in found if runs]


def _runs(piece: Piece, shape: Sequence[int]) -> Runs | None:
    """Where in a tensor of this shape the elements of a piece lie; None where they are in no even runs."""
    if 0 in piece.shape:
        return Runs(0, 1, 1)
    starts = [span.start for span in piece.spans if isinstance(span, slice)]
    if len(starts) < len(shape):
        return None
    last = max((k for k, size in enumerate(piece.shape) if size < shape[k]), default=0)
    if any(piece.shape[k] < shape[k] for k in range(1, last)):
        return None
    width = math.prod(shape[last + 1 :])
    pitch = math.prod(shape[last:])
    first = starts[last] * width if shape else 0
    if last:
        first += starts[0] * math.prod(shape[1:])
    return Runs(first, piece.shape[last] * width if shape else 1, pitch)


def whole_shape(p: Any) -> Tensor:
    """A parameter as :func:`local` gives it; of one of which parts are elsewhere, a tensor of the whole's shape."""
    if not ranks_of(p):
        return local(p)
    return local(torch.empty_strided(p.shape, p.stride(), dtype=p.dtype, device="meta"))


def oriented(x: Tensor, p: Tensor, transposed: bool) -> Tensor:
    """A tensor shaped as the parameter ``p``, as a rule sees it: (out, in, …), whatever way the model keeps it.

    Args:
        x: the parameter itself, its gradient or a state of its shape, here and real.
        p: the parameter.
        transposed: whether its group says that it is kept as (in, out, …).
    """
    return x.transpose(0, 1) if transposed and p.ndim > 1 else x


def opaque(x: Tensor) -> bool:
    """Whether a tensor's memory cannot be addressed: it is on meta, or of a subclass that dispatches for itself."""
    dispatch: Any = type(x).__torch_dispatch__
    return x.is_meta or dispatch is not Tensor.__torch_dispatch__


def is_freed(x: Tensor) -> bool:
    """Whether a tensor has elements but no memory: its storage was resized to 0, as where memory is saved by hand."""
    return not opaque(x) and x.data_ptr() == x.storage_offset() * x.element_size() and x.numel() > 0


def all_ordinary(tensors: Sequence[Tensor]) -> bool:
    """Whether none is of another class than torch's own two."""
    return {*map(type, tensors)} <= {*ORDINARY}


def freed(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Those that have elements but no memory."""
    if all_ordinary(tensors) and not any(map(Tensor.storage_offset, tensors)) and all(map(Tensor.data_ptr, tensors)):
        return []  # found in a fraction of the time
    return [x for x in tensors if is_freed(local(x))]


def placed(x: Any, p: Any) -> Any:
    """A tensor distributed over the devices as the parameter ``p`` is; a whole tensor is cut into shards."""
    if not hasattr(p, "_local_tensor"):
        return x
    if not hasattr(x, "_local_tensor"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(x, p.device_mesh, p.placements)
    return x if x.placements == p.placements else x.redistribute(p.device_mesh, p.placements)
