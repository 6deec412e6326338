"""Distance over gradients."""

import numpy as np

from tests.references._base import Reference


class DoG(Reference, lr=1.0, reps_rel=1e-6, eps=1e-8):
    """Ivgi et al. 2023, with the norms of all parameters."""

    def common(self, every):
        for x, _, s, _ in every:
            s.setdefault("x0", x.copy())
        if not every:
            return
        h = every[0][3]
        norm = np.sqrt(sum(np.sum(x * x) for x, *_ in every))
        gone = np.sqrt(sum(np.sum((x - s["x0"]) ** 2) for x, _, s, _ in every))
        self.r = max(self.r, gone) if hasattr(self, "r") else h["reps_rel"] * (1 + norm)
        self.squares = getattr(self, "squares", 0.0) + sum(np.sum(g * g) for _, g, _, _ in every)

    def update(self, x, g, s, h):
        return x - h["lr"] * self.r / np.sqrt(self.squares + h["eps"]) * g


class LDoG(Reference, lr=1.0, reps_rel=1e-6, eps=1e-8):
    """Ivgi et al. 2023, section 4.1, with the norms of one tensor."""

    def start(self, x, h):
        return {"x0": x.copy(), "r": h["reps_rel"] * (1 + np.sqrt(np.sum(x * x))), "squares": h["eps"]}

    def update(self, x, g, s, h):
        s["r"] = max(s["r"], np.sqrt(np.sum((x - s["x0"]) ** 2)))
        s["squares"] += np.sum(g * g)
        return x - h["lr"] * s["r"] / np.sqrt(s["squares"]) * g


class DoWG(Reference, lr=1.0, eps=1e-4):
    """Khaled et al. 2023, algorithm 1, with r² = ε at first."""

    def common(self, every):
        for x, _, s, _ in every:
            s.setdefault("x0", x.copy())
        if not every:
            return
        gone = sum(np.sum((x - s["x0"]) ** 2) for x, _, s, _ in every)
        self.r2 = max(getattr(self, "r2", every[0][3]["eps"]), gone)
        self.v = getattr(self, "v", 0.0) + self.r2 * sum(np.sum(g * g) for _, g, _, _ in every)

    def update(self, x, g, s, h):
        return x - h["lr"] * self.r2 / np.sqrt(self.v) * g
