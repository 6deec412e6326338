"""The hyperparameters of a group as plain numbers, checked where they have changed, and what they make of the rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import is_, itemgetter
from typing import Any

from torch import Tensor

from thalweg.ir import fields
from thalweg.ir.fields import MISSING, Hyper, Interval
from thalweg.ir.trace import RuleClass, Specialization, is_off, specialize
from thalweg.runtime import guards
from thalweg.runtime.group_guards import GroupGuards


@dataclass
class _Moving:
    """A hyperparameter that has changed before, or may without becoming another object.

    Attributes:
        hyper: its declaration.
        low, high: any float between these is allowed, and leaves the specialization as it is.
    """

    hyper: Hyper
    low: float = math.inf
    high: float = -math.inf

    def __post_init__(self) -> None:
        h = self.hyper
        if h.annotation == "float" and isinstance(h.within, Interval) and h.off in (h.within.ends[0], MISSING):
            self.low, self.high = h.within.ends


@dataclass
class GroupNumbers:
    """The numbers of one group.

    Attributes:
        key: the specialization that they ask for.
        numbers: by name, with ``initial_lr``, ``inverse_scale`` and the ``key`` of random bits, 0 for none.
        scaled: whether gradients are to be multiplied with ``inverse_scale``.
        initial_lr: the object that stands in the group; None where it follows ``lr``.
        moving: hyperparameters that may change from step to step, by name.
        rest, values: gives the others, and what they were: objects that tell by themselves whether they changed.
    """

    key: Specialization
    numbers: dict[str, Any]
    scaled: bool
    initial_lr: Any
    moving: dict[str, _Moving]
    rest: Callable[[dict[str, Any]], tuple[Any, ...]]
    values: tuple[Any, ...]

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Of what may change, what floats must lie between to be taken over as they are."""
        return {name: (moving.low, moving.high) for name, moving in self.moving.items()}

    def take(self, group: dict[str, Any]) -> None:
        """Take over what may change: floats, or numbers in tensors, between their bounds."""
        for name in self.moving:
            value = group[name]
            self.numbers[name] = value if type(value) is float else value.item()
        if self.initial_lr is None:
            self.numbers["initial_lr"] = self.numbers["lr"]


class GroupReader:
    """Reads groups, and remembers what it found.

    Args:
        rule: the class of the optimizer.
    """

    def __init__(self, rule: type[RuleClass]) -> None:
        self.rule = rule
        self.found: dict[int, GroupNumbers] = {}
        self.all: list[GroupNumbers] = []
        self.guards: GroupGuards | None = None
        self.watched = {*rule.hypers, "initial_lr", "first_lr"}

    def read_all(self, groups: list[dict[str, Any]], scale: float | None) -> list[GroupNumbers]:
        """The numbers of all groups; in C it is found which of them must be read.

        Args:
            groups: all of them.
            scale: as for :meth:`read`.

        Returns:
            The list that the last call gave, where nothing but numbers, of which no specialization depends, is known
            to have changed in the groups: they hold the same parameters. Else another one.

        Raises:
            ValueError: for a value outside its range.
        """
        looking, self.guards = self.guards, None  # of a look that was interrupted nothing is known
        differ = None if looking is None else looking.look(groups, scale is not None)
        if looking is None or differ is None:
            library = guards.functions()
            if library is None or not isinstance(groups, list):
                return [self.read(i, group, scale) for i, group in enumerate(groups)]
            looking = GroupGuards(library, groups, scale is not None, self.watched)
            differ = looking.look(groups, scale is not None)
        if differ:
            self._take_differing(looking, scale)
        if scale is not None:
            for known in self.all:
                known.numbers["inverse_scale"] = scale
        self.guards = looking
        return self.all

    def _take_differing(self, looking: GroupGuards, scale: float | None) -> None:
        """Take over numbers of groups in which they alone have changed, and read those in which something else has."""
        groups = looking.groups
        changed, unread = looking.differing()
        for i in changed:
            self.found[i].take(groups[i])
        for i in unread:
            known = self.read(i, groups[i], scale)
            if type(known.initial_lr) is float or known.initial_lr is None:
                looking.record(i, known.bounds)
        if unread:
            self.all = [self.found[i] for i in range(len(groups))]

    def read(self, i: int, group: dict[str, Any], scale: float | None) -> GroupNumbers:
        """The numbers of group ``i``.

        Args:
            i: its number.
            group: it.
            scale: what gradients must be multiplied with; None for 1.

        Raises:
            ValueError: for a value outside its range.
        """
        known = self.found.get(i)
        if known is None or not _holds(known, group, scale):
            known = self.found[i] = self._read(known, group, scale)
        if self.guards is not None:  # what it has recorded may be older than what is known now
            self.guards.forget(i)
        if known.scaled:
            known.numbers["inverse_scale"] = scale
        return known

    def _read(self, before: GroupNumbers | None, group: dict[str, Any], scale: float | None) -> GroupNumbers:
        rule, scaled = self.rule, scale is not None
        rule.check_hypers(group)
        key, numbers = specialize(rule, group, scaled), vars(fields.read(rule.hypers, group))
        moving = {name for name in rule.hypers if _is_mutable(group[name])}
        if before is not None:
            if before.key == key:
                key = before.key  # the same object tells at once that nothing must be bound again
            moving |= before.moving.keys()
            moving |= {name for name, h in rule.hypers.items() if h.symbolic and numbers[name] != before.numbers[name]}
        initial = group.get("initial_lr", group.get("first_lr"))
        numbers["initial_lr"] = numbers["lr"] if initial is None else fields.plain(initial)
        numbers |= {"inverse_scale": scale, "key": 0}
        rest = itemgetter(*(name for name in rule.hypers if name not in moving))
        changing = {name: _Moving(h) for name, h in rule.hypers.items() if name in moving}
        return GroupNumbers(key, numbers, scaled, initial, changing, rest, rest(group))


def _holds(known: GroupNumbers, group: dict[str, Any], scale: float | None) -> bool:
    """Whether nothing but numbers has changed in a group; changed numbers are copied."""
    initial = group.get("initial_lr", group.get("first_lr"))
    if known.scaled != (scale is not None) or initial is not known.initial_lr:
        return False
    if not all(map(is_, known.rest(group), known.values)):
        return False
    numbers = known.numbers
    for name, moving in known.moving.items():
        value, old = group[name], numbers[name]
        if type(value) is Tensor and value.numel() == 1:
            value = value.item()
        if type(value) is float and moving.low < value < moving.high and moving.low < old < moving.high:
            numbers[name] = value
        elif not _take(numbers, moving.hyper, group[name]):
            return False
    if type(initial) is not float:
        numbers["initial_lr"] = numbers["lr"] if initial is None else fields.plain(initial)
    return True


def _take(numbers: dict[str, Any], h: Hyper, value: Any) -> bool:
    """Copy the new value of a hyperparameter; False if the specialization may change with it."""
    old, new = numbers[h.name], fields.plain(value)
    if type(new) is not type(old) or not isinstance(new, (float, tuple)) or not h.symbolic:
        return bool(type(new) is type(old) and new == old)
    if h.switchable and is_off(old, h.off) != is_off(new, h.off):
        return False
    h.check(value)
    numbers[h.name] = new
    return True


def _is_mutable(value: Any) -> bool:
    """Whether the value of a hyperparameter may change while the object stays the same."""
    if isinstance(value, tuple):
        return any(map(_is_mutable, value))
    return hasattr(value, "__setitem__")  # a tensor, a list, an array of numpy's
