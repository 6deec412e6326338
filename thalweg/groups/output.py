"""Which layer makes the output: as given, as seen, or as guessed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from torch import nn

from thalweg._base.errors import bad_argument
from thalweg._base.given import many
from thalweg.groups.evidence import ForwardEvidence
from thalweg.groups.places import EMBEDDINGS, INNER, places_of

Head = nn.Module | str
_HEADS = "modules of the model, or their dotted names"


@dataclass(frozen=True)
class Output:
    """What makes a model's output.

    Attributes:
        heads: names of the parameters that make it.
        beside: names of those nearest to it that do not make it alone: at the end of a residual block, say.
        source: how that is known, as a phrase.
        placed: of ``heads``, those that no pass has met, but that stand where heads stand.
        guess: what was guessed, as a phrase; empty where nothing was.
    """

    heads: AbstractSet[str]
    beside: AbstractSet[str]
    source: str
    placed: AbstractSet[str] = frozenset()
    guess: str = ""


def given(model: nn.Module, head: Head | Iterable[Head]) -> Output:
    """The output layers that the user names.

    Raises:
        ValueError: for a name or a module that the model does not have.
    """
    heads = [head] if isinstance(head, (nn.Module, str)) else list(many("head", head, _HEADS))
    chosen = {id(p) for one in heads for p in _module(model, one).parameters()}
    named = {name for name, p in model.named_parameters() if id(p) in chosen and p.ndim >= 2}
    if heads and not named:
        raise bad_argument("head", _shown(heads), "modules that own a matrix")
    return Output(named, frozenset(), "as given")


def seen(model: nn.Module, evidence: ForwardEvidence, layers: AbstractSet[str], matrices: AbstractSet[str]) -> Output:
    """The layers nearest to the output in a forward pass, and those that it does not meet but that are placed alike.

    Args:
        model: the module.
        evidence: what was seen of it.
        layers: names of all matrices and embeddings; ``matrices``: of those that may be a head.
    """
    heads, beside = evidence.makers(layers)
    inner = _inner(model)
    unmet = set() if evidence.hides else matrices - evidence.met - inner
    placed = _placed_alike(model, heads - inner, unmet) | _ends_beside(model, heads - inner, unmet)
    made = (heads - inner) | placed
    return Output(made, beside | (heads & inner), f"seen in {evidence.source}", placed)


def guessed(model: nn.Module, matrices: AbstractSet[str]) -> Output:
    """What the model calls its output; else the last registered module that owns a matrix and could be one; none where
    a tied embedding makes the output."""
    last = _output_embeddings(model, matrices)
    said = "what get_output_embeddings() gives" if last else "the last registered matrix"
    tied = (places for places in places_of(model).values() if len(places) > 1)
    if not last and any(any(isinstance(place.module, EMBEDDINGS) for place in places) for places in tied):
        return Output(frozenset(), frozenset(), "", guess="no matrix, since an embedding is tied with one")
    last = last or _last(model, matrices)
    if not last:
        return Output(frozenset(), frozenset(), "")
    heads = last | _placed_alike(model, last, matrices - _inner(model), (nn.ModuleDict,))
    guess = f"{', '.join(sorted(heads))}, {said}"
    return Output(heads, frozenset(), f"guessed: {said}; pass sample=… to be sure", guess=guess)


def _last(model: nn.Module, matrices: AbstractSet[str]) -> set[str]:
    inner = _inner(model)
    for module_name, module in reversed(list(model.named_modules())):
        own = {f"{module_name}.{name}".removeprefix(".") for name, _ in module.named_parameters(recurse=False)}
        if heads := (own & matrices) - inner:
            return heads
    return set()


def _output_embeddings(model: nn.Module, matrices: AbstractSet[str]) -> set[str]:
    """Names of the matrices of the layer that a model of ``transformers`` says makes its output."""
    try:
        layer = model.get_output_embeddings()  # type: ignore[operator]
    except Exception:  # it has none, or whatever a user's method may raise
        return set()
    own = {id(p) for p in layer.parameters()} if isinstance(layer, nn.Module) else set()
    return {name for name, p in model.named_parameters() if id(p) in own} & matrices


_CONTAINERS = (nn.ModuleDict, nn.ModuleList, nn.Sequential)


def _placed_alike(
    model: nn.Module, heads: AbstractSet[str], among: AbstractSet[str], containers: tuple[type, ...] = _CONTAINERS
) -> set[str]:
    """Those whose name is that of a head but for which child of a container it is in, and that take as many inputs."""
    shapes = {name: p.shape for name, p in model.named_parameters()}
    slots = {(slot, shapes[name][1:]) for name in heads for slot in _slots(model, name, containers)}
    return {
        name for name in among if any((slot, shapes[name][1:]) in slots for slot in _slots(model, name, containers))
    }


def _slots(model: nn.Module, name: str, containers: tuple[type, ...]) -> list[str]:
    """A parameter's name with a star for one child of a container: ``heads.*.weight``."""
    parts, modules = name.split("."), dict(model.named_modules(remove_duplicate=False))
    return [
        ".".join((*parts[:i], "*", *parts[i + 1 :]))
        for i in range(len(parts) - 1)
        if isinstance(modules.get(".".join(parts[:i])), containers)
    ]


def _ends_beside(model: nn.Module, heads: AbstractSet[str], unmet: AbstractSet[str]) -> set[str]:
    """The last matrices of parts that no pass has met, beside a head or around it, that give or take as many numbers.

    So are the heads of further tasks, and those that only training runs.
    """
    shapes = {name: p.shape for name, p in model.named_parameters()}
    sizes = {(side, size) for name in heads for side, size in _sides(shapes[name])}
    found: set[str] = set()
    for part in _parts_within(model, unmet):
        around = f"{part.rpartition('.')[0]}.".removeprefix(".")
        last = next(reversed([name for name in shapes if name in unmet and name.startswith(f"{part}.")]))
        if any(head.startswith(around) for head in heads) and sizes.intersection(_sides(shapes[last])):
            found.add(last)
    return found


def _sides(shape: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    return [("gives", tuple(shape[:1])), ("takes", tuple(shape[1:]))]


def _parts_within(model: nn.Module, names: AbstractSet[str]) -> list[str]:
    """The outermost modules whose matrices are all among those named."""
    found: list[str] = []
    for name, module in model.named_modules():
        inside = {f"{name}.{p}" for p, x in module.named_parameters() if x.ndim > 1}
        if name and inside and inside <= names and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found


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
        raise bad_argument("head", _shown([head]), _HEADS, remedy)
    return found


def _shown(heads: Iterable[Head]) -> str:
    return ", ".join(one if isinstance(one, str) else type(one).__name__ for one in heads)
