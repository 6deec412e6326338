"""Optimizers that precondition both sides of a matrix, from the algorithm boxes."""

import numpy as np
import torch

from tests.references._base import Reference
from tests.references.muon import newton_schulz
from thalweg.optim import psgd


def eigenbasis(A):
    """Of falling eigenvalues; a slope along the diagonal, as documented, decides between equal ones."""
    n = len(A)
    return np.linalg.eigh(A + 1e-7 * np.linalg.norm(A) * np.diag(np.arange(n, 0, -1) / n))[1][:, ::-1]


def followed(A, Q):
    """One step of orthogonal iteration, columns by falling Rayleigh quotients; they need no order afterwards."""
    values = np.diag(Q.T @ A @ Q)
    lift = 1e-6 * np.abs(values).max() * np.eye(len(A))
    return np.linalg.qr((A + lift) @ Q[:, np.argsort(-values, kind="stable")])[0]


class SOAP(
    Reference,
    betas=(0.95, 0.95), shampoo_beta=None, eps=1e-8, weight_decay=0.01, precondition_frequency=10,
    max_precond_dim=10000, correct_bias=True, kl=False, decoupled_weight_decay=True,
):  # fmt: skip
    """Vyas et al. 2024, algorithm 3, with the mean of gradients in the space of the weights, as printed there.

    The squares turn with the order of the basis: ``v`` is kept as a table from pairs of eigenvectors.
    """

    def update(self, x, g, s, h):
        return x - h["lr"] * self.preconditioned(g.reshape(len(g), -1), s, h).reshape(x.shape)

    def preconditioned(self, G, s, h):
        (b1, b2), t = h["betas"], s["t"] - 1
        b3 = b2 if h["shampoo_beta"] is None else h["shampoo_beta"]
        if t == 0:
            s.update(M=np.zeros_like(G), V=np.zeros_like(G))
            self.take_first(G, s, h, b3)
            s["Q"] = [None if A is None else eigenbasis(A) for A in s["A"]]
            return np.zeros_like(G)
        X = self.rotate(G, s["Q"])
        s["M"] = b1 * s["M"] + (1 - b1) * G
        s["V"] = b2 * s["V"] + (1 - b2) * X**2
        N = self.rotate(s["M"], s["Q"]) / (np.sqrt(s["V"]) + h["eps"])
        u = self.rotate(N, [None if Q is None else Q.T for Q in s["Q"]])
        self.take(G, X, s, h, b3)
        if t % h["precondition_frequency"] == 0:
            self.turn(s)
        return u * np.sqrt(1 - b2**t) / (1 - b1**t) if h["correct_bias"] else u

    def rotate(self, X, Q):
        X = X if Q[0] is None else Q[0].T @ X
        return X if Q[1] is None else X @ Q[1]

    def take_first(self, G, s, h, b3):
        m, n = G.shape
        s["A"] = [(1 - b3) * G @ G.T, (1 - b3) * G.T @ G]
        if h["kl"]:
            size = np.sqrt(np.mean(G**2))
            s["values"] = [np.full(k, size) if k <= h["max_precond_dim"] else np.ones(k) for k in G.shape]
            l, r = s["values"]  # noqa: E741
            s["A"] = [G / r @ G.T / n, G.T / l @ G / m]
        s["A"] = [A if len(A) <= h["max_precond_dim"] else None for A in s["A"]]

    def take(self, G, X, s, h, b3):
        m, n = G.shape
        Q = [np.eye(k) if B is None else B for k, B in zip(G.shape, s["Q"], strict=True)]
        new = [G @ G.T, G.T @ G]
        if h["kl"]:
            l, r = s["values"]  # noqa: E741
            new = [
                G @ Q[1] @ np.diag(1 / r) @ Q[1].T @ G.T / n,
                G.T @ Q[0] @ np.diag(1 / l) @ Q[0].T @ G / m,
            ]
            means = [(X**2 / r).mean(axis=1), (X**2 / l[:, None]).mean(axis=0)]
        for side in (0, 1):
            if s["A"][side] is not None:
                s["A"][side] = b3 * s["A"][side] + (1 - b3) * new[side]
                if h["kl"]:
                    s["values"][side] = b3 * s["values"][side] + (1 - b3) * means[side]

    def turn(self, s):
        """New bases; v goes on with the eigenvector that took the place of its own."""
        for side in (0, 1):
            A, Q = s["A"][side], s["Q"][side]
            if A is not None:
                order = np.argsort(-np.diag(Q.T @ A @ Q), kind="stable")
                s["Q"][side] = followed(A, Q)
                s["V"] = np.take(s["V"], order, axis=side)
                if "values" in s:
                    s["values"][side] = s["values"][side][order]


class SOAPMuon(
    SOAP, **{**SOAP.hypers, "ns_coefficients": (3.4445, -4.7750, 2.0315), "ns_steps": 5,
             "adjust_lr_fn": "match_rms_adamw"},
):  # fmt: skip
    """SOAP's step through Jordan's iteration, with Muon's scales."""

    def preconditioned(self, G, s, h):
        U = super().preconditioned(G, s, h)
        O = newton_schulz(torch.from_numpy(U), h["ns_coefficients"], h["ns_steps"], h["eps"])  # noqa: E741
        m, n = G.shape
        scale = {
            None: np.sqrt(max(1, m / n)),
            "match_rms_adamw": 0.2 * np.sqrt(max(m, n)),
            "spectral_unclamped": np.sqrt(m / n),
        }[h["adjust_lr_fn"]]
        return scale * O.double().numpy()


class Shampoo(
    Reference,
    betas=(0.9, 0.999), eps=1e-12, precondition_frequency=10, start_preconditioning_step=None,
    max_preconditioner_dim=1024, exponent=None, grafting="adam", grafting_eps=1e-8, correct_bias=True,
    decoupled_weight_decay=True,
):  # fmt: skip
    """Shi et al. 2023, algorithms 2 and 3: each block is a matrix of its own."""

    def update(self, x, g, s, h):
        X, G, d = x.reshape(len(x), -1), g.reshape(len(x), -1), h["max_preconditioner_dim"]
        for i in range(0, X.shape[0], d):
            for j in range(0, X.shape[1], d):
                block = slice(i, i + d), slice(j, j + d)
                mine = s.setdefault((i, j), {})
                X[block] -= h["lr"] * self.step_of(G[block], mine, s["t"], h)
        return X.reshape(x.shape)

    def step_of(self, G, s, t, h):
        (b1, b2), f, graft = h["betas"], h["precondition_frequency"], h["grafting"]
        start = h["start_preconditioning_step"] or f
        share, c2 = (1, 1) if b2 == 1 else (1 - b2, 1 - b2**t)
        c1, c2 = (1 - b1**t, c2) if h["correct_bias"] else (1, 1)
        s["A"] = [b2 * old + share * new for old, new in zip(s.get("A", [0, 0]), (G @ G.T, G.T @ G), strict=True)]
        s["m"] = b1 * s.get("m", 0) + (1 - b1) * G
        N = D = s["m"] / c1
        if graft in ("adam", "rmsprop", "adagrad"):
            kept, new = (1, 1) if graft == "adagrad" else (b2, 1 - b2)
            s["v"] = kept * s.get("v", 0) + new * G**2
            D = N / (np.sqrt(s["v"] / (c2 if graft == "adam" else 1)) + h["grafting_eps"])
        if t < start:
            return D
        if t == start or t % f == 0:
            s["roots"] = [self.root(A / c2, h) for A in s["A"]]
        U = s["roots"][0] @ N @ s["roots"][1]
        return U if graft is None or not U.any() else U * np.linalg.norm(D) / np.linalg.norm(U)

    def root(self, A, h):
        values, Q = np.linalg.eigh(A)
        return Q @ np.diag((values - min(values[0], 0) + h["eps"]) ** (-1 / (h["exponent"] or 4))) @ Q.T


class PSGDKron(
    Reference,
    beta=0.9, precond_lr=0.1, max_size_triangular=8192, min_probability=0.03, probability_decay=0.001,
    flat_steps=250.0, trust_region=1.5, probe_seed=0, decoupled_weight_decay=True,
):  # fmt: skip
    """Walters et al., kron_torch, for matrices."""

    def update(self, x, g, s, h):
        if not x.size:
            return x
        G, t, seed = g.reshape(len(g), -1), s["t"], h["probe_seed"]
        s["m"] = h["beta"] * s.get("m", 0) + (1 - h["beta"]) * G
        N = s["m"] / (1 - h["beta"] ** t)
        if t == 1:
            s["Q"] = [np.ones(n) if n == 1 or n > h["max_size_triangular"] else np.eye(n) for n in N.shape]
        wanted = np.clip(np.exp(-h["probability_decay"] * (t - 1 - h["flat_steps"])), h["min_probability"], 1)
        if psgd.chance(seed, t, psgd.UPDATE) < wanted:
            if psgd.chance(seed, t, psgd.BALANCE) < psgd.BALANCED:
                P, Q = s["Q"]
                ratio = np.sqrt(np.abs(Q).max() / np.abs(P).max())
                s["Q"] = [P * ratio, Q / ratio]
            V = psgd.probe(seed, t, torch.from_numpy(N)).numpy()
            P, Q = (F if F.ndim == 2 else np.diag(F) for F in s["Q"])
            A, B = P @ N @ Q.T, np.linalg.solve(P.T, V) @ np.linalg.inv(Q)
            s["Q"] = [self.moved(F, *pair, h) for F, pair in zip(s["Q"], ((A, B), (A.T, B.T)), strict=True)]
        P, Q = (F if F.ndim == 2 else np.diag(F) for F in s["Q"])
        X = P.T @ P @ N @ Q.T @ Q / h["trust_region"]
        held = 0.1 * np.sign(X) * np.log1p(np.abs(X)) + 0.9 * np.tanh(X)
        return x - h["lr"] * h["trust_region"] * held.reshape(x.shape)

    def moved(self, F, A, B, h):
        S, D = A @ A.T + B @ B.T, A @ A.T - B @ B.T
        if F.ndim == 1:
            return F - h["precond_lr"] * np.diag(D) / np.diag(S).max() * F
        column = S[:, np.argmax((S**2).sum(axis=0))]
        x = S @ column
        return F - h["precond_lr"] / np.linalg.norm(S @ x / np.linalg.norm(x)) * np.triu(D) @ F
