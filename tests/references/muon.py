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
}
MUONS = {
    "momentum": 0.95, "nesterov": True, "ns_coefficients": (3.4445, -4.7750, 2.0315), "eps": 1e-7, "ns_steps": 5,
    "adjust_lr_fn": None, "weight_decay": 0.1, "decoupled_weight_decay": True, "betas": (0.9, 0.95),
}  # fmt: skip
OPTIONS = {"balance": None, "second_moment": None, "beta2": 0.95, "second_eps": 1e-8}


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
    if h["adjust_lr_fn"] == "match_rms_beta1":
        beta1 = h["betas"][0]
        return np.sqrt((1 - beta1) / (1 + beta1) * max(factor.shape))
    return SCALES[h["adjust_lr_fn"]](*factor.shape)


def mean(old, new, beta):
    """A running mean that begins at 0."""
    return beta * old + (1 - beta) * new


def prepared(N, g, s, h):
    """What is made of N before it is orthogonalised: Muon squared, then MuonEq."""
    if h["second_moment"] == "elements":
        s["V"] = mean(s.get("V", 0.0), g * g, h["beta2"])
        N = N / (np.sqrt(s["V"]) + h["second_eps"])
    N = N.reshape(len(N), -1)
    squares = N * N
    if h["balance"] in ("rows", "both"):
        N = N / np.sqrt(squares.sum(axis=1))[:, None]
    if h["balance"] in ("columns", "both"):
        N = N / np.sqrt(squares.sum(axis=0))[None, :]
    return N


def moved(x, u, N, g, s, h):
    """The step; with NAMO's factor of it and of the decay, which the base then adds again."""
    if h["second_moment"] != "norm":
        return x - h["lr"] * u
    beta2 = h["beta2"]
    s["v"] = mean(s.get("v", 0.0), (g * g).sum(), beta2)
    bias = np.sqrt(1 - beta2 ** s["t"]) / (1 - h["momentum"] ** s["t"])
    alpha = bias * np.linalg.norm(N) / (np.sqrt(s["v"]) + h["second_eps"])
    return x - h["lr"] * alpha * u + (1 - alpha) * h["lr"] * h["weight_decay"] * x


class Muon(Reference, **MUONS, **OPTIONS):
    """Jordan et al. 2024, with what Liu et al. (Muon squared), Zhang et al. (NAMO) and Chang et al. (MuonEq) add."""

    def update(self, x, g, s, h):
        N = look_ahead(g, s, h)
        O = orthogonal(prepared(N, g, s, h), h)  # noqa: E741
        return moved(x, scale(O, h) * O.reshape(x.shape), N, g, s, h)


class NorMuon(Reference, row_eps=1e-8, **MUONS, **OPTIONS):
    """Li et al. 2025, algorithm 1, with the look ahead and the length of a step of the authors' code."""

    def update(self, x, g, s, h):
        N = look_ahead(g, s, h)
        O = orthogonal(prepared(N, g, s, h), h)  # noqa: E741
        s["rows"] = mean(s.get("rows", np.zeros(len(O))), (O * O).mean(axis=1), h["beta2"])
        hat = O / (np.sqrt(s["rows"])[:, None] + h["row_eps"])
        return moved(x, scale(O, h) * of_length(hat, np.linalg.norm(O)).reshape(x.shape), N, g, s, h)


def of_length(x, length):
    """0 stays 0."""
    found = np.linalg.norm(x)
    return x * (length / found) if found else x


class AdaMuon(Reference, **{**MUONS, "adjust_lr_fn": "match_rms_adamw"}, beta2=0.95, second_eps=1e-8):
    """Si et al. 2025, algorithm 1, with the authors' look ahead; 0.2 √(mn) is s(m, n) √(min(m, n))."""

    def update(self, x, g, s, h):
        O = orthogonal(np.sign(look_ahead(g, s, h)), h)  # noqa: E741
        s["v"] = mean(s.get("v", 0.0), O * O, h["beta2"])
        hat = O / (np.sqrt(s["v"]) + h["second_eps"])
        step = of_length(hat, scale(O, h) * np.sqrt(min(O.shape)))
        return x - h["lr"] * step.reshape(x.shape)


class Dion2(
    Reference,
    **{**MUONS, "adjust_lr_fn": "spectral_unclamped", "weight_decay": 0.01},
    fraction=0.25, row_norm=False, beta2=0.95, second_eps=1e-8,
):  # fmt: skip
    """Ahn et al. 2025, algorithm 1, slice by slice; Dion3's rows from the authors' code."""

    def update(self, x, g, s, h):
        M = s["M"] = s.get("M", np.zeros((len(x), x[0].size))) + g.reshape(len(x), -1)
        m, n = M.shape
        across = n < m and not h["row_norm"]
        view = M.T if across else M
        count = int(np.ceil(h["fraction"] * len(view)))
        K = np.sort(np.argsort(-np.abs(view).sum(axis=1))[:count])
        taken = orthogonal(view[K].T if across else view[K], h)
        O = np.zeros((m, n))  # noqa: E741
        if across:
            O[:, K] = taken
        else:
            O[K] = taken
        view[K] *= h["momentum"]
        if h["row_norm"]:
            v = s.setdefault("v", np.zeros(m))
            v[K] = mean(v[K], (taken**2).mean(axis=1), h["beta2"])
            O[K] = of_length(taken / (np.sqrt(v[K])[:, None] + h["second_eps"]), np.linalg.norm(taken))
        return x - h["lr"] * scale(O, h) * O.reshape(x.shape)


class Mano(Reference, momentum=0.95, nesterov=False, eps=1e-8, weight_decay=0.1, decoupled_weight_decay=True):
    """Gu & Xie 2026, algorithm 1, with a mean in the place of the sum: row by row, or column by column."""

    def update(self, x, g, s, h):
        N, W = look_ahead(g, s, h).reshape(len(x), -1), x.reshape(len(x), -1)
        across = s["t"] % 2 == 1
        step = np.array(
            [self.turned(*pair, h["eps"]) for pair in zip(*((N.T, W.T) if across else (N, W)), strict=True)]
        )
        return x - h["lr"] * (step.T if across else step).reshape(x.shape)

    @staticmethod
    def turned(n, w, eps):
        unit = w / max(np.linalg.norm(w), eps)
        v = n - unit * (n @ unit)
        return 0.2 * np.sqrt(len(n)) * v / max(np.linalg.norm(v), eps)
