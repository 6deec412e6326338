"""An exponential moving average of the weights, kept beside training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import torch

from thalweg.engine.dynamo import uncompiled
from thalweg.ir.fields import hyper
from thalweg.wrap.lists import assign, copies, wide
from thalweg.wrap.wrapper import Closure, Wrapper


class EMA(Wrapper):
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
    counts: ClassVar[dict[str, int]] = {"step": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._swapped = False

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_between("a copy")
        return super().__getstate__()

    @uncompiled
    @torch.no_grad()
    def step(self, closure: Closure | None = None, **more: Any) -> Any:
        """A step of the inner optimizer, which gets ``more``, such as MoMo's ``loss``; its outcome enters the mean."""
        self._refuse_between("step")
        self._check_step()
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

    @contextlib.contextmanager
    def swap(self) -> Iterator[None]:
        """Let the parameters hold their means for a while; what they held before comes back, bit for bit.

        Raises:
            RuntimeError: within another ``swap``; and within this one from ``step``, ``state_dict``,
                ``load_state_dict`` and copies: the weights that are trained would be lost in them.
        """
        self._refuse_between("swap")
        self._forget_departed()
        params = list(self.kept)
        held = [p.detach().clone() for p in params]
        with torch.no_grad():
            assign(params, [self.kept[p]["mean"] for p in params])
        self._swapped = True
        try:
            yield
        finally:
            self._swapped = False
            with torch.no_grad():
                assign(params, held)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch; refused within ``swap``, whose end would overwrite what a model has loaded."""
        self._refuse_between("load_state_dict")
        super().load_state_dict(state_dict)

    def _refuse_between(self, what: str) -> None:
        if self._swapped:
            raise RuntimeError(
                f"{what} within swap(): the parameters hold their means now, and what they held would be lost. "
                "Leave the context first; model.state_dict() within it saves the means"
            )
