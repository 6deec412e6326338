"""No learning rate."""

import numpy as np

from tests.references._base import Reference


class COCOB(Reference, lr=1.0, alpha=100.0):
    """Orabona & Tommasi 2017, algorithm 2: g is the negative gradient; ``lr`` of the way."""

    def update(self, x, g, s, h):
        if s["t"] == 1:
            s.update(w1=x.copy(), **{key: np.zeros_like(x) for key in ("L", "G", "reward", "theta")})
        g = -g
        s["L"] = np.maximum(s["L"], np.abs(g))
        s["G"] = s["G"] + np.abs(g)
        s["reward"] = np.maximum(s["reward"] + (x - s["w1"]) * g, 0)
        s["theta"] = s["theta"] + g
        with np.errstate(invalid="ignore"):  # where no gradient was seen
            share = s["theta"] / (s["L"] * np.maximum(s["G"] + s["L"], h["alpha"] * s["L"]))
            w = np.where(s["L"] > 0, s["w1"] + share * (s["L"] + s["reward"]), s["w1"])
        return x + h["lr"] * (w - x)
