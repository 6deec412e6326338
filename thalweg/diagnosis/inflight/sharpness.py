"""The sharpness of a loss, against the edge beyond which steps of the present rate overshoot; on demand, since dear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.diagnosis.families import ADAPTIVE, GRADIENT, innermost
from thalweg.diagnosis.inflight.sampling import second
from thalweg.diagnosis.preflight.subject import Owner, Subject

#: products with the Hessian by default; each takes some four steps of training
ITERATIONS = 20


@dataclass(frozen=True)
class Sharpness:
    """How curved a loss is.

    Attributes:
        value: the eigenvalue of greatest size of P^(-1/2) H P^(-1/2); H is the Hessian, and P is √v̂ + ε for Adam and
            its kin and 1 for others.
        edge: above this, gradient descent on the same loss overshoots: 2 / lr, with momentum β (2 + 2β) / lr, and
            for Adam (2 + 2β₁) / ((1 − β₁) lr). None where it is not known for an optimizer.
    """

    value: float
    edge: float | None

    def __str__(self) -> str:
        """Both numbers."""
        edge = "" if self.edge is None else f"; steps at the present rate overshoot above {self.edge:.4g}"
        return f"sharpness {self.value:.4g}{edge}"


def sharpness_of(about: Subject, loss: Any, iterations: int) -> Sharpness:
    """The sharpness of a loss that was just computed, by power iteration.

    Raises:
        ValueError: where the loss has no graph, or one that cannot be differentiated twice.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise bad_argument("loss", loss, "a loss that was just computed from the model, before its backward")
    if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
        raise bad_argument("iterations", iterations, "a number of products with the Hessian, an integer of at least 1")
    members = [(about.owner(name), p) for name, p in about.trainable.items()]
    owned = [(owner, p) for owner, p in members if owner is not None]
    scales = [_scale(owner, p) for owner, p in owned]
    try:
        value = _largest(loss.reshape(()), [p for _, p in owned], scales, iterations)
    except RuntimeError as error:
        remedy = "For attention: with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)"
        what = f"one of which the gradient has none ({str(error).splitlines()[0]})"
        raise bad_argument("loss", what, "a loss that can be differentiated twice", remedy) from error
    return Sharpness(value, min((edge for owner, _ in owned if (edge := _edge(owner)) is not None), default=None))


def _largest(loss: Tensor, params: Sequence[Tensor], scales: Sequence[Tensor | float], iterations: int) -> float:
    slopes = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
    alive = [(g, p, s) for g, p, s in zip(slopes, params, scales, strict=True) if g is not None and g.requires_grad]
    if not alive:
        return 0.0
    used = [p for _, p, _ in alive]
    draws = torch.Generator().manual_seed(0)
    v = [torch.randn(p.shape, generator=draws).to(p) for p in used]
    value = 0.0
    for _ in range(iterations):
        size = torch.stack([x.square().sum() for x in v]).sum().sqrt().clamp_min(1e-30)
        v = [x / size for x in v]
        slope = torch.stack([(g * s * x).sum() for (g, _, s), x in zip(alive, v, strict=True)]).sum()
        products = torch.autograd.grad(slope, used, retain_graph=True, allow_unused=True)
        pairs = zip(products, alive, strict=True)
        scaled = [torch.zeros_like(p) if h is None else (h * s).detach() for h, (_, p, s) in pairs]
        value = float(torch.stack([(x * h).sum() for x, h in zip(v, scaled, strict=True)]).sum())
        v = scaled
    return value


def _scale(owner: Owner, p: Tensor) -> Tensor | float:
    """P^(-1/2) of a parameter."""
    found = second(owner.optimizer, owner.group, p) if owner.family is ADAPTIVE else None
    if found is None:
        return 1.0
    root = (found.v / found.correction).sqrt() + found.eps
    return root.rsqrt().detach()


def _edge(owner: Owner) -> float | None:
    group, rate = owner.group, float(owner.group["lr"])
    if rate <= 0:
        return None
    if owner.family is ADAPTIVE and isinstance(betas := group.get("betas"), (tuple, list)):
        beta = float(betas[0])
        return (2 + 2 * beta) / ((1 - beta) * rate)
    if owner.family is GRADIENT and type(innermost(owner.optimizer)).__name__ == "SGD" and not group.get("nesterov"):
        return (2 + 2 * float(group.get("momentum", 0.0))) / rate
    return None
