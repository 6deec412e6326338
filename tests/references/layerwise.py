"""Layer-wise scaling, from the algorithm boxes."""

import numpy as np

from tests.references._base import Reference


class LARS(Reference, lr=1.0, momentum=0.9, trust_coefficient=1e-3, eps=0.0, nesterov=False, own_decay=True):
    """You et al. 2017, algorithm 1, with the learning rate outside the buffer."""

    def update(self, x, g, s, h):
        decay, eta = h["weight_decay"], h["trust_coefficient"]
        w_norm, g_norm = np.linalg.norm(x), np.linalg.norm(g)
        local = 1.0
        if eta is not None and w_norm > 0 and g_norm + decay * w_norm > 0:
            local = eta * w_norm / (g_norm + decay * w_norm + h["eps"])
        step = local * (g + decay * x)
        if not h["momentum"]:
            return x - h["lr"] * step
        s["v"] = h["momentum"] * s.get("v", 0.0) + step
        return x - h["lr"] * (step + h["momentum"] * s["v"] if h["nesterov"] else s["v"])


class LAMB(Reference, betas=(0.9, 0.999), eps=1e-6, weight_decay=1e-2, amsgrad=False, own_decay=True):
    """You et al. 2020, algorithm 2, with φ the identity."""

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        s["top"] = np.maximum(s.get("top", 0.0), s["v"])
        v = s["top"] if h["amsgrad"] else s["v"]
        r = s["m"] / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + h["eps"]) + h["weight_decay"] * x
        w_norm, r_norm = np.linalg.norm(x), np.linalg.norm(r)
        return x - h["lr"] * (w_norm / r_norm if w_norm > 0 and r_norm > 0 else 1.0) * r


class Fromage(Reference, lr=1e-2):
    """Bernstein et al. 2020, algorithm 1."""

    def update(self, x, g, s, h):
        w_norm, g_norm = np.linalg.norm(x), np.linalg.norm(g)
        ratio = w_norm / g_norm if w_norm > 0 and g_norm > 0 else 1.0
        return (x - h["lr"] * ratio * g) / np.sqrt(1 + h["lr"] ** 2)
