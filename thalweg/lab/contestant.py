"""A contestant: an optimizer class, what is fixed about it, and how it is made for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from thalweg import groups, wrap
from thalweg.engine.optimizer import Optimizer
from thalweg.groups import Rule
from thalweg.groups.by_role import cut
from thalweg.lab import classes
from thalweg.optim.routed import DEFAULT
from thalweg.wrap.wrapper import Wrapper, layers

#: AdamW's centre; decay is stated at this learning rate (see `Contestant.decay`)
REFERENCE_LR = 3e-3

#: how a class decays weights: it shrinks them (p ← p − lr·λ·p), does so in its own way, or not at all
Decay = Literal["decoupled", "its own way", "none"]


@dataclass(frozen=True)
class Traits:
    """What was found out about a class by trying it on a tiny model.

    Attributes:
        decay: how its ``weight_decay`` acts.
        one_group: whether it takes one parameter group only, so that there is no second learning rate to tune.
        closure: whether its step asks for the loss itself, so that a step takes several passes.
    """

    decay: Decay = "decoupled"
    one_group: bool = False
    closure: bool = False


@dataclass(frozen=True)
class Wrap:
    """A wrapper around the optimizer: its class in ``thalweg.wrap``, and what it is given."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """What a run sets: the learning rates, the decay as handed to the optimizer, and further hyperparameters."""

    lr: float
    multiplier: float = 1.0
    weight_decay: float = 0.0
    extra: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class TransferredSetting:
    """A setting that was found in another race, of the same task at another size.

    Attributes:
        lr, multiplier, extra: as the search found them.
        decay: its strength, as :meth:`Contestant.decay` takes it.
        parameters: of the model on which it was found.
        base: of the parameters of that model the shapes by name, for muP; empty where rates stay as they are.
        like: how updates scale with the gradient, for muP.
    """

    lr: float
    multiplier: float = 1.0
    decay: float = 0.0
    extra: tuple[tuple[str, Any], ...] = ()
    parameters: int = 0
    base: tuple[tuple[str, tuple[int, ...]], ...] = ()
    like: Literal["adam", "sgd"] = "adam"

    def rules(self, decays: bool) -> list[Rule]:
        """What stands below the task's rules and above the race's.

        Args:
            decays: whether there is a weight decay, which follows the rates.
        """
        return [groups.MuP(dict(self.base), like=self.like, independent_decay=decays)] if self.base else []

    @property
    def identity(self) -> list[Any]:
        """Of a run, what is not in its learning rate: nothing where rates stay as they are."""
        return [["muP", self.like, self.base]] if self.base else []

    @property
    def told(self) -> str:
        """Where it comes from."""
        how = "transferred by muP" if self.base else "transferred unchanged"
        return f"tuned with {self.parameters:,} parameters and {how}"


@dataclass(frozen=True)
class Contestant:
    """An optimizer as it enters a race.

    Attributes:
        label: its name in this race.
        optimizer: class name in ``thalweg``, ``FILE.py:CLASS`` of a user's own, or ``MODULE:CLASS`` of a package.
        settings: fixed hyperparameters, other than lr, multiplier and weight decay.
        centre: middle of the geometric grid of learning rates; of a recipe its learning rate.
        knobs: further hyperparameters that ``thorough`` searches: name → values, the first one being the default.
        seed_offset: added to its verdict seeds (an A/A race with other seeds).
        code: hash of what defines the class, as it was when it was named; empty for one of the library.
        tuned: False for a present recipe: it runs as it was written, and is given no trial.
        lr_range: the learning rates to search in, both ends included; None for wherever the search leads.
        weight_decay: as handed to the optimizer, where the user fixed it; None where the race says.
        wraps: what stands around it, from the outside in.
        traits: what the class is like.
        carried: the setting that it races with, found elsewhere; None where this race looks for one.
    """

    label: str
    optimizer: str
    centre: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    knobs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    seed_offset: int = 0
    code: str = ""
    tuned: bool = True
    lr_range: tuple[float, float] | None = None
    weight_decay: float | None = None
    wraps: tuple[Wrap, ...] = ()
    traits: Traits = Traits()
    carried: TransferredSetting | None = None

    @property
    def searches(self) -> bool:
        """Whether the race looks for its setting."""
        return self.tuned and self.carried is None

    @property
    def transferred(self) -> str:
        """Where its setting comes from, if it was found elsewhere; a recipe's was not."""
        return self.carried.told if self.carried is not None and self.tuned else ""

    @property
    def file(self) -> str:
        """The user's file that defines the class; empty for one of the library or of a package."""
        return classes.file_of(self.optimizer)

    @property
    def rule(self) -> type[torch.optim.Optimizer]:
        """The class, without what stands around it."""
        return classes.find(self.optimizer)

    @property
    def ours(self) -> bool:
        """Whether its steps are the engine's: it is a rule of the library, or written as one."""
        return issubclass(self.rule, Optimizer)

    @property
    def own_step(self) -> bool:
        """Whether a step is code of its own: another's class, or a rule of a user's that overrides ``step``."""
        rule = self.rule
        return not (issubclass(rule, Optimizer) and (rule.step is Optimizer.step or self.library))

    @property
    def library(self) -> bool:
        """Whether the class is one of this library."""
        return self.rule.__module__.partition(".")[0] == "thalweg"

    @property
    def takes_model(self) -> bool:
        """Whether the class takes a whole model, and tells its parameters apart by itself."""
        rule = self.rule
        return issubclass(rule, Optimizer) and "sample" in rule.setup

    @property
    def shown(self) -> str:
        """The class as it stands beside the label: ``AdamW``, ``SAM(AdamW)``, ``torch.optim:NAdam``."""
        return self._wrapped(self.optimizer)

    @property
    def class_name(self) -> str:
        """The class without its place: ``Mine``, ``SAM(Mine)``."""
        return self._wrapped(self.optimizer.rpartition(":")[2])

    @property
    def given(self) -> dict[str, Any]:
        """All fixed settings; those of a wrapper under the names that they have in a parameter group."""
        around = {f"{one.name.lower()}_{key}": value for one in self.wraps for key, value in one.settings.items()}
        return {**self.settings, **around}

    @property
    def stated(self) -> dict[str, Any]:
        """All that was decided before the race: the fixed settings, a recipe's rate and decay, the range of rates."""
        low, high = self.lr_range or (0.0, 0.0)
        lr = {"lr": f"{low:g}..{high:g}"} if self.lr_range else {} if self.tuned else {"lr": self.centre}
        decay = {} if self.weight_decay is None else {"weight_decay": self.weight_decay}
        return {**self.given, **lr, **decay}

    @property
    def identity(self) -> list[Any]:
        """Everything about it that determines a run."""
        wraps = [[one.name, sorted(one.settings.items())] for one in self.wraps]
        known = [self.optimizer, self.code, sorted(self.settings.items()), wraps, self.tuned, repr(self.traits)]
        return known + (self.carried.identity if self.carried else [])

    @property
    def without_schedule(self) -> bool:
        """Whether it needs no schedule, but is told when its weights are to be evaluated."""
        return hasattr(self.rule, "eval")

    @property
    def multiplies(self) -> bool:
        """Whether it can have a second learning rate, for embeddings, head and vectors."""
        return self.tuned and not self.traits.one_group

    @property
    def decays(self) -> bool:
        """Whether the race searches its weight decay: it has one, and the user did not fix it."""
        return self.tuned and self.traits.decay != "none" and self.weight_decay is None

    def decay(self, strength: float) -> float:
        """The weight decay handed to the optimizer: at its centre everyone's weights shrink by the same part a step."""
        return strength * REFERENCE_LR / self.centre if self.weight_decay is None else self.weight_decay

    def build(
        self, over: list[dict[str, Any]], lr: float, settings: Mapping[str, Any], backend: str = "auto"
    ) -> torch.optim.Optimizer:
        """The optimizer over the race's parameter groups (see :func:`thalweg.groups.multiplied`)."""
        return self.make(*self._over(over, lr, settings, backend))

    def build_for(self, model: nn.Module, at: Point, **options: Any) -> torch.optim.Optimizer:
        """The optimizer of a model; the arguments as :meth:`arguments_for` takes them."""
        return self.make(*self.arguments_for(model, at, **options))

    def make(self, over: Any, arguments: Mapping[str, Any]) -> torch.optim.Optimizer:
        """Call the class's constructor, and stand the wrappers around what comes out."""
        rule: Any = self.rule
        return self._around(rule(over, **arguments))

    def arguments_for(
        self,
        model: nn.Module,
        at: Point,
        *,
        sample: Any = None,
        head: Sequence[str] | None = None,
        rules: Sequence[Rule] = (),
        backend: str = "auto",
    ) -> tuple[Any, dict[str, Any]]:
        """What the class's constructor is given for a model: parameters, groups or the model itself, and the settings.

        A tuned one is given the race's groups: hidden matrices with the decay; embeddings, head and vectors without it,
        at a multiple of the learning rate. A recipe is given all parameters in one group, as its user's script would:
        its weight decay acts on all of them, in the way of the class. So is a class that takes one group only; where
        that has several, Muon's way of telling matrices apart is the class's own.

        Args:
            model: freshly made.
            at: what this run sets.
            sample, head: as :func:`thalweg.groups.roles` takes them.
            rules: of the task's own; they stand above those of the race, and of a recipe.
            backend: of the engine, for a rule of the library.
        """
        decays = self.traits.decay != "none"
        rules = [*rules, *(self.carried.rules(decays) if self.carried else ())]
        extra, seen = dict(at.extra), {"sample": sample, "head": head}
        if self.multiplies or (rules and self.takes_model):
            by_role = groups.multiplied(model, at.lr, at.multiplier, at.weight_decay, rules=rules, **seen)
            if getattr(self.rule, "takes_blocks", False):
                hidden = [group for group in by_role if group["role"] == "hidden"]
                how = {**self.settings, **extra}.get("blocks")
                cut(hidden, model, how or DEFAULT, asked=bool(how), **seen)
            return self._over(by_role, at.lr, extra, backend)
        settings = {**self.settings, **extra, "lr": at.lr}
        decay: dict[str, Any] = {"weight_decay": at.weight_decay} if decays else {}
        settings |= decay
        if self.ours:
            settings["backend"] = backend
        if self.takes_model:
            return model, {**settings, **seen}
        over: list[Any] = [p for p in model.parameters() if p.requires_grad]
        if rules:
            over = [_unnamed(g) for g in groups.of(model, *rules, lr=at.lr, **(decay if self.carried else {}), **seen)]
        return over, settings

    def _over(
        self, over: list[dict[str, Any]], lr: float, settings: Mapping[str, Any], backend: str
    ) -> tuple[Any, dict[str, Any]]:
        """What the constructor is given for the race's groups: the keys that the class knows, and no others."""
        rule, given = self.rule, {"lr": lr, **self.settings, **settings}
        given.pop("blocks", None)  # the groups say which matrices each weight holds
        if not issubclass(rule, Optimizer):
            drop = {"role", *(("weight_decay",) if self.traits.decay == "none" else ())}
            return [{key: value for key, value in _unnamed(g).items() if key not in drop} for g in over], given
        if "use_muon" in rule.hypers:
            over = [{**g, "use_muon": g["role"] == "hidden", "flatten": True} for g in over]
        if rule.hypers["decoupled_weight_decay"].init and "decoupled_weight_decay" not in self.settings:
            over = [{**g, "decoupled_weight_decay": True} for g in over]
        return over, {**given, "backend": backend}

    def _wrapped(self, text: str) -> str:
        for one in reversed(self.wraps):
            text = f"{one.name}({text})"
        return text

    def _around(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        for one in reversed(self.wraps):
            wrapper: type[Wrapper] = getattr(wrap, one.name)
            optimizer = wrapper(optimizer, **one.settings)
        for layer in layers(optimizer):
            if hasattr(layer, "train"):  # some begin in the mode for evaluation
                layer.train()
        return optimizer


def _unnamed(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group without the names of its parameters, which not every class takes."""
    return {**group, "params": [p for _, p in group["params"]]}
