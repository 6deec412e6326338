"""Guards of parameter groups: whether they hold what they held at the last step, looked at in C (`guards.c`)."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Collection, Mapping, Sequence
from operator import is_
from typing import Any

from thalweg.runtime import guards


class _GroupRecordStruct(ctypes.Structure):
    """``GroupRecord`` of `guards.c`."""

    _fields_ = [
        ("group", ctypes.c_void_p),
        ("entries", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("key", "value", "number", "low", "high")),
    ]


class _GroupTableStruct(ctypes.Structure):
    """``GroupTable`` of `guards.c`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("next", "type", "release", "number", "float_type")),
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
        groups: the dicts.
        scaled: whether gradients are multiplied with a number.
    """

    def __init__(self, library: Any, groups: Sequence[dict[str, Any]], scaled: bool) -> None:
        size, python = len(groups), ctypes.pythonapi
        self.library = library
        self.groups, self.scaled = list(groups), scaled
        self.records = (_GroupRecordStruct * size)(*(_GroupRecordStruct(0, -1) for _ in groups))
        self.kept: list[Any] = [None] * size  # what the records point to
        self.changed, self.unread = (array("q", bytes(8 * size)) for _ in range(2))
        calls = python.PyDict_Next, python.PyObject_Type, python.Py_DecRef, python.PyFloat_AsDouble
        self.struct = _GroupTableStruct(
            *map(guards.address_of, calls), id(float), size, ctypes.addressof(self.records),
            self.changed.buffer_info()[0], 0, self.unread.buffer_info()[0], 0,
        )  # fmt: skip
        self.at = ctypes.addressof(self.struct)

    def serves(self, groups: Sequence[dict[str, Any]], scaled: bool) -> bool:
        """Whether these are the groups."""
        return scaled is self.scaled and len(groups) == len(self.groups) and all(map(is_, groups, self.groups))

    def look(self) -> tuple[Sequence[int], Sequence[int]]:
        """The positions of groups in which numbers alone have changed, and of those that must be read again."""
        self.library.look_at_groups(self.at)
        struct = self.struct
        return self.changed[: struct.changes], self.unread[: struct.unreads]

    def record(self, i: int, bounds: Mapping[str, tuple[float, float]], watched: Collection[str]) -> None:
        """Record what a group holds.

        Args:
            i: its position.
            bounds: of numbers that may change, what they must lie between.
            watched: names of the other entries that must stay the same objects, and must not be there if they are not.
        """
        group = self.groups[i]
        if not all(type(group[name]) is float and low < group[name] < high for name, (low, high) in bounds.items()):
            self.forget(i)
            return
        keys = list(group)
        none = 0.0, 0.0
        numbers = array("d", [group[name] if name in bounds else 0.0 for name in keys])
        lows, highs = (array("d", [bounds.get(name, none)[k] for name in keys]) for k in range(2))
        objects = array("Q", [id(group[name]) if name in watched else 0 for name in keys])
        names = array("Q", map(id, keys))
        tables = names, objects, numbers, lows, highs
        self.kept[i] = keys, [group[name] for name in keys], tables
        self.records[i] = _GroupRecordStruct(id(group), len(keys), *(table.buffer_info()[0] for table in tables))

    def forget(self, i: int) -> None:
        """Let a group be read at the next step."""
        if i < len(self.groups):
            self.records[i].entries = -1
