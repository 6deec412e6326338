"""Everything that was found about a case, to be read."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from thalweg.testing.case import Case
from thalweg.testing.suite import Trial, trials
from thalweg.testing.verdicts import Failure, NotApplicable

Verdict = Literal["holds", "fails", "not applicable"]
WIDTH = 110
MARKS: dict[Verdict, str] = {"fails": "✗", "not applicable": "–", "holds": "✓"}


@dataclass(frozen=True)
class TrialOutcome:
    """What one trial found.

    Attributes:
        message: what is wrong, or why it does not apply; empty where it holds.
    """

    trial: Trial
    verdict: Verdict
    message: str = ""


class Nonconforming(AssertionError):  # noqa: N818 - as Failure
    """Something does not hold; the message is the whole report."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report


@dataclass(frozen=True)
class Report:
    """All outcomes of a case. ``print`` shows them; it is true where nothing fails."""

    case: Case
    outcomes: tuple[TrialOutcome, ...]

    def of(self, verdict: Verdict) -> list[TrialOutcome]:
        """Those with a verdict."""
        return [o for o in self.outcomes if o.verdict == verdict]

    @property
    def failing(self) -> list[str]:
        """Names of the checks that fail, each once."""
        return list(dict.fromkeys(o.trial.check.name for o in self.of("fails")))

    def __bool__(self) -> bool:
        return not self.failing

    def __str__(self) -> str:
        lines = [f"{self.case.name}: {self._counts()}"]
        for verdict, mark in MARKS.items():
            for title, found in self._by_check(verdict):
                lines += _lines(mark, title, found)
        return "\n".join(lines)

    def _counts(self) -> str:
        count = {verdict: len(self._by_check(verdict)) for verdict in MARKS}
        return f"{count['holds']} checks hold, {count['fails']} fail, {count['not applicable']} do not apply"

    def _by_check(self, verdict: Verdict) -> list[tuple[str, list[TrialOutcome]]]:
        """Outcomes of one verdict by the title of their check; a check that fails somewhere is not said to hold."""
        found: dict[str, list[TrialOutcome]] = {}
        for outcome in self.of(verdict):
            if verdict != "holds" or outcome.trial.check.name not in self.failing:
                found.setdefault(outcome.trial.check.title, []).append(outcome)
        return list(found.items())


def _lines(mark: str, title: str, found: list[TrialOutcome]) -> list[str]:
    """A check, and where there is something to say, what, once for all trials that say the same."""
    count = f" ({len(found)} times)" if len(found) > 1 else ""
    lines = [f"  {mark} {title}{count}"]
    said: dict[str, list[str]] = {}
    for outcome in found:
        said.setdefault(outcome.message, []).append(outcome.trial.words)
    for message, words in said.items():
        if message:
            where = [w for w in words if w]
            shown = ", ".join(where[:4]) + (f" and {len(where) - 4} more" if len(where) > 4 else "")
            text = f"[{shown}] {message}" if shown else message
            lines += textwrap.wrap(text, WIDTH, initial_indent="      ", subsequent_indent="      ")
    return lines


def examine(case: Case, only: Sequence[str] = ()) -> Report:
    """Run every check of a case, or some by name; an exception that the optimizer raises is a failure."""
    return Report(case, tuple(_outcome(trial) for trial in trials(case, only)))


def _outcome(trial: Trial) -> TrialOutcome:
    try:
        trial.run()
    except NotApplicable as reason:
        return TrialOutcome(trial, "not applicable", str(reason))
    except Failure as failure:
        return TrialOutcome(trial, "fails", str(failure))
    except Exception as error:  # whatever a stranger's optimizer raises where it should step
        return TrialOutcome(trial, "fails", f"{type(error).__name__}: {error}")
    return TrialOutcome(trial, "holds")


def check(optimizer: object, reference: object = None, flags: object = (), **more: object) -> Report:
    """Run every check of an optimizer and give the report.

    Args:
        optimizer: a class, or a function that makes one; or a whole :class:`Case`.
        reference, flags, more: what :class:`Case` takes, such as ``lr`` and ``claims``; and ``only``, names of checks.

    Raises:
        Nonconforming: if something does not hold, with the report as its message.
    """
    only: Sequence[str] = more.pop("only", ())  # type: ignore[assignment]
    case = optimizer if isinstance(optimizer, Case) else Case(optimizer, reference, flags, **more)  # type: ignore[arg-type]
    report = examine(case, only)
    if not report:
        raise Nonconforming(report)
    return report
