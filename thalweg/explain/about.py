"""Everything that is said of an optimizer, gathered from its class."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass, replace
from typing import Any

import torch

from thalweg.engine.optimizer import Optimizer
from thalweg.explain.cost import Cost, cost
from thalweg.explain.docstring import Words, words
from thalweg.explain.equations import Formula, formula, formula_of_vectors
from thalweg.explain.lineage import ancestors
from thalweg.explain.plain import plain
from thalweg.explain.symbols import numbers_of, symbols_in
from thalweg.ir.fields import Hyper, Interval, StateSpec
from thalweg.ir.fields import plain as plain_value
from thalweg.registry import find, wrappers


@dataclass(frozen=True)
class HyperInfo:
    """A hyperparameter: its symbol in the formula, its default, what it may be, whether that is on or off."""

    name: str
    symbol: str
    default: Any
    allowed: str
    doc: str
    flag: bool


@dataclass(frozen=True)
class Kept:
    """A state: its symbol in the formula, and what it is."""

    name: str
    symbol: str
    doc: str


@dataclass(frozen=True)
class Explanation:
    """An optimizer, explained.

    Attributes:
        name: of the class.
        text: what its docstring says; idea, adds, strength and weakness in Unicode, the rest in LaTeX.
        family: name of the file that it stands in; about: what that file holds.
        lineage: from the root of the family tree to it.
        reference: what its steps are compared with: torch's of the same name, or its paper.
        formula: None for a class that overrides the whole step; ``text.math`` is then all there is.
        of_vectors: that of tensors with fewer than two dimensions, where it is another.
        settings, kept: hyperparameters of its own, and states.
        flags: hyperparameters that choose between forms of the rule.
        cost: of a step; None for what stands around another optimizer.
    """

    name: str
    text: Words
    family: str
    about: str
    lineage: tuple[str, ...]
    reference: str
    formula: Formula | None
    of_vectors: Formula | None
    settings: tuple[HyperInfo, ...]
    kept: tuple[Kept, ...]
    flags: tuple[str, ...]
    cost: Cost | None

    def as_dict(self) -> dict[str, Any]:
        """As ``thalweg list --json`` gives it."""
        return {
            "name": self.name,
            "reference": self.reference,
            "paper": self.text.paper,
            "family": self.family,
            "parent": self.lineage[-2] if len(self.lineage) > 1 else None,
            "idea": self.text.idea,
            "flags": list(self.flags),
            "backends": list(self.cost.backends) if self.cost else [],
            "bytes_per_param": round(self.cost.state_bytes, 4) if self.cost else None,
            "passes": self.cost.passes if self.cost else None,
            "moved_bytes_per_param": self.cost.moved_bytes if self.cost else None,
            "flops_per_param": self.cost.flops if self.cost else None,
            "lr": next((s.default for s in self.settings if s.name == "lr"), None),
        }


def explain(optimizer: str | type[torch.optim.Optimizer] | torch.optim.Optimizer, **flags: Any) -> Explanation:
    """What an optimizer is: idea, formula, lineage, hyperparameters, cost, paper.

    >>> print(explain("sgd", momentum=0.9).formula.unicode)
    bₜ = μ bₜ₋₁ + (1 − τ [t > 1]) gₜ
    pₜ = pₜ₋₁ − γ bₜ

    Args:
        optimizer: a name, or a class: one of yours too. Of one of our optimizers that is made, what it is as it stands:
            with its transforms, and with the hyperparameters of its first group.
        flags: hyperparameters that shape the formula, such as ``nesterov=True``.

    Raises:
        ThalwegError: for an unknown name; it offers the nearest ones.
        TypeError, ValueError: for a flag that it does not have, or outside its range.
    """
    given: dict[str, Any] = {}
    if isinstance(optimizer, Optimizer):
        cls, group = optimizer.rule, optimizer.param_groups[0]
        flags = {**{name: plain_value(group[name]) for name in cls.hypers}, **flags}
        given = {name: value for name, value in flags.items() if cls.hypers[name].init}
    elif isinstance(optimizer, torch.optim.Optimizer):
        cls = type(optimizer)
    else:
        cls = find(optimizer) if isinstance(optimizer, str) else optimizer
    said = words(cls)
    text = replace(
        said,
        idea=plain(said.idea),
        adds=plain(said.adds),
        strength=plain(said.strength),
        weakness=plain(said.weakness),
        notes=tuple(map(_begun, said.notes)),
    )
    rule = cls if issubclass(cls, Optimizer) and cls.direction is not Optimizer.direction else None
    found = formula(rule, **flags) if rule else None
    of_vectors = formula_of_vectors(rule, **flags) if rule else None
    symbols = {key: symbol for form in (of_vectors, found) if form for key, symbol in form.symbols.items()}
    declared: dict[str, Hyper] = {**getattr(cls, "hypers", {}), **getattr(cls, "setup", {})}
    common = (*Optimizer.hypers.values(), *Optimizer.setup.values())
    own = [declared[name] for name in inspect.signature(cls).parameters if declared.get(name) not in (None, *common)]
    return Explanation(
        name=cls.__name__,
        text=text,
        family=cls.__module__.rpartition(".")[-1],
        about=(sys.modules[cls.__module__].__doc__ or "").split("\n")[0],
        lineage=tuple(ancestors(cls)),
        reference=_reference(cls, text),
        formula=found,
        of_vectors=of_vectors,
        settings=tuple(_setting(h, symbols) for h in own if h.init and not h.constant),
        kept=tuple(_kept(spec, symbols) for spec in getattr(cls, "states", {}).values() if _is_kept(spec, symbols)),
        flags=tuple(h.name for h in own if h.init and not h.constant and not h.setup and _shapes(h)),
        cost=None if cls in wrappers().values() else cost(cls, **given),
    )


def _begun(note: str) -> str:
    """A note that begins with a capital; a symbol, such as c or λ, keeps its letter."""
    return note[:1].upper() + note[1:] if re.match(r"[a-z]{2}", note) else note


def _reference(cls: type, text: Words) -> str:
    """torch's where torch has one of the same name."""
    return f"torch.optim.{cls.__name__}" if hasattr(torch.optim, cls.__name__) else text.citation


def _setting(h: Hyper, symbols: dict[str, str]) -> HyperInfo:
    keys = [f"{h.name}_{i}" for i in range(numbers_of(h))] if numbers_of(h) > 1 else [h.name]
    own = symbols_in(h.doc, len(keys))
    # one that this form of the rule has not, such as the momentum of SGD, is still in the formula of the paper
    shown = [symbols[key] for key in keys if symbols.get(key, h.name) != h.name] or own
    return HyperInfo(
        h.name,
        ", ".join(shown),
        h.default,
        _allowed(h),
        _meaning(h.doc, own),
        h.annotation == "bool",
    )


def _allowed(h: Hyper) -> str:
    if isinstance(h.within, Interval):
        return h.within.text
    if h.within is not None:
        return ", ".join(map(str, h.within))
    return "True, False" if h.annotation == "bool" else ""


def _shapes(h: Hyper) -> bool:
    """Whether it chooses between forms of the rule."""
    return h.annotation == "bool" or isinstance(h.within, tuple) or h.switchable


def _is_kept(spec: StateSpec, symbols: dict[str, str]) -> bool:
    """Whether this form of the rule has it."""
    return spec.name in symbols and spec.kind != "count"


def _kept(spec: StateSpec, symbols: dict[str, str]) -> Kept:
    return Kept(spec.name, symbols[spec.name], _meaning(spec.doc, symbols_in(spec.doc)))


def _meaning(doc: str, symbols: list[str]) -> str:
    """A doc without the symbols that it begins with, where they stand apart."""
    head = ", ".join(symbols)
    if symbols and doc.startswith(head) and doc[len(head) :][:1] in (",", ":", ";"):
        return doc[len(head) + 1 :].strip()
    return doc
