"""SOAP: Adam in the eigenbasis of Shampoo's factors, for matrices; AdamW for everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from thalweg.optim import kronecker
from thalweg.optim.adam import Adam
from thalweg.optim.routed import Routed
from thalweg.optim.vectors import vectors_apart
from thalweg.rule import count, hyper, ops, state


def of_matrix(h: Any) -> bool:
    """Whether a group takes the matrix rule."""
    return bool(h.use_muon)


def of_kl(h: Any) -> bool:
    """Whether it keeps eigenvalues."""
    return bool(h.use_muon and h.kl)


class SOAP(Routed):
    r"""SOAP is Adam in the eigenbasis of the gradients' covariance, so that correlated weights are scaled along their
    own axes.

    $$L_t = \beta_3 L_{t-1} + (1-\beta_3) G_t G_t^\top, \quad R_t = \beta_3 R_{t-1} + (1-\beta_3) G_t^\top G_t, \quad
    G'_t = U^\top G_t W$$
    $$m'_t = \beta_1 m'_{t-1} + (1-\beta_1) G'_t, \quad v_t = \beta_2 v_{t-1} + (1-\beta_2) G_t'^2, \quad
    u_t = \frac{\sqrt{1-\beta_2^{t-1}}}{1-\beta_1^{t-1}}\, U \frac{m'_t}{\sqrt{v_t} + \epsilon} W^\top$$

    $U$ and $W$ are approximate eigenvectors of L and R. Every ``precondition_frequency`` steps they are brought up to
    date by one orthogonal iteration. $m'$ is rotated into the new basis; v is left as it is. Decay is decoupled. The
    first gradient makes the first basis and moves no matrix. A side that is longer than ``max_precond_dim`` is not
    rotated. Kernels count as matrices (out, in·height·width).

    ``kl=True`` is KL-SOAP: for an m × n matrix, L is the mean of $G R^{-1} G^\top / n$ and R that of $G^\top L^{-1} G /
    m$; the inverses are computed from running means of the eigenvalues. So each factor describes the part of the
    covariance that the other one does not explain.

    ``SOAP(model)`` gives SOAP the hidden matrices and AdamW the rest, as ``Muon(model)`` does; its groups may say what
    Muon's may. ``SOAP(params)`` trains all matrices with SOAP, and vectors with AdamW and the same hyperparameters.

    Args:
        params: a model, or parameters, or parameter groups.

    Parent: AdamW. Adds: the eigenbasis of the covariance of rows and of columns.
    Strength: It needs 40 % fewer steps than AdamW on the authors' language models at large batches, and 20 % fewer than
    Shampoo; the basis need not be updated often.
    Weakness: It keeps 2 (m² + n²) more numbers for an m × n matrix, and it computes six products of matrices a step and
    a QR decomposition of each factor for each update of the basis.
    Source: Vyas et al. 2024, "SOAP: Improving and Stabilizing Shampoo using Adam", algorithm 3,
    https://arxiv.org/abs/2409.11321; Lin et al. 2025, "Understanding and Improving Shampoo and SOAP via
    Kullback-Leibler Minimization" (kl), https://arxiv.org/abs/2509.03378
    Differs: Three things are as in the authors' code. The first step moves no matrix, since in the eigenbasis of a
    single gradient Adam would divide rounding errors by rounding errors. ε is added before the bias correction. And m
    is kept in the eigenbasis; it is rotated when the basis changes, not at each step. Weight decay shrinks the weights
    before the step, also at the first step. Their code keeps a factor for each dimension of a kernel. Where a factor is
    singular the basis stays as it is (see :func:`thalweg.linalg.followed`). With ``kl`` the eigenvalues begin at the
    root mean square of the first gradient, not at a constant, so that its scale makes no difference.
    """

    of_matrices = "finds eigenvectors of"
    takes_blocks = True

    lr: float = hyper(default=3e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.95, 0.95), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    shampoo_beta: float | None = hyper(
        default=None, within="[0, 1)", doc="β₃, share of the factors that is kept; None is β₂", off=None
    )
    eps: float = hyper(default=1e-8, within="(0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.01, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    precondition_frequency: int = hyper(default=10, within="[1, ∞)", doc="steps between two bases")
    max_precond_dim: int = hyper(default=10000, within="[0, ∞)", doc="longest side that has a factor")
    correct_bias: bool = hyper(default=True, doc="correct the bias of the means, as Adam does")
    kl: bool = hyper(default=False, doc="the factors of KL-SOAP", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m′, mean of gradients in the eigenbasis; of AdamW's part, as they are")
    exp_avg_sq: Tensor = state(doc="v, mean of their squares", signed=False)
    left: Tensor = state(doc="L, mean of G Gᵀ, of each matrix", when=of_matrix, shape=kronecker.rows)
    right: Tensor = state(doc="R, mean of Gᵀ G, of each matrix", when=of_matrix, shape=kronecker.columns)
    left_basis: Tensor = state(doc="U, eigenvectors of L", when=of_matrix, shape=kronecker.rows)
    right_basis: Tensor = state(doc="W, eigenvectors of R", when=of_matrix, shape=kronecker.columns)
    left_values: Tensor = state(doc="l, eigenvalues of L", when=of_kl, shape=kronecker.rows_values)
    right_values: Tensor = state(doc="r, eigenvalues of R", when=of_kl, shape=kronecker.columns_values)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Adam's direction in the eigenbasis, back in the space of the weights."""
        if not h.use_muon:
            return Adam.direction(p, g, s, h)
        return preconditioned(g, s, h)

    def _groups(self, params: Any, given: dict[str, Any]) -> Any:
        groups = super()._groups(params, given)
        return groups if isinstance(params, nn.Module) else vectors_apart(groups, "use_muon", False)


def preconditioned(g: Tensor, s: Any, h: Any) -> Any:
    """The mean gradient over its root mean square, both in the eigenbasis."""
    (beta1, beta2), moves = h.betas, h.step > 1
    beta3 = beta2 if h.shampoo_beta is None else h.shampoo_beta
    cut = h.max_precond_dim, h.blocks
    m, s.left_basis, s.right_basis = kronecker.in_new_basis(
        s.exp_avg, s.left, s.right, s.left_basis, s.right_basis, h.step, h.precondition_frequency, *cut
    )
    if h.kl:
        G, s.left, s.right, s.left_values, s.right_values = kronecker.rotated_kl(
            g, s.left, s.right, s.left_basis, s.right_basis, s.left_values, s.right_values, h.step, beta3, *cut
        )
    else:
        G, s.left, s.right = kronecker.rotated(g, s.left, s.right, s.left_basis, s.right_basis, h.step, beta3, *cut)
    s.exp_avg = torch.lerp(m, G, (1 - beta1) * moves)
    s.exp_avg_sq = torch.lerp(s.exp_avg_sq, G * G, (1 - beta2) * moves)
    u = kronecker.rotated_back(s.exp_avg / (torch.sqrt(s.exp_avg_sq) + h.eps), s.left_basis, s.right_basis, *cut)
    if not h.correct_bias:
        return u
    t = ops.maximum(h.step - 1, 1)
    return u * (ops.sqrt(1 - beta2**t) / (1 - beta1**t))
