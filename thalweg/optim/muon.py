"""Muon: momentum, orthogonalised, for the hidden matrices; AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.linalg import polynomials
from thalweg.linalg.blocks import Blocks, over
from thalweg.linalg.gram import orthogonal_factors
from thalweg.linalg.polynomials import JORDAN, Coefficients
from thalweg.optim import cutting
from thalweg.optim.adam import Adam
from thalweg.optim.routed import Routed
from thalweg.optim.step_scale import check_step_scale, step_scale
from thalweg.rule import hyper, ops, state


@ops.leaf()
def orthogonalize(
    Ms: list[Tensor], coefficients: Coefficients, steps: int, eps: float, blocks: Blocks | None = None
) -> list[Tensor]:
    """The approximate orthogonal factor of each matrix; a convolution's kernel (out, in, …) counts as (out, in·…).

    With ``blocks`` a tensor holds several matrices. All go together, so that those of one shape are one batch.
    """
    return over(lambda matrices: orthogonal_factors(matrices, coefficients, steps, eps), Ms, blocks)


def momentum(g: Tensor, s: Any, h: Any) -> Any:
    """The mean of gradients, which takes in the gradient first; or what lies ahead along it."""
    s.momentum_buffer = torch.lerp(s.momentum_buffer, g, 1 - h.momentum)
    return torch.lerp(g, s.momentum_buffer, h.momentum) if h.nesterov else s.momentum_buffer


def orthogonal(N: Any, h: Any) -> Any:
    """The approximate orthogonal factor of each matrix, by the group's polynomial."""
    return orthogonalize(N, h.ns_coefficients, h.ns_steps, h.eps, h.blocks)


class Muon(Routed):
    r"""Muon replaces a matrix of momentum by its orthogonal factor, so every direction of the layer moves equally far.

    $$B_t = \mu B_{t-1} + (1-\mu) G_t, \quad N_t = (1-\mu) G_t + \mu B_t, \quad
    W \leftarrow W - \gamma\lambda W - \gamma\,s(m, n)\,\mathrm{orthogonalize}(N_t)$$

    The orthogonal factor of $U S V^\top$ is $U V^\top$: all its singular values are 1. ``Muon(model)`` gives Muon
    the hidden matrices (convolutions flattened) and AdamW the embeddings, the output head, norms, biases and other
    vectors, in one optimizer with one ``state_dict``; ``repr`` shows which rule each parameter follows, and where that
    is a guess. Weights that the model keeps as (in, out), as for ``x @ W``, are in a group with ``transposed=True``:
    m is the number of a layer's outputs, n that of its inputs.
    ``Muon(params)`` takes matrices and kernels only, or groups with ``use_muon=True`` or ``False``.

    s(m, n) is by default Jordan's $\sqrt{\max(1, m/n)}$. ``adjust_lr_fn`` may ask for $\sqrt{m/n}$
    (``"spectral_unclamped"``), for $0.2\sqrt{\max(m, n)}$ (``"match_rms_adamw"``), with which the weights of a
    full-rank update have the root mean square of AdamW's, so that AdamW's learning rate suits it; for the same with
    $\sqrt{(1-\beta_1)/(1+\beta_1)}$ in the place of 0.2 (``"match_rms_beta1"``), which is that root mean square for
    gradients that are noise alone; or it may be a function of m and n that gives the factor. A checkpoint leaves a
    function out: an optimizer that loads it keeps its own.

    It steps as ``torch.optim.Muon`` where it is given the same matrices. It iterates in bfloat16 like that one. But on
    a CPU without instructions for bfloat16 it iterates in float32 from 32 rows and columns on, which is faster there
    and more exact.

    Args:
        params: a model, or matrices, or parameter groups.
        lr_ratio: learning rate of AdamW's part over ``lr``; a schedule moves both.
        head, hidden: as :func:`thalweg.groups.roles` takes them, with a model.
        sample: an input for which ``model(sample)`` runs, so that the layer that makes the output is seen, not guessed.

    Parent: Momentum. Adds: the orthogonal factor in the place of a layer's momentum matrix.
    Strength: It keeps one state. On a GPT of 124 million weights the authors reached a given loss in three quarters of
    the tokens that AdamW needs. Over a tuned AdamW, Wen et al. 2025 (https://arxiv.org/abs/2509.02046) measured a
    speedup of 1.4 for 0.1 billion weights and of 1.1 for 1.2 billion.
    Weakness: It is for hidden matrices alone, and the rest needs AdamW; it multiplies matrices at every step; sharded
    matrices must be gathered.
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks",
    https://kellerjordan.github.io/posts/muon/; Liu et al. 2025, "Muon is scalable for LLM training" (match_rms_adamw)
    Differs: Jordan's first code has $\mu B + G$, which goes the same way. Weight decay and ``match_rms_adamw`` are
    those of Liu et al. On a CPU without instructions for bfloat16 it iterates in float32 from 32 rows and columns on,
    where torch iterates in bfloat16; this is faster there, and more exact.
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    weight_decay: float = hyper(default=0.1, within="[0, ∞)", doc="λ, decoupled, never scaled by s(m, n)", off=0)
    momentum: float = hyper(default=0.95, within="[0, ∞)", doc="μ, share of the mean gradient that is kept")
    nesterov: bool = hyper(default=True, doc="look ahead along the buffer")
    ns_coefficients: Coefficients = hyper(
        default=JORDAN, doc="coefficients of the quintic in every step, rows of them (one a step), or a name"
    )
    eps: float = hyper(default=1e-7, within="[0, ∞)", doc="ε, floor of the matrix norm; in AdamW's groups its own")
    ns_steps: int = hyper(default=5, within="[0, 100)", doc="iterations; rows and names say theirs")
    adjust_lr_fn: (
        Literal["original", "match_rms_adamw", "spectral_unclamped", "match_rms_beta1"]
        | Callable[[int, int], float]
        | None
    ) = hyper(default=None, doc="s(m, n), by name or as a function; None is the original")
    betas: tuple[float, float] = hyper(default=(0.9, 0.95), within="[0, 1)", doc="β₁, β₂ of AdamW's part", kw_only=True)

    takes_blocks = True

    momentum_buffer: Tensor = state(doc="B, mean of gradients", when=lambda h: h.use_muon)

    def _made(self) -> None:
        super()._made()
        del self.defaults["betas"]  # OneCycleLR and CyclicLR move betas where they find them there, else momentum

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; a group of AdamW's part has its own ε and learning rate, unless it brings them.

        β₁ and β₂ of that part are by default those of the first group.
        """
        if isinstance(param_group, dict) and self.param_groups:
            param_group = {"betas": self.param_groups[0]["betas"], **param_group}
        super().add_param_group(param_group)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The orthogonal factor of the momentum, scaled; or Adam's direction."""
        if not h.use_muon:
            return Adam.direction(p, g, s, h)
        return orthogonal(momentum(g, s, h), h) * step_scale(p, h)

    @classmethod
    def check_hypers(cls, group: Mapping[str, Any]) -> None:
        """As of any; and coefficients with which singular values grow or turn around are refused."""
        super().check_hypers(group)
        if "ns_coefficients" in group and "ns_steps" in group:
            polynomials.check(group["ns_coefficients"], group["ns_steps"], "ns_coefficients")

    def _check_together(self, group: dict[str, Any]) -> None:
        self.check_hypers(group)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if group["use_muon"]:
            check_step_scale(group["adjust_lr_fn"], {shape for one in cutting.shapes(group) for shape in one})
