"""Which layer makes the output: as given, as seen, or as guessed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from torch import nn

from thalweg._base.errors import bad_argument
from thalweg.groups.flow import Flow
from thalweg.groups.places import EMBEDDINGS, INNER, places_of

Head = nn.Module | str


@dataclass(frozen=True)
class Output:
    """What makes a model's output.

    Attributes:
        heads: names of the parameters that make it.
        beside: names of those nearest to it that do not make it alone: at the end of a residual block, say.
        source: how that is known, as a phrase.
    """

    heads: AbstractSet[str]
    beside: AbstractSet[str]
    source: str


def given(model: nn.Module, head: Head | Iterable[Head]) -> Output:
    """The output layers that the user names.

    Raises:
        ValueError: for a name or a module that the model does not have.
    """
    heads = [head] if isinstance(head, (nn.Module, str)) else list(head)
    chosen = {id(p) for one in heads for p in _module(model, one).parameters()}
    named = {name for name, p in model.named_parameters() if id(p) in chosen and p.ndim >= 2}
    if heads and not named:
        raise bad_argument("head", _shown(heads), "modules that own a matrix")
    return Output(named, frozenset(), "as given")


def seen(model: nn.Module, flow: Flow, layers: AbstractSet[str]) -> Output:
    """The layers nearest to the output in a forward pass; ``layers``: names of all matrices and embeddings."""
    heads, beside = flow.makers(layers)
    inner = _inner(model)
    return Output(heads - inner, beside | (heads & inner), f"seen in {flow.source}")


def guessed(model: nn.Module, matrices: AbstractSet[str]) -> Output:
    """The last registered module that owns a matrix and could be one; none where a tied embedding makes the output."""
    tied = (places for places in places_of(model).values() if len(places) > 1)
    if any(any(isinstance(place.module, EMBEDDINGS) for place in places) for places in tied):
        return Output(frozenset(), frozenset(), "")
    inner = _inner(model)
    for module_name, module in reversed(list(model.named_modules())):
        own = {f"{module_name}.{name}".removeprefix(".") for name, _ in module.named_parameters(recurse=False)}
        if heads := (own & matrices) - inner:
            return Output(heads, frozenset(), "guessed: the last registered matrix; pass sample=… to be sure")
    return Output(frozenset(), frozenset(), "")


def _inner(model: nn.Module) -> set[str]:
    """Names of what belongs to recurrent layers and torch's Transformer layers, which make no output by themselves."""
    inside = {id(p) for module in model.modules() if isinstance(module, INNER) for p in module.parameters()}
    return {name for name, p in model.named_parameters() if id(p) in inside}


def _module(model: nn.Module, head: Head) -> nn.Module:
    known = dict(model.named_modules(remove_duplicate=False))
    found = known.get(head) if isinstance(head, str) else next((one for one in known.values() if one is head), None)
    if found is None:
        near = difflib.get_close_matches(_shown([head]), known, n=3)
        remedy = f"Did you mean {' or '.join(near)}?" if near else "model.named_modules() lists them"
        raise bad_argument("head", _shown([head]), "modules of the model, or their dotted names", remedy)
    return found


def _shown(heads: Iterable[Head]) -> str:
    return ", ".join(one if isinstance(one, str) else type(one).__name__ for one in heads)
