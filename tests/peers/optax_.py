"""An optimizer of optax over torch's parameters, so that it can walk with ours."""

from __future__ import annotations

import torch


class OverTorch:
    """Steps of a gradient transformation, in float64."""

    def __init__(self, params, transformation):
        import jax

        jax.config.update("jax_enable_x64", True)
        self.params, self.rule = params, transformation
        self.state = transformation.init(self._arrays(p.detach() for p in params))

    @staticmethod
    def _arrays(tensors):
        import jax.numpy as jnp

        return [jnp.asarray(x.numpy().copy()) for x in tensors]

    @torch.no_grad()
    def step(self):
        """Add what the rule makes of the gradients."""
        grads, values = self._arrays(p.grad for p in self.params), self._arrays(p.detach() for p in self.params)
        updates, self.state = self.rule.update(grads, self.state, values)
        for p, update in zip(self.params, updates, strict=True):
            p += torch.tensor(update.tolist(), dtype=p.dtype).view(p.shape)
