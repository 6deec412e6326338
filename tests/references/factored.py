"""Factored second moments, from the algorithm boxes."""

import numpy as np

from tests.references._base import Reference


def _rms(x):
    return np.sqrt(np.mean(x**2)) if x.size else 0.0


def _second_moment(x, s, key, share, added):
    """Rows R and columns C of the running mean of x² + added, recombined; whole where x is no matrix."""
    square = x**2 + added
    if x.ndim < 2:
        s[key] = share * s.get(key, 0.0) + (1 - share) * square
        return s[key]
    s[key + "R"] = share * s.get(key + "R", 0.0) + (1 - share) * square.mean(axis=-1)
    s[key + "C"] = share * s.get(key + "C", 0.0) + (1 - share) * square.mean(axis=-2)
    R, C = s[key + "R"], s[key + "C"]
    return R[..., :, None] * C[..., None, :] / R.mean(axis=-1)[..., None, None]


class Adafactor(
    Reference,
    lr=1e-2, beta2_decay=-0.8, eps=(1e-30, 1e-3), d=1.0, beta1=0.0, added_eps=True, relative_step=True,
    scale_parameter=True, decoupled_weight_decay=True,
):  # fmt: skip
    """Shazeer & Stern 2018, algorithm 4, with ε₁ added to g²."""

    def update(self, x, g, s, h):
        if not x.size:
            return x
        t = s["t"]
        v = _second_moment(g, s, "v", 1 - t ** h["beta2_decay"], h["eps"][0])
        u = g / np.sqrt(v)
        u = u / max(1.0, _rms(u) / h["d"])
        rho = min(h["lr"], 1 / np.sqrt(t)) if h["relative_step"] else h["lr"]
        u = u * (max(h["eps"][1], _rms(x)) if h["scale_parameter"] else 1.0)
        u = u * rho / h["lr"]
        if h["beta1"]:
            s["m"] = u = h["beta1"] * s.get("m", 0.0) + (1 - h["beta1"]) * u
        return x - h["lr"] * u


class CAME(Reference, lr=2e-4, betas=(0.9, 0.999, 0.9999), eps=(1e-30, 1e-16), d=1.0, decoupled_weight_decay=True):
    """Luo et al. 2023, algorithm 2."""

    def update(self, x, g, s, h):
        if not x.size:
            return x
        (b1, b2, b3), (e1, e2) = h["betas"], h["eps"]
        u = g / np.sqrt(_second_moment(g, s, "v", b2, e1))
        u = u / max(1.0, _rms(u) / h["d"])
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * u
        if x.ndim < 2:
            return x - h["lr"] * s["m"]
        return x - h["lr"] * s["m"] / np.sqrt(_second_moment(u - s["m"], s, "s", b3, e2))


class SM3(Reference, lr=0.1, momentum=0.9, beta2=0.0, eps=1e-30):
    """Anil et al. 2019, algorithm SM3-II, with the cover of slices; one accumulator an element of a vector."""

    def update(self, x, g, s, h):
        shape = x.shape or (1,)
        if not x.size:
            return x
        g = g.reshape(shape)
        mu = s.setdefault("mu", [np.zeros(n) for n in shape])
        nu = np.empty(shape)
        for index in np.ndindex(*shape):
            least = min(mu[dim][i] for dim, i in enumerate(index))
            nu[index] = h["beta2"] * least + (1 - h["beta2"]) * g[index] ** 2 if h["beta2"] else least + g[index] ** 2
        s["mu"] = [np.array([nu.take(i, axis=dim).max() for i in range(n)]) for dim, n in enumerate(shape)]
        u = (g / np.sqrt(nu + h["eps"])).reshape(x.shape)
        if h["momentum"]:
            s["m"] = u = h["momentum"] * s.get("m", 0.0) + (1 - h["momentum"]) * u
        return x - h["lr"] * u
