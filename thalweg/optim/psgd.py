"""PSGD: a preconditioner that is learned during training, from gradients and random matrices."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.ir import counter_rng
from thalweg.linalg.blocks import WHOLE, Blocks
from thalweg.optim.adam import Adam
from thalweg.optim.kronecker import over_matrices
from thalweg.optim.routed import Routed
from thalweg.optim.soap import of_matrix
from thalweg.optim.tiles import Kept, room
from thalweg.optim.vectors import vectors_apart
from thalweg.rule import count, hyper, ops, state

#: streams of the numbers that decide, at each step, whether factors are updated and whether they are balanced
UPDATE, BALANCE = 1, 2
#: how often an update of the factors brings their sizes together
BALANCED = 0.01


def _factor(side: int, most: int) -> Kept:
    """A triangular factor of a side; of one that is long, or 1, the diagonal of one."""

    def shape(*sides: int) -> tuple[int, ...]:
        n = sides[side]
        return (n,) if n == 1 or n > most else (n, n)

    return shape


def _rows(p: Tensor, h: Any) -> tuple[int]:
    return room(p, h, _factor(0, h.max_size_triangular))


def _columns(p: Tensor, h: Any) -> tuple[int]:
    return room(p, h, _factor(1, h.max_size_triangular))


def chance(seed: int, step: int, what: int) -> float:
    """A number in [0, 1) that depends on nothing else, so that all copies of a model decide alike."""
    return counter_rng.stream(counter_rng.key(seed, step), what, 0) / 2**32


def probe(seed: int, step: int, X: Tensor) -> Tensor:
    """Standard normal numbers for a matrix: the same ones for all of its shape, wherever they are."""
    return counter_rng.normal(counter_rng.key(seed, step), 0, X.shape, X.device).to(X.dtype)


def _routines(xs: list[Tensor], h: Any) -> list[str]:
    """How the factors are updated."""
    often, least = "at each step", f"{h.min_probability:.3g} of them"
    if h.min_probability < 1 and h.probability_decay > 0:
        often = f"at each of the first {h.flat_steps:g} steps, then ever more seldom, down to {least}"
    lines = [f"products and triangular solves {often}, in the dtype of the gradient"]
    sides = [n for x in xs for shape in (h.blocks or WHOLE).shapes(x.shape) for n in shape]
    if long := sorted({n for n in sides if n > h.max_size_triangular}):
        lines.append(f"diagonal factors for sides of {', '.join(map(str, long))}, over {h.max_size_triangular}")
    return lines


@ops.leaf(gives=(ops.ELEMENT, ops.ASIDE, ops.ASIDE), says=_routines)
def whitened(
    Ns: list[Tensor], lefts: list[Tensor], rights: list[Tensor],
    step: int, rate: float, least: float, decay: float, flat: float, seed: int,
    most: int, blocks: Blocks | None,
) -> list[Any]:  # fmt: skip
    r"""$P^\top P N Q^\top Q$ for the factors P and Q, and these; they take a step of their own with a probability that
    falls.
    """
    updated = chance(seed, step, UPDATE) < max(least, min(1.0, math.exp(min(0.0, -decay * (step - 1 - flat)))))
    balanced = updated and chance(seed, step, BALANCE) < BALANCED

    def turned(N: Tensor, P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if step == 1:
            P, Q = (_begun(F, N) for F in (P, Q))
        P, Q = _balanced(P, Q, N) if balanced else (P, Q)
        if updated:
            V = probe(seed, step, N if N.ndim == 2 else N[0])
            P, Q = _learned(N, V.expand(N.shape), P, Q, rate)
        return _from_left(P, _from_left(P, _from_right(_from_right(N, Q), Q, turned=True)), turned=True), P, Q

    kept = [(x, _factor(side, most)) for side, x in enumerate((lefts, rights))]
    return over_matrices(turned, Ns, kept, blocks, (0, 1))


def _diagonal(F: Tensor, N: Tensor) -> bool:
    """Whether a factor of a matrix, or of each of a batch, is kept by its diagonal."""
    return F.ndim < N.ndim


def _begun(F: Tensor, N: Tensor) -> Tensor:
    """The identity."""
    return (
        torch.ones_like(F) if _diagonal(F, N) else torch.eye(F.shape[-1], dtype=F.dtype, device=F.device).expand_as(F)
    )


def _from_left(P: Tensor, X: Tensor, turned: bool = False) -> Tensor:
    """P X, or Pᵀ X."""
    if _diagonal(P, X):
        return P[..., None] * X
    return (P.mT if turned else P) @ X


def _from_right(X: Tensor, Q: Tensor, turned: bool = False) -> Tensor:
    """X Qᵀ, or X Q."""
    if _diagonal(Q, X):
        return X * Q[..., None, :]
    return X @ (Q if turned else Q.mT)


def _learned(N: Tensor, V: Tensor, P: Tensor, Q: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    r"""One step of the factors, down what $A A^\top - B B^\top$ says: $A = P N Q^\top$, $B = P^{-\top} V Q^{-1}$."""
    A = _from_left(P, _from_right(N, Q))
    B = V / P[..., None] if _diagonal(P, N) else torch.linalg.solve_triangular(P.mT, V, upper=False)
    B = B / Q[..., None, :] if _diagonal(Q, N) else torch.linalg.solve_triangular(Q, B, upper=True, left=False)
    return _stepped(P, A, B, rate), _stepped(Q, A.mT, B.mT, rate)


def _stepped(F: Tensor, A: Tensor, B: Tensor, rate: float) -> Tensor:
    """A factor of the rows, moved by a share of its size."""
    tiny = torch.finfo(torch.bfloat16).tiny
    if _diagonal(F, A):
        one, other = A.square().sum(-1), B.square().sum(-1)
        return F - rate / ((one + other).amax(-1, keepdim=True) + tiny) * (one - other) * F
    one, other = A @ A.mT, B @ B.mT
    return F - rate / (norm_bound(one + other) + tiny)[..., None, None] * (torch.triu(one - other) @ F)


def norm_bound(S: Tensor) -> Tensor:
    """A lower bound of the largest eigenvalue of a symmetric matrix without negative ones: one step of the power method
    from its longest column.
    """
    largest = S.abs().amax((-2, -1))
    X = S / torch.where(largest > 0, largest, 1.0)[..., None, None]
    longest = X.square().sum(-2).argmax(-1)
    column = torch.take_along_dim(X, longest[..., None, None].expand(*X.shape[:-1], 1), -1)
    x = X @ column
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(S.dtype).tiny)
    return largest * torch.linalg.vector_norm(X @ x, dim=(-2, -1))


def _balanced(P: Tensor, Q: Tensor, N: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the same largest number, and the same product."""
    sizes = [F.abs().amax((-1,) if _diagonal(F, N) else (-2, -1)) for F in (P, Q)]
    ratio = torch.sqrt(sizes[1] / sizes[0])
    return P * _over(ratio, P), Q / _over(ratio, Q)


def _over(x: Tensor, F: Tensor) -> Tensor:
    return x.reshape(x.shape + (1,) * (F.ndim - x.ndim))


class PSGDKron(Routed):
    r"""PSGD Kron multiplies the mean gradient by a learned preconditioner, which has one factor for the rows of a
    matrix and one for its columns.

    $$N_t = \frac{m_t}{1-\beta^t}, \quad m_t = \beta m_{t-1} + (1-\beta) g_t, \quad
    u_t = \tau f\bigl(P^\top P\, N_t\, Q^\top Q / \tau\bigr), \quad
    f(x) = 0.1\,\mathrm{sign}(x)\ln(1 + |x|) + 0.9 \tanh x$$
    $$P \leftarrow P - \eta\,\frac{\mathrm{triu}(A A^\top - B B^\top)}{\lVert A A^\top + B B^\top \rVert}\,P, \quad
    A = P N_t Q^\top, \; B = P^{-\top} V Q^{-1}$$

    and Q likewise, with $A^\top A$ and $B^\top B$. P and Q are upper triangular and begin at I; V is drawn from normal
    numbers. In this way the preconditioned gradient becomes nearly white, as V is: its elements are uncorrelated and
    have equal variance. A side longer than ``max_size_triangular`` has a diagonal factor. Factors are updated with the
    probability $e^{-\kappa (t - 1 - t_0)}$, at most 1 and at least ``min_probability``; a hundredth of the updates
    bring both to one size. Decay is decoupled. Kernels count as matrices (out, in·height·width).

    V and the choices depend on ``probe_seed``, the step and the shape alone: copies of a model on several devices take
    the same steps.

    ``PSGDKron(model)`` gives it the hidden matrices and AdamW the rest, as ``Muon(model)`` does; its groups may say
    what Muon's may. ``PSGDKron(params)`` gives it all matrices, and vectors to AdamW.

    Args:
        params: a model, or parameters, or parameter groups.

    Parent: Momentum. Adds: a preconditioner of triangular factors that is trained with the model.
    Strength: It needs no eigendecomposition and no root, and keeps m² + n² numbers for an m × n matrix, half of SOAP's.
    Weakness: It solves triangular systems at each update of the factors, and updates are most frequent at first; the
    preconditioner lags behind by an amount that depends on η.
    Source: Li 2015, "Preconditioned Stochastic Gradient Descent", https://arxiv.org/abs/1512.04202; Pooladzandi & Li
    2024, "Curvature-Informed SGD via General Purpose Lie-Group Preconditioners", https://arxiv.org/abs/2402.04553;
    Walters et al. 2024, kron_torch, https://github.com/evanatyourservice/kron_torch
    Differs: It takes the same steps as the code of Walters et al., which draws from a generator, once for all
    parameters, and has factors for each dimension of a kernel and for vectors.
    """

    of_matrices = "has factors for the sides of"
    takes_blocks = True

    beta: float = hyper(default=0.9, within="[0, 1)", doc="β, share of the mean that is kept")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    precond_lr: float = hyper(default=0.1, within="[0, 1)", doc="η, step size of the factors")
    max_size_triangular: int = hyper(default=8192, within="[0, ∞)", doc="longest side with a triangular factor")
    min_probability: float = hyper(
        default=0.03, within="[0, 1]", doc="π, least probability of an update of the factors"
    )
    probability_decay: float = hyper(default=0.001, within="[0, ∞)", doc="κ, how fast that probability falls")
    flat_steps: float = hyper(default=250.0, within="[0, ∞)", doc="t₀, steps with an update each")
    trust_region: float = hyper(default=1.5, within="(0, ∞)", doc="τ, from where a number is held down")
    probe_seed: int = hyper(default=0, within="[0, ∞)", doc="of V, and of when factors are updated")
    betas: tuple[float, float] = hyper(default=(0.9, 0.95), within="[0, 1)", doc="β₁, β₂ of AdamW's part", kw_only=True)
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε of AdamW's part", init=False)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    left: Tensor = state(doc="P, factor of the rows", when=of_matrix, shape=_rows)
    right: Tensor = state(doc="Q, factor of the columns", when=of_matrix, shape=_columns)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The preconditioned mean gradient, held down where it is large; or Adam's direction."""
        if not h.use_muon:
            return Adam.direction(p, g, s, h)
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - h.beta)
        N = s.exp_avg / (1 - h.beta**h.step)
        U, s.left, s.right = whitened(
            N, s.left, s.right, h.step, h.precond_lr, h.min_probability, h.probability_decay, h.flat_steps,
            h.probe_seed, h.max_size_triangular, h.blocks,
        )  # fmt: skip
        x = U / h.trust_region
        return h.trust_region * (0.1 * torch.sign(x) * torch.log1p(torch.abs(x)) + 0.9 * torch.tanh(x))

    def _groups(self, params: Any, given: dict[str, Any]) -> Any:
        groups = super()._groups(params, given)
        return groups if isinstance(params, nn.Module) else vectors_apart(groups, "use_muon", False)
