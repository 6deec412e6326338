"""What was found before a run, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from thalweg.diagnosis.finding import Finding
from thalweg.diagnosis.preflight.fine import Fine


@dataclass(frozen=True)
class CheckReport:
    """The findings of :func:`thalweg.check`, and what is fine.

    Attributes:
        findings: what is wrong, in the order of the pillars.
        fine: what was looked at and is in order; those with ``note`` are worth a thought.
        seconds: that it took.
        consumed: batches that an iterator will not give again, since they were read from it.
        skipped: questions that the model did not answer, each with the exception.
    """

    findings: tuple[Finding, ...]
    fine: tuple[Fine, ...]
    seconds: float
    consumed: int
    skipped: tuple[str, ...] = ()

    @property
    def patches(self) -> list[str]:
        """The lines to change, each once."""
        return list(dict.fromkeys(found.patch for found in self.findings if found.patch))

    def __bool__(self) -> bool:
        """Whether something was found."""
        return bool(self.findings)

    def __str__(self) -> str:
        """Findings first, then what is fine, then what it cost."""
        lines = [str(found) for found in self.findings]
        lines += [f"{'·' if fine.note else '✓'} {fine.what}: {fine.evidence}" for fine in self.fine]
        return "\n".join([*lines, self.summary])

    @property
    def summary(self) -> str:
        """One line."""
        count = len(self.findings)
        what = f"{count} finding{'' if count == 1 else 's'}" if count else "nothing wrong was found"
        used = f", and {self.consumed} batches of the iterator" if self.consumed else ""
        skipped = f"; not tried: {'; '.join(self.skipped)}" if self.skipped else ""
        return f"{what}; it took {self.seconds:.1f} s{used}{skipped}"

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "findings": [found.as_dict() for found in self.findings],
            "fine": [{"what": f.what, "evidence": f.evidence, "note": f.note} for f in self.fine],
            "seconds": self.seconds,
            "consumed": self.consumed,
            "skipped": list(self.skipped),
        }

    def json(self) -> str:
        """The same as text; numbers that JSON does not have are null."""
        return json.dumps(_plain(self.as_dict()), indent=1, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and value - value != 0 else value
