"""Bad arguments: an error, before anything changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from thalweg.ir.fields import Hyper
from thalweg.testing.case import Case
from thalweg.testing.suite import Trial, holds
from thalweg.testing.verdicts import expect, fail, same
from thalweg.testing.walks import copies, give
from thalweg.testing.wrong import wrong_values


def _declared(case: Case) -> dict[str, Hyper]:
    return {**case.declared.hypers, **case.declared.setup} if case.declared else {}


def _wrong(case: Case) -> Iterator[tuple[str, Any]]:
    """What must be refused, by argument."""
    for name, h in _declared(case).items():
        for value in wrong_values(h):
            yield name, value
    for name, values in case.bad.items():
        for value in values:
            yield name, value


def _none_known(case: Case) -> str | None:
    return None if case.bad or case.declared else "no values are listed that must be refused (bad)"


def _refusal(name: str, value: Any, strict: bool, act: Any) -> str | None:
    """What is wrong with how ``act`` refuses a value; None if it is an error that names the argument."""
    try:
        act()
    except (ValueError, TypeError) as error:
        if strict and not (isinstance(error, ValueError) and f"{name}=" in str(error)):
            return f"{name}={value!r} is refused by {type(error).__name__}: {error}; name the argument and its value"
        return None
    except Exception as error:
        return f"{name}={value!r} is refused by {type(error).__name__}: {error}; it should be a ValueError"
    return f"{name}={value!r} was accepted"


def _report(found: Iterable[str | None]) -> None:
    wrong = [message for message in found if message]
    if wrong:
        fail("; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""))


@holds(unless=[_none_known])
def bad_values_are_refused_by_the_constructor(t: Trial) -> None:
    """Each is a ValueError (where it is ours, one that names argument and value), and no parameter has changed."""
    params = t.case.start()
    before = copies(params)
    strict, taken = t.case.declared is not None, t.case.arguments
    _report(
        _refusal(name, value, strict, lambda: t.make(params, **{name: value}))  # noqa: B023
        for name, value in _wrong(t.case)
        if name in taken or name in t.case.bad
    )
    same(params, before, "a constructor that raised an error has changed parameters")


def _none_in_groups(case: Case) -> str | None:
    return None if case.declared else "its hyperparameters are not declared, so a group's values are not checked"


@holds(unless=[_none_in_groups])
def bad_values_in_a_group_are_refused(t: Trial) -> None:
    """In a group of the constructor; and written into a group later, at the next step, before anything moves."""
    params = t.case.start()
    optimizer = t.make(params)
    t.case.walk(optimizer, params, 1)
    give(params, 1)
    given = t.case.feed(optimizer, 1)
    before, kept = copies(params), copies(_tensors(optimizer))
    group = optimizer.param_groups[0]
    hypers = t.case.declared.hypers.keys() - given.keys()  # type: ignore[union-attr]  # a step is given these again
    in_groups = [(name, value) for name, value in _wrong(t.case) if name in hypers]

    def later(name: str, value: Any) -> None:
        old = group[name]
        group[name] = value
        try:
            optimizer.step(**given)
        finally:
            group[name] = old

    fresh = t.case.start()
    _report(_refusal(n, v, True, lambda: t.make([{"params": fresh, n: v}])) for n, v in in_groups)  # noqa: B023
    _report(_refusal(n, v, True, lambda: later(n, v)) for n, v in in_groups)  # noqa: B023
    same(params, before, "a step that raised an error has moved parameters")
    same(_tensors(optimizer), kept, "a step that raised an error has changed the state")


def _tensors(optimizer: Any) -> list[Tensor]:
    return [x for s in optimizer.state.values() for x in s.values() if isinstance(x, Tensor)]


@holds()
def an_argument_that_does_not_exist_is_refused(t: Trial) -> None:
    """A misspelt hyperparameter must not be swallowed."""
    try:
        t.make(t.case.start(), no_such_hyperparameter=0.1)
    except (TypeError, ValueError) as error:
        expect("no_such_hyperparameter" in str(error), f"the error does not name the argument: {error}")
    else:
        fail("an argument that does not exist was accepted: a misspelt hyperparameter would be ignored")
