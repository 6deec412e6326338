"""Projected gradients, from the algorithm boxes."""

import numpy as np
import torch

from tests.references._base import Reference


class _LowRank(
    Reference,
    betas=(0.9, 0.999), eps=1e-8, rank=128, update_proj_gap=200, scale=0.25, decoupled_weight_decay=True,
):  # fmt: skip
    """Adam of what a subclass projects the gradient to."""

    def adam(self, R, s, h):
        (b1, b2), t = h["betas"], s["t"]
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * R
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * R**2
        return s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + h["eps"])

    def update(self, x, g, s, h):
        if x.ndim < 2 or h["rank"] is None:
            return x - h["lr"] * self.adam(g, s, h)
        if not x.size:
            return x
        G = g.reshape(len(g), -1)
        wide = x.ndim == 2 and G.shape[0] < G.shape[1]
        G = G.T if wide else G
        u = self.whole(G, min(h["rank"], *G.shape), s, h)
        return x - h["lr"] * h["scale"] * (u.T if wide else u).reshape(x.shape)


class GaLore(_LowRank, **{**_LowRank.hypers}):
    """Zhao et al. 2024, algorithm 2."""

    def whole(self, G, rank, s, h):
        if (s["t"] - 1) % h["update_proj_gap"] == 0:
            Q = np.linalg.svd(G, full_matrices=False)[2][:rank].T
            largest = Q[np.abs(Q).argmax(axis=0), np.arange(rank)]
            s["Q"] = Q * np.sign(largest)
        return self.adam(G @ s["Q"], s, h) @ s["Q"].T


class APOLLO(
    _LowRank, **{**_LowRank.hypers, "scale": 1.0, "scale_type": "channel", "growth": 1.01, "projection_seed": 0}
):
    """Zhu et al. 2024, algorithm 1, with the norm-growth limiter."""

    def whole(self, G, rank, s, h):
        epoch = (s["t"] - 1) // h["update_proj_gap"]
        generator = torch.Generator().manual_seed((h["projection_seed"] * 1_000_003 + epoch) % 2**32)
        P = torch.randn(G.shape[1], rank, generator=generator, dtype=torch.float64).numpy() / np.sqrt(rank)
        R = G @ P
        N = self.adam(R, s, h)
        axis = 1 if h["scale_type"] == "channel" else (0, 1)
        scale = np.sqrt((N**2).sum(axis, keepdims=True)) / (np.sqrt((R**2).sum(axis, keepdims=True)) + h["eps"])
        U = G * scale
        length, before = np.linalg.norm(U), s.get("length", 0.0)
        if before > 0 and length > h["growth"] * before:
            U, length = U * (h["growth"] * before / length), h["growth"] * before
        s["length"] = length
        return U
