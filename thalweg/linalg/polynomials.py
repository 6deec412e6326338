"""Coefficients of the odd quintic a·x + b·x³ + c·x⁵ that each step applies to singular values: named, or minimax."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch

from thalweg._base.errors import bad_argument

Row = tuple[float, float, float]
#: a name, a row for all steps, or a row for each step
Coefficients = str | Row | Sequence[Row]

#: the row with the steepest slope at 0 (Jordan et al. 2024, "Muon")
JORDAN: Row = (3.4445, -4.7750, 2.0315)
#: the row that brings values near 1 to 1, with three orders of contact
LIMIT: Row = (1.875, -1.25, 0.375)
#: of named rows, whose number is their own: the number of steps that may stand beside them all the same
USUAL_STEPS = 5
#: the largest singular value that a polynomial may make of one in [0, 1]
LARGEST = 1.5

#: rows of a fixed number, as published
PUBLISHED: dict[str, tuple[Row, ...]] = {
    # Grishina et al. 2025, "Accelerating Newton-Schulz iteration", https://arxiv.org/abs/2506.10935
    "cans": (
        (8.4703, -25.1081, 18.6293),
        (4.1828, -3.1087, 0.5806),
        (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    ),
    # Relaxed cubic Newton-Schulz, "How much orthogonalization does Muon need?", https://arxiv.org/abs/2606.00371:
    # no square of a Gram matrix
    "cubic5": (
        (3.3656576, -3.3420992, 0.0),
        (2.5744352, -1.4957376, 0.0),
        (2.5368962, -1.4312570, 0.0),
        (2.4418906, -1.2764040, 0.0),
        (2.2230472, -0.9630650, 0.0),
    ),
    # Boissin et al. 2025, "Turbo-Muon", https://arxiv.org/abs/2512.04632. Theirs are for matrices whose rows were
    # scaled first; without this the first row would turn values above 0.88 around, so it is that of x/1.25
    "aol": (
        (4.0098 / 1.25, -7.0585 / 1.25**3, 2.4635 / 1.25**5),
        (3.4585, -5.5479, 2.5959),
        (2.7573, -3.2939, 1.4254),
        (2.7215, -3.0494, 1.3169),
    ),
    # DeepSeek-V4's technical report, 2026
    "deepseek": (JORDAN,) * 8 + ((2.0, -1.5, 0.5),) * 2,
}
NAMES = ("jordan", "polar-express", *PUBLISHED)


def rows(coefficients: Coefficients, steps: int, argument: str = "coefficients") -> tuple[Row, ...]:
    """One row for each step.

    Args:
        coefficients: ``"jordan"`` and ``"polar-express"`` have as many rows as there are steps; ``"cans"``,
            ``"cubic5"``, ``"aol"`` and ``"deepseek"`` have 5, 5, 4 and 10. A row serves all steps, rows are one a step.
        steps: their number; 5 beside rows whose number is another means theirs.
        argument: the name of ``coefficients`` in an error.

    Raises:
        ValueError: for anything else, or another number of steps than there are rows.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
        raise bad_argument(_steps_of(argument), steps, "an integer of at least 0")
    return _rows(_frozen(coefficients, argument), steps, argument)


@functools.cache
def _rows(coefficients: str | tuple[Row, ...], steps: int, argument: str) -> tuple[Row, ...]:
    if coefficients == "jordan":
        return (JORDAN,) * steps
    if coefficients == "polar-express":
        return (polar_express() + (LIMIT,) * steps)[:steps]
    if len(coefficients) == 1:
        return (coefficients[0],) * steps  # type: ignore[return-value]
    found = PUBLISHED[coefficients] if isinstance(coefficients, str) else coefficients
    if steps not in (USUAL_STEPS, len(found)):
        raise bad_argument(
            _steps_of(argument),
            steps,
            f"{len(found)}, the number of rows of {argument}",
            "Leave it out, or give as many rows as steps",
        )
    return found


def _steps_of(argument: str) -> str:
    """The name of the number of steps, beside coefficients of this name."""
    return "steps" if argument == "coefficients" else "ns_steps"


def _frozen(coefficients: Coefficients, argument: str) -> str | tuple[Row, ...]:
    """A name, or rows as tuples of floats: one row, of a triple."""
    if isinstance(coefficients, str) and coefficients in NAMES:
        return coefficients
    given: Any = [coefficients] if _is_row(coefficients) else coefficients
    if not isinstance(given, (tuple, list)) or not given or not all(map(_is_row, given)):
        names = ", ".join(map(repr, NAMES))
        raise bad_argument(argument, coefficients, f"three numbers, rows of three (one a step), or one of {names}")
    return tuple((float(a), float(b), float(c)) for a, b, c in given)


def _is_row(value: Any) -> bool:
    numbers = isinstance(value, (tuple, list)) and len(value) == 3
    return numbers and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in value)


def check(coefficients: Coefficients, steps: int, argument: str = "coefficients") -> None:
    """Refuse coefficients with which singular values turn around, or grow beyond 1.5.

    Raises:
        ValueError: for these, and as :func:`rows`.
    """
    low, top = _span(rows(coefficients, steps, argument))
    if not (top <= LARGEST and low >= 0):
        raise bad_argument(
            argument,
            coefficients,
            f"a polynomial that stays above 0 and below {LARGEST} on [0, 1]; in {steps} steps it reaches {low:.3g} and "
            f"{top:.3g}",
            f"Take one of {', '.join(map(repr, NAMES))}, or rows of thalweg.linalg.coefficients(steps, lower)",
        )


def peak(coefficients: Coefficients, steps: int) -> float:
    """The largest singular value that the exact polynomial makes of one in [0, 1]; inf or NaN where it diverges."""
    low, top = _span(rows(coefficients, steps))
    return max(-low, top)


@functools.cache
def _span(table: tuple[Row, ...]) -> tuple[float, float]:
    """What the polynomial makes of values in [0, 1], at least and at most."""
    x = torch.linspace(0, 1, 2001, dtype=torch.float64)
    for a, b, c in table:
        x = a * x + b * x**3 + c * x**5
    return x.min().item(), x.max().item()


def coefficients(
    steps: int, lower: float = 1e-3, cushion: float = 0.02407327424182761, safety: float = 1.01
) -> tuple[Row, ...]:
    r"""Rows whose composition is the odd polynomial nearest to 1 on [lower, 1], of all compositions of that degree.

    Step by step: of the quintics p the one with the least $\max_{l \le x \le u} |1 - p(x)|$, where [l, u] is what the
    steps before have made of [lower, 1]. A narrow l is lifted to ``cushion·u``, which costs the first steps little and
    keeps small singular values from oscillating; p is then scaled so that p(l) and p(u) lie as far from 1.

    Source: Amsel et al. 2025, "The Polar Express", algorithm 1 and section 3.3, https://arxiv.org/abs/2505.16932

    Args:
        steps: number of rows, at least 0.
        lower: smallest singular value to bring near 1, relative to the norm, in (0, 1].
        cushion: in [0, 1).
        safety: at least 1: all rows but the last are those of x/safety, so that rounding leads nowhere beyond u, from
            where steps diverge. With 1, which is the best in exact arithmetic, iterations in 16 bits do.

    Returns:
        One row (a, b, c) for each step.

    Raises:
        ValueError: for a value outside its range.
    """
    for name, value, fine, allowed in (
        ("steps", steps, isinstance(steps, int) and steps >= 0, "an integer of at least 0"),
        ("lower", lower, 0 < lower <= 1, "a number in (0, 1]"),
        ("cushion", cushion, 0 <= cushion < 1, "a number in [0, 1)"),
        ("safety", safety, safety >= 1, "a number of at least 1"),
    ):
        if not fine:
            raise bad_argument(name, value, allowed)
    low, high, found = lower, 1.0, []
    for step in range(steps):
        row = _centred(_minimax(max(low, cushion * high), high), low, high)
        row = _shrunk(row, safety) if step < steps - 1 else row
        found.append(row)
        low = _value(row, low)
        high = 2 - low
    return tuple(found)


def polar_express() -> tuple[Row, ...]:
    """The eight rows of the authors' code: the last is the limit, the others are shrunk by 1.01."""
    return (*(_shrunk(row, 1.01) for row in coefficients(7, safety=1.0)), LIMIT)


def _value(row: Row, x: float) -> float:
    a, b, c = row
    return a * x + b * x**3 + c * x**5


def _shrunk(row: Row, by: float) -> Row:
    a, b, c = row
    return a / by, b / by**3, c / by**5


def _centred(row: Row, low: float, high: float) -> Row:
    a, b, c = (x * 2 / (_value(row, low) + _value(row, high)) for x in row)
    return a, b, c


@functools.cache
def _minimax(low: float, high: float) -> Row:
    """The quintic nearest to 1 on [low, high], by the exchange of Remez: it errs by ±E at four points in turn."""
    if low / high > 1 - 2e-3:  # the limit within 2e-8; nearer, the system below is singular to rounding
        return _shrunk(LIMIT, high)
    q, r, before, error = (3 * low + high) / 4, (low + 3 * high) / 4, math.inf, 0.0
    a = b = c = 0.0
    for _ in range(100):
        points = torch.tensor([low, q, r, high], dtype=torch.float64)
        signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
        system = torch.stack([points, points**3, points**5, signs], dim=1)
        a, b, c, error = torch.linalg.solve(system, torch.ones(4, dtype=torch.float64)).tolist()
        if abs(before - error) <= 1e-15:
            break
        before = error
        root = math.sqrt(max(0.0, 9 * b * b - 20 * a * c))
        q, r = (math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1))
    return a, b, c
