"""Adam's kin: each written out, without a line in common, so that a slip in one is a slip in one."""

import math

import numpy as np

from tests.references._base import Reference


class NAdamW(Reference, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, next_correction=False, own_decay=True):
    """Dahl et al. 2023, appendix: Nesterov's mean with the correction of step t; or Dozat 2016, simplified (t + 1)."""

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        if h["next_correction"]:
            m_hat = b1 * s["m"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        else:
            m_hat = (b1 * s["m"] + (1 - b1) * g) / (1 - b1**t)
        v_hat = s["v"] / (1 - b2**t)
        return x - h["lr"] * h["weight_decay"] * x - h["lr"] * m_hat / (np.sqrt(v_hat) + h["eps"])


class AdaBelief(Reference, betas=(0.9, 0.999), eps=1e-16, amsgrad=False):
    """Zhuang et al. 2020, algorithm 2."""

    def start(self, x, h):
        return {"m": np.zeros_like(x), "s": np.zeros_like(x), "s_max": np.zeros_like(x)}

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["m"] = b1 * s["m"] + (1 - b1) * g
        s["s"] = b2 * s["s"] + (1 - b2) * (g - s["m"]) ** 2 + h["eps"]
        s["s_max"] = np.maximum(s["s_max"], s["s"])
        m_hat = s["m"] / (1 - b1**t)
        s_hat = (s["s_max"] if h["amsgrad"] else s["s"]) / (1 - b2**t)
        return x - h["lr"] * m_hat / (np.sqrt(s_hat) + h["eps"])


class AdaBound(Reference, betas=(0.9, 0.999), final_lr=0.1, gamma=1e-3, eps=1e-8, amsbound=False):
    """Luo et al. 2019, algorithm 2, in the form of the authors' code (section 5: bounds, correction, ε)."""

    def __init__(self, params, **given):
        super().__init__(params, **given)
        self.base_lrs = [h["lr"] for h in self.param_groups]

    def start(self, x, h):
        return {"m": np.zeros_like(x), "v": np.zeros_like(x), "v_max": np.zeros_like(x)}

    def update(self, x, g, s, h):
        (b1, b2), t, alpha = h["betas"], s["t"], h["lr"]
        base = next(b for b, group in zip(self.base_lrs, self.param_groups, strict=True) if group is h)
        final = h["final_lr"] * alpha / base
        lower = final * (1 - 1 / (h["gamma"] * t + 1))
        upper = final * (1 + 1 / (h["gamma"] * t))
        s["m"] = b1 * s["m"] + (1 - b1) * g
        s["v"] = b2 * s["v"] + (1 - b2) * g * g
        s["v_max"] = np.maximum(s["v_max"], s["v"])
        root = np.sqrt(s["v_max"] if h["amsbound"] else s["v"]) + h["eps"]
        eta = np.clip(alpha * math.sqrt(1 - b2**t) / (1 - b1**t) / root, lower, upper)
        return x - eta * s["m"]


class Yogi(Reference, lr=1e-2, betas=(0.9, 0.999), eps=1e-3, initial_accumulator=0.0, debias=False):
    """Zaheer et al. 2018, algorithm 2."""

    def start(self, x, h):
        return {"m": np.zeros_like(x), "v": np.full_like(x, h["initial_accumulator"])}

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["m"] = b1 * s["m"] + (1 - b1) * g
        s["v"] = s["v"] - (1 - b2) * np.sign(s["v"] - g**2) * g**2
        m, v = s["m"], s["v"]
        if h["debias"]:
            m, v = m / (1 - b1**t), v / (1 - b2**t)
        return x - h["lr"] * m / (np.sqrt(v) + h["eps"])


class QHAdam(Reference, betas=(0.995, 0.999), nus=(0.7, 1.0), eps=1e-8):
    """Ma & Yarats 2019, eq. 15-19."""

    def update(self, x, g, s, h):
        (b1, b2), (n1, n2), t = h["betas"], h["nus"], s["t"]
        s["g"] = b1 * s.get("g", 0.0) + (1 - b1) * g
        s["s"] = b2 * s.get("s", 0.0) + (1 - b2) * g**2
        g_hat, s_hat = s["g"] / (1 - b1**t), s["s"] / (1 - b2**t)
        return x - h["lr"] * ((1 - n1) * g + n1 * g_hat) / (np.sqrt((1 - n2) * g**2 + n2 * s_hat) + h["eps"])


class diffGrad(Reference, betas=(0.9, 0.999), eps=1e-8):  # noqa: N801
    """Dubey et al. 2020, eq. 6-9."""

    def start(self, x, h):
        return {"m": np.zeros_like(x), "v": np.zeros_like(x), "last": np.zeros_like(x)}

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        xi = 1 / (1 + np.exp(-np.abs(s["last"] - g)))
        s["last"] = g.copy()
        s["m"] = b1 * s["m"] + (1 - b1) * g
        s["v"] = b2 * s["v"] + (1 - b2) * g**2
        return x - h["lr"] * xi * (s["m"] / (1 - b1**t)) / (np.sqrt(s["v"] / (1 - b2**t)) + h["eps"])


class Adan(Reference, betas=(0.98, 0.92, 0.99), eps=1e-8, no_prox=False, debias=False, own_decay=True):
    """Xie et al. 2022, algorithm 1: m₀ = g₀, v₁ = g₁ − g₀, n₀ = g₀²; with ``debias`` the authors' code.

    Here β are shares that are kept, 1 minus the paper's.
    """

    def update(self, x, g, s, h):
        b1, b2, b3 = (1 - kept for kept in h["betas"])  # the paper's
        k, eta, decay = s["t"] - 1, h["lr"], h["weight_decay"]
        if h["debias"]:
            if k == 0:
                s.update(m=0.0, v=0.0, n=0.0, last=g.copy())
            d = g - s["last"]
            s["m"] = (1 - b1) * s["m"] + b1 * g
            s["v"] = (1 - b2) * s["v"] + b2 * d
            s["n"] = (1 - b3) * s["n"] + b3 * (g + (1 - b2) * d) ** 2
            m, v, n = (s[key] / (1 - (1 - b) ** (k + 1)) for key, b in (("m", b1), ("v", b2), ("n", b3)))
        else:
            if k == 0:
                s.update(m=g.copy(), v=np.zeros_like(x), n=g**2)
            else:
                d = g - s["last"]
                s["m"] = (1 - b1) * s["m"] + b1 * g
                s["v"] = d if k == 1 else (1 - b2) * s["v"] + b2 * d
                s["n"] = (1 - b3) * s["n"] + b3 * (g + (1 - b2) * d) ** 2
            m, v, n = s["m"], s["v"], s["n"]
        s["last"] = g.copy()
        step = eta / (np.sqrt(n) + h["eps"]) * (m + (1 - b2) * v)
        return x * (1 - eta * decay) - step if h["no_prox"] else (x - step) / (1 + decay * eta)


class ADOPT(Reference, betas=(0.9, 0.9999), eps=1e-6, clip=True):
    """Taniguchi et al. 2024, algorithm 2; without ``clip`` algorithm 1."""

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"] - 1
        if t == 0:
            s["m"], s["v"] = np.zeros_like(x), g**2
            return x
        normed = g / np.maximum(np.sqrt(s["v"]), h["eps"])
        if h["clip"]:
            normed = np.clip(normed, -(t**0.25), t**0.25)
        s["m"] = b1 * s["m"] + (1 - b1) * normed
        s["v"] = b2 * s["v"] + (1 - b2) * g**2
        return x - h["lr"] * s["m"]


class AdEMAMix(
    Reference, betas=(0.9, 0.999, 0.9999), alpha=5.0, beta3_warmup=0, alpha_warmup=0, eps=1e-8, own_decay=True
):
    """Pagliardini et al. 2024, algorithm 1, with its schedules of α and β₃."""

    def start(self, x, h):
        return {"m1": np.zeros_like(x), "m2": np.zeros_like(x), "nu": np.zeros_like(x)}

    def update(self, x, g, s, h):
        (b1, b2, b3), t, alpha = h["betas"], s["t"], h["alpha"]
        if h["alpha_warmup"]:
            alpha = min(t * alpha / h["alpha_warmup"], alpha)
        if h["beta3_warmup"] and t < h["beta3_warmup"]:
            share, low, high = t / h["beta3_warmup"], math.log(b1), math.log(b3)
            b3 = min(math.exp(low * high / ((1 - share) * high + share * low)), b3)
        s["m1"] = b1 * s["m1"] + (1 - b1) * g
        s["m2"] = b3 * s["m2"] + (1 - b3) * g
        s["nu"] = b2 * s["nu"] + (1 - b2) * g**2
        m1_hat, nu_hat = s["m1"] / (1 - b1**t), s["nu"] / (1 - b2**t)
        return x - h["lr"] * ((m1_hat + alpha * s["m2"]) / (np.sqrt(nu_hat) + h["eps"]) + h["weight_decay"] * x)


class SimplifiedAdEMAMix(
    Reference, lr=1e-4, betas=(0.99, 0.95), alpha=0.0, beta1_warmup=0, min_beta1=0.9, eps=1e-8, own_decay=True
):
    """Morwani et al. 2025, section 5 and the authors' code: the sum of gradients is not corrected, v is."""

    def start(self, x, h):
        return {"m": np.zeros_like(x), "v": np.zeros_like(x)}

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        if t < h["beta1_warmup"]:
            share = t / h["beta1_warmup"]  # half-lives grow linearly
            half_life = (1 - share) * math.log(0.5) / math.log(h["min_beta1"]) + share * math.log(0.5) / math.log(b1)
            b1 = 0.5 ** (1 / half_life)
        s["m"] = b1 * s["m"] + g
        s["v"] = b2 * s["v"] + (1 - b2) * g**2
        step = (h["alpha"] * g + s["m"]) / (np.sqrt(s["v"] / (1 - b2**t)) + h["eps"])
        return x - h["lr"] * (step + h["weight_decay"] * x)


class LaProp(Reference, lr=4e-4, betas=(0.9, 0.999), eps=1e-15):
    """Ziyin, Wang & Ueda 2020, algorithm 1."""

    def update(self, x, g, s, h):
        (mu, nu), t = h["betas"], s["t"]
        s["n"] = nu * s.get("n", 0.0) + (1 - nu) * g**2
        c_n = 1 - nu**t
        s["m"] = mu * s.get("m", 0.0) + (1 - mu) * g / (np.sqrt(s["n"] / c_n) + h["eps"])
        c_m = 1 - mu**t
        return x - h["lr"] / c_m * s["m"]


class MARS(Reference, lr=3e-3, betas=(0.95, 0.99), eps=1e-8, gamma=0.025, zero_start=False, own_decay=True):
    """Yuan et al. 2024, algorithm 2 (MARS-AdamW) with the last batch's gradient; c₁ = g₁, or with g₀ = 0."""

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        if t == 1:
            s.update(m=np.zeros_like(x), v=np.zeros_like(x), last=np.zeros_like(g) if h["zero_start"] else g)
        c = g + h["gamma"] * b1 / (1 - b1) * (g - s["last"])
        s["last"] = g.copy()
        norm = np.sqrt((c**2).sum())
        if norm > 1:
            c = c / norm
        s["m"] = b1 * s["m"] + (1 - b1) * c
        s["v"] = b2 * s["v"] + (1 - b2) * c**2
        m_hat, v_hat = s["m"] / (1 - b1**t), s["v"] / (1 - b2**t)
        return x - h["lr"] * (m_hat / (np.sqrt(v_hat) + h["eps"]) + h["weight_decay"] * x)


class Grams(Reference, betas=(0.9, 0.999), eps=1e-6, own_decay=True):
    """Cao et al. 2024, algorithm 1."""

    def start(self, x, h):
        return {"m": np.zeros_like(x), "v": np.zeros_like(x)}

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["m"] = b1 * s["m"] + (1 - b1) * g
        s["v"] = b2 * s["v"] + (1 - b2) * g**2
        u = (s["m"] / (1 - b1**t)) / (np.sqrt(s["v"] / (1 - b2**t)) + h["eps"])
        u_hat = np.sign(g) * np.abs(u)
        return x - h["lr"] * u_hat - h["lr"] * h["weight_decay"] * x


class AdaMod(Reference, betas=(0.9, 0.999), gamma=0.999, eps=1e-8):
    """Ding et al. 2019, algorithm 1."""

    def update(self, x, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        eta = h["lr"] / (np.sqrt(s["v"] / (1 - b2**t)) + h["eps"])
        s["s"] = h["gamma"] * s.get("s", 0.0) + (1 - h["gamma"]) * eta
        return x - np.minimum(eta, s["s"]) * s["m"] / (1 - b1**t)
