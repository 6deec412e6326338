"""Guards: whether the tensors of a batch are where they were at the last step, so that its tables can be used again.

A parameter's data, its gradient and its state belong to the user, who may replace, move or reshape them between steps.
So every step checks all of them, which is most of what a step of many small tensors costs. Where there is a compiler,
and torch has a table of functions for exchanging tensors (DLPack), the check runs in C (`guards.c`); else in Python.
"""

from __future__ import annotations

import ctypes
import functools
from array import array
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from operator import is_
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg.native import compiler
from thalweg.runtime.tensors import local, opaque, placed

#: entries of a dict that may be skipped for each that is wanted, before looking each up is faster
MOST_SKIPPED = 16


class Guards:
    """The guards of one batch: its parameters, their gradients and their states.

    Args:
        owners: the parameters.
        states: what is kept for each of them, as the optimizer holds it; empty dicts where the rule keeps nothing.
        names: of the state tensors in these.
        objects: for other entries of the states, the very objects that must be there: numbers in tensors that lie side
            by side.
        dense: whether gradients must lie in memory as their parameters do.
        sparse: whether sparse gradients are taken, and made dense.
        all_states: the dict from parameters to their states.
    """

    def __init__(
        self,
        owners: Sequence[Tensor],
        states: Sequence[dict[str, Any]],
        names: Sequence[str],
        objects: Mapping[str, Sequence[Any]],
        dense: bool,
        sparse: bool,
        all_states: dict[Any, Any],
    ) -> None:
        self.owners, self.states, self.objects, self.dense, self.sparse = owners, states, objects, dense, sparse
        self.distributed = any(hasattr(p, "_local_tensor") for p in owners)
        self.wrapped = self.distributed or any(p.is_complex() for p in owners)
        self.params = [local(p.detach()) for p in owners]
        grads = [p.grad for p in owners]
        #: where the memory of such tensors is cannot be known, so their batch serves one step only
        self.opaque = any(map(opaque, self.params)) or any(opaque(local(g)) for g in grads if g is not None)
        self.used = False
        self.layout = [_layout(p) for p in self._here(owners)]
        self.pointers = list(map(Tensor.data_ptr, self._here(owners)))
        kept = {name: [s[name] for s in states] for name in names}
        self.state_locations = {name: list(map(_location, ts)) for name, ts in kept.items()}
        self.single = [i for i, p in enumerate(self.params) if p.numel() == 1]
        self.dtypes = [g.dtype for p in owners if (g := p.grad) is not None]
        self.addresses: Sequence[int] = []
        self.uniform = False  # whether the last check found the numbers of all parameters the same
        self.table = None
        if not (self.wrapped or self.opaque) and dense and all(map(_is_like_its_gradient, owners)):
            self.table = GuardTable.over(owners, states, kept, objects, all_states)
        #: whether the table itself checks which state the optimizer keeps for which parameter
        self.checks_states = self.table is not None and bool(self.table.struct.states)

    def gradients(self, owners: Sequence[Tensor], states_now: Callable[[], Sequence[Any]] | None, listed: bool) -> Any:
        """The gradients, here and laid out as the parameters are, and their ``addresses``; None if anything has moved.

        Args:
            owners: the parameters as the optimizer has them now.
            states_now: gives what it keeps for them now; None where the rule keeps nothing.
            listed: whether the gradients themselves are wanted; else an empty list stands for them.
        """
        if len(owners) != len(self.owners) or not all(map(is_, owners, self.owners)):
            return None
        if self.opaque and self.used:
            return None
        self.used = True
        states = None if states_now is None or self.checks_states else states_now()
        if states is not None and not all(map(is_, states, self.states)):
            return None
        self.uniform = self.table is not None and self.table.unchanged()
        if self.uniform and self.table is not None:
            self.addresses = self.table.address
            return [p.grad for p in owners] if listed else []
        if self.checks_states and states_now is not None:
            states = states_now()
            if not all(map(is_, states, self.states)):
                return None
        return self._gradients(owners, states)

    def count(self, numbers: Tensor) -> None:
        """Add 1 to numbers of the states that lie side by side."""
        if self.table is None:
            numbers.add_(1)
        else:
            self.table.functions.count(numbers.data_ptr(), len(numbers))

    def _gradients(self, owners: Sequence[Tensor], states: Sequence[dict[str, Any]] | None) -> list[Tensor] | None:
        here = self._here(owners)
        if list(map(Tensor.data_ptr, here)) != self.pointers or list(map(_layout, here)) != self.layout:
            return None
        grads: list[Any] = [p.grad for p in owners]
        try:
            if [g.dtype for g in grads] != self.dtypes or [g.shape for g in grads] != [p.shape for p in owners]:
                return None
            if any([g.layout is not torch.strided for g in grads]):
                if not self.sparse:
                    return None
                grads = [g if g.layout is torch.strided else g.to_dense() for g in grads]
            if not self._states_unchanged(states):
                return None
        except (AttributeError, KeyError, RuntimeError, TypeError):  # no gradient, a state that is no tensor any more
            return None
        if self.wrapped or any(map(opaque, grads)):
            grads = [local(placed(g, p)) for g, p in zip(grads, owners, strict=True)]
            if not self.opaque and any(map(opaque, grads)):
                return None
        # a sign yet to be applied; a view with one has gaps, and is copied below, unless it is of one number
        if self.single and any([grads[i].is_neg() for i in self.single]):
            grads = [g.resolve_neg() for g in grads]
        if self.dense:
            grads = [g if g.stride() == p.stride() else _like(g, p) for p, g in zip(self.params, grads, strict=True)]
        self.addresses = list(map(Tensor.data_ptr, grads))
        return grads

    def _states_unchanged(self, states: Sequence[dict[str, Any]] | None) -> bool:
        if states is None:
            return True
        return all(self._state_unchanged(i, state) for i, state in enumerate(states))

    def _state_unchanged(self, i: int, state: dict[str, Any]) -> bool:
        try:
            tensors = all(_location(state[n]) == at[i] for n, at in self.state_locations.items())
            return tensors and all(state[name] is xs[i] for name, xs in self.objects.items())
        except (AttributeError, KeyError, RuntimeError, TypeError):
            return False

    def _here(self, owners: Sequence[Tensor]) -> Sequence[Tensor]:
        return [local(p) for p in owners] if self.distributed else owners


def _layout(x: Tensor) -> Any:
    return x.dtype, x.shape, x.stride()


def _location(x: Tensor) -> Any:
    x = x._local_tensor if hasattr(x, "_local_tensor") else x
    return x.data_ptr(), x.dtype, x.shape, x.stride()


def _is_like_its_gradient(p: Tensor) -> bool:
    g = p.grad
    if g is None or opaque(g) or g.layout != torch.strided:
        return False
    return g.shape == p.shape and g.stride() == p.stride()


def _like(g: Tensor, p: Tensor) -> Tensor:
    """``g`` in the order of memory of ``p``."""
    return torch.empty_like(p, dtype=g.dtype, requires_grad=False).copy_(g)


class _GuardTableStruct(ctypes.Structure):
    """``GuardTable`` of `guards.c`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("dlpack", "attribute", "release", "item", "next", "none")),
        *((name, ctypes.c_void_p) for name in ("grad", "fields")),
        *((name, ctypes.c_int64) for name in ("size", "kinds", "numbers", "most", "before")),
        *((name, ctypes.c_void_p) for name in ("states", "owner", "state", "kind", "order", "layout")),
        ("place", ctypes.c_void_p),
        ("words", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("record", "gradient", "number", "home", "address")),
    ]


class FieldOffsets(ctypes.Structure):
    """Where in memory a tensor has its fields: what the C knows as ``FieldOffsets``.

    torch does not promise these places, so they are found by trying, once in a process: a tensor is moved in every way
    there is (``MOVES``), and each must show. Where one does not, every tensor is asked at every step.
    """

    _fields_: ClassVar = [
        *((name, ctypes.c_int64) for name in ("type", "tensor", "storage", "tensor_end", "storage_end")),
        *((name, ctypes.c_void_p) for name in ("tensor_type", "parameter_type")),
    ]
    #: so many sizes and strides are tried; those of more dimensions may lie elsewhere
    MOST = 5
    #: bytes that a tensor and its storage may take at most
    TENSOR, STORAGE = 256, 64

    @classmethod
    def found(cls, functions: Any) -> FieldOffsets | None:
        """The places, or None where some change would not show.

        Args:
            functions: of `guards.c`.
        """
        x = torch.zeros(4, 6)
        tensor, storage = x._cdata, x.untyped_storage()._cdata
        self = cls(
            _word(id(x), torch.Tensor.__basicsize__, id(torch.Tensor)),
            _word(id(x), torch.Tensor.__basicsize__, tensor),
            _word(tensor, 64, storage), 24, 24, id(torch.Tensor), id(torch.nn.Parameter),
        )  # fmt: skip
        if min(self.type, self.tensor, self.storage) < 0:
            return None
        for name, most in (("storage_end", cls.STORAGE), ("tensor_end", cls.TENSOR)):
            changes = MOVES_OF_STORAGE if name == "storage_end" else MOVES
            while not all(self._shows(functions, *change) for change in changes):
                if getattr(self, name) >= most:
                    return None
                setattr(self, name, getattr(self, name) + 8)
        return self

    @property
    def words(self) -> int:
        """The length of a tensor's record: its address, its fields, those of its storage."""
        return int(1 + (self.tensor_end + self.storage_end) // 8 - 4)

    def _shows(self, functions: Any, change: Callable[[Tensor], Any], start: Callable[[Tensor], Any]) -> bool:
        x = torch.zeros(10, 6)[:4]
        start(x)
        record = array("Q", bytes(8 * self.words))
        given = ctypes.addressof(self), id(x), record.buffer_info()[0]
        functions.record(*given)
        unmoved = functions.matches(*given)
        change(x)
        return bool(unmoved and not functions.matches(*given))


def _word(start: int, size: int, wanted: int) -> int:
    """The offset in bytes at which an object holds a number; negative if it does not."""
    words = (ctypes.c_uint64 * (size // 8)).from_address(start)
    return next((8 * i for i, word in enumerate(words) if word == wanted), -1)


def _data(make: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
    """A change of a tensor's data to what is made of it."""

    def change(x: Tensor) -> None:
        x.data = make(x.data)

    return change


def _as(size: Sequence[int], stride: Sequence[int], offset: int = 0) -> Callable[[Tensor], None]:
    return _data(lambda x: x.as_strided(size, stride, offset))


def _one_of_five(i: int, value: int) -> list[int]:
    return [value if k == i else 1 for k in range(5)]


_START, _OF_FIVE = _as((4, 6), (6, 1)), _as([1] * 5, [1] * 5)
#: how a tensor may be moved, and what it was before. What shows in its storage alone:
MOVES_OF_STORAGE: tuple[tuple[Callable[[Tensor], Any], Callable[[Tensor], Any]], ...] = (
    (lambda x: x.untyped_storage().resize_(1 << 16), _START),
)
#: what shows in the tensor: other memory, another shape, each of five sizes and strides, the offset, the dtype alone
MOVES: tuple[tuple[Callable[[Tensor], Any], Callable[[Tensor], Any]], ...] = (
    (_data(torch.clone), _START),
    (_as((6, 4), (4, 1)), _START),
    (_as((24,), (1,)), _START),
    (_as((), ()), _as((1,), (1,))),
    *((_as(_one_of_five(i, 2), [1] * 5), _OF_FIVE) for i in range(5)),
    *((_as([1] * 5, _one_of_five(i, 2)), _OF_FIVE) for i in range(5)),
    (_as((4, 6), (6, 1), 6), _START),
    (_data(lambda x: x.view(torch.int32)), _START),
    (lambda x: torch.utils.swap_tensors(x, torch.zeros(4, 6)), _START),  # type: ignore[no-untyped-call]
)


class GuardTable:
    """The table of `guards.c` for the parameters and states of a batch, none of them distributed or complex."""

    def __init__(self, functions: Any, dlpack: int) -> None:
        self.functions = functions
        self.dlpack = dlpack
        self.struct = _GuardTableStruct()
        self.keep: list[Any] = []
        self.address = array("Q")

    @classmethod
    def over(
        cls,
        owners: Sequence[Tensor],
        states: Sequence[dict[str, Any]],
        kept: Mapping[str, Sequence[Tensor]],
        objects: Mapping[str, Sequence[Any]],
        all_states: dict[Any, Any],
    ) -> GuardTable | None:
        """A table for these as they are now; None without a compiler, or where torch has no exchange table."""
        functions, dlpack = _functions(), _exchange_table()
        if functions is None or dlpack is None:
            return None
        self = cls(functions, dlpack)
        size = len(owners)
        names = [*kept, *objects]
        before, fields = _entries_before(owners, all_states), _offsets()
        words = fields.words if fields else 0
        self.address = array("Q", bytes(8 * size))
        layout, place = self._describe([*owners, *(t for ts in kept.values() for t in ts)])
        gradient, _ = self._describe([p.grad for p in owners])
        python = ctypes.pythonapi
        calls = (python.PyObject_GetAttr, python.Py_DecRef, python.PyDict_GetItem, python.PyDict_Next)
        self.struct = _GuardTableStruct(
            dlpack, *map(_address, calls),
            id(None), id(GRAD), ctypes.addressof(fields) if fields else 0,
            size, len(kept), len(objects), FieldOffsets.MOST, before or 0,
            0 if before is None else id(all_states), self._array(map(id, owners)), self._array(map(id, states)),
            self._array(map(id, names)), self._array(_order(names, states)),
            self._array(layout), self._array(place), words, self._array(bytes(8 * words * (len(layout) + size))),
            self._array(gradient),
            self._array(id(x) for xs in objects.values() for x in xs),
            self._array(xs[0].data_ptr() for xs in objects.values()), self.address.buffer_info()[0],
        )  # fmt: skip
        self.keep += [owners, states, names, objects, all_states]
        return self

    def unchanged(self) -> bool:
        """Whether all tensors are where they were, and gradients have the same layout; updates ``address``."""
        try:
            return bool(self.functions.unchanged(ctypes.addressof(self.struct)))
        except Exception:  # whatever torch says of a tensor that it cannot describe: Python looks closer
            return False

    def _describe(self, tensors: Sequence[Any]) -> tuple[array[int], array[int]]:
        size = len(tensors)
        objects, layout, place = (array("Q", bytes(8 * size)) for _ in range(3))
        objects[:] = array("Q", map(id, tensors))
        pointers = [x.buffer_info()[0] for x in (objects, layout, place)]
        self.functions.describe(self.dlpack, pointers[0], size, pointers[1], pointers[2])
        return layout, place

    def _array(self, values: Any) -> int:
        table = array("Q", values)
        self.keep.append(table)
        return table.buffer_info()[0] if table else 0


def _entries_before(owners: Sequence[Tensor], all_states: dict[Any, Any]) -> int | None:
    """How many entries precede theirs; None if they are in another order, or so many precede that a walk takes long."""
    keys = list(all_states)
    before = next((i for i, p in enumerate(keys) if p is owners[0]), len(keys))
    here = keys[before : before + len(owners)]
    near = before <= MOST_SKIPPED * len(owners)
    return before if near and len(here) == len(owners) and all(map(is_, here, owners)) else None


def _order(names: Sequence[str], states: Sequence[dict[str, Any]]) -> list[int]:
    """The numbers of the names, in the order in which the states hold them."""
    held = {name: i for i, name in enumerate(states[0])} if states else {}
    return sorted(range(len(names)), key=lambda i: held.get(names[i], len(held)))


#: the attribute's name as one object that is never freed
GRAD = "grad"


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@functools.cache
def _exchange_table() -> int | None:
    """The address of torch's exchange table, of DLPack's first major version."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.argtypes, pointer.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
    try:
        table = pointer(capsule, b"dlpack_exchange_api")
    except (TypeError, ValueError):
        return None
    return table if table and ctypes.cast(table, ctypes.POINTER(ctypes.c_uint32))[0] == 1 else None


def _functions() -> Any:
    """`guards.c`, called with the interpreter's lock held; None without a compiler."""
    if not compiler.available()[0]:
        return None
    try:
        return _loaded()
    except compiler.CompilerError:  # whoever asks for the generated C will hear of it
        return None


@functools.cache
def _offsets() -> FieldOffsets | None:
    try:
        return FieldOffsets.found(_loaded())
    except (AttributeError, RuntimeError, TypeError):  # a torch whose tensors differ: each is asked
        return None


@functools.cache
def _loaded() -> Any:
    source = files("thalweg.runtime").joinpath("guards.c").read_text(encoding="utf-8")
    functions = ctypes.PyDLL(compiler.library(source).cdll._name)
    functions.describe.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    functions.unchanged.argtypes = [ctypes.c_void_p]
    functions.count.argtypes, functions.count.restype = [ctypes.c_void_p, ctypes.c_int64], None
    functions.record.argtypes, functions.record.restype = [ctypes.c_void_p] * 3, None
    functions.matches.argtypes = [ctypes.c_void_p] * 3
    functions.describe.restype = functions.unchanged.restype = ctypes.c_int64
    return functions
