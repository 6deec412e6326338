"""SGD's kin."""

import numpy as np

from tests.references._base import Reference


class SGDW(Reference, momentum=0.9, dampening=0.0, nesterov=False, weight_decay=1e-2, own_decay=True):
    """Loshchilov & Hutter 2019, algorithm 1; the learning rate outside m (the same where it is constant)."""

    def update(self, x, g, s, h):
        keep = h["momentum"]
        if s["t"] == 1:
            s["m"] = g.copy()
        else:
            s["m"] = keep * s["m"] + (1 - h["dampening"]) * g
        step = g + keep * s["m"] if h["nesterov"] else s["m"]
        return x - h["lr"] * step - h["lr"] * h["weight_decay"] * x


class SignSGD(Reference):
    """Bernstein et al. 2018, algorithm 1."""

    def update(self, x, g, s, h):
        return x - h["lr"] * np.sign(g)


class Signum(Reference, momentum=0.9):
    """Bernstein et al. 2018, algorithm 2, one worker."""

    def update(self, x, g, s, h):
        s["m"] = h["momentum"] * s.get("m", 0.0) + (1 - h["momentum"]) * g
        return x - h["lr"] * np.sign(s["m"])


class AggMo(Reference, betas=(0.0, 0.9, 0.99)):
    """Lucas et al. 2019, eq. 3: v ← βv − g, θ ← θ + γ/K Σv."""

    def update(self, x, g, s, h):
        velocities = s.get("v", [0.0 for _ in h["betas"]])
        s["v"] = [beta * v - g for beta, v in zip(h["betas"], velocities, strict=True)]
        return x + h["lr"] / len(s["v"]) * sum(s["v"])


class QHM(Reference, momentum=0.999, nu=0.7):
    """Ma & Yarats 2019, eq. 3-4."""

    def update(self, x, g, s, h):
        beta, nu = h["momentum"], h["nu"]
        s["g"] = beta * s.get("g", 0.0) + (1 - beta) * g
        return x - h["lr"] * ((1 - nu) * g + nu * s["g"])
