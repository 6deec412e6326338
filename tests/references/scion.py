"""Scion, norm by norm, from the authors' code."""

import numpy as np

from tests.references._base import Reference
from tests.references.muon import orthogonal


class Scion(
    Reference, momentum=0.9, weight_decay=1.0, decoupled_weight_decay=True, norm="auto", radius=1.0,
    ns_coefficients=(3.4445, -4.7750, 2.0315), ns_steps=5, eps=1e-7,
):  # fmt: skip
    """Pethick et al. 2025, algorithm 2; a decay of 1 is the constrained form."""

    def update(self, x, g, s, h):
        s["m"] = m = h["momentum"] * s.get("m", 0.0) + (1 - h["momentum"]) * g
        norm = ("spectral" if x.ndim > 1 else "rms") if h["norm"] == "auto" else h["norm"]
        return x - h["lr"] * h["radius"] * getattr(self, norm)(m, h)

    def spectral(self, m, h):
        out, into, *places = m.shape
        return np.sqrt(out / into) / np.prod(places) * orthogonal(m, h).reshape(m.shape)

    def sign(self, m, h):
        return np.sign(m) / m[0].size

    def column(self, m, h):
        flat = m.reshape(len(m), -1)
        return np.stack([c / np.sqrt((c**2).mean()) for c in flat.T], axis=1).reshape(m.shape)

    def row(self, m, h):
        return np.stack([r / (np.sqrt(r.size) * np.sqrt((r**2).sum())) for r in m])

    def rms(self, m, h):
        rms = np.sqrt((m**2).mean()) if m.size else 1
        return m / (rms or 1)
