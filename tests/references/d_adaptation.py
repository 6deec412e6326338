"""The distance to the solution, estimated from all parameters.

A group whose learning rate is a share of the largest is written as parameters y in other units, x = r y, whose
gradients are r times as large.
"""

import numpy as np

from tests.references._base import Reference

INF = float("inf")


class Together(Reference):
    """``known`` is what all parameters have in common."""

    def common(self, every):
        if every:
            self.known = getattr(self, "known", {"d": every[0][3]["d0"], "d_max": every[0][3]["d0"], "r": 0.0, "k": 0})
            self.known["k"] += 1
            self.top = max(h["lr"] for *_, h in every)
            self.estimate(every, every[0][3], self.known)

    def bias_correction(self, h):
        (b1, b2), k = h["betas"], self.known["k"]
        return np.sqrt(1 - b2**k) / (1 - b1**k) if h["use_bias_correction"] else 1.0


class DAdaptSGD(Together, lr=1.0, momentum=0.0, d0=1e-6, growth_rate=INF):
    """Defazio & Mishchenko 2023, SGD with D-Adaptation: x is a running mean of z, which dual averaging moves."""

    def unit(self, h):
        return np.sqrt(h["lr"] / self.top)

    def estimate(self, every, h, n):
        if "G" not in n:
            n["G"] = np.sqrt(sum(np.sum((self.unit(h) * g) ** 2) for _, g, _, h in every))
        rate = n["d"] * self.top / n["G"]
        for x, g, s, own in every:
            s.setdefault("x0", x.copy())
            s.setdefault("s", np.zeros_like(x))
            g = self.unit(own) * g
            n["r"] += rate * np.sum(g * s["s"])
            s["s"] = s["s"] + rate * g
        d_hat = 2 * n["r"] / np.sqrt(sum(np.sum(s["s"] ** 2) for _, _, s, _ in every))
        n["d"] = max(n["d"], min(d_hat, n["d"] * h["growth_rate"]))

    def update(self, x, g, s, h):
        return h["momentum"] * x + (1 - h["momentum"]) * (s["x0"] - self.unit(h) * s["s"])


class DAdaptAdam(
    Together,
    lr=1.0, betas=(0.9, 0.999), eps=1e-8, decoupled_weight_decay=False, use_bias_correction=False,
    d0=1e-6, growth_rate=INF, own_decay=True,
):  # fmt: skip
    """Defazio & Mishchenko 2023, Adam with D-Adaptation, with the authors' code's v of the step before in r."""

    def estimate(self, every, h, n):
        (b1, b2), b = h["betas"], np.sqrt(h["betas"][1])
        rate = self.rate = n["d"] * self.top * self.bias_correction(h)
        product = length = 0.0
        for x, g, s, own in every:
            for key in ("m", "v", "s"):
                s.setdefault(key, np.zeros_like(x))
            r = own["lr"] / self.top
            g = g if own["decoupled_weight_decay"] else g + own["weight_decay"] * x
            product += rate * np.sum(r * g * s["s"] / (r * (np.sqrt(s["v"]) + own["eps"])))
            s["m"] = b1 * s["m"] + (1 - b1) * rate * r * g
            s["v"] = b2 * s["v"] + (1 - b2) * g**2
            s["s"] = b * s["s"] + (1 - b) * rate * r * g
            length += np.sum(np.abs(s["s"]))
        n["r"] = b * n["r"] + (1 - b) * product
        n["d"] = max(n["d"], min(n["r"] / ((1 - b) * length), n["d"] * h["growth_rate"]))

    def update(self, x, g, s, h):
        decay = self.rate * h["lr"] / self.top * h["weight_decay"] if h["decoupled_weight_decay"] else 0.0
        return x - decay * x - s["m"] / (np.sqrt(s["v"]) + h["eps"])


class Prodigy(
    Together,
    lr=1.0, betas=(0.9, 0.999), beta3=None, eps=1e-8, use_bias_correction=False, safeguard_warmup=False,
    d0=1e-6, d_coef=1.0, growth_rate=INF, own_decay=True,
):  # fmt: skip
    """Mishchenko & Defazio 2024, Adam version, with the 1 − β₃ that cancel; options as in the authors' code."""

    def estimate(self, every, h, n):
        b1, b2 = h["betas"]
        b3 = np.sqrt(b2) if h["beta3"] is None else h["beta3"]
        d = self.d = n["d"]
        gamma = self.top * self.bias_correction(h)
        product = length = 0.0
        for x, g, s, own in every:
            s.setdefault("x0", x.copy())
            for key in ("m", "v", "s"):
                s.setdefault(key, np.zeros_like(x))
            r = own["lr"] / self.top
            g = g if own["decoupled_weight_decay"] else g + own["weight_decay"] * x
            s["m"] = b1 * s["m"] + (1 - b1) * d * g
            s["v"] = b2 * s["v"] + (1 - b2) * (d * g) ** 2
            product += gamma * d**2 * np.sum(r * g * (s["x0"] / r - x / r))
            s["s"] = b3 * s["s"] + (1 - b3) * (1.0 if own["safeguard_warmup"] else gamma) * d**2 * r * g
            length += np.sum(np.abs(s["s"]))
        n["r"] = b3 * n["r"] + (1 - b3) * product
        d_hat = h["d_coef"] * n["r"] / length
        n["d_max"] = max(n["d_max"], d_hat)
        n["d"] = n["d_max"] if d == h["d0"] else min(n["d_max"], d * h["growth_rate"])

    def update(self, x, g, s, h):
        rate = h["lr"] * self.bias_correction(h) * self.d
        decay = rate * h["weight_decay"] if h["decoupled_weight_decay"] else 0.0
        return x - decay * x - rate * s["m"] / (np.sqrt(s["v"]) + self.d * h["eps"])
