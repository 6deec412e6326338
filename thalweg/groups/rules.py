"""Rules: which parameters, and what they get."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from thalweg._base.errors import bad_argument, raised
from thalweg.groups.view import Param, View

#: which parameters: a glob of names, a type of module, a module, a parameter, a predicate, or several of these
Where = str | type[nn.Module] | nn.Module | nn.Parameter | Callable[[Param], bool] | Iterable["Where"]
#: what one parameter gets, and why; None where the rule does not match
Effect = tuple[Mapping[str, Any], str] | None


@dataclass(frozen=True)
class times:  # noqa: N801 - it reads as a word: Rule("head.*", lr=times(10))
    """A factor in the place of a value: of what the rules below, or the defaults, say.

    Args:
        factor: a number in [0, ∞).

    Raises:
        ValueError: for any other.
    """

    factor: float

    def __post_init__(self) -> None:
        number = isinstance(self.factor, (int, float)) and not isinstance(self.factor, bool)
        if not (number and 0 <= self.factor < math.inf):
            raise bad_argument("factor", self.factor, "a number in [0, ∞)")


class Rule:
    """What the parameters that match get: ``Rule("*.bias", weight_decay=0)``.

    See :func:`thalweg.groups.of` for how rules are read together.

    Args:
        where: one of these, or several in a list, any of which may match:

            - a glob of whole names, as ``model.named_parameters()`` has them: ``"layers.?.*"``, ``"*.bias"``. ``*``
              stands for anything, dots too. A tied parameter goes by each of its names.
            - a type of module: all parameters in modules of that type, and in the modules inside those;
            - a module, for all that is in it, or a parameter;
            - a predicate: a function of a :class:`~thalweg.groups.Param` (name, parameter, module, kind, …).
        settings: values of a parameter group (``lr=1e-4``), or factors of what is decided further down
            (``lr=times(0.1)``).

    Raises:
        ValueError: for a ``where`` of another type, or without any setting.
    """

    #: whether it may match nothing
    optional = False

    def __init__(self, where: Where, /, **settings: Any) -> None:
        if not settings:
            raise bad_argument("settings", settings, "at least one hyperparameter, such as lr=1e-4")
        if bad := [key for key in ("params", "param_names") if key in settings]:
            raise bad_argument(bad[0], settings[bad[0]], "no setting: where says which parameters")
        if isinstance(where, Iterable) and not isinstance(where, (str, nn.Module, nn.Parameter)):
            where = tuple(where)  # a generator serves once only
        self.where = _checked(where)
        self.settings = settings

    @property
    def keys(self) -> frozenset[str]:
        """The hyperparameters that it may decide."""
        return frozenset(self.settings)

    def bind(self, view: View) -> Callable[[Param], Effect]:
        """This rule for one model: what a parameter gets, and why."""
        matches, why = _matcher(self.where, view), shown(self.where)
        return lambda param: (self.settings, why) if matches(param) else None

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{type(self).__name__}({shown(self.where)}, {settings})"


def shown(where: Where) -> str:
    """A ``where`` as its author spelt it, about."""
    if isinstance(where, str):
        return repr(where)
    if isinstance(where, nn.Parameter):
        return f"a parameter {tuple(where.shape)}"
    if isinstance(where, nn.Module):
        return f"a {type(where).__name__}"
    if isinstance(where, Iterable) and not isinstance(where, type):
        return f"[{', '.join(map(shown, where))}]"
    return str(getattr(where, "__qualname__", type(where).__name__)).rpartition("<locals>.")[2]


def _checked(where: Where) -> Where:
    if isinstance(where, tuple):
        for one in where:
            _checked(one)
        if not where:
            raise bad_argument("where", where, "at least one pattern, type, module, parameter or predicate")
    elif not (isinstance(where, str) or callable(where) or isinstance(where, nn.Parameter)) or (
        isinstance(where, type) and not issubclass(where, nn.Module)
    ):
        raise bad_argument("where", where, "a glob of names, a type of module, a module, a parameter, or a predicate")
    return where


def _matcher(where: Where, view: View) -> Callable[[Param], bool]:
    if isinstance(where, str):
        return lambda p: any(fnmatch.fnmatchcase(name, where) for name in (p.name, *p.names))
    if isinstance(where, type):
        return _inside([module for module in view.model.modules() if isinstance(module, where)])
    if isinstance(where, nn.Module):
        return _inside([where])
    if isinstance(where, nn.Parameter):
        return lambda p: p.parameter is where
    if isinstance(where, Iterable):
        matchers = [_matcher(one, view) for one in where]
        return lambda p: any(matches(p) for matches in matchers)
    return lambda p: _holds(where, p)


def _holds(where: Callable[[Param], bool], p: Param) -> bool:
    """What a predicate says; that a kind cannot be seen, which ``p.kind`` raises, is an error as it is."""
    try:
        return bool(where(p))
    except ValueError:
        raise
    except Exception as error:  # whatever a user's function may raise
        raise raised("where", where, f"{p.name}, of shape {tuple(p.parameter.shape)}", error) from error


def _inside(modules: Iterable[nn.Module]) -> Callable[[Param], bool]:
    ids = {id(p) for module in modules for p in module.parameters()}
    return lambda p: id(p.parameter) in ids
