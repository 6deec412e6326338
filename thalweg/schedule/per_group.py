"""Which number of which parameter group follows which schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.schedule import checks
from thalweg.schedule.protocol import Schedule, at

#: for a number, a schedule; for a tuple such as ``betas``, one for each of its numbers, None for one that stays
One: TypeAlias = Schedule | tuple[Schedule | None, ...]
#: the same for all groups; or a list, one for each; or a dict by index or by the group's ``name``, None for the others
Asked: TypeAlias = One | list[Any] | Mapping[Any, Any]

Group: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Track:
    """A number of a group, and what it follows: ``group[key]``, or ``group[key][position]`` of a tuple."""

    key: str
    position: int | None
    schedule: Schedule

    def value(self, initial: Any, step: int) -> Any:
        """The number at ``step``, where ``initial`` is what the group began with."""
        value = at(self.schedule, step)
        if checks.gives_values(self.schedule):
            return value
        return value * (initial if self.position is None else initial[self.position])

    def write(self, group: Group, value: Any) -> None:
        """Put a number into the group."""
        if self.position is None:
            put(group, self.key, value)
        else:
            numbers = list(group[self.key])
            numbers[self.position] = value
            put(group, self.key, numbers)


def put(group: Group, key: str, value: Any) -> None:
    """Store a value as the kind that is there: a tensor is filled, since others may hold it; a tuple stays one."""
    old = group[key]
    if isinstance(old, (tuple, list)):
        group[key] = type(old)(_like(o, v) for o, v in zip(old, value, strict=True))
    else:
        group[key] = _like(old, value)


def _like(old: Any, value: Any) -> Any:
    if isinstance(old, Tensor):
        return old.fill_(float(value))
    return value.item() if isinstance(value, Tensor) else value


def assign(asked: Mapping[str, Asked], groups: Sequence[Group]) -> list[list[Track]]:
    """For each group, what follows a schedule there.

    Args:
        asked: by hyperparameter. ``momentum`` is β₁ where a group has ``betas`` and no ``momentum``.
        groups: of the optimizer.

    Raises:
        ValueError: for what no group has, a schedule that is none, or two for one number.
    """
    found: list[list[Track]] = [[] for _ in groups]
    for name, what in asked.items():
        label = "schedule" if name == "lr" else name
        for i, one in enumerate(_by_group(label, what, groups)):
            for track in _tracks(label, name, one, i, groups[i]):
                if any((track.key, track.position) == (t.key, t.position) for t in found[i]):
                    raise bad_argument(label, one, f"the only schedule of {track.key} in parameter group {i}")
                found[i].append(track)
    return found


def _by_group(label: str, what: Any, groups: Sequence[Group]) -> list[One | None]:
    if isinstance(what, list):
        if len(what) != len(groups):
            raise bad_argument(label, what, f"a list of {len(groups)} schedules, one for each parameter group")
        return what
    if not isinstance(what, Mapping):
        return [what] * len(groups)
    keys = [*what]
    names = [group.get("name") for group in groups]
    for key in keys:
        known = range(len(groups)) if isinstance(key, int) else [*names, None]
        if key not in known:
            there = f"indices below {len(groups)}, names {[n for n in names if n is not None]}, None for the others"
            raise bad_argument(label, keys, f"parameter groups that there are ({there})")
    if both := [n for i, n in enumerate(names) if n is not None and n in what and i in what]:
        raise bad_argument(label, keys, f"each parameter group once; {both[0]!r} is there by name and by index")
    return [what.get(i, what.get(n, what.get(None))) for i, n in enumerate(names)]


def _tracks(label: str, name: str, one: One | None, i: int, group: Group) -> Iterator[Track]:
    if one is None:
        return
    key, position = name, None
    if name == "momentum" and name not in group and "betas" in group:
        key, position = "betas", 0
    if key not in group:
        there = ", ".join(k for k, v in group.items() if k != "params" and not k.startswith("initial_") and _plain(v))
        raise bad_argument(label, one, f"a schedule of what parameter group {i} has: {there}")
    value = group[key]
    if isinstance(value, (tuple, list)) and position is None:
        if not isinstance(one, tuple) or len(one) != len(value):
            raise bad_argument(label, one, f"a tuple of {len(value)}, a schedule for each number or None")
        for j, schedule in enumerate(one):
            if schedule is not None:
                yield Track(key, j, _callable(label, schedule))
        return
    if not _plain(value):
        raise bad_argument(label, one, f"a schedule of a number; in parameter group {i} it is {value!r}")
    yield Track(key, position, _callable(label, one))


def _callable(label: str, schedule: Any) -> Schedule:
    if not callable(schedule) or isinstance(schedule, type):
        raise bad_argument(label, schedule, "a schedule: a function of the step")
    return schedule  # type: ignore[no-any-return]


def _plain(value: Any) -> bool:
    """Whether it is a number, or some in a tuple."""
    if isinstance(value, (tuple, list)):
        return bool(value) and all(map(_plain, value))
    return checks.is_real(value) or (isinstance(value, Tensor) and value.numel() == 1)
