"""The hyperparameters of a group as plain numbers, checked where they have changed, and what they make of the rule."""

from __future__ import annotations

from dataclasses import dataclass
from operator import is_, itemgetter
from typing import Any

from torch import Tensor

from thalweg.ir import fields
from thalweg.ir.fields import Hyper
from thalweg.ir.trace import RuleClass, Specialization, is_off, specialize


@dataclass
class Known:
    """What was found of a group, and the values of which it was found: of a mutable object, the number in it."""

    values: list[Any]
    mutable: list[int]
    key: Specialization
    numbers: dict[str, Any]


class GroupNumbers:
    """Remembers the numbers of each group while its values are the same objects.

    Args:
        rule: the class of the optimizer.
    """

    def __init__(self, rule: type[RuleClass]) -> None:
        self.rule = rule
        self.get = itemgetter(*rule.hypers)
        self.hypers: list[Hyper | None] = [None, None, *rule.hypers.values()]  # beside the values
        self.known: dict[int, Known] = {}

    def of(self, i: int, group: dict[str, Any], scale: float | None) -> Known:
        """The specialization and the numbers of group ``i``, with ``initial_lr`` and ``inverse_scale``.

        Args:
            i: its number.
            group: it.
            scale: what gradients must be multiplied with; None for 1.

        Raises:
            ValueError: for a value outside its range.
        """
        now = [scale is not None, group.get("initial_lr"), *self.get(group)]
        known = self.known.get(i)
        if known is not None:
            for k in known.mutable:
                now[k] = fields.plain(now[k])
            if not all(map(is_, now, known.values)):
                known = self._changed(known, now, group)
        if known is None:
            known = self._found(i, now, group)
        known.numbers["inverse_scale"] = scale
        return known

    def _changed(self, known: Known, now: list[Any], group: dict[str, Any]) -> Known | None:
        """The same with other numbers; None where another specialization may follow from what has changed."""
        changed = [k for k, old in enumerate(known.values) if now[k] is not old and not (k and _same(now[k], old))]
        if not all(_is_number(self.hypers[k], known.values[k], now[k]) for k in changed):
            return None
        hypers = [h for k in changed if (h := self.hypers[k]) is not None]
        for h in hypers:
            h.check(group[h.name])
        known.values = now
        known.numbers |= {h.name: fields.plain(group[h.name]) for h in hypers}
        known.numbers["initial_lr"] = _initial_lr(group)
        return known

    def _found(self, i: int, now: list[Any], group: dict[str, Any]) -> Known:
        self.rule.check_hypers(group)
        key, before = specialize(self.rule, group, now[0]), self.known.get(i)
        if before is not None and before.key == key:
            key = before.key  # the same object tells at once that nothing must be bound again
        numbers = {**vars(fields.read(self.rule.hypers, group)), "initial_lr": _initial_lr(group)}
        mutable = [k for k, value in enumerate(now) if _is_mutable(value)]
        for k in mutable:
            now[k] = fields.plain(now[k])
        self.known[i] = Known(now, mutable, key, numbers)
        return self.known[i]


def _initial_lr(group: dict[str, Any]) -> Any:
    """What the learning rate was before any schedule changed it."""
    return fields.plain(group.get("initial_lr", group.get("first_lr", group["lr"])))


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and isinstance(a, (float, int, tuple)) and not _is_mutable(a) and a == b


def _is_number(h: Hyper | None, old: Any, new: Any) -> bool:
    """Whether a hyperparameter is one that may change from step to step, and was not switched on or off."""
    if h is None or not h.symbolic or type(old) is not type(new) or not isinstance(new, (float, tuple)):
        return False
    if _is_mutable(new):
        return False
    return not h.switchable or is_off(old, h.off) == is_off(new, h.off)


def _is_mutable(value: Any) -> bool:
    """Whether the value of a hyperparameter may change while the object stays the same."""
    return isinstance(value, (Tensor, list)) or (isinstance(value, tuple) and any(isinstance(v, Tensor) for v in value))
