"""How a tensor lies in memory, and as what a rule sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.shards.pieces import is_dense as is_dense
from thalweg.shards.pieces import ranks_of

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


def placed(x: Any, p: Any) -> Any:
    """A tensor distributed over the devices as the parameter ``p`` is; a whole tensor is cut into shards."""
    if not hasattr(p, "_local_tensor"):
        return x
    if not hasattr(x, "_local_tensor"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(x, p.device_mesh, p.placements)
    return x if x.placements == p.placements else x.redistribute(p.device_mesh, p.placements)
