"""What a type checker must see of the constructors; mypy runs over this file, and a needless ignore is an error."""

from typing import Any

import torch

import thalweg
from thalweg.rule import Optimizer, count, hyper, ops, state

params = [torch.nn.Parameter(torch.zeros(2, 2))]
thalweg.SGD(params, 0.1, 0.9, nesterov=True, maximize=False)
thalweg.SGD(params, 0.1, 0.9, 0.0, 0.0, True)
thalweg.AdamW(params, 0.1, (0.9, 0.99), 1e-8, 0.1, False)
thalweg.AdamW(params, (0.9, 0.99))  # type: ignore[arg-type]
thalweg.AdamW(params, backend="gpu", state_dtype="int8")  # type: ignore[arg-type]
thalweg.AdamW(params, hyperball="al")  # type: ignore[arg-type]
thalweg.AdamW(params, lr=0.1, betas=(0.9, 0.99), backend="eager", fused=True)
thalweg.Muon(torch.nn.Linear(2, 2), lr=0.1, lr_ratio=0.3, adjust_lr_fn="match_rms_adamw")
thalweg.AdamW(params, lrr=0.1)  # type: ignore[call-arg]
thalweg.AdamW(params, lr="fast")  # type: ignore[arg-type]
thalweg.Adam(params, exp_avg=None)  # type: ignore[call-arg]
thalweg.Lookahead(thalweg.AdamW(params), k=5, alpha=0.5).step()
thalweg.ASAM(torch.optim.SGD(params), rho=0.5, eta=None).first_step(zero_grad=True)
thalweg.EMA(params)  # type: ignore[arg-type]
thalweg.Mechanic(thalweg.SGD(params), n=6)  # type: ignore[call-arg]
thalweg.AdamW(params, 0.1, transforms=[thalweg.transforms.clip_global_norm(1.0), thalweg.transforms.grokfast(2.0, 0.9)])
thalweg.AdamW(params, transforms=[thalweg.transforms.clip_norm("small")])  # type: ignore[arg-type]
thalweg.transforms.grokfast(2.0, beta=0.9)  # type: ignore[call-arg]


class Signed(Optimizer):
    """A rule of one's own."""

    lr: float = hyper(default=0.1, within="[0, ∞)", doc="step size")
    exp_avg: torch.Tensor = state(doc="m")
    steps: torch.Tensor = count()

    @staticmethod
    def direction(p: torch.Tensor, g: torch.Tensor, s: Any, h: Any) -> Any:
        """The sign of the mean."""
        s.exp_avg = torch.lerp(s.exp_avg, g, 0.1)
        return torch.sign(s.exp_avg) * ops.row_mean(torch.abs(g))


Signed(params, 0.1, clip_norm=1.0).step()
Signed(params, rate=0.1)  # type: ignore[call-arg]
Signed(params, lr="fast")  # type: ignore[arg-type]
