"""Guards: whether the tensors of a batch are where they were at the last step, so that its tables can be used again.

A parameter's data, its gradient and its state belong to the user, who may replace, move or reshape them between steps.
So every step checks all of them, which is most of what a step of many small tensors costs. Where there is a compiler,
and torch has a table of functions for exchanging tensors (DLPack), the check runs in C (`guards.c`); else in Python.
"""

from __future__ import annotations

import ctypes
import functools
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from operator import is_
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg.native import compiler
from thalweg.runtime.tensors import all_ordinary, is_freed, local, opaque, placed

#: entries of a dict for each that is wanted, from which looking each up is faster than a walk
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
        all_states: the dict from parameters to their states; None where the rule keeps nothing.
        groups: the number of each parameter's group.
        begins: for each parameter a number that tells which of its states begin with the next step; 0 for none.
        ordinary: whether all parameters and gradients are known to be real, here, and in memory that can be addressed.

    Attributes:
        addresses: where the gradients lie, as the last look found it; 0 for a parameter without one.
        present: how many parameters have a gradient.
        moved: positions of parameters that lie elsewhere, or of which a state does; the table knows where.
    """

    def __init__(
        self,
        owners: Sequence[Tensor],
        states: Sequence[dict[str, Any]],
        names: Sequence[str],
        objects: Mapping[str, Sequence[Any]],
        dense: bool,
        sparse: bool,
        all_states: dict[Any, Any] | None,
        groups: Sequence[int],
        begins: array[int],
        ordinary: bool,
    ) -> None:
        self.owners, self.states, self.objects, self.dense, self.sparse = owners, states, objects, dense, sparse
        self.all_states = all_states
        self.distributed = not ordinary and any(hasattr(p, "_local_tensor") for p in owners)
        self.wrapped = self.distributed or (not ordinary and any(p.is_complex() for p in owners))
        self.params = [] if ordinary else [local(p.detach()) for p in owners]
        grads = [g for p in owners if (g := p.grad) is not None]
        #: where the memory of such tensors is cannot be known, so their batch serves one step only
        self.opaque = not ordinary and (any(map(opaque, self.params)) or any(opaque(local(g)) for g in grads))
        self.used = False
        kept = {name: [s[name] for s in states] for name in names}
        self.dtype = grads[0].dtype
        self.addresses: Sequence[int] = []
        self.present = 0
        self.moved: list[int] = []
        self.adapted: list[Tensor] = []  # gradients that could not be used as they lay; the addresses are of these
        self.table = None
        sample = next((g for g in grads if _is_strided(g)), None)
        described = ordinary or not (self.wrapped or self.opaque or any(map(opaque, grads)))
        if described and dense and sample is not None:
            self.table = GuardTable.over(owners, states, kept, objects, all_states or {}, groups, begins, sample)
        if self.table is None:
            self.params = self.params or [local(p.detach()) for p in owners]
            self.layout = [_layout(p) for p in self._here(owners)]
            self.pointers = list(map(Tensor.data_ptr, self._here(owners)))
            self.state_locations = {name: list(map(_location, ts)) for name, ts in kept.items()}
            self.single = [i for i, p in enumerate(self.params) if p.numel() == 1]
        #: whether the table itself checks which state the optimizer keeps for which parameter
        self.checks_states = self.table is not None and bool(self.table.struct.states)

    def follow(self, all_states: dict[Any, Any]) -> bool:
        """Guard other states, which are in ``states`` and ``objects`` now: the next look finds how they lie.

        Args:
            all_states: the dict from parameters to them.

        Returns:
            False where the table cannot look at them as fast as at those before.
        """
        if self.table is None:
            return False
        self.all_states = all_states
        self.table.follow(self.states, self.objects, all_states)
        return bool(self.table.struct.states) == self.checks_states

    def look(self, listed: bool) -> list[Tensor] | None:
        """The gradients, here and laid out as the parameters are; None if the batch must be made again.

        Where some are missing the list is empty.

        Args:
            listed: whether the gradients themselves are wanted; else an empty list stands for them.
        """
        if self.opaque and self.used:
            return None
        self.used = True
        asked = self.all_states is not None and not self.checks_states
        if asked and not all(map(is_, self._states_now(), self.states)):
            return None
        if self.table is None:
            return self._look()
        self.adapted, self.moved = [], []
        if not self.table.look():
            return None
        struct = self.table.struct
        self.addresses, self.present = self.table.address, struct.present
        if struct.moves:
            self.moved = self.table.moved[: struct.moves].tolist()
        if struct.odds and not self._adapt(self.table.odd[: struct.odds]):
            return None
        if not listed or self.present < len(self.owners):
            return []
        grads: list[Any] = [p.grad for p in self.owners]
        for i, g in zip(self.table.odd, self.adapted, strict=False):
            grads[i] = g
        return grads

    def _adapt(self, odd: Iterable[int]) -> bool:
        """Bring these gradients to the layout of their parameters; whether that could be done."""
        for i in odd:
            p, g = self.owners[i], self.owners[i].grad
            if g is None or g.dtype != self.dtype or g.shape != p.shape or not (self.sparse or _is_strided(g)):
                return False
            g = g if _is_strided(g) else g.to_dense()
            if opaque(g) or is_freed(g):
                return False
            g = g.resolve_neg()  # a sign yet to be applied
            self.adapted.append(g if g.stride() == p.stride() else _like(g, p))
            self.addresses[i] = self.adapted[-1].data_ptr() or 1  # type: ignore[index]
        return True

    def _look(self) -> list[Tensor] | None:
        """The same check in Python, where there is no compiled table."""
        owners = self.owners
        here = self._here(owners)
        grads: list[Any] = [p.grad for p in owners]
        self.present = sum([g is not None for g in grads])
        if self.present == 0:
            return []
        if list(map(Tensor.data_ptr, here)) != self.pointers or list(map(_layout, here)) != self.layout:
            return None
        try:
            if any([g.dtype != self.dtype for g in grads]) or [g.shape for g in grads] != [p.shape for p in owners]:
                return None
            if not all(map(_is_strided, grads)):
                if not self.sparse:
                    return None
                grads = [g if _is_strided(g) else g.to_dense() for g in grads]
            if not all(map(self._state_unchanged, range(len(owners)))):
                return None
        except (AttributeError, KeyError, RuntimeError, TypeError):  # no gradient, a state that is no tensor any more
            return None
        if self.wrapped or any(map(opaque, grads)):
            grads = [local(placed(g, p)) for g, p in zip(grads, owners, strict=True)]
            if not self.opaque and any(map(opaque, grads)):
                return None
        if any(map(is_freed, grads)):
            return None
        # a sign yet to be applied; a view with one has gaps, and is copied below, unless it is of one number
        if self.single and any([grads[i].is_neg() for i in self.single]):
            grads = [g.resolve_neg() for g in grads]
        if self.dense:
            grads = [g if g.stride() == p.stride() else _like(g, p) for p, g in zip(self.params, grads, strict=True)]
        self.addresses = list(map(Tensor.data_ptr, grads))
        return grads

    def _states_now(self) -> list[Any]:
        return states_of(self.owners, self.all_states or {})

    def _state_unchanged(self, i: int) -> bool:
        state = self.states[i]
        try:
            tensors = all(_location(state[n]) == at[i] for n, at in self.state_locations.items())
            return tensors and all(state[name] is xs[i] for name, xs in self.objects.items())
        except (AttributeError, KeyError, RuntimeError, TypeError):
            return False

    def _here(self, owners: Sequence[Tensor]) -> Sequence[Tensor]:
        return [local(p) for p in owners] if self.distributed else owners


def states_of(params: Sequence[Tensor], all_states: Mapping[Any, Any]) -> list[Any]:
    """The state of each of these parameters; None for one that has none."""
    if len(all_states) == len(params) and all(map(is_, all_states, params)):
        return list(all_states.values())  # many times faster than to look each up
    return [all_states.get(p) for p in params]


def _is_strided(x: Tensor) -> bool:
    return x.layout is torch.strided


def _layout(x: Tensor) -> Any:
    return x.dtype, x.shape, x.stride()


def _location(x: Tensor) -> Any:
    x = x._local_tensor if hasattr(x, "_local_tensor") else x
    return x.data_ptr(), x.dtype, x.shape, x.stride()


def _like(g: Tensor, p: Tensor) -> Tensor:
    """``g`` in the order of memory of ``p``."""
    return torch.empty_like(p, dtype=g.dtype, requires_grad=False).copy_(g)


class _GuardTableStruct(ctypes.Structure):
    """``GuardTable`` of `guards.c`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("dlpack", "attribute", "release", "item", "next", "forget", "none")),
        *((name, ctypes.c_void_p) for name in ("grad", "fields")),
        *((name, ctypes.c_int64) for name in ("size", "kinds", "numbers", "most")),
        *((name, ctypes.c_void_p) for name in ("states", "owner", "state", "kind", "order", "layout")),
        ("place", ctypes.c_void_p),
        ("words", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("record", "gradient", "seen", "number", "home", "group")),
        ("groups", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("begins", "address", "moved")),
        ("moves", ctypes.c_int64),
        ("odd", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("odds", "present")),
        ("entry", ctypes.c_void_p),
        ("entries", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("first", "before_it", "latest")),
    ]


class FieldOffsets(ctypes.Structure):
    """Where in memory a tensor has its fields: what the C knows as ``FieldOffsets``.

    torch does not promise these places, so they are found by trying, once in a process: a tensor is moved in every way
    there is (``MOVES``), and each must show. Where one does not, every tensor is asked at every step.
    """

    _fields_: ClassVar = [
        *((name, ctypes.c_int64) for name in ("type", "tensor", "storage", "memory", "tensor_end", "storage_end")),
        *((name, ctypes.c_void_p) for name in ("tensor_type", "parameter_type")),
    ]
    #: how many sizes and strides are tried; those of more dimensions may lie elsewhere
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
            _word(tensor, 64, storage), _word(storage, cls.STORAGE, x.data_ptr()), 24, 24,
            id(torch.Tensor), id(torch.nn.Parameter),
        )  # fmt: skip
        if min(self.type, self.tensor, self.storage, self.memory) < 0:
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
    """A function that replaces a tensor's data by what ``make`` gives for it."""

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
    """The table of `guards.c` for the parameters and states of a batch, none of them distributed or complex.

    Attributes:
        address, moved, odd, entry, first: as there, of one number for each parameter.
        place: addresses of the parameters, then of each kind of their states; kept up to date by each look.
        state, order, number, home: as there, of the states that are looked at.

    Args:
        functions: of `guards.c`.
        owners: the parameters.
        kept, objects: names of the tensors in their states, and of the other entries.
    """

    def __init__(self, functions: Any, owners: Sequence[Tensor], kept: Iterable[str], objects: Iterable[str]) -> None:
        size = len(owners)
        self.owners, self.names, numbers = owners, [*kept, *objects], len([*objects])
        self.functions = functions
        self.struct, self.at = _GuardTableStruct(), 0
        self.keep: list[Any] = []
        self.address = array("Q", bytes(8 * size))
        self.moved, self.odd, self.entry, self.first = (array("q", bytes(8 * size)) for _ in range(4))
        self.place = array("Q")
        self.state, self.number, self.home = (array("Q", bytes(8 * n)) for n in (size, size * numbers, numbers))
        self.order = array("q", bytes(8 * len(self.names)))

    @classmethod
    def over(
        cls,
        owners: Sequence[Tensor],
        states: Sequence[dict[str, Any]],
        kept: Mapping[str, Sequence[Tensor]],
        objects: Mapping[str, Sequence[Any]],
        all_states: dict[Any, Any],
        groups: Sequence[int],
        begins: array[int],
        sample: Tensor,
    ) -> GuardTable | None:
        """A table for these as they are now; None without a compiler, or where torch has no exchange table.

        Args:
            sample: a gradient, for the dtype of all.
        """
        library, dlpack = functions(), exchange_table()
        if library is None or dlpack is None:
            return None
        size = len(owners)
        self = cls(library, owners, kept, objects)
        fields = _offsets()
        words = fields.words if fields else 0
        tensors = [*owners, *(t for ts in kept.values() for t in ts)]
        layout, self.place = _describe(library, dlpack, tensors, None)
        like = sample.dtype == owners[0].dtype  # of all owners
        gradient = layout[:size] if like else _describe(library, dlpack, owners, sample)[0]
        order = {g: k for k, g in enumerate(dict.fromkeys(groups))}
        python = ctypes.pythonapi
        calls = (
            python.PyObject_GetAttr, python.Py_DecRef, python.PyDict_GetItem, python.PyDict_Next, python.PyErr_Clear,
        )  # fmt: skip
        self.struct = _GuardTableStruct(
            dlpack, *map(address_of, calls),
            id(None), id(GRAD), ctypes.addressof(fields) if fields else 0,
            size, len(kept), len(objects), FieldOffsets.MOST, 0,
            self._array(map(id, owners)), _start(self.state), self._array(map(id, self.names)),
            _start(self.order), self._array(layout), _start(self.place),
            words, self._array(bytes(8 * words * (len(layout) + size))),
            self._array(gradient), self._array(bytes(8 * size)),
            _start(self.number), _start(self.home),
            self._array(order[g] for g in groups), len(order), _start(begins),
            _start(self.address), _start(self.moved), 0, _start(self.odd), 0, 0,
            _start(self.entry), 0, _start(self.first), self._array(bytes(8 * size)), self._array(bytes(8 * len(order))),
        )  # fmt: skip
        self.at = ctypes.addressof(self.struct)
        self.keep += [states, objects, begins]
        self.follow(states, objects, all_states)
        return self

    def follow(
        self, states: Sequence[dict[str, Any]], objects: Mapping[str, Sequence[Any]], all_states: dict[Any, Any]
    ) -> None:
        """Look at these states from now on."""
        self.all_states = all_states
        self.state[:] = array("Q", map(id, states))
        self.order[:] = array("q", _order(self.names, states))
        self.number[:] = array("Q", [id(x) for xs in objects.values() for x in xs])
        self.home[:] = array("Q", [xs[0].data_ptr() for xs in objects.values()])
        self.struct.states = id(all_states) if _are_listed(self.owners, all_states) else 0

    def look(self) -> bool:
        """Look at all tensors; False if any is not what the table was made of."""
        return bool(self.functions.look(self.at))

    def firsts(self) -> list[int]:
        """Of each entry of the last look, of parameters that take the same numbers of the host, the first of them."""
        count = self.struct.entries
        return [self.first[0]] if count == 1 else self.first[:count].tolist()

    def write(self, values: array[float]) -> None:
        """Write the new numbers of the states of all parameters that have a gradient.

        Args:
            values: float32, for each number of a state one for each entry.
        """
        self.functions.write_numbers(self.at, values.buffer_info()[0])

    def _array(self, values: Any) -> int:
        table = array("Q", values)
        self.keep.append(table)
        return _start(table) if table else 0


def _describe(library: Any, dlpack: int, tensors: Sequence[Any], sample: Any) -> tuple[array[int], array[int]]:
    """Layouts and addresses, as `guards.c` finds them."""
    objects = array("Q", map(id, tensors))
    layout, place = (array("Q", bytes(8 * len(objects))) for _ in range(2))
    at = 0 if sample is None else id(sample)
    library.describe(dlpack, _start(objects), len(objects), at, _start(layout), _start(place))
    return layout, place


def layouts(tensors: Sequence[Tensor]) -> Sequence[int] | None:
    """For each tensor a number that tells device, dtype, shape and strides; None where some cannot be read in C."""
    library, dlpack = functions(), exchange_table()
    if library is None or dlpack is None or not all_ordinary(tensors):
        return None
    try:
        return _describe(library, dlpack, tensors, None)[0]
    except UNREAD:
        return None


def extents(tensors: Sequence[Tensor]) -> tuple[array[int], array[int]] | None:
    """Where in memory tensors begin and end; None where some cannot be read in C, have gaps, or are lazy views."""
    library, dlpack = functions(), exchange_table()
    if library is None or dlpack is None or not all_ordinary(tensors):
        return None
    if any(map(Tensor.is_neg, tensors)) or any(map(Tensor.is_conj, tensors)):
        return None
    objects = array("Q", map(id, tensors))
    begin, end = (array("Q", bytes(8 * len(objects))) for _ in range(2))
    try:
        read = library.extents(dlpack, _start(objects), len(objects), _start(begin), _start(end))
    except UNREAD:
        return None
    return (begin, end) if read == len(objects) else None


def available() -> bool:
    """Whether tensors can be looked at in C."""
    return functions() is not None and exchange_table() is not None


def _start(values: array[Any]) -> int:
    return values.buffer_info()[0]


def _are_listed(owners: Sequence[Tensor], all_states: dict[Any, Any]) -> bool:
    """Whether the dict holds these keys in this order, and so few others that iterating over it is as fast."""
    if len(all_states) > MOST_SKIPPED * len(owners):
        return False
    keys = iter(map(id, all_states))
    return all(id(p) in keys for p in owners)


def _order(names: Sequence[str], states: Sequence[dict[str, Any]]) -> list[int]:
    """The indices of the names, in the order of the keys of the state dicts."""
    held = {name: i for i, name in enumerate(states[0])} if states else {}
    return sorted(range(len(names)), key=lambda i: held.get(names[i], len(held)))


#: what DLPack raises for a tensor that it cannot read, such as a sparse one, or one on meta
UNREAD = (BufferError, RuntimeError, TypeError, ValueError)
#: the attribute's name as one object that is never freed
GRAD = "grad"


def address_of(function: Any) -> int:
    """Of a function of C."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@functools.cache
def exchange_table() -> int | None:
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


def functions() -> Any:
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
    loaded = ctypes.PyDLL(compiler.library(source).cdll._name)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.describe.argtypes = [pointer, pointer, number, pointer, pointer, pointer]
    loaded.look.argtypes = loaded.look_at_groups.argtypes = [pointer]
    loaded.write_numbers.argtypes = [pointer, pointer]
    loaded.record.argtypes = loaded.matches.argtypes = [pointer] * 3
    loaded.extents.argtypes, loaded.extents.restype = [pointer, pointer, number, pointer, pointer], number
    loaded.describe.restype = loaded.look.restype = loaded.look_at_groups.restype = number
    loaded.record.restype = loaded.write_numbers.restype = None
    return loaded
