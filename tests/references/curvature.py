"""Steps in units of curvature; the Hessian's diagonal is handed in."""

import numpy as np

from tests.references._base import Reference, _numpy


class Curved(Reference):
    """``take_hessian`` gives each parameter the newest estimate ``D`` and, as Sophia keeps it, their mean ``h``."""

    def take_hessian(self, estimates):
        params = [(group, p) for group in self.param_groups for p in group["params"]]
        for (group, p), estimate in zip(params, estimates, strict=True):
            s = self.state[p]
            s.setdefault("t", 0)
            s["D"] = self.smooth(_numpy(estimate.detach()).copy(), estimate.ndim, group)
            beta2 = group["betas"][1]
            s["h"] = beta2 * s.get("h", 0.0) + (1 - beta2) * s["D"]

    def smooth(self, D, ndim, group):
        """The estimate as the rule sees it."""
        return D


class AdaHessian(
    Curved, lr=0.15, betas=(0.9, 0.999), eps=1e-4, hessian_power=None, average_rows=False, absolute=False,
    own_decay=True,
):  # fmt: skip
    """Yao et al. 2021, algorithm 1: v̄ = √(Σ(1 − β₂)β₂^(t−i) D̄ᵢ² / (1 − β₂ᵗ)), θ ← θ − η m̄ / v̄ᵏ."""

    def smooth(self, D, ndim, group):
        D = np.abs(D) if group["absolute"] else D
        averaged = D.copy()
        if ndim > 2:
            for kernel in np.ndindex(D.shape[:2]):
                averaged[kernel] = D[kernel].sum() / D[kernel].size
        elif ndim == 2 and group["average_rows"]:
            for i, row in enumerate(D):
                averaged[i] = row.sum() / max(row.size, 1)
        return averaged

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * s["D"] ** 2
        m, v = s["m"] / (1 - b1**t), s["v"] / (1 - b2**t)
        k = 1.0 if h["hessian_power"] is None else h["hessian_power"]
        return x - h["lr"] * (m / (np.sqrt(v) ** k + h["eps"]) + h["weight_decay"] * x)


class SophiaH(Curved, lr=1e-4, betas=(0.96, 0.99), gamma=0.01, eps=1e-12, weight_decay=0.1, own_decay=True):
    """Liu et al. 2023, algorithm 3."""

    def update(self, x, g, s, h):
        s["m"] = h["betas"][0] * s.get("m", 0.0) + (1 - h["betas"][0]) * g
        x = x - h["lr"] * h["weight_decay"] * x
        return x - h["lr"] * np.clip(s["m"] / np.maximum(h["gamma"] * s["h"], h["eps"]), -1.0, 1.0)


class SophiaG(SophiaH, lr=1e-4, betas=(0.96, 0.99), gamma=0.05, eps=1e-12, weight_decay=0.1, own_decay=True):
    """The same with another γ."""
