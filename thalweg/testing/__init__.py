"""One suite that every optimizer must pass, for Thalweg's and for yours.

Without pytest::

    from thalweg.testing import check

    print(check(MyOptimizer, reference=torch.optim.Adam, flags=[{"amsgrad": True}], lr=0.01))

With pytest, a test for each check, set of flags and backend::

    from thalweg.testing import Case, claims, conformance

    test_mine = conformance(Case(MyOptimizer, torch.optim.Adam, [{"amsgrad": True}], claims=[claims.blind_to_place()]))
"""

from thalweg.testing import checks, claims  # noqa: F401 - the checks are on the list once they are imported
from thalweg.testing.case import Case
from thalweg.testing.collect import conformance
from thalweg.testing.report import Nonconforming, Report, TrialOutcome, check, examine
from thalweg.testing.suite import CHECKS, Trial
from thalweg.testing.verdicts import Failure, NotApplicable
from thalweg.testing.walks import MATRICES, MIXED, distance, parameters, walk

__all__ = [
    "CHECKS",
    "MATRICES",
    "MIXED",
    "Case",
    "Failure",
    "Nonconforming",
    "NotApplicable",
    "Report",
    "Trial",
    "TrialOutcome",
    "check",
    "claims",
    "conformance",
    "distance",
    "examine",
    "parameters",
    "walk",
]
