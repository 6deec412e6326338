"""The list of checks, and what each of them is run over for a case: its flags, its backends, variants of the check."""

from __future__ import annotations

import contextlib
import inspect
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.testing.backends import ways
from thalweg.testing.case import Case
from thalweg.testing.verdicts import NotApplicable, same
from thalweg.testing.walks import copies, draw_anew

#: what a check is run with: the defaults; the defaults and each set of flags; each set of flags
Over = Literal["defaults", "every", "flags"]
#: where: the first backend; the last; the defaults on all, but flags on the first or the last alone; in turn: so, too,
#: but a rule that Thalweg's own backends read on the last of them and on one other, another for each check and case
On = Literal["first", "last", "flags on the first", "flags on the last", "in turn"]
#: whether a set of flags can break a check of a case
Matters = Callable[[Case, Mapping[str, Any]], bool]
#: why a check does not apply to a case; None if it does
Unless = Callable[[Case], "str | None"]
#: what a check is repeated for with each set of flags, by a word
Variants = Callable[[Case, Mapping[str, Any]], Iterable[tuple[str, Any]]]


@dataclass(frozen=True)
class Check:
    """Something that must be true of every optimizer that it applies to."""

    test: Callable[[Trial], None]
    over: Over
    on: On
    unless: tuple[Unless, ...]
    variants: Variants | None
    matters: Matters | None

    @property
    def name(self) -> str:
        """As it is spelled in ``only``, in ``exempt`` and in the ids of tests."""
        return self.test.__name__

    @property
    def title(self) -> str:
        """What is true, in words."""
        return self.name.replace("_", " ").strip()

    @property
    def doc(self) -> str:
        """What is tried."""
        return inspect.getdoc(self.test) or ""


@dataclass(frozen=True)
class Trial:
    """One check of one case, with one set of flags, on one backend.

    Attributes:
        backend: arguments of the constructor, by a word that is empty where there is one way only.
        variant: what of the check's variants, by a word.
        reason: why it does not apply; empty if it does.
    """

    check: Check
    case: Case
    flags: Mapping[str, Any]
    backend: tuple[str, Mapping[str, Any]]
    variant: tuple[str, Any]
    reason: str = ""

    @property
    def hypers(self) -> dict[str, Any]:
        """The flags, and what goes with them."""
        return {**self.case.base, **self.flags} if self.flags else {}

    @property
    def words(self) -> str:
        """Flags, variant and backend."""
        flags = [shown(self.flags)] if self.check.over != "defaults" else []
        return "-".join(w for w in (*flags, self.variant[0], self.backend[0]) if w)

    @property
    def id(self) -> str:
        """The name of a test."""
        return "-".join(w for w in (self.case.name, self.check.name.strip("_"), self.words) if w)

    def make(self, params: Any, /, **given: Any) -> Any:
        """The optimizer over ``params``, with the trial's flags, on its backend."""
        return self.case.make(params, **{**self.backend[1], **self.hypers, **given})

    def make_or_say(self, what: str, params: Any, /, **given: Any) -> Any:
        """The optimizer over parameters or with arguments that not every one serves.

        Raises:
            NotApplicable: with its own words, where it refuses them; Thalweg's optimizers must not.
        """
        try:
            return self.make(params, **given)
        except (RuntimeError, TypeError, ValueError) as error:
            if self.case.declared:
                raise
            raise NotApplicable(f"it refuses {what}: {error}") from error

    @contextlib.contextmanager
    def may_refuse(self, params: Sequence[Tensor]) -> Iterator[None]:
        """Within it an error is a refusal of these parameters: any backend but the first may, before it moves them.

        Raises:
            NotApplicable: with its own words, where it refuses.
        """
        before = copies(params)
        try:
            yield
        except (RuntimeError, ValueError) as error:
            if self.backend[0] == next(iter(ways(self.case))):
                raise
            same(params, before, f"this backend refused parameters ({error}) after it had moved them")
            raise NotApplicable(f"this backend refuses such parameters: {error}") from error

    def make_reference(self, params: Any, /, **given: Any) -> Any:
        """The reference over ``params``, with the trial's flags."""
        return self.case.make_reference(params, **{**self.hypers, **given})

    def run(self) -> None:
        """Do what it says.

        Raises:
            Failure: if it does not hold.
            NotApplicable: if it does not apply.
            Exception: whatever the optimizer raises, where it must not.
        """
        if self.reason:
            raise NotApplicable(self.reason)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            draw_anew(0)
            self.check.test(self)


def shown(flags: Mapping[str, Any]) -> str:
    """Flags as they are read in an id."""
    return ",".join(f"{k}={v}" for k, v in flags.items()) or "defaults"


CHECKS: list[Check] = []


def holds(
    *,
    over: Over = "defaults",
    on: On = "first",
    unless: Sequence[Unless] = (),
    variants: Variants | None = None,
    matters: Matters | None = None,
) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Add a function to the list of checks: its name says what is true, its docstring what is tried.

    Sets of flags that do not matter to a case are left out.
    """

    def add(test: Callable[[Trial], None]) -> Callable[[Trial], None]:
        CHECKS.append(Check(test, over, on, tuple(unless), variants, matters))
        return test

    return add


def without_flags(case: Case) -> str | None:
    """For checks over flags."""
    return None if case.flags else "no flags are listed"


def trials(case: Case, only: Sequence[str] = ()) -> Iterator[Trial]:
    """Every trial of a case, or those of some checks; a check that does not apply is one trial that says why.

    Raises:
        ValueError: for a check in ``only`` or ``exempt`` that does not exist.
    """
    known = [check.name for check in CHECKS]
    for name in (*only, *case.exempt):
        if name not in known:
            raise ValueError(f"no check {name!r}; there are: {', '.join(known)}")
    for check in CHECKS:
        if only and check.name not in only:
            continue
        reason = _reason(check, case)
        if reason:
            yield Trial(check, case, {}, ("", {}), ("", None), reason)
            continue
        sets: list[Mapping[str, Any]] = [] if check.over == "flags" else [{}]
        if check.over != "defaults":
            sets += [flags for flags in case.flags if check.matters is None or check.matters(case, flags)]
        for flags in sets:
            for variant in check.variants(case, flags) if check.variants else [("", None)]:
                for backend in _where(check, case, flags):
                    yield Trial(check, case, flags, backend, variant)


def _where(check: Check, case: Case, flags: Mapping[str, Any]) -> list[Any]:
    on, backends = check.on, list(ways(case).items())
    if on == "in turn" and case.declared and len(backends) > 2:
        turn = zlib.crc32(f"{check.name} {case.name}".encode())
        return [backends[turn % (len(backends) - 1)], backends[-1]]
    if on == "last" or (on == "flags on the last" and flags):
        return backends[-1:]
    return backends[:1] if on == "first" or flags else backends


def _reason(check: Check, case: Case) -> str:
    if check.name in case.exempt:
        return f"exempt: {case.exempt[check.name]}"
    unless = (*check.unless, *([without_flags] if check.over == "flags" else []))
    return next((why for each in unless if (why := each(case))), "")
