"""The face of `torch.optim.Optimizer`, written once for all rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, dataclass_transform

import torch
from torch import Tensor, nn

from thalweg._base.errors import bad_argument
from thalweg.engine import declare
from thalweg.engine.backends import choice, foreach
from thalweg.engine.batch import Batch
from thalweg.engine.declare import Hyper, StateSpec, count, hyper, state
from thalweg.engine.trace import kept, variant


@dataclass_transform(field_specifiers=(hyper, state, count))
class Declared(torch.optim.Optimizer):
    """Reads the declarations of every subclass and gives it its constructor's signature."""

    hypers: ClassVar[dict[str, Hyper]]
    states: ClassVar[dict[str, StateSpec]]
    setup: ClassVar[dict[str, Hyper]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Collect what the class body declares."""
        super().__init_subclass__(**kwargs)
        declare.collect(cls)
        arguments: dict[str, Hyper] = declare.declarations(cls, Hyper)
        cls.hypers = {name: h for name, h in arguments.items() if not h.setup}
        cls.states = declare.declarations(cls, StateSpec)
        cls.setup = {name: h for name, h in arguments.items() if h.setup}
        cls.__signature__ = declare.signature(arguments)  # type: ignore[attr-defined]


class Optimizer(Declared):
    """Base of every optimizer here: a subclass declares hyperparameters and state, and one pure ``direction``.

    Args:
        params: an iterable of parameters, of (name, parameter) pairs, or of dicts (param groups), as in torch; a whole
            model where the optimizer says so.
        maximize: climb instead of descend.
        decoupled_weight_decay: decay the weights themselves (p ← p − lr·wd·p) instead of adding wd·p to the gradient.
        backend: ``"auto"``, ``"eager"`` or ``"foreach"``; ``repr`` says which runs and why.
        foreach, fused: torch's spelling of ``backend``; ``foreach=False`` is ``"eager"``, ``fused=True`` ``"auto"``.
        capturable, differentiable: torch has them; only False is served, and True is an error.

    Raises:
        ValueError: for a hyperparameter outside its range, in the constructor or in a group, before anything changes.
        TypeError: for an argument that the optimizer does not have.
    """

    params: Iterable[Any] | nn.Module
    maximize: bool = hyper(default=False, doc="climb instead of descend", kw_only=True)
    decoupled_weight_decay: bool = hyper(
        default=False, doc="decay the weights, not the gradient (Loshchilov & Hutter 2019)", kw_only=True
    )
    backend: str = hyper(default="auto", kw_only=True, setup=True)
    foreach: bool | None = hyper(default=None, kw_only=True, setup=True)
    fused: bool | None = hyper(default=None, kw_only=True, setup=True)
    capturable: bool = hyper(default=False, kw_only=True, setup=True)
    differentiable: bool = hyper(default=False, kw_only=True, setup=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound = type(self).__signature__.bind(*args, **kwargs)  # type: ignore[attr-defined]
        bound.apply_defaults()
        given = dict(bound.arguments)
        params = given.pop("params")
        for name, h in {**self.setup, **self.hypers}.items():
            if name in given:
                h.check(given[name])
        for name in ("capturable", "differentiable"):
            if given[name]:
                raise bad_argument(name, given[name], "False: steps are counted on the host and not differentiated")
        self.backend = choice.requested(given["backend"], given["foreach"], given["fused"])
        defaults = {name: given.get(name, h.default) for name, h in self.hypers.items()}
        self._check_together(defaults)
        super(Declared, self).__init__(self._groups(params, given), defaults)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Which way, not how far: the update $u$ of $p ← p − lr·u$, from plain torch ops.

        Args:
            p: parameter. g: gradient. s: the declared state; assign to it. h: the declared hyperparameters,
            with ``h.step`` (1 at the first update, where a count is declared) and ``h.first`` (1.0 or 0.0).
        """
        raise NotImplementedError

    # -- construction -----------------------------------------------------------------------------------------------

    def _check_together(self, group: dict[str, Any]) -> None:
        """Refuse a combination of hyperparameters; for subclasses."""

    def _groups(self, params: Any, given: dict[str, Any]) -> Any:
        """What the user passed, as torch's base class takes it; ``given`` holds all arguments."""
        if isinstance(params, nn.Module):
            raise bad_argument("params", type(params).__name__, "parameters", "Pass model.parameters()")
        return params

    def _check(self, group: dict[str, Any]) -> None:
        for name, h in self.hypers.items():
            if name in group:
                h.check(group[name])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; values outside their range are refused before the group is added."""
        if isinstance(param_group, dict):
            self._check(param_group)
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except Exception:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        """Refuse what cannot run now, at construction: the rule is traced for this group."""
        self._check_together(group)
        foreach.compiled(variant(type(self), group))

    # -- the step ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; ``closure`` recomputes the loss, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        run = choice.BACKENDS[choice.chosen(self.backend)[0]]
        for batch in [b for group in self.param_groups for b in self._batches(group)]:
            run(batch)
        return loss

    def _batches(self, group: dict[str, Any]) -> list[Batch]:
        """Sort the parameters of a group by what makes their step the same: device, dtype, number of updates."""
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return []
        self._check(group)  # a scheduler or the user may have written to it
        key = variant(type(self), group)
        specs = kept(type(self), group)
        names = [spec.name for spec in specs if not spec.count]
        same: dict[Any, list[Tensor]] = defaultdict(list)
        for p in params:
            _check_gradient(p)
        for p in params:
            updates = self._count(p, specs)
            same[p.device, p.dtype, updates].append(p)
        batches = []
        for (_, _, (step, first)), ps in same.items():
            h = declare.read(self.hypers, group)
            h.step, h.first = step, first
            states = {name: [_real(self.state[p][name]) for p in ps] for name in names}
            grads = [_real(p.grad) for p in ps]  # type: ignore[arg-type]
            batches.append(Batch(key, h, [_real(p) for p in ps], grads, states))
        return batches

    def _count(self, p: Tensor, specs: list[declare.StateSpec]) -> tuple[int | None, float]:
        """Create what is missing of the state of ``p``, count this update, and say which one it is."""
        mine = self.state[p] if specs else {}
        first = float(any(spec.name not in mine or mine[spec.name] is None for spec in specs))
        step = None
        for spec in specs:
            if mine.get(spec.name) is None:
                mine[spec.name] = declare.new_state(spec, p)
            if spec.count:
                mine[spec.name] = torch.as_tensor(mine[spec.name], dtype=torch.float32)  # old checkpoints keep a number
                mine[spec.name] += 1
                step = int(mine[spec.name])
        return step, first

    # -- checkpoints, copies, words ---------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "backend": self.backend}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, h in self.hypers.items():
                group.setdefault(name, self.defaults.get(name, h.default))
                if h.constant:  # a checkpoint of a sibling (Adam's in AdamW) does not change what this class is
                    group[name] = h.default

    def __repr__(self) -> str:
        name, why = choice.chosen(self.backend)
        lines = [f"{type(self).__name__} (backend: {name}, {why})"]
        for i, group in enumerate(self.param_groups):
            size = sum(p.numel() for p in group["params"])
            lines.append(f"  group {i}: {len(group['params'])} tensors, {size:,} parameters{_names(group)}")
            changed = {k: group[k] for k, h in self.hypers.items() if group[k] != h.default}
            lines.append("    " + ", ".join(f"{k}={v}" for k, v in {"lr": group["lr"], **changed}.items()))
        return "\n".join(lines)


def _names(group: dict[str, Any], most: int = 4) -> str:
    """The first names of a group's parameters, where they have names."""
    names = group.get("param_names", [])
    return f": {', '.join(names[:most])}{', …' if len(names) > most else ''}" if names else ""


def _check_gradient(p: Tensor) -> None:
    g = p.grad
    assert g is not None
    if g.layout != torch.strided:
        raise bad_argument("grad", g.layout, "a dense gradient", "For sparse ones use torch.optim.SparseAdam or SGD")
    if g.dtype != p.dtype:
        raise bad_argument("grad.dtype", g.dtype, f"the parameter's, {p.dtype}")


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x
