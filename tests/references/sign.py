"""Steps of one length."""

import numpy as np

from tests.references._base import Reference


class Lion(Reference, betas=(0.9, 0.99), own_decay=True):
    """Chen et al. 2023, algorithm 2: θ ← θ − η(sign(c) + λθ)."""

    def update(self, x, g, s, h):
        beta1, beta2 = h["betas"]
        m = s.get("m", np.zeros_like(x))
        c = beta1 * m + (1 - beta1) * g
        s["m"] = beta2 * m + (1 - beta2) * g
        return x - h["lr"] * (np.sign(c) + h["weight_decay"] * x)


class Tiger(Reference, beta=0.965, weight_decay=1e-2, own_decay=True):
    """Su 2023: m ← βm + (1 − β)g, θ ← θ − α(sign(m) + λθ)."""

    def update(self, x, g, s, h):
        s["m"] = h["beta"] * s.get("m", 0.0) + (1 - h["beta"]) * g
        return x - h["lr"] * (np.sign(s["m"]) + h["weight_decay"] * x)
