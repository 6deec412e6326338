"""Muon: momentum, orthogonalised, for the hidden matrices; AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.linalg import polynomials
from thalweg.linalg.balance import Balance, balanced
from thalweg.linalg.blocks import WHOLE, Blocks, over
from thalweg.linalg.gram import orthogonal_factors, routines
from thalweg.linalg.polynomials import JORDAN, Coefficients
from thalweg.optim import cutting
from thalweg.optim.adam import Adam
from thalweg.optim.routed_momentum import RoutedMomentum, momentum
from thalweg.optim.step_scale import check_step_scale, step_scale
from thalweg.rule import count, hyper, ops, state


def ways(xs: list[Tensor], h: Any, part: Callable[[int, int], tuple[int, int]] = lambda m, n: (m, n)) -> list[str]:
    """How the matrices of each tensor are orthogonalised, or the part of each matrix that is."""
    given = getattr(h, "blocks", None)
    blocks = given if isinstance(given, Blocks) else WHOLE  # a group may hold keys that a rule does not know
    matrices = [x.new_empty(1).expand(part(*shape)) for x in xs if x.numel() for shape in blocks.shapes(x.shape)]
    return routines(matrices, h.ns_coefficients, h.ns_steps)


@ops.leaf(says=ways)
def orthogonalize(
    Ms: list[Tensor], coefficients: Coefficients, steps: int, eps: float, blocks: Blocks | None = None,
    balance: Balance = None,
) -> list[Tensor]:  # fmt: skip
    """The orthogonal factor of each matrix, or of a convolution kernel as (out, in·…), by iterating a polynomial.

    With ``blocks`` a tensor holds several matrices. All go together, so that those of one shape are one batch.
    """
    return over(
        lambda matrices: orthogonal_factors([balanced(M, balance) for M in matrices], coefficients, steps, eps),
        Ms,
        blocks,
    )


def orthogonal(N: Any, h: Any) -> Any:
    """The approximate orthogonal factor of each matrix, by the group's polynomial."""
    return orthogonalize(N, h.ns_coefficients, h.ns_steps, h.eps, h.blocks, h.balance)


def over_elements(N: Any, g: Tensor, s: Any, h: Any) -> Any:
    """N over the root of a mean of squared gradients, with ``second_moment="elements"``; else N."""
    if h.second_moment != "elements":
        return N
    s.elements_sq = torch.lerp(s.elements_sq, g * g, 1 - h.beta2)
    return N / (ops.sqrt(s.elements_sq) + h.second_eps)


def by_norm(u: Any, N: Any, p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
    """The step, and the decay with it, as far as Adam would go for the whole matrix, with ``second_moment="norm"``."""
    if h.second_moment != "norm":
        return u
    s.norm_sq = torch.lerp(s.norm_sq, ops.tensor_sum(g * g), 1 - h.beta2)
    unbiased = ops.sqrt(1 - h.beta2**h.step) / (1 - h.momentum**h.step)
    alpha = unbiased * ops.tensor_norm(N) / (ops.sqrt(s.norm_sq) + h.second_eps)
    return alpha * u, alpha * p


class Muon(RoutedMomentum):
    r"""Muon sets all singular values of a weight matrix's momentum to about 1, so the step is about equally large in
    every direction.

    $$B_t = \mu B_{t-1} + (1-\mu) G_t, \quad N_t = (1-\mu) G_t + \mu B_t, \quad
    W \leftarrow W - \gamma\lambda W - \gamma\,s(m, n)\,\mathrm{orthogonalize}(N_t)$$

    The orthogonal factor of $U S V^\top$ is $U V^\top$: all its singular values are 1. To approximate it, the matrix is
    divided by its norm; then each of ``ns_steps`` iterations maps every singular value σ to $a\sigma + b\sigma^3 +
    c\sigma^5$, where a, b, c are ``ns_coefficients``.

    With ``Muon(model)``, Muon trains the hidden matrices (convolution kernels are flattened), and AdamW trains the
    embeddings, the output head, norms, biases and other vectors; both are in one optimizer with one ``state_dict``.
    ``repr`` shows which rule each parameter follows, and says where this assignment is a guess. ``Muon(model)`` puts a
    weight that is stored as (in, out), as for ``x @ W``, into a group with ``transposed=True``. ``Muon(params)`` takes
    matrices and kernels only, or groups that say which rule is theirs: ``use_muon=True`` for Muon, ``use_muon=False``
    for AdamW.

    s(m, n), also written ``update_scale``, is a factor for a layer with m outputs and n inputs. By default it is
    Jordan's $\sqrt{\max(1, m/n)}$. ``adjust_lr_fn`` can be one of the following names, or a function of m and n that
    gives the factor. ``"spectral_unclamped"`` is $\sqrt{m/n}$. ``"match_rms_adamw"`` is $0.2\sqrt{\max(m, n)}$: the
    elements of an update of full rank then have about the root mean square of AdamW's updates, so AdamW's learning rate
    suits it. ``"match_rms_beta1"`` replaces 0.2 by $\sqrt{(1-\beta_1)/(1+\beta_1)}$, the root mean square that AdamW's
    updates have if the gradients are pure noise. If ``adjust_lr_fn`` is a function, it is not saved in
    checkpoints. An optimizer that loads a checkpoint keeps the function that it was made with.

    ``balance="rows"`` brings each row of N to length 1 before the orthogonal factor is computed (MuonEq).
    ``second_moment="elements"`` divides N by the root of a mean of squared gradients, $N_t / (\sqrt{v_t} + \delta)$
    with $v_t = \beta_2 v_{t-1} + (1-\beta_2) G_t^2$ (Muon²). If ``balance`` is set too, this division comes before the
    balancing. ``second_moment="norm"`` is NAMO, which keeps the orthogonal direction, and multiplies the step and the
    decay by $\lVert N_t \rVert / (\sqrt{v_t} + \delta)$, where v is the mean of $\lVert G_t \rVert^2$. As both means
    begin at zero, this factor is then multiplied by $\sqrt{1-\beta_2^t} / (1-\mu^t)$. NAMO's authors use a ``beta2`` of
    0.99; the option does not change ``beta2``, which stays at 0.95 unless you set it.

    Given the same matrices as ``torch.optim.Muon``, Muon takes the same steps, except for rounding errors. Both iterate
    in bfloat16, a format of 16 bits and low precision; for an exception, see how Muon differs from its paper and from
    torch. For large matrices the products are computed in another order, so that a step differs from torch's by 1 to 2
    %; each of the two differs as much from exact arithmetic.

    Args:
        params: a model, or matrices, or parameter groups.
        lr_ratio: learning rate of AdamW's part divided by ``lr``; a schedule moves both.
        head, hidden: as :func:`thalweg.groups.roles` takes them, with a model.
        sample: an input for which ``model(sample)`` runs, so that the layer that makes the output is seen, not guessed.
        blocks: which matrices each weight of a model holds: ``"auto"`` as its use tells, ``"heads"`` by head too,
            ``"none"`` for one, or rules that set ``blocks`` (see :class:`thalweg.groups.Blocks`); with parameters, or
            in a group of them, a number of equal parts, sizes, ``Blocks``, or a function of a parameter that gives one.

    Parent: Momentum. Adds: the orthogonal factor in the place of a layer's momentum matrix.
    Strength: It keeps one state. In a contest to train a GPT of 124 million weights to a given loss in the shortest
    time, the authors used Muon to beat the record by a factor of 1.35. Over a tuned AdamW, Wen et al. 2025
    (https://arxiv.org/abs/2509.02046) measured a speedup of 1.4 for 0.1 billion weights and of 1.1 for 1.2 billion.
    Weakness: It is for hidden matrices only, so the other parameters need AdamW. It multiplies matrices at every step,
    and if matrices are sharded, each must be put together for this.
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks",
    https://kellerjordan.github.io/posts/muon/; Liu et al. 2025, "Muon is scalable for LLM training" (match_rms_adamw);
    Chang et al. 2026, "MuonEq", https://arxiv.org/abs/2603.28254; Liu et al. 2026, "Muon²",
    https://arxiv.org/abs/2604.09967; Zhang et al. 2026, "Adam improves Muon" (NAMO), https://arxiv.org/abs/2602.17080
    Differs: The paper of MuonEq adds an ε to each length by which it divides; here none is added. The paper of Muon²
    adds δ within the root; here δ is added to the root. NAMO's code limits the product of γ, its factor and
    ``update_scale`` to at most 1; here it is not limited. NAMO's norm is taken over the whole weight here, even if the
    weight holds several matrices, so that a checkpoint does not depend on how weights are divided into matrices.
    Jordan's first code computes $\mu B + G$; this only changes the scale of B, and the orthogonal factor is the same.
    Weight decay and ``match_rms_adamw`` are those of Liu et al. On a CPU without instructions for bfloat16, the
    iterations for matrices with at least 32 rows and 32 columns are in float32, where torch uses bfloat16; on such a
    CPU this is faster and more exact.
    """

    weight_decay: float = hyper(
        default=0.1, within="[0, ∞)", doc="λ, decoupled; update_scale does not act on it", off=0
    )
    ns_coefficients: Coefficients = hyper(
        default=JORDAN,
        doc="coefficients of the polynomial: three for all iterations, three for each, or the name of a set, such as "
        "'polar-express'",
    )
    eps: float = hyper(
        default=1e-7, within="[0, ∞)", doc="ε, smallest norm by which a matrix is divided; AdamW's part has adamw_eps"
    )
    ns_steps: int = hyper(
        default=5, within="[0, 100)", doc="number of iterations; leave out if ns_coefficients gives it"
    )
    adjust_lr_fn: (
        Literal["original", "match_rms_adamw", "spectral_unclamped", "match_rms_beta1"]
        | Callable[[int, int], float]
        | None
    ) = hyper(default=None, doc="update_scale, by name or as a function; None is the original")
    balance: Literal["rows", "columns", "both"] | None = hyper(
        default=None, doc="parts of N that are scaled to length 1 first, as in MuonEq", kw_only=True
    )
    second_moment: Literal["elements", "norm"] | None = hyper(
        default=None, doc="keep a mean of squares: of elements, as in Muon², or of the norm, as in NAMO", kw_only=True
    )
    beta2: float = hyper(
        default=0.95,
        within="[0, 1)",
        doc="β₂, share of the mean of squares v that is kept, with second_moment",
        kw_only=True,
    )
    second_eps: float = hyper(default=1e-8, within="(0, ∞)", doc="δ, added to the root of v", kw_only=True)

    takes_blocks = True

    steps: Tensor = count(when=lambda h: not h.use_muon or h.second_moment == "norm")
    elements_sq: Tensor = state(
        doc="v, mean of squared gradients", when=lambda h: h.use_muon and h.second_moment == "elements", signed=False
    )
    norm_sq: Tensor = state(
        doc="v, mean of the gradient's squared norm",
        when=lambda h: h.use_muon and h.second_moment == "norm",
        per="tensor",
        signed=False,
    )

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """The orthogonal factor of the momentum, scaled; or Adam's direction."""
        if not h.use_muon:
            return Adam.direction(p, g, s, h)
        N = momentum(g, s, h)
        u = orthogonal(over_elements(N, g, s, h), h) * step_scale(p, h)
        return by_norm(u, N, p, g, s, h)

    @classmethod
    def check_hypers(cls, group: Mapping[str, Any]) -> None:
        """As of any; and coefficients with which singular values grow or turn around are refused."""
        super().check_hypers(group)
        if "ns_coefficients" in group and "ns_steps" in group:
            polynomials.check(group["ns_coefficients"], group["ns_steps"], "ns_coefficients")

    def _check_together(self, group: dict[str, Any]) -> None:
        self.check_hypers(group)
        if group["second_moment"] == "norm" and group["momentum"] >= 1:
            raise bad_argument("momentum", group["momentum"], 'a number below 1 with second_moment="norm"')

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if group["use_muon"]:
            check_step_scale(group["adjust_lr_fn"], {shape for one in cutting.shapes(group) for shape in one})
