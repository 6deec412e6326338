"""What is checked: the arguments, refused where they cannot be right, and looked at from the side of the parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from thalweg._base.errors import bad_argument
from thalweg._base.given import no_model
from thalweg.diagnosis.bands import TunedRuns
from thalweg.diagnosis.curve import unprepared
from thalweg.diagnosis.families import Family, family_of, tuned_runs_of
from thalweg.diagnosis.preflight.losses import scalar_of
from thalweg.diagnosis.preflight.reading import copied
from thalweg.train import rng

Group = dict[str, Any]


@dataclass(frozen=True)
class Owner:
    """Who updates a parameter: an optimizer, by its number, and one of its groups, by its number."""

    optimizer: torch.optim.Optimizer
    number: int
    place: int

    @property
    def group(self) -> Group:
        """Its settings."""
        found: Group = self.optimizer.param_groups[self.place]
        return found

    @property
    def family(self) -> Family | None:
        """What kind of steps it takes."""
        return family_of(self.optimizer, self.group)

    @property
    def tuned(self) -> TunedRuns | None:
        """The tuned runs that its steps are compared with."""
        return tuned_runs_of(self.optimizer, self.group)


@dataclass(frozen=True, eq=False)
class Subject:
    """Model, optimizers, schedulers and loss of a run that is about to start."""

    model: nn.Module
    optimizers: tuple[torch.optim.Optimizer, ...]
    schedulers: tuple[Any, ...]
    loss: Callable[[nn.Module, Any], Any]
    steps: int | None
    clip: float | None

    @functools.cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All, each once, by name."""
        return dict(self.model.named_parameters())

    @functools.cached_property
    def trainable(self) -> dict[str, nn.Parameter]:
        """Those that ask for a gradient."""
        return {name: p for name, p in self.parameters.items() if p.requires_grad}

    @functools.cached_property
    def owners(self) -> dict[int, list[Owner]]:
        """Who updates each parameter, by its ``id``."""
        found: dict[int, list[Owner]] = {}
        for number, optimizer in enumerate(self.optimizers):
            for place, group in enumerate(optimizer.param_groups):
                for p in group["params"]:
                    found.setdefault(id(p), []).append(Owner(optimizer, number, place))
        return found

    def owner(self, name: str) -> Owner | None:
        """Who updates the parameter of a name; None if no one does."""
        return next(iter(self.owners.get(id(self.parameters[name]), ())), None)

    @property
    def ascends(self) -> bool:
        """Whether a group's steps raise the loss on purpose."""
        return any(group.get("maximize") is True for one in self.optimizers for group in one.param_groups)

    def scheduler_of(self, optimizer: torch.optim.Optimizer) -> Any:
        """The scheduler that sets an optimizer's rates; None if none does."""
        return next((s for s in self.schedulers if moves(s, optimizer)), None)

    def value(self, batch: Any) -> Any:
        """The loss of a copy of a batch, as it is descended."""
        return scalar_of(self.loss(self.model, copied(batch)))

    def number(self, batch: Any) -> float:
        """The loss as a number, without a graph unless it differentiates itself, as a penalty on gradients does."""
        draws = rng.capture()
        try:
            with torch.no_grad():
                return float(self.value(batch))
        except RuntimeError:
            rng.restore(draws)
            value = self.value(batch)
            return float(value.detach() if isinstance(value, Tensor) else value)


def moves(scheduler: Any, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a scheduler sets the rates of an optimizer; a function of the step sets those of any."""
    if (own := getattr(scheduler, "optimizer", None)) is None:
        return True
    return any(a is b for a in own.param_groups for b in optimizer.param_groups)


def subject(
    model: Any, optimizer: Any, loss: Any, scheduler: Any = None, steps: Any = None, clip: Any = None
) -> Subject:
    """The arguments, checked.

    Raises:
        ValueError: for one that cannot be right; it names the argument, its value, what is allowed and what to do.
    """
    if not isinstance(model, nn.Module):
        raise no_model(model)
    _check_parameters(dict(model.named_parameters()))
    optimizers = _each(optimizer)
    for one in optimizers:
        if not isinstance(one, torch.optim.Optimizer):
            raise bad_argument("optimizer", one, "a torch.optim.Optimizer, or a list of such")
        if getattr(one, "fused_into_backward", False):
            raise bad_argument("optimizer", one, "one with a step of its own", "Check before fuse_into_backward()")
    if not optimizers:
        raise bad_argument("optimizer", optimizer, "at least one torch.optim.Optimizer")
    _check_belongs(model, optimizers)
    if not callable(loss):
        raise bad_argument("loss", loss, "a function: loss(model, batch) gives a 0-dim tensor")
    schedulers = () if scheduler is None else tuple(map(unprepared, _each(scheduler)))
    for one in schedulers:
        if not callable(one) and not callable(getattr(one, "step", None)):
            raise bad_argument("scheduler", one, "a torch.optim.lr_scheduler.LRScheduler, or a function of the step")
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise bad_argument("steps", steps, "the number of updates of the run, an integer of at least 1, or None")
    if clip is not None and not (isinstance(clip, (int, float)) and clip > 0):
        raise bad_argument("clip", clip, "a positive norm, or None")
    return Subject(model, optimizers, schedulers, loss, steps, clip)


def _each(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, (list, tuple)) else (given,)


def _check_parameters(parameters: dict[str, nn.Parameter]) -> None:
    if not parameters:
        raise bad_argument("model", {}, "a module with parameters")
    for name, p in parameters.items():
        if is_lazy(p):
            raise bad_argument("model", f"{name} without a shape", "one whose shapes are known", "Run a batch first")
        if p.is_meta:
            remedy = "Give it values: model.to_empty(device=...), then initialize or load it, then build the optimizer"
            raise bad_argument("model", f"{name} on the device meta", "a model that holds numbers", remedy)


def _check_belongs(model: nn.Module, optimizers: tuple[torch.optim.Optimizer, ...]) -> None:
    mine = {id(p) for p in model.parameters()}
    held = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    if not any(id(p) in mine for p in held):
        remedy = "It was built for another model, or before this one was copied or wrapped: build it from this model"
        what = f"{type(optimizers[0]).__name__} over {len(held)} tensors, none of them of the model"
        raise bad_argument("optimizer", what, "one over parameters of this model", remedy)


def checked_loss(value: Any) -> Tensor:
    """The loss, where it is one.

    Raises:
        ValueError: where it is no 0-dim tensor of real numbers.
    """
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
        shown = f"a tensor of shape {tuple(value.shape)} and {value.dtype}" if isinstance(value, Tensor) else value
        remedy = "Take the mean over the batch, and return a tensor, not a number"
        raise bad_argument("loss(model, batch)", shown, "a 0-dim tensor of real numbers", remedy)
    return value.reshape(())


def modules_of(model: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> Iterator[tuple[str, Any]]:
    """Modules of some kinds by name."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))
