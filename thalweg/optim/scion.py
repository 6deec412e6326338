"""Scion: steps of one size in a norm that suits what a parameter is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from thalweg._base.errors import bad_argument
from thalweg.groups.view import Param, View
from thalweg.linalg import polynomials
from thalweg.linalg.polynomials import JORDAN, Coefficients
from thalweg.optim.muon import orthogonalize
from thalweg.optim.routed import check_unused
from thalweg.rule import Optimizer, hyper, ops, state

#: the norm of what a parameter is in its model
_OF_ROLE = {"hidden": "spectral", "head": "sign", "embedding": "column"}


@ops.leaf(ops.PER_TENSOR)
def spectral_scale(ps: list[Tensor]) -> list[float]:
    """How long the spectral step of a weight (out, in, …) is: √(out/in), over the number of places of a kernel."""
    return [math.sqrt(p.shape[0] / p.shape[1]) / p.shape[2:].numel() if p.numel() else 1.0 for p in ps]


@ops.leaf()
def even_columns(Ms: list[Tensor]) -> list[Tensor]:
    """Each column, which is what a weight makes of one input, with a root mean square of 1."""
    return [_even(M.flatten(1)).view_as(M) for M in Ms]


def _even(M: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(M, dim=0, keepdim=True)
    return M * torch.where(length > 0, math.sqrt(len(M)) / length, 1.0)


class Scion(Optimizer):
    r"""Scion makes each step of size 1 in the norm of its layer, in the direction of steepest descent in that norm.

    $$m_t = \mu m_{t-1} + (1-\mu) g_t, \qquad p_t = (1 - \gamma\lambda)\,p_{t-1} - \gamma\rho\,\mathrm{lmo}(m_t)$$

    For a weight with m outputs and n inputs, lmo is $\sqrt{m/n}\,\mathrm{orthogonalize}(m_t)$ with
    ``norm="spectral"``, $\operatorname{sign}(m_t)/n$ with ``"sign"``, each column divided by its root mean square with
    ``"column"``, each row divided by $\sqrt n$ times its length with ``"row"``, and the whole tensor divided by its
    root mean square with ``"rms"``. ``"auto"`` is spectral for matrices and kernels, and rms for vectors.

    With λ = 1 weights stay within the ball of radius ρ of their norm (the constrained form); with
    ``weight_decay=0`` they may leave it. ``Scion(model)`` takes the norm from what a parameter is: spectral for hidden
    weights, sign for the output head, whose radius is ``head_ratio`` times ρ, column for embeddings, whose columns are
    the vectors of single tokens, and rms for vectors. Groups may say ``norm`` and ``radius`` of their own. The authors
    take ρ = 50 for a nanoGPT, 1 for an MLP and 8 for a convolutional network, and a head ratio of 60, 1024 and 16.

    Args:
        params: a model, or parameters, or parameter groups.
        head, hidden, sample: as :class:`Muon` takes them, with a model.

    Parent: Muon. Adds: a norm of its own for embeddings, head and vectors instead of AdamW, and a bound of each norm
    instead of weight decay.
    Strength: It keeps one state for every parameter, and its learning rate carries over from narrow to wide models.
    Weakness: Its radii are to be tuned, and it is for models whose activations keep their variance (the authors scale
    theirs by √2).
    Source: Pethick et al. 2025, "Training deep learning models with norm-constrained LMOs", algorithm 2,
    https://arxiv.org/abs/2502.07529
    Differs: ``momentum`` is the share that is kept, 1 − α of the paper. Weights are not initialised again on the
    surface of their ball. Rows and columns of zeros stay, where the authors add ε to each length.
    """

    matrices_apart: ClassVar[bool] = True

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    momentum: float = hyper(default=0.9, within="[0, 1)", doc="μ, share of the mean gradient that is kept")
    weight_decay: float = hyper(default=1.0, within="[0, ∞)", doc="λ; 1 keeps weights within their ball", off=0)
    norm: Literal["auto", "spectral", "sign", "column", "row", "rms"] = hyper(
        default="auto", doc="of the step of a parameter"
    )
    radius: float = hyper(default=1.0, within="(0, ∞)", doc="ρ, size of a step in this norm")
    ns_coefficients: Coefficients = hyper(
        default=JORDAN,
        doc="coefficients of the polynomial: three for all iterations, three for each, or the name of a set, such as "
        "'polar-express'",
    )
    ns_steps: int = hyper(
        default=5, within="[0, 100)", doc="number of iterations; leave out if ns_coefficients gives it"
    )
    eps: float = hyper(default=1e-7, within="[0, ∞)", doc="ε, floor of the matrix norm")
    head_ratio: float = hyper(default=60.0, within="(0, ∞)", doc="radius of the head over ρ", kw_only=True, setup=True)
    sample: Any = hyper(
        default=None, doc="an input; one run of model(sample) shows how each layer is used", kw_only=True, setup=True
    )
    head: Any = hyper(default=None, doc="a model's output layers, if the guess is wrong", kw_only=True, setup=True)
    hidden: Any = hyper(
        default=(), doc="further module types whose weights are hidden matrices", kw_only=True, setup=True
    )
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    momentum_buffer: Tensor = state(doc="m, mean of gradients")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """The step of size ρ in the parameter's norm that the mean gradient asks for."""
        m = s.momentum_buffer = torch.lerp(s.momentum_buffer, g, 1 - h.momentum)
        if h.norm == "spectral" or (h.norm == "auto" and h.matrix):
            u = orthogonalize(m, h.ns_coefficients, h.ns_steps, h.eps) * spectral_scale(p)
        elif h.norm == "sign":
            u = torch.sign(m) / ops.row_size(p)
        elif h.norm == "column":
            u = even_columns(m)
        elif h.norm == "row":
            u = m / ops.nonzero(ops.row_norm(m) * ops.sqrt(ops.row_size(p)))
        else:
            u = m / ops.nonzero(ops.sqrt(ops.tensor_mean(m * m)))
        return u * h.radius

    @classmethod
    def check_hypers(cls, group: Mapping[str, Any]) -> None:
        """As of any; and coefficients with which singular values grow or turn around are refused."""
        super().check_hypers(group)
        if "ns_coefficients" in group and "ns_steps" in group:
            polynomials.check(group["ns_coefficients"], group["ns_steps"], "ns_coefficients")

    def _check_together(self, group: dict[str, Any]) -> None:
        self.check_hypers(group)

    def _groups(self, params: Any, given: dict[str, Any]) -> Any:
        self._notes: tuple[str, ...] = ()
        if not isinstance(params, nn.Module):
            check_unused(given)
            return params
        view = View(params, given["sample"], given["head"], given["hidden"])
        self._notes = view.notes
        groups: dict[tuple[Any, ...], dict[str, Any]] = {}
        for param in (p for p in view.params if p.parameter.requires_grad):
            told = _told(param, given)
            groups.setdefault(tuple(told.items()), {"params": [], **told})["params"].append(
                (param.name, param.parameter)
            )
        return list(groups.values())

    def _check_group(self, group: dict[str, Any]) -> None:
        for p in group["params"]:
            if p.is_complex() or (p.ndim < 2 and group["norm"] not in ("auto", "rms")):
                what = f"{p.dtype}, shape {tuple(p.shape)}"
                remedy = "Give vectors a group with norm='rms', or pass the model itself"
                raise bad_argument("params", what, f"real matrices and kernels with norm={group['norm']!r}", remedy)
        super()._check_group(group)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_notes": self._notes}

    def __repr__(self) -> str:
        return "\n".join((super().__repr__(), *(f"  {note}" for note in self._notes)))


def _told(param: Param, given: dict[str, Any]) -> dict[str, Any]:
    """What the group of a parameter of a model says: its norm and radius, and which way it is kept."""
    norm = _OF_ROLE.get(param.kind, "rms")
    if norm == "column" and param.parameter.ndim != 2:
        norm = "rms"
    turned = norm == "column" or param.transposed  # a table of tokens is kept as (in, out)
    radius = given["radius"] * (given["head_ratio"] if param.kind == "head" else 1.0)
    return {"norm": norm, "radius": radius, **({"transposed": True} if turned else {})}
