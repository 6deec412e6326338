"""The properties that the case claims for its optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from thalweg.testing.case import Case
from thalweg.testing.suite import Trial, holds


def _claims(case: Case, flags: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return ((claim.words, claim) for claim in case.claims)


def _none(case: Case) -> str | None:
    return None if case.claims else "no property is claimed"


@holds(unless=[_none], variants=_claims)
def has_the_property_that_it_claims(t: Trial) -> None:
    """Each claim of the case, as :mod:`thalweg.testing.claims` says."""
    t.variant[1].test(t.case, {**t.backend[1], **t.variant[1].options})
