"""Dual averaging."""

import numpy as np

from tests.references._base import Reference


class MADGRAD(Reference, lr=1e-2, momentum=0.9, eps=1e-6):
    """Defazio & Jelassi 2021, algorithm 1, k from 0."""

    def update(self, x, g, s, h):
        k, c = s["t"] - 1, 1 - h["momentum"]
        if k == 0:
            s.update(x0=x.copy(), s=np.zeros_like(x), v=np.zeros_like(x))
        weight = h["lr"] * np.sqrt(k + 1)
        s["s"] = s["s"] + weight * g
        s["v"] = s["v"] + weight * g * g
        z = s["x0"] - s["s"] / (np.cbrt(s["v"]) + h["eps"])
        return (1 - c) * x + c * z
