"""A quick race of few trials, for tests of what a race does, however many there are."""

from dataclasses import replace

from thalweg.lab.protocol import BUDGETS, Budget

FEW: Budget = replace(BUDGETS["quick"], lr_points=3, allowance=1, semifinalists=2, finalists=2)


def ask_for_few() -> None:
    """In a process of its own: every quick race is one of few trials."""
    BUDGETS["quick"] = FEW
