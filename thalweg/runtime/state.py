"""What is kept for one parameter: its names, shapes and formats, how it begins, and how it is brought to a format."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.ir import counter_rng
from thalweg.ir.fields import StateSpec
from thalweg.runtime import guards
from thalweg.runtime.formats import BLOCK, Format, Storage
from thalweg.runtime.tensors import ORDINARY, is_dense, local, oriented, placed, whole_shape
from thalweg.shards.pieces import is_distributed, like

#: key of the bits below a parameter in its state
MASTER = "master_bits"


def beside_name(name: str, f: Format) -> str:
    """Key of the second tensor in a parameter's state."""
    return f"{'master' if name == 'p' else name}_{f.beside}"


def slots(names: Iterable[str]) -> dict[str, int]:
    """Number the stored tensors; ``p`` comes last, so that two states share a stream of random bits."""
    return {name: i for i, name in enumerate(sorted(names, key=lambda name: name == "p"))}


def formats_of(dtype: torch.dtype, specs: Sequence[StateSpec], storage: Storage) -> dict[str, Format]:
    """How ``p`` and the declared states of a parameter of this dtype lie in memory."""
    dtype = dtype.to_real()
    formats = {"p": storage.of_parameter(dtype)}
    of_copies = storage.never_narrow
    for spec in specs:
        if spec.kind == "tensor":
            formats[spec.name] = (of_copies if spec.begins_at_p else storage).of_state(dtype, spec.signed)
    return formats


def other_shape(spec: StateSpec, p: Tensor, h: Any) -> tuple[tuple[int, ...] | None, torch.dtype]:
    """Shape and dtype of a state that is not shaped as its parameter; no shape where this parameter has none."""
    x = oriented(whole_shape(p), p, h.transposed)
    working = torch.float64 if x.dtype == torch.float64 else torch.float32
    if spec.kind == "aside":
        assert spec.shape is not None
        return spec.shape(x, h), spec.dtype or working
    if spec.kind == "per_tensor" or x.ndim == 0:
        return (), working
    return (x.shape[0] if x.ndim > 1 else 1, *(1 for _ in x.shape[1:])), working


def _full(p: Any, shape: tuple[int, ...], value: float, dtype: torch.dtype) -> Tensor:
    """A state of another shape than its parameter; cut up where that is."""
    placements = like(p, shape)
    if placements is None:
        return torch.full(shape, value, dtype=dtype, device=p.device)
    from torch.distributed.tensor import full

    return full(shape, value, dtype=dtype, device_mesh=p.device_mesh, placements=placements)


def _beside(p: Any, x: Any) -> Tensor:
    """Such a state, placed as :func:`_full` does; a whole one is cut up."""
    placements = like(p, x.shape)
    if placements is None:
        return x.full_tensor() if is_distributed(x) else x  # type: ignore[no-any-return]
    if is_distributed(x):
        return x if x.placements == placements else x.redistribute(p.device_mesh, placements)  # type: ignore[no-any-return]
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x, p.device_mesh, placements)


def missing(spec: StateSpec, p: Tensor, h: Any, mine: Mapping[str, Any]) -> bool:
    """Whether a parameter lacks this state and should have it."""
    if spec.kind == "shared" or mine.get(spec.name) is not None:
        return False
    return spec.kind != "aside" or other_shape(spec, p, h)[0] is not None


def plain_fills(
    specs: Sequence[StateSpec], formats: dict[str, Format], dtype: torch.dtype, h: Any
) -> dict[str, float | None] | None:
    """What a new state holds by name: a number, or None for zeros of the parameter's layout and this dtype of its own.

    None where it holds anything else.
    """
    fills: dict[str, float | None] = {}
    for spec in specs:
        value, f = float(spec.fill(h)), formats.get(spec.name)
        zeros = f is not None and f.dtype == dtype and not (f.beside or spec.begins_at_p or value)
        if not (zeros or spec.counted):
            return None
        fills[spec.name] = None if zeros else value
    return None if formats["p"].beside else fills


def new_state(specs: Sequence[StateSpec], p: Tensor, h: Any, formats: dict[str, Format], mine: dict[str, Any]) -> None:
    """Create in ``mine`` what is missing of the state of one parameter."""
    of_p = formats["p"]
    if of_p.beside and beside_name("p", of_p) not in mine:
        mine[beside_name("p", of_p)] = of_p.new_beside(p.detach())
    for spec in specs:
        if spec.kind == "shared":
            continue
        if mine.get(spec.name) is None:
            if spec.counted:
                mine[spec.name] = float(spec.fill(h))  # a tensor once it is known with whom
                continue
            if spec.kind != "tensor":
                shape, dtype = other_shape(spec, p, h)
                if shape is not None:
                    mine[spec.name] = _full(p, shape, spec.fill(h), dtype)
                continue
            f = formats[spec.name]
            dtype = f.dtype if f.blocked or not p.is_complex() else f.dtype.to_complex()
            mine[spec.name] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False)
            if f.beside:
                mine[beside_name(spec.name, f)] = f.new_beside(mine[spec.name])
            if spec.begins_at_p:
                bits = local(mine[beside_name("p", of_p)]) if of_p.beside else None
                write(mine, spec.name, f, of_p.decode(local(p.detach()), bits))
            elif value := float(spec.fill(h)):
                working = torch.float64 if f.name == "float64" else torch.float32
                write(mine, spec.name, f, torch.full_like(local(p), value, dtype=working))


def write(mine: dict[str, Any], name: str, f: Format, numbers: Tensor) -> None:
    """Encode numbers into a state, rounded to the nearest."""
    beside = mine.get(beside_name(name, f)) if f.beside else None
    Format(f.name).encode(numbers, local(mine[name]), None if beside is None else local(beside), counter_rng.nearest)


class SideBySide(list[Tensor]):
    """Numbers that lie side by side, each also as a 0-dim tensor whose storage holds this one only.

    Args:
        home: the numbers, float32.
    """

    def __init__(self, home: array[float]) -> None:
        self.home = home
        each = range(0, home.itemsize * len(home), home.itemsize)
        super().__init__([torch.frombuffer(home, dtype=torch.float32, count=1, offset=at).squeeze_(0) for at in each])

    @property
    def unmoved(self) -> bool:
        """Whether each tensor still is where its number was laid."""
        start, size, step = self.home.buffer_info()[0], len(self), self.home.itemsize
        return [*map(Tensor.data_ptr, self)] == [*range(start, start + step * size, step)]


def copies(
    params: Sequence[Tensor],
    formats: dict[str, Format],
    specs: Sequence[StateSpec],
    sources: Sequence[Mapping[str, Any]],
) -> dict[str, list[Tensor]] | None:
    """Copies of what a checkpoint holds of many parameters: by name of a state, one for each parameter.

    None where :func:`conform` must look at each, since not everything lies as the next step expects it.

    Args:
        params: the parameters, of one dtype.
        formats: how they and their state tensors are to lie in memory, by name.
        specs: what is kept of each.
        sources: what the checkpoint holds of each.
    """
    plain = all(spec.counted or spec.kind == "tensor" for spec in specs)
    if not plain or any(f.beside or f.blocked or f.dtype != params[0].dtype for f in formats.values()):
        return None
    layouts = guards.layouts(params)
    try:
        found = {spec.name: [*map(itemgetter(spec.name), sources)] for spec in specs}
        numbers = {spec.name: array("f", map(float, found[spec.name])) for spec in specs if spec.counted}
    except (KeyError, RuntimeError, TypeError, ValueError):  # a state is missing, or no number
        return None
    if layouts is None or any(guards.layouts(xs) != layouts for name, xs in found.items() if name not in numbers):
        return None
    return {name: SideBySide(numbers[name]) if name in numbers else _clones(xs) for name, xs in found.items()}


def _clones(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies, in fewer calls than one for each."""
    new = [*map(torch.empty_like, tensors)]
    torch._foreach_copy_(new, [*tensors])
    return new


def conform(
    p: Tensor,
    formats: dict[str, Format],
    specs: Sequence[StateSpec],
    h: Any,
    mine: dict[str, Any],
    source: dict[str, Any] | None = None,
) -> None:
    """Bring one parameter's state to the dtype, layout and device that its next step expects.

    Args:
        p: the parameter.
        formats: how it and its state tensors are to lie in memory, by name.
        specs, h: what is kept of it, and the hyperparameters of its group.
        mine: its state, which may have been loaded, replaced by hand, or made when the parameter had another dtype.
        source: what a checkpoint holds of it, where that is not ``mine``.
    """
    source = mine if source is None else source
    fresh = source is not mine
    for name, f in formats.items():
        old = None if name == "p" else source.get(name)
        if old is None:
            continue
        if not _is_brought(old, f, p) or f"{name}_scale" in source:
            _bring(source, mine, name, f, p)
        elif fresh:
            mine[name] = old.clone()
    for spec in specs:
        if spec.counted and fresh and spec.name in source:
            mine[spec.name] = torch.as_tensor(source[spec.name], device="cpu").clone()
        elif (spec.narrow or spec.kind == "aside") and source.get(spec.name) is not None:
            shape, dtype = other_shape(spec, p, h)
            x = torch.as_tensor(source[spec.name])
            if x.shape != shape:
                remedy = "Give the blocks of the run that saved it" if hasattr(h, "blocks") else ""
                raise bad_argument(f"state {spec.name!r}", tuple(x.shape), f"the shape {shape}", remedy)
            mine[spec.name] = _beside(p, x).to(p.device, dtype, copy=fresh)
    _bring_master(source, mine, formats["p"], p)


def _bring(source: dict[str, Any], mine: dict[str, Any], name: str, f: Format, p: Tensor) -> None:
    """Copy one state from ``source`` to ``mine``, in the format ``f`` and the strides of ``p``."""
    old, scale = source[name], source.get(f"{name}_scale")
    if old.shape != p.shape:
        raise bad_argument(f"state {name!r}", tuple(old.shape), f"the shape of the parameter, {tuple(p.shape)}")
    if scale is not None and scale.numel() != -(-old.numel() // BLOCK):
        raise bad_argument(f"state '{name}_scale'", tuple(scale.shape), f"one number for each {BLOCK} elements")
    if scale is not None and hasattr(p, "_local_tensor") and not hasattr(old, "_local_tensor"):
        old, scale = _numbers(old, scale), None  # blocks do not follow the shards
    old = placed(old, p)
    dtype = f.dtype if f.blocked or not p.is_complex() else f.dtype.to_complex()
    if old.dtype == dtype and (scale is not None) == f.blocked and _same_layout(old, p):
        fresh = source is not mine
        mine[name] = old.to(p.device, copy=fresh)
        if scale is not None:
            mine[f"{name}_scale"] = scale.to(p.device, torch.float32, copy=fresh)
        return
    numbers = _numbers(local(old.to(p.device)), None if scale is None else scale.to(p.device))
    mine.pop(f"{name}_scale", None)
    mine[name] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False)
    if f.beside:
        mine[beside_name(name, f)] = f.new_beside(mine[name])
    here = local(mine[name])
    write(mine, name, f, torch.empty_like(here, dtype=numbers.dtype).copy_(numbers))


def _is_brought(x: Any, f: Format, p: Tensor) -> bool:
    """A fast check whether an ordinary state already has the right format, device and layout."""
    if type(x) is not Tensor or type(p) not in ORDINARY or f.blocked or x.dtype != f.dtype:
        return False
    return x.shape == p.shape and x.stride() == p.stride() and x.device == p.device


def _bring_master(source: dict[str, Any], mine: dict[str, Any], f: Format, p: Tensor) -> None:
    """Convert the bits below a bfloat16 parameter: 8 are the upper half of 16."""
    bits = source.get(MASTER)
    if not f.beside:
        mine.pop(MASTER, None)
    elif bits is not None:
        expected = torch.int8 if f.name == "split8" else torch.int16
        if bits.dtype not in (torch.int8, torch.int16) or bits.shape != p.shape:
            raise bad_argument(MASTER, f"{bits.dtype} of {tuple(bits.shape)}", f"int8 or int16 of {tuple(p.shape)}")
        bits = placed(bits, p)
        if bits.dtype != expected:
            wide = bits.to(torch.int16)
            bits = wide << 8 if expected == torch.int16 else (((wide >> 7) + 1) >> 1).clamp(max=127).to(torch.int8)
        if bits is source[MASTER] and _same_layout(bits, p) and bits.device == p.device:
            mine[MASTER] = bits if source is mine else bits.clone(memory_format=torch.preserve_format)
        else:
            mine[MASTER] = torch.zeros_like(p, dtype=expected, requires_grad=False).copy_(bits)


def _same_layout(x: Tensor, p: Tensor) -> bool:
    """Whether ``x`` lies in memory as a state of ``p`` does: as ``p``, or where that has gaps, without any."""
    x, p = local(x), local(p)
    if not is_dense(p):
        return is_dense(x)
    return x.stride() == p.stride() or all(
        s == t for s, t, n in zip(x.stride(), p.stride(), p.shape, strict=True) if n != 1
    )


def _numbers(kept_: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None:
        return kept_ if kept_.dtype == torch.float64 else kept_.float()
    return Format("uint8" if kept_.dtype == torch.uint8 else "int8").decode(kept_, scale.float())
