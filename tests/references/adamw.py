"""AdamW's kin."""

import numpy as np

from tests.references._base import Reference


class StableAdamW(Reference, betas=(0.9, 0.99), eps=1e-6, weight_decay=1e-2, clip_decay=True, own_decay=True):
    """Wortsman et al. 2023, algorithm 2: v is the mean, u the mean square."""

    def update(self, x, g, s, h):
        (b1, b2), t, eps = h["betas"], s["t"], h["eps"]
        if t == 1:
            s.update(v=g.copy(), u=g**2)  # both hats are 0
        else:
            hat1, hat2 = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (b1, b2))
            s["v"] = hat1 * s["v"] + (1 - hat1) * g
            s["u"] = hat2 * s["u"] + (1 - hat2) * g**2
        rms = np.sqrt(np.mean(g**2 / np.maximum(s["u"], eps**2))) if x.size else 1.0
        eta = h["lr"] / max(1.0, rms)
        decay = eta if h["clip_decay"] else h["lr"]
        return x - decay * h["weight_decay"] * x - eta * s["v"] / (np.sqrt(s["u"]) + eps)


class AdamC(
    Reference,
    betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, max_lr=None, normalized=True, own_decay=True,
):  # fmt: skip
    """Defazio 2025: x ← x − γ m̂/(√v̂ + ε) − (γ²/γ_max) λ x."""

    def __init__(self, params, **given):
        super().__init__(params, **given)
        self.first = [h["lr"] for h in self.param_groups]

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        first = next(lr for lr, group in zip(self.first, self.param_groups, strict=True) if group is h)
        peak = h["max_lr"] or h.get("initial_lr", first)
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        s["top"] = np.maximum(s.get("top", 0.0), s["v"])
        v = s["top"] if h["amsgrad"] else s["v"]
        step = s["m"] / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + h["eps"])
        rate = h["lr"] ** 2 / peak if h["normalized"] else h["lr"]
        return x - h["lr"] * step - rate * h["weight_decay"] * x
