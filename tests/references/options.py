"""Readings other than torch's, by option, of rules whose name torch has."""

import numpy as np

from tests.references._base import Reference


class RMSprop(
    Reference, lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.0, centered=False, initial_accumulator_value=0.0,
    eps_in_root=False, lr_in_momentum=False,
):  # fmt: skip
    """Graves 2013, eq. 38-45: n ← αn + (1 − α)ε², g ← αg + (1 − α)ε, Δ ← μΔ − ηε/√(n − g² + 1e-4), w ← w + Δ."""

    def start(self, x, h):
        return {"n": np.full_like(x, h["initial_accumulator_value"]), "g": 0.0, "delta": 0.0}

    def update(self, x, g, s, h):
        alpha = h["alpha"]
        s["n"] = alpha * s["n"] + (1 - alpha) * g**2
        s["g"] = alpha * s["g"] + (1 - alpha) * g
        n = s["n"] - s["g"] ** 2 if h["centered"] else s["n"]
        ratio = g / np.sqrt(n + h["eps"]) if h["eps_in_root"] else g / (np.sqrt(n) + h["eps"])
        if h["lr_in_momentum"]:
            s["delta"] = h["momentum"] * s["delta"] - h["lr"] * ratio
            return x + s["delta"]
        s["delta"] = h["momentum"] * s["delta"] + ratio
        return x - h["lr"] * s["delta"]


class RAdam(Reference, betas=(0.9, 0.999), eps=1e-8, threshold=5.0):
    """Liu et al. 2020, algorithm 2, with torch's ε and any threshold."""

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        m = s["m"] / (1 - b1**t)
        longest = 2 / (1 - b2) - 1
        length = longest - 2 * t * b2**t / (1 - b2**t)
        if length <= h["threshold"]:
            return x - h["lr"] * m
        r = np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
        return x - h["lr"] * m * r * np.sqrt(1 - b2**t) / (np.sqrt(s["v"]) + h["eps"])
