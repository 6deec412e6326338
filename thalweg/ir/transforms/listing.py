"""The list of transforms of a rule: what a class or its constructor was given is checked and becomes part of it."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from thalweg._base.errors import bad_argument
from thalweg._base.locked_cache import locked_cache
from thalweg.ir.fields import TAKEN, Hyper, StateSpec
from thalweg.ir.transforms.base import Transform


def checked(rule: Any, listed: Any) -> tuple[Transform, ...]:
    """The list as a tuple.

    Args:
        rule: the optimizer class that they are to surround.
        listed: what the user wrote after ``transforms=``.

    Raises:
        ValueError: for what is no list of transforms, one that is there twice, or one whose names are taken.
    """
    example = "such as [clip_global_norm(1.0)] of thalweg.transforms"
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise bad_argument("transforms", listed, f"a list, {example}")
    taken = dict.fromkeys([*rule.setup, *rule._declared, *_names(rule)], rule.__name__)
    seen: list[type[Transform]] = list(rule.listed)
    for one in listed:
        if isinstance(one, type) and issubclass(one, Transform):
            values = next(iter(one.hypers), "")
            raise bad_argument("transforms", listed, f"transforms, {example}", f"Write {one.__name__}({values}…)")
        if not isinstance(one, Transform):
            raise bad_argument("transforms", listed, f"transforms, {example}; {one!r} is not one")
        kind = type(one)
        if kind in seen:
            raise bad_argument("transforms", listed, f"each once: {kind.__name__} is there twice", "Leave one out")
        seen.append(kind)
        if kind in rule.standard:
            _check_free(rule, one, listed)
            continue
        for name in (*_names(kind), kind.first):
            if name in taken or name in TAKEN:
                whose = f"{name!r} is of {kind.__name__} and of {taken.get(name, 'the engine')}"
                remedy = f"Call it otherwise in {kind.__name__}"
                raise bad_argument("transforms", listed, f"names that nobody else has: {whose}", remedy)
        taken |= dict.fromkeys((*_names(kind), kind.first), kind.__name__)
    return tuple(listed)


def _check_free(rule: Any, one: Transform, listed: Any) -> None:
    """Refuse a built-in transform that is part of the rule already or that it cannot have."""
    for name, value in one.given.items():
        fixed = rule.hypers[name]
        if fixed.constant:
            what = f"{name}={fixed.default!r} is a part of {rule.__name__}"
            raise bad_argument("transforms", listed, f"none of {type(one).__name__}: {what}", "Leave it out")
        fixed.check(value)


def _names(declaring: Any) -> Mapping[str, str]:
    """The names that a class puts into groups and states, and its own name."""
    kept = [name for spec in declaring.states.values() for name in (spec.name, f"{spec.name}_scale")]
    return dict.fromkeys([*declaring.hypers, *declaring.states, *kept], declaring.__name__)


def given(rule: Any, listed: Iterable[Transform], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a constructor was given, with the values of the transforms in its list.

    Raises:
        ValueError: where a keyword says the same as the list.
    """
    values = dict(arguments)
    for one in listed:
        for name, value in one.given.items():
            said = values.get(name)
            default = rule.hypers[name].default if name in values else None
            if said is not default and said != default:
                raise bad_argument(
                    name, said, f"it once: transforms={list(listed)} has it too", f"Leave out {name}= or {one!r}"
                )
            values[name] = value
    return values


def declared(rule: Any, listed: Iterable[Transform]) -> dict[str, Hyper | StateSpec]:
    """What a class declares by its list: hyperparameters are keywords, and their defaults are what the list says."""
    found: dict[str, Hyper | StateSpec] = {}
    for one in listed:
        for name, h in one.hypers.items():
            found[name] = replace(rule.hypers.get(name) or replace(h, kw_only=True), default=one.given[name])
        found |= one.states
    return found


def _by_default(rule: Any, kind: type[Transform]) -> Transform:
    """The transform with its declared default values; it may be off."""
    one = kind.__new__(kind)
    one.given = {name: rule.hypers.get(name, h).default for name, h in kind.hypers.items()}
    return one


@locked_cache
def surrounded(rule: Any, kinds: tuple[type[Transform], ...]) -> Any:
    """The rule with these transforms in its list: a class of the same name."""
    if not kinds:
        return rule
    body = {name: getattr(rule, name) for name in ("__module__", "__qualname__", "__doc__")}
    listed = [_by_default(rule, kind) for kind in kinds]
    return types.new_class(rule.__name__, (rule,), {"transforms": listed}, lambda names: names.update(body))
