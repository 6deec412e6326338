"""A model as rules see it: every parameter once, under all its names, with where it is and what it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from torch import nn

from thalweg.groups.places import Kind, Place, Verdict, by_module, places_of
from thalweg.groups.roles import checked, known, matrix_types, verdicts
from thalweg.groups.twin import unwrapped

Heads = nn.Module | str | Iterable[nn.Module | str] | None
Types = type[nn.Module] | Iterable[type[nn.Module]]


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
    def at_sight(self) -> Verdict:
        """What its module and its shape tell, without a look at how it is used."""
        return by_module(self.parameter, list(self.places), self._view.types)


class View:
    """A model's parameters, frozen ones too, in the order of ``named_parameters()``.

    Args:
        model: any module; nothing of it is changed.
        sample, head, hidden: as :func:`thalweg.groups.roles` takes them.
    """

    def __init__(self, model: nn.Module, sample: Any = None, head: Heads = None, hidden: Types = ()) -> None:
        self.prefix, self.model = unwrapped(checked(model))
        self.types = matrix_types(hidden)
        self._sample, self._head, self._hidden = sample, head, hidden
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
    def verdicts(self) -> dict[str, Verdict]:
        """What each parameter is, by the first of its names; found at most once, by a trace or a run on the sample."""
        return verdicts(self.model, self._sample, self._head, self._hidden)

    def kind(self, param: Param) -> Kind:
        """What a parameter is."""
        kind, _ = param.at_sight
        if kind in ("vector", "embedding"):  # whatever it is used for
            return kind
        return known(self.model, self.verdicts, param.names[0], self._sample)[0]
