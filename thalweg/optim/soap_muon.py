"""SOAP-Muon: SOAP's step, orthogonalised, for the hidden matrices; AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor

from thalweg.linalg import polynomials
from thalweg.linalg.polynomials import JORDAN, Coefficients
from thalweg.optim import cutting
from thalweg.optim.adam import Adam
from thalweg.optim.muon import orthogonalize
from thalweg.optim.soap import SOAP, preconditioned
from thalweg.optim.step_scale import check_step_scale, step_scale
from thalweg.rule import hyper


class SOAPMuon(SOAP):
    r"""SOAPMuon is Muon on SOAP's step in place of the momentum; that step is nearly white before it is made
    orthogonal.

    $$W \leftarrow W - \gamma\lambda W - \gamma\,s(m, n)\,\mathrm{orthogonalize}(u_t)$$

    with $u_t$ of :class:`SOAP` and s(m, n) and the iteration of :class:`Muon`. Its scale is that of Muon with
    ``match_rms_adamw``, so that a learning rate of SOAP or AdamW suits it.

    ``SOAPMuon(model)`` sorts a model's parameters as ``Muon(model)`` does; ``SOAPMuon(params)`` gives vectors to AdamW.

    Args:
        params: a model, or parameters, or parameter groups.

    Parent: SOAP. Adds: the orthogonal factor of SOAP's step in its place.
    Strength: In the optimization track of modded-nanogpt it took 2,750 steps where tuned Muon took 3,250.
    Weakness: It has the cost of SOAP and of Muon together, and in that track the basis changes at each step.
    Source: Vyas et al. 2025, "Improving SOAP using Iterative Whitening and Muon",
    https://nikhilvyas.github.io/SOAP_Muon.pdf; Jordan et al. 2026, "NanoGPT-Small Optimization Benchmark",
    https://github.com/KellerJordan/modded-nanogpt/tree/master/records/track_3_optimization
    Differs: It is the plain composition, as in that track, whose entries add a basis that changes at each step
    (``precondition_frequency=1``, ``betas=(0.95, 0.9)``). The code of Vyas et al. also takes roots of the elements of
    the factor. Without ``kl`` the factors are SOAP's.
    """

    takes_blocks = True

    eps: float = hyper(default=1e-8, within="(0, ∞)", doc="ε, added to the root, and floor of the matrix norm")
    ns_coefficients: Coefficients = hyper(
        default=JORDAN,
        doc="coefficients of the polynomial: three for all iterations, three for each, or the name of a set, such as "
        "'polar-express'",
    )
    ns_steps: int = hyper(
        default=5, within="[0, 100)", doc="number of iterations; leave out if ns_coefficients gives it"
    )
    adjust_lr_fn: (
        Literal["original", "match_rms_adamw", "spectral_unclamped", "match_rms_beta1"]
        | Callable[[int, int], float]
        | None
    ) = hyper(default="match_rms_adamw", doc="update_scale, by name or as a function; None is the original")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The orthogonal factor of SOAP's direction, scaled; or Adam's."""
        if not h.use_muon:
            return Adam.direction(p, g, s, h)
        Q = orthogonalize(preconditioned(g, s, h), h.ns_coefficients, h.ns_steps, h.eps, h.blocks)
        return Q * step_scale(p, h)

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
