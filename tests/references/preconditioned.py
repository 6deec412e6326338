"""Optimizers that precondition both sides of a matrix, from the algorithm boxes."""

import numpy as np

from tests.references._base import Reference


def eigenbasis(A):
    """Of falling eigenvalues; a slope along the diagonal, as documented, decides between equal ones."""
    n = len(A)
    return np.linalg.eigh(A + 1e-7 * np.trace(A) * np.diag(np.arange(n, 0, -1) / n))[1][:, ::-1]


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
