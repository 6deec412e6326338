"""Why a check may not apply, and which flags matter to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from thalweg.engine.optimizer import Optimizer
from thalweg.ir.trace import kept_states, specializations
from thalweg.testing.backends import ways
from thalweg.testing.case import Case


def no_reference(case: Case) -> str | None:
    """For what compares with it."""
    return None if case.reference else "no reference is given"


def no_twin_in_torch(case: Case) -> str | None:
    """For checkpoints and signatures."""
    return None if case.drop_in else "it does not stand for a class of torch.optim (drop_in)"


def one_way(case: Case) -> str | None:
    """For what compares backends."""
    return None if len(ways(case)) > 1 else "a step is computed in one way only"


def no_rate(case: Case) -> str | None:
    """For what changes the learning rate."""
    return "it takes no learning rate" if case.lr is None else None


def lacks(argument: str) -> Callable[[Case], str | None]:
    """For what passes an argument."""

    def reason(case: Case) -> str | None:
        return None if case.takes(argument) else f"the constructor has no argument {argument}"

    return reason


def few_tensors(case: Case) -> str | None:
    """For what treats tensors differently."""
    return None if len(case.shapes) > 1 else "the case has one shape only"


def undeclared(case: Case, flags: Mapping[str, Any]) -> bool:
    """Flags matter to an optimizer whose code is its own; a declared rule leaves this to what surrounds every rule."""
    return not case.declared


def without_comparison(case: Case, flags: Mapping[str, Any]) -> bool:
    """Flags matter where there is one backend: the comparison of several tries the same with each set of flags."""
    return one_way(case) is not None


def changes_what_is_kept(case: Case, flags: Mapping[str, Any]) -> bool:
    """A declared rule keeps nothing but its states: flags matter where other states are kept than by default."""
    rule = case.declared
    if rule is None or rule.step is not Optimizer.step:
        return True
    usual = _usual(case, rule)
    return kept_states(rule, usual) != kept_states(rule, {**usual, **case.base, **flags})


def other_numbers_only(case: Case, flags: Mapping[str, Any]) -> bool:
    """Whether a declared rule is the same graph with these flags, and none of them is 0 or 1 by default.

    By default such a number says nothing of where it goes.
    """
    rule = case.declared
    if rule is None or rule.step is not Optimizer.step or not flags:
        return False
    usual = _usual(case, rule)
    given = {**usual, **case.base, **flags}
    if any(value in (0, 1) for name in flags for value in _numbers(usual.get(name, 0))):
        return False
    return specializations(rule, {**usual, **case.base}) == specializations(rule, given)


def _usual(case: Case, rule: type[Optimizer]) -> dict[str, Any]:
    return {"params": [], **{name: h.default for name, h in rule.hypers.items()}, "lr": case.lr, **case.options}


def _numbers(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def compares_more(case: Case, flags: Mapping[str, Any]) -> bool:
    """Flags matter where they change the graph; of those that change numbers alone the first is tried."""
    same = [f for f in case.flags if other_numbers_only(case, f)]
    return not flags or flags not in same[1:]
