"""What each parameter is in its model: a hidden matrix, an embedding, the output head, a vector, or something else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from thalweg._base.errors import bad_argument
from thalweg.groups.flow import Flow, by_running, by_tracing

Kind = Literal["hidden", "embedding", "head", "vector", "other"]

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
NORMS = (
    *(nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm),
    *(nn.modules.batchnorm._NormBase,),  # BatchNorm and InstanceNorm of every dimension
)
MATRICES = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


@dataclass(frozen=True)
class Role:
    """One parameter, what it is, and why that was concluded."""

    name: str
    parameter: nn.Parameter
    kind: Kind
    why: str


@dataclass(frozen=True)
class _Place:
    """Where a parameter is registered."""

    name: str
    module: nn.Module
    module_name: str


def roles(
    model: nn.Module,
    sample: Any = None,
    *,
    head: Iterable[nn.Module | str] | None = None,
    hidden: Iterable[type[nn.Module]] = (),
) -> list[Role]:
    """What every trainable parameter is, each exactly once, in the order of ``named_parameters()``.

    In this order: fewer than two dimensions, or of a norm: a *vector*. In (or tied with) an ``nn.Embedding``: an
    *embedding*. A matrix that makes the output: the *head*. A weight of a linear, convolutional, recurrent or attention
    layer: *hidden*. A parameter of another module is what it is used as: multiplied with activations (a matrix) or
    looked up or added (an *embedding*).

    Which layer makes the output is seen by running the model on ``sample``; else by tracing it symbolically; else the
    last registered matrix is taken for it, unless parameters are tied. A model that ends in a residual block has that
    block's last matrix as its head.

    Args:
        model: any module; it is not changed.
        sample: a tensor, a tuple of positional arguments, or a dict of keyword arguments, for which the model runs.
        head: the output layers, by module or dotted name, where you know better.
        hidden: further module types whose weights are matrices.

    Raises:
        ValueError: for a matrix of an unknown module whose use could not be seen; it says what to pass.
    """
    places = _places(model)
    flow = by_running(model, sample) if sample is not None else by_tracing(model)
    found: dict[str, Role] = {}
    matrices: dict[str, str] = {}
    unknown: list[str] = []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        kind, why = _by_place(p, places[id(p)], (*MATRICES, *hidden))
        if kind == "matrix" or (kind == "unknown" and flow is not None and _multiplied(flow, name)):
            matrices[name] = why
        elif kind == "unknown" and flow is not None and name in flow.others:
            found[name] = Role(name, p, "embedding", f"{why}, looked up or added")
        elif kind == "unknown":
            unknown.append(f"{name} {tuple(p.shape)} of {type(places[id(p)][0].module).__name__}")
        else:
            found[name] = Role(name, p, kind, why)  # type: ignore[arg-type]
    if unknown:
        raise bad_argument(
            "model",
            ", ".join(unknown),
            "matrices whose use can be seen",
            "Pass sample=… (an input that the model runs on), or hidden=(ModuleType,) if they are matrices, or put "
            "them into a parameter group of your own",
        )
    embeddings = {name for name, role in found.items() if role.kind == "embedding"}
    heads, source = _heads(model, flow, set(matrices), embeddings, head)
    parameters = dict(model.named_parameters())
    for name, why in matrices.items():
        makes_output = name in heads
        reason = f"{why}, makes the output ({source})" if makes_output else why
        found[name] = Role(name, parameters[name], "head" if makes_output else "hidden", reason)
    return [found[name] for name in parameters if name in found]


def describe(found: Iterable[Role]) -> str:
    """A table of roles to read before training: name, shape, kind, why."""
    rows = [(r.name, "×".join(map(str, r.parameter.shape)) or "scalar", r.kind, r.why) for r in found]
    widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else [0, 0, 0]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows
    )


def _places(model: nn.Module) -> dict[int, list[_Place]]:
    """Where each parameter is registered; in several places if it is tied."""
    places: dict[int, list[_Place]] = {}
    for module_name, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            places.setdefault(id(p), []).append(_Place(name, module, module_name))
    return places


def _by_place(p: nn.Parameter, places: list[_Place], matrices: tuple[type, ...]) -> tuple[Kind | str, str]:
    """The kind, ``"matrix"`` or ``"unknown"``, by dimensions and by the modules that own it."""
    first = places[0]
    weight = f"{first.name} of {type(first.module).__name__}"
    if p.ndim < 2:
        return "vector", "a scalar" if p.ndim == 0 else "one dimension"
    if any(isinstance(place.module, NORMS) for place in places):
        return "vector", weight
    if any(isinstance(place.module, EMBEDDINGS) for place in places):
        tied = [place.module_name for place in places if not isinstance(place.module, EMBEDDINGS)]
        return "embedding", f"weight of an embedding, tied with {', '.join(tied)}" if tied else weight
    if isinstance(first.module, nn.Bilinear):
        return "other", f"{weight}, a stack of matrices"
    if any(isinstance(place.module, matrices) for place in places):
        if isinstance(first.module, nn.MultiheadAttention) and first.name.startswith("bias"):
            return "vector", weight
        return "matrix", weight
    return "unknown", weight


def _multiplied(flow: Flow, name: str) -> bool:
    return any(name in names for names in flow.products.values())


def _heads(
    model: nn.Module,
    flow: Flow | None,
    matrices: set[str],
    embeddings: set[str],
    head: Iterable[nn.Module | str] | None,
) -> tuple[set[str], str]:
    """Names of the matrices that make the output, and how that is known; none where a tied embedding makes it."""
    if head is not None:
        return _named(model, head, matrices), "as given"
    if flow is not None and flow.outputs:
        return flow.nearest(matrices | embeddings) & matrices, f"seen in {flow.source}"
    if any(len(places) > 1 for places in _places(model).values()):
        return set(), ""
    last = [name for name, _ in model.named_parameters() if name in matrices][-1:]
    return set(last), "the last registered matrix; pass sample=… to be sure"


def _named(model: nn.Module, head: Iterable[nn.Module | str], matrices: set[str]) -> set[str]:
    modules = [model.get_submodule(one) if isinstance(one, str) else one for one in head]
    chosen = {id(p) for module in modules for p in module.parameters()}
    return {name for name, p in model.named_parameters() if id(p) in chosen and name in matrices}
