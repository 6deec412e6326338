"""What stands around an optimizer, in numpy: a loss whose gradient is known, two optimizers, and the papers' loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Arrays = list[np.ndarray]
Step = Callable[[Arrays, Arrays], Arrays]


def loss(xs: Arrays, t: int) -> float:
    """A convex valley whose place depends on t, and which couples all tensors."""
    bends = sum(np.log(np.cosh(_slope(i) * x - _shift(t, i))).sum() for i, x in enumerate(xs))
    return float(bends + 0.05 * sum(x.sum() for x in xs) ** 2)


def gradient(xs: Arrays, t: int) -> Arrays:
    """Of ``loss``, by hand."""
    pull = 0.1 * sum(x.sum() for x in xs)
    return [_slope(i) * np.tanh(_slope(i) * x - _shift(t, i)) + pull for i, x in enumerate(xs)]


def _slope(i: int) -> float:
    return 1.0 + 0.5 * i


def _shift(t: int, i: int) -> float:
    return float(np.sin(1.7 * t + i))


def adamw(lr: float, decay: float = 0.01, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Step:
    """Loshchilov & Hutter 2019, algorithm 2, with decay times the learning rate."""
    memory: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    count = 0

    def step(xs: Arrays, gs: Arrays) -> Arrays:
        nonlocal count
        count += 1
        new = []
        for i, (x, g) in enumerate(zip(xs, gs, strict=True)):
            m, v = memory.get(i, (np.zeros_like(x), np.zeros_like(x)))
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            memory[i] = m, v
            new.append(x - lr * decay * x - lr * (m / (1 - b1**count)) / (np.sqrt(v / (1 - b2**count)) + eps))
        return new

    return step


def sgd(lr: float, momentum: float = 0.9) -> Step:
    """Heavy ball, the first buffer being the first gradient."""
    buffers: dict[int, np.ndarray] = {}

    def step(xs: Arrays, gs: Arrays) -> Arrays:
        new = []
        for i, (x, g) in enumerate(zip(xs, gs, strict=True)):
            buffers[i] = momentum * buffers.get(i, 0.0) + g
            new.append(x - lr * buffers[i])
        return new

    return step


def lookahead(xs: Arrays, inner: Step, steps: int, k: int, alpha: float) -> Arrays:
    """Zhang et al. 2019, algorithm 1; outer loops, as it is written there, and what is left over of the last."""
    phi, t = [x.copy() for x in xs], 0
    while t < steps:
        theta = [x.copy() for x in phi]
        for _ in range(min(k, steps - t)):
            theta = inner(theta, gradient(theta, t))
            t += 1
        if t % k:
            return theta
        phi = [f + alpha * (x - f) for f, x in zip(phi, theta, strict=True)]
    return phi


def sam(xs: Arrays, inner: Step, steps: int, rho: float, eta: float | None = None) -> Arrays:
    """Foret et al. 2021, algorithm 1; with η, Kwon et al. 2021, algorithm 1."""
    for t in range(steps):
        gs = gradient(xs, t)
        scale = [np.ones_like(x) if eta is None else np.abs(x) + eta for x in xs]
        length = np.sqrt(sum(((s * g) ** 2).sum() for s, g in zip(scale, gs, strict=True)))
        worst = [x + rho * s**2 * g / length for x, s, g in zip(xs, scale, gs, strict=True)]
        xs = inner(xs, gradient(worst, t))
    return xs


def ema(xs: Arrays, inner: Step, steps: int, decay: float, bias_correction: bool) -> tuple[Arrays, Arrays]:
    """The weights and their mean, by the sum that defines it."""
    history = []
    for t in range(steps):
        xs = inner(xs, gradient(xs, t))
        history.append(xs)
    weights = np.array([(1 - decay) * decay ** (steps - 1 - t) for t in range(steps)])
    if bias_correction:
        weights /= weights.sum()
    else:
        weights[0] = decay ** (steps - 1)  # the first weights are the first mean
    return xs, [sum(w * h[i] for w, h in zip(weights, history, strict=True)) for i in range(len(xs))]


def gpa(xs: Arrays, inner: Step, steps: int, mu_x: float, mu_y: float) -> tuple[Arrays, Arrays]:
    """Defazio et al. 2025, algorithm 1: y at the end, and the mean x."""
    zs, means = [x.copy() for x in xs], [x.copy() for x in xs]
    for t in range(steps):
        ys = [mu_y * x + (1 - mu_y) * z for x, z in zip(means, zs, strict=True)]
        zs = inner(zs, gradient(ys, t))
        means = [mu_x * x + (1 - mu_x) * z for x, z in zip(means, zs, strict=True)]
    return [mu_y * x + (1 - mu_y) * z for x, z in zip(means, zs, strict=True)], means


def ema_nesterov(
    xs: Arrays, inner: Step, steps: int, beta: float, decay: float, begin: int = 0, end: int = 10**9
) -> tuple[Arrays, Arrays]:
    """Yau et al. 2026, eq. 4: the point ahead at the end, and θ."""
    thetas, ms = [x.copy() for x in xs], [np.zeros_like(x) for x in xs]
    for t in range(steps + 1):
        ahead = [x + (beta if begin <= t < end else 0.0) * m for x, m in zip(thetas, ms, strict=True)]
        if t == steps:
            break
        new = inner(ahead, gradient(ahead, t))
        ms = [decay * m + (1 - decay) * (n - x) for m, n, x in zip(ms, new, thetas, strict=True)]
        thetas = new
    return ahead, thetas


def snoo(xs: Arrays, inner: Step, steps: int, k: int, lr: float, mu: float) -> Arrays:
    """Kallusky et al. 2025, algorithm 1; what is left over of the last loop is fast."""
    slow, b, t = [x.copy() for x in xs], [np.zeros_like(x) for x in xs], 0
    while t < steps:
        fast = [x.copy() for x in slow]
        for _ in range(min(k, steps - t)):
            fast = inner(fast, gradient(fast, t))
            t += 1
        if t % k:
            return fast
        s = [w - f for w, f in zip(slow, fast, strict=True)]
        b = [mu * old + new for old, new in zip(b, s, strict=True)]
        slow = [w - lr * (new + mu * old) for w, new, old in zip(slow, s, b, strict=True)]
    return slow


def mechanic(
    xs: Arrays, inner: Step, steps: int, decay: float = 1e-2, s_init: float = 1e-8, eps: float = 1e-8, n: int = 6
) -> tuple[Arrays, np.ndarray]:
    """Cutkosky et al. 2023, algorithm 1 (|h| in m); gives the weights and s."""
    beta = np.array([1 - 10.0**-i for i in range(1, n + 1)])
    m, v, r, s = (np.zeros(n) for _ in range(4))
    ref, delta = [x.copy() for x in xs], [np.zeros_like(x) for x in xs]
    for t in range(steps):
        gs = gradient(xs, t)
        us = [new - x for new, x in zip(inner(xs, gs), xs, strict=True)]
        big, size = (np.sqrt(sum((a**2).sum() for a in arrays)) for arrays in (gs, xs))
        pull = [g + decay * s.sum() * big * x / (size + eps) for g, x in zip(gs, xs, strict=True)]
        h = sum((d * q).sum() for d, q in zip(delta, pull, strict=True))
        delta = [d + u for d, u in zip(delta, us, strict=True)]
        m = np.maximum(beta * m, abs(h))
        v = beta**2 * v + h**2
        r = np.maximum(0, beta * r - s * h)
        s = (s_init / n * m + r) / (np.sqrt(v) + eps)
        xs = [a + s.sum() * d for a, d in zip(ref, delta, strict=True)]
    return xs, s
