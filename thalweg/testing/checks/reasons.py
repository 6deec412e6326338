"""Why a check may not apply."""

from __future__ import annotations

from collections.abc import Callable

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
