"""Three sequences: z steps, x is its mean, gradients are those of y. The parameter is y."""

import numpy as np

from tests.references._base import Reference


class ScheduleFree(Reference):
    """x follows from y and z, so that a β that changes means what it says."""

    def start(self, x, h):
        return {"z": x.copy()}

    def warmup(self, t, h):
        return min(1.0, t / h["warmup_steps"]) if h["warmup_steps"] else 1.0

    def common(self, every):
        for h in {id(h): h for *_, h in every}.values():
            h["k"] = h.get("k", 0) + 1
            h["top"] = max(h.get("top", 0.0), h["lr"] * self.warmup(h["k"], h))
            weight = h["k"] ** h["r"] * h["top"] ** h["weight_lr_power"]
            h["total"] = h.get("total", 0.0) + weight
            h["c"] = weight / h["total"] if h["total"] else 0.0

    def moved(self, y, g, s, h, beta, rate):
        x = (y - (1 - beta) * s["z"]) / beta
        s["z"] = s["z"] - rate * g
        x = (1 - h["c"]) * x + h["c"] * s["z"]
        return (1 - beta) * s["z"] + beta * x


class ScheduleFreeSGD(ScheduleFree, lr=1.0, momentum=0.9, warmup_steps=0, r=0.0, weight_lr_power=2.0):
    """Defazio et al. 2024, with weights as in the authors' code."""

    def update(self, y, g, s, h):
        return self.moved(y, g, s, h, h["momentum"], h["lr"] * self.warmup(h["k"], h))


class ScheduleFreeAdamW(
    ScheduleFree,
    lr=0.0025, betas=(0.9, 0.999), eps=1e-8, warmup_steps=0, r=0.0, weight_lr_power=2.0, own_decay=True,
):  # fmt: skip
    """Defazio et al. 2024, algorithm 1; t of v̂ is the parameter's own."""

    def update(self, y, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
        step = g / (np.sqrt(s["v"] / (1 - b2**t)) + h["eps"]) + h["weight_decay"] * y
        return self.moved(y, step, s, h, b1, h["lr"] * self.warmup(h["k"], h))


class ScheduleFreeRAdam(
    ScheduleFree,
    lr=0.0025, betas=(0.9, 0.999), eps=1e-8, r=0.0, weight_lr_power=2.0, silent_sgd_phase=True, own_decay=True,
):  # fmt: skip
    """The same with Liu et al. 2020, algorithm 2: r_t where ρ_t > 4, else plain steps, or none."""

    def length(self, t, h):
        b2 = h["betas"][1]
        infinite = 2 / (1 - b2) - 1
        return infinite, infinite - 2 * t * b2**t / (1 - b2**t)

    def warmup(self, t, h):
        infinite, rho = self.length(t, h)
        if rho <= 4:
            return 0.0 if h["silent_sgd_phase"] else 1.0
        return np.sqrt((rho - 4) * (rho - 2) * infinite / ((infinite - 4) * (infinite - 2) * rho))

    def update(self, y, g, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
        if self.length(t, h)[1] > 4:
            g = g / (np.sqrt(s["v"] / (1 - b2**t)) + h["eps"])
        return self.moved(y, g + h["weight_decay"] * y, s, h, b1, h["lr"] * self.warmup(t, h))
