"""A model as rules see it: every parameter once, under all its names, with where it is and what it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from torch import nn

from thalweg.groups.evidence import ForwardEvidence
from thalweg.groups.flow import Layout
from thalweg.groups.output import Output
from thalweg.groups.places import Kind, Place, Verdict, by_module, is_transposed, places_of
from thalweg.groups.roles import (
    Heads,
    Types,
    by_use,
    checked,
    known,
    matrix_types,
    notes,
    see,
    transposed,
    verdicts,
    warn,
)
from thalweg.groups.twin import unwrapped

_MATRICES = ("hidden", "head")


@dataclass(frozen=True, eq=False)
class Param:
    """One parameter as a rule sees it.

    Attributes:
        name: as in ``model.named_parameters()``.
        names: all its names (several where it is tied), without what torch.compile or DDP put in front.
        parameter: itself.
        places: the modules that hold it.
        settings: the hyperparameters that earlier rules have decided for it.
    """

    name: str
    names: tuple[str, ...]
    parameter: nn.Parameter
    places: tuple[Place, ...]
    settings: Mapping[str, Any]
    _view: View = field(repr=False)

    @property
    def module(self) -> nn.Module:
        """The module that holds it; the first, where it is tied."""
        return self.places[0].module

    @property
    def kind(self) -> Kind:
        """What it is, as :func:`thalweg.groups.roles` tells.

        Raises:
            ValueError: where that cannot be seen.
        """
        return self._view.kind(self)

    @property
    def embeds(self) -> bool:
        """Whether it is an embedding, by module or by use.

        Raises:
            ValueError: where that cannot be seen.
        """
        return self._view.embeds(self)

    @property
    def at_sight(self) -> Verdict:
        """What its module and its shape tell, without a look at how it is used."""
        return by_module(self.parameter, list(self.places), self._view.types)

    @property
    def transposed(self) -> bool:
        """Whether it is a matrix or kernel that is kept as (in, out, …)."""
        asks = self.at_sight[0] != "vector" and is_transposed(self.parameter, list(self.places)) is None
        evidence = self._view.evidence if asks else None
        return transposed(self.parameter, list(self.places), evidence, self.names[0])

    @property
    def unsure(self) -> bool:
        """Whether it is of two dimensions, and neither its module nor its use tells which way these are kept."""
        told = is_transposed(self.parameter, list(self.places)) is not None
        evidence = self._view.evidence
        return self.parameter.ndim == 2 and not told and not (evidence and evidence.first_layout(self.names[0]))

    @property
    def layout(self) -> Layout | None:
        """Its dimensions that are summed over with activations, and those that the result has, where that is seen."""
        return self._view.evidence.layout(self.names[0]) if self._view.evidence else None

    @property
    def scales(self) -> bool:
        """Whether all that it does is to scale activations one by one, as a gain."""
        return self._view.evidence is not None and self._view.evidence.uses(self.names[0]) == {"scale"}


class View:
    """A model's parameters, frozen ones too, in the order of ``named_parameters()``.

    Args:
        model: any module; nothing of it is changed.
        sample, head, hidden: as :func:`thalweg.groups.roles` takes them.
    """

    def __init__(self, model: nn.Module, sample: Any = None, head: Heads = None, hidden: Types = ()) -> None:
        self.prefix, self.model = unwrapped(checked(model))
        self.types = matrix_types(hidden)
        self._sample, self._head, self._has_warned = sample, head, False
        names: dict[int, list[str]] = defaultdict(list)
        for name, p in self.model.named_parameters(remove_duplicate=False):
            names[id(p)].append(name)
        places = places_of(self.model)
        self.params = [
            Param(self.prefix + name, tuple(names[id(p)]), p, tuple(places[id(p)]), MappingProxyType({}), self)
            for name, p in self.model.named_parameters()
        ]

    def inside(self, module_name: str) -> set[str]:
        """The parameters in a module, by the first of their names."""
        prefix = f"{module_name}." if module_name else ""
        return {param.names[0] for param in self.params if param.names[0].startswith(prefix)}

    @cached_property
    def evidence(self) -> ForwardEvidence | None:
        """What is seen of a forward pass; looked for at most once."""
        return see(self.model, self._sample, self.types)

    @cached_property
    def _used(self) -> dict[str, Verdict]:
        return by_use(self.model, self.evidence, self.types)

    @cached_property
    def _found(self) -> tuple[dict[str, Verdict], Output]:
        return verdicts(self.model, self.evidence, self._head, self._used)

    def _warn_once(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            warn(self.model, self._found[1])

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What each parameter is, by the first of its names; found at most once, by a trace or a run on the sample."""
        self._warn_once()
        return self._found[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed, or never met, in what rules have asked for."""
        if "_found" not in vars(self):
            return ()
        unsure = [
            param.names[0] for param in self.params if self._found[0][param.names[0]][0] in _MATRICES and param.unsure
        ]
        turns = [f"taken to be kept as (out, in), which no use tells: {', '.join(unsure)}"] if unsure else []
        return (*notes(*self._found, self.evidence), *turns)

    def embeds(self, param: Param) -> bool:
        """Whether a parameter is an embedding, whatever makes the output."""
        if param.at_sight[0] in ("vector", "embedding"):
            return param.at_sight[0] == "embedding"
        return known(self.model, self._used, param.names[0], self._sample)[0] == "embedding"

    def kind(self, param: Param) -> Kind:
        """What a parameter is; where that hangs on what makes the output, a guess is warned of."""
        kind, _ = param.at_sight
        if kind in ("vector", "embedding"):  # whatever it is used for
            return kind
        found = known(self.model, self._found[0], param.names[0], self._sample)[0]
        self._warn_once()
        return found
