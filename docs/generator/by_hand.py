"""Three steps of each rule of the story, reckoned as with a pencil; a test compares them with the classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from docs.generator.optimizer_pages import table as markdown_table
from thalweg.linalg.newton_schulz import JORDAN

START, STEPS = 1.0, 3
#: of the matrix of Muon's example, which has nothing outside its diagonal
DIAGONAL = (1.0, 0.1)


@dataclass(frozen=True)
class Reckoning:
    """A table, and where the parameter is after each step.

    Attributes:
        head: what stands above the columns.
        rows: one for each step, with the arithmetic written out.
        points: the values of the parameter after each step; of Muon those on the diagonal.
    """

    head: list[str]
    rows: list[list[str]]
    points: list[tuple[float, ...]]


def table(name: str) -> str:
    """In Markdown."""
    made = RULES[name]()
    return markdown_table(made.head, made.rows)


def sgd(lr: float = 0.1) -> Reckoning:
    """On p², whose gradient is 2p."""
    p, rows, points = START, [], []
    for t in range(1, STEPS + 1):
        g = 2 * p
        after = p - lr * g
        rows.append([f"{t}", _eq(f"2 · {_n(p)}", g), _eq(f"{_n(p)} − {lr} · {_n(g)}", after)])
        p = after
        points.append((p,))
    return Reckoning(["step", "gradient g", "p"], rows, points)


def momentum(lr: float = 0.1, mu: float = 0.9) -> Reckoning:
    """The same, along the running sum."""
    p, b, rows, points = START, 0.0, [], []
    for t in range(1, STEPS + 1):
        g = 2 * p
        total = mu * b + g
        after = p - lr * total
        kept = _eq(f"{mu} · {_n(b)} + {_n(g)}", total)
        rows.append([f"{t}", _n(g), kept, _eq(f"{_n(p)} − {lr} · {_n(total)}", after)])
        p, b = after, total
        points.append((p,))
    return Reckoning(["step", "g = 2p", "running sum b", "p"], rows, points)


def rmsprop(lr: float = 0.01, alpha: float = 0.99) -> Reckoning:
    """The gradient over the root of its mean square, which starts at 0."""
    p, v, rows, points = START, 0.0, [], []
    for t in range(1, STEPS + 1):
        g = 2 * p
        mean = alpha * v + (1 - alpha) * g * g
        u = g / sqrt(mean)
        after = p - lr * u
        kept = _eq(f"{alpha} · {_n(v)} + {_n(1 - alpha)} · {_n(g)}²", mean)
        step = _eq(f"{_n(g)} / √{_n(mean)}", u)
        rows.append([f"{t}", _n(g), kept, step, _eq(f"{_n(p)} − {lr} · {_n(u)}", after)])
        p, v = after, mean
        points.append((p,))
    return Reckoning(["step", "g = 2p", "mean square v", "g / √v", "p"], rows, points)


def adam(lr: float = 0.1, decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999)) -> Reckoning:
    """Mean over root mean square, both corrected; with decay it is AdamW."""
    (beta1, beta2), p, m, v = betas, START, 0.0, 0.0
    rows, points = [], []
    for t in range(1, STEPS + 1):
        g = 2 * p
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        fair_m, fair_v = m / (1 - beta1**t), v / (1 - beta2**t)
        u = fair_m / sqrt(fair_v)
        shrunk = (1 - lr * decay) * p
        after = shrunk - lr * u
        row = [
            f"{t}",
            _n(g),
            _eq(f"{_n(m)} / {_n(1 - beta1**t)}", fair_m),
            _eq(f"{_n(v)} / {_n(1 - beta2**t)}", fair_v),
        ]
        row.append(_eq(f"{_n(fair_m)} / √{_n(fair_v)}", u))
        if decay:
            row.append(_eq(f"{_n(1 - lr * decay)} · {_n(p)}", shrunk))
        rows.append([*row, _eq(f"{_n(shrunk)} − {lr} · {_n(u)}", after)])
        p = after
        points.append((p,))
    shrink = ["p, shrunk"] if decay else []
    head = ["step", "g = 2p", "m / (1 − β₁ᵗ)", "v / (1 − β₂ᵗ)", "u, mean divided by root", *shrink, "p"]
    return Reckoning(head, rows, points)


def muon(lr: float = 0.02, mu: float = 0.95) -> Reckoning:
    """On ½‖W‖², whose gradient is W, from a diagonal matrix: the numbers on the diagonal are the singular values."""
    W, B = DIAGONAL, (0.0, 0.0)
    rows, points = [], []
    for t in range(1, STEPS + 1):
        G = W
        B = tuple(mu * b + (1 - mu) * g for b, g in zip(B, G, strict=True))  # type: ignore[assignment]
        N = tuple((1 - mu) * g + mu * b for b, g in zip(B, G, strict=True))
        norm = sqrt(sum(x * x for x in N))
        start = tuple(x / norm for x in N)
        Q = tuple(map(five_iterations, start))
        W = tuple(w - lr * q for w, q in zip(W, Q, strict=True))  # type: ignore[assignment]
        rows.append([f"{t}", *map(_pair, (G, B, start, Q, W))])
        points.append(W)
    return Reckoning(["step", "G = W", "B", "N / ‖N‖", "after five iterations", "W"], rows, points)


def five_iterations(x: float, steps: int = 5) -> float:
    """What Newton-Schulz makes of one singular value."""
    a, b, c = JORDAN
    for _ in range(steps):
        x = a * x + b * x**3 + c * x**5
    return x


RULES: dict[str, Callable[[], Reckoning]] = {
    "SGD": sgd,
    "momentum": momentum,
    "RMSprop": rmsprop,
    "Adam": adam,
    "AdamW": lambda: adam(decay=0.1),
    "Muon": muon,
}


def _n(x: float) -> str:
    return f"{x:.4g}".replace("-", "−")


def _eq(reckoned: str, result: float) -> str:
    return f"{reckoned} = **{_n(result)}**"


def _pair(values: tuple[float, ...]) -> str:
    return "diag(" + ", ".join(map(_n, values)) + ")"
