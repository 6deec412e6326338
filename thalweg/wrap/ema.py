"""An exponential moving average of the weights, kept beside training."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from thalweg.engine.dynamo import uncompiled
from thalweg.ir.fields import hyper
from thalweg.wrap.lists import copies, wide
from thalweg.wrap.shown import Shown
from thalweg.wrap.wrapper import Closure


class EMA(Shown):
    r"""EMA leaves training as it is and keeps a running mean of the weights, which is less noisy; evaluate that mean.

    $$\bar\theta_1 = \theta_1, \qquad \bar\theta_t = d\,\bar\theta_{t-1} + (1-d)\,\theta_t$$

    This is ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn(d)``, beside the optimizer instead of a
    second model, and in its checkpoint. With ``bias_correction`` the weight of $\theta_t$ is $(1-d)/(1-d^t)$: the mean
    of Adam, free of its start, in which the first weights do not linger.

        with optimizer.swap():      # the parameters hold their means here
            evaluate(model)

    Buffers are not averaged: the running statistics of BatchNorm belong to the weights that saw the data. Compute them
    again inside ``swap()``, with ``torch.optim.swa_utils.update_bn(loader, model)``. Costs one tensor a parameter, in
    float32 where parameters have 16 bits, since a mean with d near 1 stands still in bfloat16.

    Args:
        optimizer: any.
        decay: d, share of the mean that is kept at a step; in [0, 1). It spans some 1/(1 − d) steps.
        bias_correction: free the mean of its start.

    Parent: any optimizer. Adds: a running mean of the weights.
    Strength: At any time, and for almost nothing, the mean is about as good as weights whose learning rate has decayed.
    Weakness: It keeps one more copy of the weights, and the mean lags behind while training is fast.
    Source: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging" (means of weights),
    https://doi.org/10.1137/0330046
    Differs: It equals ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn(d)``; buffers are not
    averaged here.
    """

    decay: float = hyper(default=0.999, within="[0, 1)", doc="d, share of the mean that is kept")
    bias_correction: bool = hyper(default=False, doc="free the mean of its start")

    tensors: ClassVar[tuple[str, ...]] = ("mean",)
    shown: ClassVar[str] = "mean"
    counts: ClassVar[dict[str, int]] = {"step": 0}

    @uncompiled
    @torch.no_grad()
    def step(self, closure: Closure | None = None, **more: Any) -> Any:
        """A step of the inner optimizer, which gets ``more``, such as MoMo's ``loss``; its outcome enters the mean."""
        self._refuse_between("step")
        self._check_step(closure)
        loss = self.optimizer.step(closure, **more)
        for group in self.param_groups:
            d, t = self._of(group, "decay"), self._count(group)
            weight = (1 - d) / (1 - d**t) if self._of(group, "bias_correction") else 1 - d
            old = [p for p in group["params"] if p in self.kept]
            if old:
                torch._foreach_lerp_([self.kept[p]["mean"] for p in old], wide(old), weight)
            new = [p for p in self._moving(group, closure) if p not in self.kept]
            for p, mean in zip(new, copies(new), strict=True):
                self.kept[p]["mean"] = mean
        return loss
