"""One second moment for a block of weights, from the algorithm boxes."""

import math

import numpy as np

from tests.references._base import Reference


def _row_mean(x):
    """Over all but the first dimension; a vector or a number is one row."""
    if x.ndim < 2:
        return x.mean(keepdims=True) if x.size else np.zeros((1,) * x.ndim)
    return x.mean(axis=tuple(range(1, x.ndim)), keepdims=True)


class NovoGrad(Reference, lr=1e-2, betas=(0.95, 0.98), eps=1e-8, averaged=False, own_decay=True):
    """Ginsburg et al. 2019, algorithm 1."""

    def update(self, x, g, s, h):
        b1, b2 = h["betas"]
        square = (g**2).sum()
        s["v"] = square if s["t"] == 1 else b2 * s["v"] + (1 - b2) * square
        new = g / (np.sqrt(s["v"]) + h["eps"]) + h["weight_decay"] * x
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1 if h["averaged"] else 1) * new
        return x - h["lr"] * s["m"]


class AdamMini(Reference, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, decoupled_weight_decay=True):
    """Zhang et al. 2024, algorithm 1, with rows for blocks."""

    def update(self, x, g, s, h):
        if not x.size:
            return x
        (b1, b2), t = h["betas"], s["t"]
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * _row_mean(g**2)
        return x - h["lr"] * s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + h["eps"])


class Amos(Reference, lr=1e-2, beta=0.999, momentum=0.0, eps=1e-18, scale=None):
    """Tian & Parikh 2022, algorithm 1."""

    def update(self, x, g, s, h):
        if not x.size:
            return x
        xi, t = h["lr"], s["t"]
        eta = h["scale"]
        if eta is None:
            eta = 1 / math.sqrt(math.prod(x.shape[1:])) if x.ndim > 1 else 0.5
        square = _row_mean(g**2)
        s["v"] = h["beta"] * s.get("v", 0.0) + (1 - h["beta"]) * square
        b = s.get("b", np.zeros_like(square))
        v_hat = np.maximum(s["v"], h["eps"]) / (1 - h["beta"] ** t)
        gamma = (1 + 0.25 * math.sqrt(xi) * b) ** -0.5 * xi**2 * square / v_hat
        delta = xi * eta * g / np.sqrt(v_hat) + 0.5 * gamma * x
        delta = delta / (1 + 0.25 * math.sqrt(xi * eta) * b)
        s["b"] = b + gamma * (1 + b)
        if h["momentum"]:
            s["m"] = delta = h["momentum"] * s.get("m", 0.0) + (1 - h["momentum"]) * delta
        return x - delta
