"""The distance to the solution, estimated from all parameters."""

import numpy as np

from tests.references._base import Reference

INF = float("inf")


class DAdaptSGD(Reference, lr=1.0, momentum=0.0, d0=1e-6, growth_rate=INF):
    """Defazio & Mishchenko 2023, SGD with D-Adaptation: x is a running mean of z, which dual averaging moves."""

    def common(self, every):
        if not every:
            return
        h = every[0][3]
        n = self.__dict__.setdefault("n", {"d": h["d0"], "products": 0.0})
        if "G" not in n:
            n["G"] = np.sqrt(sum(np.sum(g * g) for _, g, _, _ in every))
        self.rate = n["d"] * h["lr"] / n["G"]
        for x, g, s, _ in every:
            s.setdefault("x0", x.copy())
            s.setdefault("s", np.zeros_like(x))
            n["products"] += self.rate * np.sum(g * s["s"])
            s["s"] = s["s"] + self.rate * g
        d_hat = 2 * n["products"] / np.sqrt(sum(np.sum(s["s"] ** 2) for _, _, s, _ in every))
        n["d"] = max(n["d"], min(d_hat, n["d"] * h["growth_rate"]))

    def update(self, x, g, s, h):
        return h["momentum"] * x + (1 - h["momentum"]) * (s["x0"] - s["s"])


class DAdaptAdam(
    Reference,
    lr=1.0, betas=(0.9, 0.999), eps=1e-8, decoupled_weight_decay=False, use_bias_correction=False,
    d0=1e-6, growth_rate=INF, own_decay=True,
):  # fmt: skip
    """Defazio & Mishchenko 2023, Adam with D-Adaptation, with the authors' code's v of the step before in r."""

    def common(self, every):
        if not every:
            return
        h = every[0][3]
        n = self.__dict__.setdefault("n", {"d": h["d0"], "r": 0.0, "k": 0})
        n["k"] += 1
        b1, b2 = h["betas"]
        b = np.sqrt(b2)
        self.rate = n["d"] * h["lr"]
        if h["use_bias_correction"]:
            self.rate *= np.sqrt(1 - b2 ** n["k"]) / (1 - b1 ** n["k"])
        product = length = 0.0
        for x, g, s, _ in every:
            for key in ("m", "v", "s"):
                s.setdefault(key, np.zeros_like(x))
            g = g if h["decoupled_weight_decay"] else g + h["weight_decay"] * x
            product += self.rate * np.sum(g * s["s"] / (np.sqrt(s["v"]) + h["eps"]))
            s["m"] = b1 * s["m"] + (1 - b1) * self.rate * g
            s["v"] = b2 * s["v"] + (1 - b2) * g**2
            s["s"] = b * s["s"] + (1 - b) * self.rate * g
            length += np.sum(np.abs(s["s"]))
        n["r"] = b * n["r"] + (1 - b) * product
        n["d"] = max(n["d"], min(n["r"] / ((1 - b) * length), n["d"] * h["growth_rate"]))

    def update(self, x, g, s, h):
        decay = self.rate * h["weight_decay"] if h["decoupled_weight_decay"] else 0.0
        return x - decay * x - s["m"] / (np.sqrt(s["v"]) + h["eps"])


class Prodigy(
    Reference,
    lr=1.0, betas=(0.9, 0.999), beta3=None, eps=1e-8, use_bias_correction=False, safeguard_warmup=False,
    d0=1e-6, d_coef=1.0, growth_rate=INF, own_decay=True,
):  # fmt: skip
    """Mishchenko & Defazio 2024, Adam version, with the 1 − β₃ that cancel; options as in the authors' code."""

    def common(self, every):
        if not every:
            return
        h = every[0][3]
        n = self.__dict__.setdefault("n", {"d": h["d0"], "d_max": h["d0"], "r": 0.0, "k": 0})
        n["k"] += 1
        b1, b2 = h["betas"]
        b3 = np.sqrt(b2) if h["beta3"] is None else h["beta3"]
        d = self.d = n["d"]
        gamma = h["lr"]
        if h["use_bias_correction"]:
            gamma *= np.sqrt(1 - b2 ** n["k"]) / (1 - b1 ** n["k"])
        self.rate = gamma * d
        product = length = 0.0
        for x, g, s, _ in every:
            s.setdefault("x0", x.copy())
            for key in ("m", "v", "s"):
                s.setdefault(key, np.zeros_like(x))
            g = g if h["decoupled_weight_decay"] else g + h["weight_decay"] * x
            s["m"] = b1 * s["m"] + (1 - b1) * d * g
            s["v"] = b2 * s["v"] + (1 - b2) * (d * g) ** 2
            product += gamma * d**2 * np.sum(g * (s["x0"] - x))
            s["s"] = b3 * s["s"] + (1 - b3) * (1.0 if h["safeguard_warmup"] else gamma) * d**2 * g
            length += np.sum(np.abs(s["s"]))
        n["r"] = b3 * n["r"] + (1 - b3) * product
        d_hat = h["d_coef"] * n["r"] / length
        largest = max(n["d_max"], d_hat)
        n["d"] = largest if d == h["d0"] else min(largest, d * h["growth_rate"])
        n["d_max"] = largest

    def update(self, x, g, s, h):
        decay = self.rate * h["weight_decay"] if h["decoupled_weight_decay"] else 0.0
        return x - decay * x - self.rate * s["m"] / (np.sqrt(s["v"]) + self.d * h["eps"])
