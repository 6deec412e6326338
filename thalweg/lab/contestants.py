"""Who may race: an optimizer class, what is fixed about it, and where its search starts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import thalweg
from thalweg import registry
from thalweg._base.errors import ThalwegError, unknown_name
from thalweg.engine.optimizer import Optimizer
from thalweg.lab.tasks import imports, user

#: AdamW's centre; decay is stated at this learning rate (see `Contestant.decay`)
REFERENCE_LR = 3e-3


@dataclass(frozen=True)
class Contestant:
    """An optimizer as it enters a race.

    Attributes:
        label: its name in this race.
        optimizer: class name in ``thalweg``, or ``FILE.py:CLASS`` of a user's own.
        settings: fixed hyperparameters, other than lr, multiplier and weight decay.
        centre: middle of the geometric grid of learning rates.
        knobs: further hyperparameters that ``thorough`` searches: name → values, the first one being the default.
        seed_offset: added to its verdict seeds (an A/A race with other seeds).
        code: hash of the user's files behind the class, as they were when it was named; empty for one of the library.
    """

    label: str
    optimizer: str
    centre: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    knobs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    seed_offset: int = 0
    code: str = ""

    @property
    def file(self) -> str:
        """The user's file that defines the class; empty for one of the library."""
        return self.optimizer.rpartition(":")[0]

    @property
    def rule(self) -> type[Optimizer]:
        """The class."""
        name = self.optimizer.rpartition(":")[2]
        rule: type[Optimizer] = user.defined_in(self.file, name, Optimizer) if self.file else getattr(thalweg, name)
        return rule

    @property
    def without_schedule(self) -> bool:
        """Whether it needs no schedule, but is told when its weights are to be evaluated."""
        return hasattr(self.rule, "eval")

    def decay(self, strength: float) -> float:
        """The weight decay handed to the optimizer: at its centre everyone's weights shrink by the same part a step."""
        return strength * REFERENCE_LR / self.centre

    def build(
        self, groups: list[dict[str, Any]], lr: float, settings: Mapping[str, Any], backend: str = "auto"
    ) -> Optimizer:
        """The optimizer over the race's parameter groups (see :func:`thalweg.groups.multiplied`)."""
        rule: Any = self.rule
        if self.optimizer == "Muon":
            groups = [{**g, "use_muon": g["role"] == "hidden", "flatten": True} for g in groups]
        if rule.hypers["decoupled_weight_decay"].init:
            groups = [{**g, "decoupled_weight_decay": True} for g in groups]
        optimizer: Optimizer = rule(groups, lr=lr, backend=backend, **{**self.settings, **settings})
        return optimizer


_ADAPTIVE = {"betas": ((0.9, 0.95), (0.9, 0.999)), "eps": (1e-8, 1e-3)}

CONTESTANTS: dict[str, Contestant] = {
    c.label: c
    for c in (
        Contestant("sgd", "SGD", 1.0),
        Contestant("momentum", "SGD", 0.1, {"momentum": 0.9, "nesterov": True}, {"momentum": (0.9, 0.95)}),
        Contestant("rmsprop", "RMSprop", 3e-3, {"alpha": 0.95}, {"alpha": (0.95, 0.99), "eps": (1e-8, 1e-3)}),
        Contestant("adam", "Adam", 3e-3, {"betas": (0.9, 0.95)}, _ADAPTIVE),
        Contestant("adamw", "AdamW", 3e-3, {"betas": (0.9, 0.95)}, _ADAPTIVE),
        Contestant("adamw-bf16", "AdamW", 3e-3, {"betas": (0.9, 0.95), "state_dtype": "bfloat16"}, _ADAPTIVE),
        Contestant("adamw-int8", "AdamW", 3e-3, {"betas": (0.9, 0.95), "state_dtype": "int8"}, _ADAPTIVE),
        Contestant("muon", "Muon", 1e-2, {"adjust_lr_fn": "match_rms_adamw"}, {"betas": _ADAPTIVE["betas"]}),
    )
}

_ENTRY = re.compile(r"(?:(?P<label>[\w.-]+)=)?(?P<name>[\w-]+|[^=@]+\.py:\w+)(?:@(?P<offset>\d+))?")


def parse(entry: str) -> Contestant:
    """``adamw``; ``twin=adamw`` (under another name); ``twin=adamw@50`` (and with other verdict seeds).

    A name is one of :data:`CONTESTANTS`, any other optimizer of the library, or ``my_file.py:MyOptimizer``.

    Raises:
        ThalwegError: for an unknown optimizer (the nearest names are offered), one that the race's loop cannot train,
            or another form.
    """
    match = _ENTRY.fullmatch(entry.strip())
    if match is None:
        raise ThalwegError(
            f"--optimizers: {entry!r} is not NAME, LABEL=NAME or LABEL=NAME@OFFSET, where NAME may be FILE.py:CLASS"
        )
    known = CONTESTANTS.get(match["name"].lower()) or _another(match["name"])
    return replace(known, label=match["label"] or known.label, seed_offset=int(match["offset"] or 0))


def _another(name: str) -> Contestant:
    """One that has no row of its own: its search starts at its default learning rate."""
    file, _, cls = name.rpartition(":")
    if file:
        found = Contestant(cls.lower(), f"{Path(file).expanduser().resolve()}:{cls}", 1.0)
    else:
        try:
            found = Contestant(name.lower(), registry.find(name).__name__, 1.0)
        except ThalwegError:
            raise unknown_name("optimizer", name, {*CONTESTANTS, *map(str.lower, registry.optimizers())}) from None
    rule = found.rule
    if not issubclass(rule, Optimizer):
        raise ThalwegError(
            f"{rule.__name__} does not race: its step asks for the loss again and again, or wraps another"
        )
    if hasattr(rule, "take_hessian"):
        raise ThalwegError(
            f"{rule.__name__} does not race: it needs estimates of curvature, which the loop does not make"
        )
    lr = rule.hypers["lr"].default if "lr" in rule.hypers else None
    if not lr:
        raise ThalwegError(f"{rule.__name__} does not race: found lr = {lr}; expected a default above 0 to search from")
    return replace(found, centre=float(lr), code=imports.code(found.file) if file else "")


def parse_all(entries: Iterable[str], baseline: str) -> list[Contestant]:
    """The field of a race, the baseline first.

    Raises:
        ThalwegError: for two of one label, or a baseline that does not race.
    """
    field_ = [parse(entry) for entry in entries]
    labels = [c.label for c in field_]
    for label in labels:
        if labels.count(label) > 1:
            raise ThalwegError(f"--optimizers names {label!r} twice; give one another label: twin={label}")
    if baseline not in labels:
        raise ThalwegError(f"--baseline {baseline!r} is not among the optimizers of this race: {', '.join(labels)}")
    return sorted(field_, key=lambda c: c.label != baseline)
