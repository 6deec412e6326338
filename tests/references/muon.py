"""Muon's kin, from the algorithm boxes; the iteration is in bfloat16, as there."""

import numpy as np
import torch

from tests.references._base import Reference

CUBIC = (
    (3.3656576, -3.3420992), (2.5744352, -1.4957376), (2.5368962, -1.4312570), (2.4418906, -1.2764040),
    (2.2230472, -0.9630650),
)  # fmt: skip
NAMED = {
    "cubic5": [(a, b, 0.0) for a, b in CUBIC],
    "deepseek": [(3.4445, -4.7750, 2.0315)] * 8 + [(2.0, -1.5, 0.5)] * 2,
}


def newton_schulz(G, coefficients, steps, eps):
    """Jordan's code, with a row of coefficients for each step."""
    given = NAMED.get(coefficients, coefficients) if isinstance(coefficients, str) else coefficients
    rows = [given] * steps if isinstance(given[0], float) else given
    X = G.bfloat16()
    X = X.T if len(G) > G.shape[1] else X
    X = X / X.norm().clamp(min=eps)
    for a, b, c in rows:
        A = X @ X.T
        X = torch.addmm(X, torch.addmm(A, A, A, beta=b, alpha=c) if c else b * A, X, beta=a)
    return X.T if len(G) > G.shape[1] else X


SCALES = {
    None: lambda m, n: np.sqrt(max(1, m / n)),
    "original": lambda m, n: np.sqrt(max(1, m / n)),
    "spectral_unclamped": lambda m, n: np.sqrt(m / n),
    "match_rms_adamw": lambda m, n: 0.2 * np.sqrt(max(m, n)),
    "match_rms_beta1": lambda m, n: np.sqrt(0.1 / 1.9 * max(m, n)),
}
MUONS = {
    "momentum": 0.95, "nesterov": True, "ns_coefficients": (3.4445, -4.7750, 2.0315), "eps": 1e-7, "ns_steps": 5,
    "adjust_lr_fn": None, "weight_decay": 0.1, "decoupled_weight_decay": True,
}  # fmt: skip


def look_ahead(g, s, h):
    """The mean of gradients, or what lies ahead."""
    mu = h["momentum"]
    s["m"] = mu * s.get("m", 0.0) + (1 - mu) * g
    return (1 - mu) * g + mu * s["m"] if h["nesterov"] else s["m"]


def orthogonal(N, h):
    """The factor of a kernel seen as a matrix."""
    matrix = torch.from_numpy(np.ascontiguousarray(N.reshape(len(N), -1)))
    return newton_schulz(matrix, h["ns_coefficients"], h["ns_steps"], h["eps"]).double().numpy()


def scale(factor, h):
    """s(m, n)."""
    return SCALES[h["adjust_lr_fn"]](*factor.shape)


class NorMuon(Reference, beta2=0.95, row_eps=1e-8, **MUONS):
    """Li et al. 2025, algorithm 1, with the look ahead and the length of a step of the authors' code."""

    def update(self, x, g, s, h):
        beta2 = h["beta2"]
        O = orthogonal(look_ahead(g, s, h), h)  # noqa: E741
        s["v"] = beta2 * s.get("v", np.zeros(len(O))) + (1 - beta2) * (O * O).mean(axis=1)
        V = np.broadcast_to(s["v"][:, None], O.shape)
        hat = O / (np.sqrt(V) + h["row_eps"])
        length = np.linalg.norm(hat)
        hat = hat * (np.linalg.norm(O) / length) if length else hat
        return x - h["lr"] * scale(O, h) * hat.reshape(x.shape)
