"""Who steps: an optimizer over its own load, ready for the clock. Ours are made here."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from thalweg import optim, registry
from thalweg._base.errors import bad_argument, unknown_name
from thalweg.bench.turns import seconds_of
from thalweg.bench.works import Load, Work, small_matrices
from thalweg.engine.optimizer import Optimizer
from thalweg.runtime.backends import select

#: what an optimizer is given beyond its defaults, by us and by its twin: plain SGD has no state to speak of, and some
#: libraries' LARS has no norms where there is no decay
SETTINGS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}, "LARS": {"weight_decay": 1e-4}}

#: backends whose passes have a ceiling, which what torch does between them has not
COMPILED = ("cpu", "triton")

#: what decomposes whole matrices now and then, which takes minutes for large ones
DECOMPOSING = frozenset({"GaLore", "SOAP", "SOAPMuon", "Shampoo", "PSGDKron"})

#: seconds of a step above which one warm-up must do
SLOW = 1.0


class Entrant:
    """An optimizer (or two, side by side) and the load it steps.

    Args:
        load: parameters and sets of gradients, nobody else's.
        optimizers: they step one after the other, each its own parameters.
        before: what else belongs to a step, such as clipping; called with the parameters.
        kind: how it is called in the rows.

    Attributes:
        first: seconds that the first step took, once warm.
    """

    def __init__(
        self,
        load: Load,
        optimizers: list[Any],
        kind: str = "",
        before: Callable[[list[nn.Parameter]], Any] | None = None,
        step: Callable[[], Any] | None = None,
    ) -> None:
        self.load, self.optimizers, self.kind, self.before = load, optimizers, kind, before
        self._run = step or self._steps
        # a rule that looks at the loss gets one; what it does with it takes the same time whatever it is
        self.given = {"loss": 1.0} if "loss" in getattr(optimizers[0], "hypers", {}) else {}
        self.first = 0.0
        self._sets = itertools.cycle(load.gradients)

    def prepare(self) -> None:
        """Give each parameter its gradient of the next set."""
        for p, g in zip(self.load.params, next(self._sets), strict=True):
            p.grad = g

    def step(self) -> None:
        """One update of all parameters."""
        if self.before is not None:
            self.before(self.load.params)
        self._run()

    def _steps(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step(**self.given)

    def warm(self) -> None:
        """Steps that are thrown away: state is created, kernels are compiled. One where it is slow, else two."""
        self.prepare()
        for optimizer in self.optimizers:
            if hasattr(optimizer, "take_hessian"):  # estimates come now and then, and are not what is timed
                optimizer.take_hessian([torch.ones_like(p) for p in self.load.params])
        self.first = seconds_of(self.step, self.load.work.device)
        if self.first < SLOW:
            self.prepare()
            self.step()


def optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Every optimizer of the library by name, but for those whose step calls for the loss again and again."""
    return {k: v for k, v in registry.optimizers().items() if issubclass(v, Optimizer)}


def exact_name(name: str) -> str:
    """The name of an optimizer as its class spells it; case does not matter.

    Raises:
        ThalwegError: for an unknown name.
    """
    by_lower = {known.lower(): known for known in optimizers()}
    if name.lower() not in by_lower:
        raise unknown_name("optimizer", name, by_lower)
    return by_lower[name.lower()]


def backends() -> tuple[str, ...]:
    """What ``backend=`` may be."""
    return ("auto", *select.BACKENDS)


@functools.cache
def takes_vectors(name: str) -> bool:
    """Whether the optimizer serves parameters that are no matrices; else it gets the hidden matrices only."""
    cls: Any = optimizers()[name]
    try:
        cls([nn.Parameter(torch.zeros(3))])
    except ValueError:
        return False
    return True


def work_for(name: str, work: Work, scale: float = 1.0) -> Work:
    """The work itself, or for an optimizer of matrices its counterpart in matrices.

    Raises:
        ValueError: where there is no counterpart.
    """
    if any(work.matrices) or takes_vectors(name):
        return work
    if work.name == "small":
        return dataclasses.replace(small_matrices(scale), device=work.device)
    raise bad_argument("work", work.name, f"one with matrices, for {name}")


def ours(name: str, load: Load, backend: Any, settings: dict[str, Any]) -> Entrant:
    """An optimizer of the library over ``load``; one of matrices leaves the rest to AdamW.

    Raises:
        Exception: whatever the constructor raises.
    """
    cls: Any = optimizers()[name]
    given = {**SETTINGS.get(name, {}), **settings, "backend": backend}
    if takes_vectors(name):
        return Entrant(load, [cls(load.params, **given)])
    hidden, rest = load.matrices(), load.rest()
    if not rest:
        return Entrant(load, [cls(hidden, **given)])
    if "use_muon" in cls.hypers:
        return Entrant(load, [cls([{"params": hidden}, {"params": rest, "use_muon": False}], **given)])
    return Entrant(load, [cls(hidden, **given), optim.AdamW(rest, backend=backend)])


def over(name: str, params: Any) -> Any:
    """An optimizer of the library over parameters or groups of them, as it is by default."""
    cls: Any = optimizers()[name]
    return cls(params, **SETTINGS.get(name, {}))


def backend_of(optimizer: Any) -> str:
    """The backend that runs most of the elements; with what runs whole tensors between its passes."""
    part = max(optimizer.plan().parts, key=lambda part: part.elements)
    return f"{part.backend} + torch" if part.leaves and part.backend in COMPILED else str(part.backend)


def state_bytes(entrant: Entrant) -> float:
    """Bytes of state a parameter: of every tensor that the optimizers keep, counted once."""
    kept: dict[int, int] = {}
    for optimizer in entrant.optimizers:
        for x in _tensors(optimizer.state.values()):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
    return sum(kept.values()) / max(1, sum(p.numel() for p in entrant.load.params))


def state_dtype(entrant: Entrant) -> str:
    """The dtype of the largest state tensor; empty where there is no state."""
    kept = [x for optimizer in entrant.optimizers for x in _tensors(optimizer.state.values()) if x.is_floating_point()]
    return str(max(kept, key=lambda x: x.numel()).dtype).removeprefix("torch.") if kept else ""


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
