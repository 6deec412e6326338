"""What all twins share: a loop over parameters, and where a paper has no weight decay, the two usual ones."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch


class Reference(torch.optim.Optimizer):
    """A subclass gives its hyperparameters as class arguments, and ``update``; complex numbers are two real ones.

    ``own_decay`` says that ``update`` itself decays the weights, as its paper writes it.
    """

    hypers: ClassVar[dict[str, Any]]
    own_decay: ClassVar[bool]

    def __init_subclass__(cls, own_decay: bool = False, **hypers: Any) -> None:
        super().__init_subclass__()
        cls.own_decay = own_decay
        usual = {"lr": 1e-3, "weight_decay": 0.0, "maximize": False, "decoupled_weight_decay": own_decay}
        cls.hypers = {**usual, **hypers}

    def __init__(self, params: Any, **given: Any) -> None:
        assert given.keys() <= self.hypers.keys(), given.keys() - self.hypers.keys()
        super().__init__(params, {**self.hypers, **given})

    def start(self, x: np.ndarray, h: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter before its first step."""
        return {}

    def update(self, x: np.ndarray, g: np.ndarray, s: dict[str, Any], h: dict[str, Any]) -> np.ndarray:
        """The parameter after step ``s["t"]`` = 1, 2, …; ``s`` is the state, ``h`` the group."""
        raise NotImplementedError

    def common(self, every: list[tuple[np.ndarray, np.ndarray, dict[str, Any], dict[str, Any]]]) -> None:
        """Before any parameter moves: what all have in common, from the x, g, s and h of each that has a gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step of every parameter that has a gradient."""
        every = []
        for h in self.param_groups:
            for p in h["params"]:
                if p.grad is None:
                    continue
                x, g = _numpy(p), _numpy(p.grad)
                s = self.state[p]
                if not s:
                    s.update(t=0, **self.start(x, h))
                s["t"] += 1
                g = -g if h["maximize"] else g
                if not self.own_decay and not h["decoupled_weight_decay"]:
                    g = g + h["weight_decay"] * x
                every.append((x, g, s, h))
        self.common(every)
        for x, g, s, h in every:
            shrink = 1 - h["lr"] * h["weight_decay"] if not self.own_decay and h["decoupled_weight_decay"] else 1.0
            x[...] = self.update(x.copy(), g, s, h) - (1 - shrink) * x


def _numpy(x: torch.Tensor) -> np.ndarray:
    x = x.detach()
    return (torch.view_as_real(x) if x.is_complex() else x).numpy()
