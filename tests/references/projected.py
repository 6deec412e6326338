"""Heo et al. 2021, algorithms 1 and 2; views, ε and decay as in their section C and code."""

import math

import numpy as np

from tests.references._base import Reference


def project(x, g, step, h):
    """The step after eq. 12, and by how much less its weight decays."""
    if x.ndim < 2 or not x.size:
        return step, 1.0
    for shape in ((x.shape[0], -1), (1, -1)):  # channels, else the layer
        w, d = x.reshape(shape), g.reshape(shape)
        norms = [np.maximum(np.sqrt((v**2).sum(1)), h["eps"]) for v in (w, d)]
        cosines = np.abs((w * d).sum(1)) / (norms[0] * norms[1])
        if max(cosines) < h["delta"] / math.sqrt(w.shape[1]):
            unit = w / (np.sqrt((w**2).sum(1, keepdims=True)) + h["eps"])
            radial = (unit * step.reshape(shape)).sum(1, keepdims=True)
            return step - (radial * unit).reshape(x.shape), h["wd_ratio"]
    return step, 1.0


class SGDP(Reference, momentum=0.9, dampening=0.0, nesterov=False, eps=1e-8, delta=0.1, wd_ratio=0.1, own_decay=True):
    """Algorithm 1."""

    def update(self, x, g, s, h):
        mu = h["momentum"]
        s["p"] = g.copy() if s["t"] == 1 else mu * s["p"] + (1 - h["dampening"]) * g
        step, ratio = project(x, g, g + mu * s["p"] if h["nesterov"] else s["p"], h)
        return x - h["lr"] * step - h["lr"] * h["weight_decay"] * ratio / (1 - mu) * x


class AdamP(Reference, betas=(0.9, 0.999), eps=1e-8, delta=0.1, wd_ratio=0.1, nesterov=False, own_decay=True):
    """Algorithm 2."""

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        m = b1 * s["m"] + (1 - b1) * g if h["nesterov"] else s["m"]
        step, ratio = project(x, g, m / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + h["eps"]), h)
        return x - h["lr"] * step - h["lr"] * h["weight_decay"] * ratio * x
