"""Models of the loss, from the algorithm boxes, all parameters as one vector."""

import numpy as np

from tests.references._base import Reference, _numpy


class _Modelled(Reference, own_decay=True):
    """What both do with the mean loss and the mean gradient. One group only."""

    def __init__(self, params, **given):
        super().__init__(params, **given)
        self.k, self.f, self.floor = 0, 0.0, None

    def step(self, closure=None, *, loss=None):
        """One step of all parameters that have a gradient, along a model of the loss through them."""
        (h,) = self.param_groups
        present = [p for p in h["params"] if p.grad is not None]
        self.k += 1
        beta, corrected = self.averaging(h)
        rho = 1 - beta**self.k if corrected else 1.0
        sign = -1.0 if h["maximize"] else 1.0
        value = sign * float(loss)
        self.f = value if self.k == 1 and not corrected else beta * self.f + (1 - beta) * value
        xs = [_numpy(p) for p in present]
        parts = []
        for p, x in zip(present, xs, strict=True):
            g, s = sign * _numpy(p.grad), self.state[p]
            s["t"] = s.get("t", 0) + 1
            if s["t"] == 1:
                s["d"], s["gamma"] = (0.0 * g, 0.0) if corrected else (g, (g * x).sum())
            s["d"] = beta * s["d"] + (1 - beta) * g
            s["gamma"] = beta * s["gamma"] + (1 - beta) * (g * x).sum()
            parts.append((s["d"].ravel(), self.scale(g, s, h).ravel(), s["gamma"]))
        if not parts:
            return
        x = np.concatenate([x.ravel() for x in xs])
        d, D = (np.concatenate([part[i] for part in parts]) for i in range(2))
        gamma = sum(part[2] for part in parts)
        alpha, decay = h["lr"], h["weight_decay"]
        if self.floor is None:
            self.floor = h["lb"]
        grow = 1 + alpha * decay
        top = grow * (self.f - gamma) + d @ x
        if h["use_fstar"] and top < grow * rho * self.floor:
            self.floor = max(top / (2 * grow * rho), h["lb"])
        norm = d @ (d / D)
        tau = min(alpha / rho, max(top - grow * rho * self.floor, 0.0) / norm) if norm > 0 else 0.0
        if h["use_fstar"]:
            self.floor = max((self.f + d @ x - gamma - tau * norm / 2) / rho, h["lb"])
        new = (x - tau * d / D) / grow if not h["no_prox"] else (1 - alpha * decay) * x - tau * d / D
        at = 0
        for old in xs:
            old[...] = new[at : at + old.size].reshape(old.shape)
            at += old.size


class MoMo(_Modelled, lr=1.0, beta=0.9, lb=0.0, bias_correction=False, use_fstar=False, no_prox=False, own_decay=True):
    """Schaipp et al. 2024, algorithm 1, with their lower bound's estimate."""

    def averaging(self, h):
        """β, and whether means start at 0."""
        return h["beta"], h["bias_correction"]

    def scale(self, g, s, h):
        """The diagonal of D."""
        return np.ones_like(g)


class MoMoAdam(
    _Modelled, lr=1e-2, betas=(0.9, 0.999), eps=1e-8, lb=0.0, use_fstar=False, no_prox=False, own_decay=True
):
    """The same with Adam's D = ε + √(v / (1 − β₂ᵗ))."""

    def averaging(self, h):
        """β₁, and that means start at 0."""
        return h["betas"][0], True

    def scale(self, g, s, h):
        """The diagonal of D."""
        beta2 = h["betas"][1]
        s["v"] = beta2 * s.get("v", 0.0) + (1 - beta2) * g**2
        return h["eps"] + np.sqrt(s["v"] / (1 - beta2 ** s["t"]))
