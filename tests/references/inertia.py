"""Inertia."""

import numpy as np
import torch

from tests.references._base import Reference, _numpy


class Adai(Reference, lr=1.0, betas=(0.1, 0.99), eps=1e-3):
    """Xie et al. 2022, algorithm 2: v̄ is known before any weight moves."""

    @torch.no_grad()
    def step(self, closure=None):
        hats = []
        for h in self.param_groups:
            for p in (p for p in h["params"] if p.grad is not None):
                x, g, s = _numpy(p), _numpy(p.grad), self.state[p]
                g = -g if h["maximize"] else g
                g = g if h["decoupled_weight_decay"] else g + h["weight_decay"] * x
                beta2, t = h["betas"][1], s.get("t", 0) + 1
                hats.append((beta2 * s.get("v", 0.0) + (1 - beta2) * g**2) / (1 - beta2**t))
        self.mean = np.concatenate([hat.flatten() for hat in hats]).mean() if hats else 0.0
        super().step()

    def update(self, x, g, s, h):
        (b0, b2), t = h["betas"], s["t"]
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        b1 = np.clip(1 - b0 / self.mean * s["v"] / (1 - b2**t), 0, 1 - h["eps"])
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["product"] = s.get("product", 1.0) * b1
        return x - h["lr"] * s["m"] / (1 - s["product"])


class AccSGD(Reference, lr=1e-2, kappa=1000.0, xi=10.0, small_const=0.7):
    """Kidambi et al. 2018, algorithm 1, with 0.7 a number."""

    def update(self, x, g, s, h):
        c = h["small_const"]
        alpha = 1 - c**2 * h["xi"] / h["kappa"]
        w = s.get("w", x)
        s["w"] = alpha * w + (1 - alpha) * (x - h["kappa"] * h["lr"] / c * g)
        return c / (c + 1 - alpha) * (x - h["lr"] * g) + (1 - alpha) / (c + 1 - alpha) * s["w"]
