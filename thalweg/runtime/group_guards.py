"""Guards of parameter groups: whether they hold what they held at the last step, looked at in C (`guards.c`)."""

from __future__ import annotations

import ctypes
import math
from array import array
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.runtime import guards

#: dtypes of numbers in tensors that are read in C
FLOATS = (torch.float32, torch.float64)


class _GroupRecordStruct(ctypes.Structure):
    """``GroupRecord`` of `guards.c`."""

    _fields_ = [
        ("group", ctypes.c_void_p),
        ("entries", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("key", "value", "number", "low", "high", "list")),
        ("params", ctypes.c_int64),
        ("param", ctypes.c_void_p),
    ]


class _GroupTableStruct(ctypes.Structure):
    """``GroupTable`` of `guards.c`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("next", "type", "release", "number", "length", "member")),
        *((name, ctypes.c_void_p) for name in ("forget", "dlpack", "float_type", "tensor_type", "groups")),
        ("size", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("record", "changed")),
        ("changes", ctypes.c_int64),
        ("unread", ctypes.c_void_p),
        ("unreads", ctypes.c_int64),
    ]


class GroupGuards:
    """What the groups of an optimizer held when they were last read; nothing, until it is recorded.

    Args:
        library: of `guards.c`.
        groups: the list of the dicts.
        scaled: whether gradients are multiplied with a number.
        watched: names of entries that must stay the same objects, and must not be there if they are not, where they
            are no numbers that may change.
    """

    def __init__(self, library: Any, groups: list[dict[str, Any]], scaled: bool, watched: Collection[str]) -> None:
        size, python = len(groups), ctypes.pythonapi
        self.look_at_groups = library.look_at_groups
        self.groups, self.scaled, self.watched = groups, scaled, {*watched, "params"}
        self.held = list(groups)  # by the records, whatever becomes of the list
        self.records = (_GroupRecordStruct * size)(*(_GroupRecordStruct(id(group), -1) for group in groups))
        self.kept: list[Any] = [None] * size  # what the records point to
        self.changed, self.unread = (array("q", bytes(8 * size)) for _ in range(2))
        calls = (
            python.PyDict_Next, python.PyObject_Type, python.Py_DecRef, python.PyFloat_AsDouble,
            python.PyList_Size, python.PyList_GetItem, python.PyErr_Clear,
        )  # fmt: skip
        self.struct = _GroupTableStruct(
            *map(guards.address_of, calls), guards.exchange_table(), id(float), id(Tensor), id(groups), size,
            ctypes.addressof(self.records),
            self.changed.buffer_info()[0], 0, self.unread.buffer_info()[0], 0,
        )  # fmt: skip
        self.at = ctypes.addressof(self.struct)

    def look(self, groups: list[dict[str, Any]], scaled: bool) -> bool | None:
        """Look at all groups: whether one of them is not what it was, which :meth:`differing` then tells.

        Returns:
            None where these are other groups.
        """
        if groups is not self.groups or scaled is not self.scaled:
            return None
        differ = self.look_at_groups(self.at)
        return None if differ < 0 else differ > 0

    def differing(self) -> tuple[Sequence[int], Sequence[int]]:
        """The positions of groups in which numbers alone have changed, and of those that must be read again."""
        struct = self.struct
        return self.changed[: struct.changes], self.unread[: struct.unreads]

    def record(self, i: int, bounds: Mapping[str, tuple[float, float]]) -> None:
        """Record what a group holds.

        Args:
            i: its position.
            bounds: of numbers that may change, what they must lie between.
        """
        group = self.groups[i]
        params = group["params"]
        now = {name: number_in(group[name]) for name in bounds}
        if not isinstance(params, list) or not all(low < now[name] < high for name, (low, high) in bounds.items()):
            self.forget(i)
            return
        keys, members = list(group), list(params)
        none = 0.0, 0.0
        numbers = array("d", [now.get(name, 0.0) for name in keys])
        lows, highs = (array("d", [bounds.get(name, none)[k] for name in keys]) for k in range(2))
        watched = self.watched - bounds.keys()
        objects = array("Q", [id(group[name]) if name in watched else 0 for name in keys])
        names, owners = array("Q", map(id, keys)), array("Q", map(id, members))
        tables = names, objects, numbers, lows, highs
        self.kept[i] = members, keys, [group[name] for name in keys], tables, owners
        self.records[i] = _GroupRecordStruct(
            id(group), len(keys), *(table.buffer_info()[0] for table in tables), id(params), len(members),
            owners.buffer_info()[0],
        )  # fmt: skip

    def forget(self, i: int) -> None:
        """Let a group be read at the next step."""
        if i < len(self.records):
            self.records[i].entries = -1


def number_in(value: Any) -> float:
    """The number in a float, or in a tensor that `guards.c` reads; NaN for anything else."""
    if type(value) is Tensor and value.numel() == 1 and value.dtype in FLOATS and value.device.type == "cpu":
        value = value.item()
    return value if type(value) is float else math.nan
