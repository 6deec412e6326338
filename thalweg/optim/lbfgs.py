"""L-BFGS: the classic method for full batches. It runs torch's own implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg._base.given import stands_still
from thalweg.engine import fitting
from thalweg.engine.optimizer import Declared
from thalweg.ir import fields
from thalweg.rule import hyper
from thalweg.runtime.tensors import local
from thalweg.shards.exchange import telling_ranks
from thalweg.shards.pieces import is_distributed, piece_here


class Mended(Declared, torch.optim.LBFGS):
    """``torch.optim.LBFGS`` with checked arguments and ``maximize``, for copies, any strides and empty tensors too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = fields.given(type(self), self._arguments, args, kwargs)
        self._check(given)
        maximize = given.pop("maximize")
        super(Declared, self).__init__(**given)
        self.defaults["maximize"] = maximize
        self.param_groups[0].setdefault("maximize", maximize)

    def _check(self, group: dict[str, Any]) -> None:
        for name, h in self.hypers.items():
            if name in group:
                h.check(group[name])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch: for the first group alone."""
        if self.param_groups:
            raise bad_argument("params", f"{len(self.param_groups) + 1} groups", "one group: the step is one for all")
        if isinstance(param_group, dict):
            fields.check_keys(type(self).__name__, param_group, self.hypers)
            self._check(param_group)
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """As in torch, with the name of the rule."""
        return {**super().state_dict(), fitting.RULE: dict(self.kin)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch.

        Raises:
            TypeError: for what is no dict, such as a path.
            ValueError: for a checkpoint of another rule, or a model's, before anything changes.
        """
        fitting.check_form(state_dict)
        fitting.check_keys(state_dict)
        fitting.check_rule(self.kin, fields.kindred(type(self)), self.hypers, None, lambda number: (), state_dict)
        super().load_state_dict(state_dict)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Iterate until ``max_iter``, ``max_eval`` or a tolerance is reached.

        Args:
            closure: clears the gradients, computes the loss, calls ``backward`` and returns the loss. It is called up
                to ``max_eval`` times.

        Returns:
            The loss at the start.

        Raises:
            ValueError: if there is no closure, or a hyperparameter in the group is outside its range.
        """
        if closure is None and stands_still(self.param_groups):
            return None
        if not callable(closure):
            raise bad_argument(
                "closure",
                closure,
                "a function that clears the gradients, computes the loss, calls backward() and returns the loss: "
                f"{type(self).__name__} looks at several points in one step",
                "Write optimizer.step(closure)",
            )
        group = self.param_groups[0]
        self._check(group)
        first: list[Any] = []

        def evaluate() -> Any:
            with telling_ranks():
                loss = closure()
            if not first:
                first.append(loss)
            return -loss if group["maximize"] else loss

        if self._numel():  # type: ignore[no-untyped-call]
            _without_hooks(torch.optim.LBFGS.step)(self, evaluate)
        else:
            with torch.enable_grad():
                evaluate()
        return first[0]

    def _gather_flat_grad(self) -> Tensor:
        flat = torch.cat([_flat(p) for p in self._params])
        return -flat if self.param_groups[0]["maximize"] else flat

    def _add_grad(self, step_size: float, update: Tensor) -> None:
        """Move along ``update``, a vector over all parameters: of a DTensor the part that is here."""
        offset = 0
        for p in self._params:
            shape = torch.view_as_real(p).shape if p.is_complex() else p.shape
            whole = update[offset : offset + shape.numel()].view(shape)
            local(p).add_(piece_here(p).read(whole) if is_distributed(p) else whole, alpha=step_size)
            offset += shape.numel()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        group = self.param_groups[0]
        for name, h in self.hypers.items():
            group.setdefault(name, self.defaults.get(name, h.default))
        self._params, self._numel_cache = group["params"], None  # torch's copies lack both


def _flat(p: Tensor) -> Tensor:
    """The gradient as one vector of real numbers, whatever its layout."""
    g: Any = torch.zeros_like(p) if p.grad is None else p.grad.to_dense() if p.grad.is_sparse else p.grad
    g = g.full_tensor() if is_distributed(g) else g
    return (torch.view_as_real(g.resolve_conj()) if g.is_complex() else g).reshape(-1)


def _without_hooks(step: Any) -> Any:
    """A step as it was written: torch wraps a class's at its first instance, and ours is wrapped too."""
    return step.__wrapped__ if getattr(step, "hooked", False) else step


class LBFGS(Mended):
    r"""L-BFGS is Newton's method with a Hessian estimated from how the gradient changed in the last steps. It is meant
    for full batches.

    $$d_k = -H_k g_k, \quad H_{k+1} = (I - \rho s y^\top) H_k (I - \rho y s^\top) + \rho s s^\top, \quad
    s = p_{k+1} - p_k, \; y = g_{k+1} - g_k, \; \rho = \frac{1}{y^\top s}$$

    $H_t$ is kept as the last ``history_size`` pairs (s, y), from $H_0 = (y^\top s / y^\top y) I$. The step along $d$ is
    ``lr`` or, with ``line_search_fn="strong_wolfe"``, one that lowers the loss and its slope enough (c₁ = 1e-4, c₂ =
    0.9). ``step(closure)`` makes up to ``max_iter`` iterations. It takes the same steps as ``torch.optim.LBFGS`` and
    keeps its state; in addition, it can be copied and pickled. It takes a single parameter group and has no weight
    decay: add the penalty to the loss. If the parameters are DTensors, each rank keeps the whole history, and the
    closure must return the same loss on all ranks.

    Parent: none. Adds: curvature from differences of gradients, without a second derivative.
    Strength: On smooth losses without noise no other optimizer here needs fewer evaluations.
    Weakness: The noise of small batches spoils the differences of gradients, and it keeps 2·history_size copies of the
    parameters.
    Source: Liu & Nocedal 1989, "On the limited memory BFGS method for large scale optimization", algorithm 2.1,
    https://doi.org/10.1007/BF01589116; Nocedal & Wright 2006, algorithms 3.5 and 3.6 (line search)
    Differs: As in torch, the step along $d$ is ``lr`` unless ``line_search_fn`` is given; Liu & Nocedal search along
    the line at every step.
    """

    params: Iterable[Any]
    lr: float = hyper(default=1, within="[0, ∞)", doc="step size, the first one tried where a line search is asked for")
    max_iter: int = hyper(default=20, within="[1, ∞)", doc="most iterations of one step")
    max_eval: int | None = hyper(default=None, within="[1, ∞)", doc="most calls of the closure; None is 1.25 max_iter")
    tolerance_grad: float = hyper(default=1e-7, within="[-∞, ∞]", doc="largest element of g at which to stop")
    tolerance_change: float = hyper(default=1e-9, within="[-∞, ∞]", doc="change of loss or parameters at which to stop")
    history_size: int = hyper(default=100, within="[1, ∞)", doc="pairs (s, y) that are kept")
    line_search_fn: Literal["strong_wolfe"] | None = hyper(default=None, doc="how far along d; None is lr")
    maximize: bool = hyper(default=False, doc="climb instead of descend", kw_only=True)
