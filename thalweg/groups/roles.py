"""What each parameter is in its model: a hidden matrix, an embedding, the output head, a vector, or something else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from thalweg._base.errors import bad_argument
from thalweg.groups import output
from thalweg.groups.flow import Flow
from thalweg.groups.places import MATRICES, Kind, Verdict, by_module, places_of
from thalweg.groups.running import by_running
from thalweg.groups.tracing import by_tracing
from thalweg.groups.twin import unwrapped


@dataclass(frozen=True)
class Role:
    """One parameter, what it is, and why that was concluded."""

    name: str
    parameter: nn.Parameter
    kind: Kind
    why: str


def roles(
    model: nn.Module,
    sample: Any = None,
    *,
    head: nn.Module | str | Iterable[nn.Module | str] | None = None,
    hidden: type[nn.Module] | Iterable[type[nn.Module]] = (),
) -> list[Role]:
    """What every trainable parameter is, each exactly once, in the order of ``named_parameters()``.

    In this order:

    - fewer than two dimensions, or of a norm: a *vector*;
    - of an ``nn.Embedding``, or tied with one, or looked up in another way: an *embedding*;
    - a matrix that makes the output: the *head*;
    - of a linear, convolutional, recurrent or attention layer, or of a type in ``hidden``: *hidden*;
    - of another module, what it is used as: a matrix (or kernel) that activations are multiplied (convolved) with is
      *hidden*, what is added to them an *embedding* (learned positions); what scales them one by one, and stacks of
      matrices, are *other*.

    The use of a parameter, and which layer makes the output, are seen by running a copy of the model on ``sample``;
    without one, by tracing a copy symbolically; where that fails, the last registered matrix is taken for the head.
    Where the output is a residual stream that several blocks add to, none of them is the head, and all stay hidden.

    Args:
        model: any module; nothing of it is changed. Names are its own, also of one wrapped by torch.compile or DDP.
        sample: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments, for which the model
            runs (in eval mode); it needs room for a second copy of the model.
        head: the output layers, by module or dotted name, where you know better; ``()`` for none.
        hidden: further module types whose weights are matrices (of three dimensions or more: as a kernel is one).

    Raises:
        ValueError: for a parameter of an unknown module whose use could not be seen (it says what to pass), lazy
            parameters, a sample that the model does not run on, or a head that it does not have.
    """
    prefix, model = unwrapped(checked(model))
    found = verdicts(model, sample, head, hidden)
    return [
        Role(prefix + name, p, *known(model, found, name, sample))
        for name, p in model.named_parameters()
        if p.requires_grad
    ]


def verdicts(
    model: nn.Module,
    sample: Any,
    head: nn.Module | str | Iterable[nn.Module | str] | None,
    hidden: type[nn.Module] | Iterable[type[nn.Module]],
) -> dict[str, Verdict]:
    """What every parameter is as far as it can be seen, as :func:`roles`; frozen ones too (a frozen head is a head)."""
    types, places = matrix_types(hidden), places_of(model)
    found = {name: by_module(p, places[id(p)], types) for name, p in model.named_parameters()}
    matrices = _of_kind(found, "hidden", "other")
    flow = by_tracing(model, matrices) if sample is None else by_running(model, sample, matrices)
    if flow is not None:
        found = {name: _by_use(p, found[name], flow, name) for name, p in model.named_parameters()}
    made = _output(model, flow, found, head)
    return {name: _in_output(made, name, verdict) for name, verdict in found.items()}


def known(model: nn.Module, found: dict[str, Verdict], name: str, sample: Any) -> tuple[Kind, str]:
    """The verdict on one parameter.

    Raises:
        ValueError: where its use could not be seen; it names all for which that holds.
    """
    kind, why = found[name]
    if kind != "unknown":
        return kind, why
    unknown = [
        f"{one} {tuple(p.shape)}, {found[one][1]}"
        for one, p in model.named_parameters()
        if p.requires_grad and found[one][0] == "unknown"
    ]
    seen = "sample=… (an input that the model runs on), or " if sample is None else ""
    remedy = f"Pass {seen}hidden=(ModuleType,) if they are matrices, or decide by a rule or group of your own"
    raise bad_argument("model", "; ".join(unknown), "parameters whose use can be seen", remedy)


def describe(found: Iterable[Role]) -> str:
    """A table of roles to read before training: name, shape, kind, why."""
    rows = [(r.name, "×".join(map(str, r.parameter.shape)) or "scalar", r.kind, r.why) for r in found]
    widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else [0, 0, 0]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows
    )


def _by_use(p: nn.Parameter, verdict: Verdict, flow: Flow, name: str) -> Verdict:
    """What a parameter's use adds to what its module told."""
    kind, why = verdict
    uses = flow.uses[name]
    if kind in ("hidden", "unknown") and "look up" in uses:
        return "embedding", f"{why}, looked up ({flow.source})"
    if kind != "unknown":
        return verdict
    if "convolve" in uses or ("multiply" in uses and p.ndim == 2):
        return "hidden", f"{why}, multiplied with activations ({flow.source})"
    if "multiply" in uses:
        return "other", f"{why}, a stack of matrices? ({flow.source}; hidden=… takes it for a kernel)"
    if "scale" in uses:
        return "other", f"{why}, scales activations ({flow.source})"
    return ("embedding", f"{why}, added to activations ({flow.source})") if "other" in uses else verdict


def _output(
    model: nn.Module,
    flow: Flow | None,
    verdicts: dict[str, Verdict],
    head: nn.Module | str | Iterable[nn.Module | str] | None,
) -> output.Output:
    if head is not None:
        return output.given(model, head)
    if flow is None:
        return output.guessed(model, _of_kind(verdicts, "hidden", "other"))
    return output.seen(model, flow, _of_kind(verdicts, "hidden", "other", "embedding"))


def _of_kind(found: dict[str, Verdict], *kinds: Kind) -> set[str]:
    return {name for name, (kind, _) in found.items() if kind in kinds}


def _in_output(found: output.Output, name: str, verdict: Verdict) -> Verdict:
    kind, why = verdict
    if kind in ("hidden", "other") and name in found.heads:
        return "head", f"{why}, makes the output ({found.source})"
    if kind == "hidden" and name in found.beside:
        return kind, f"{why}, not alone in making the output ({found.source})"
    return verdict


def checked(model: nn.Module) -> nn.Module:
    """``model``, if it is a module whose parameters have a shape."""
    if not isinstance(model, nn.Module):
        raise bad_argument("model", model, "a torch.nn.Module")
    if lazy := [name for name, p in model.named_parameters() if is_lazy(p)]:
        raise bad_argument("model", ", ".join(lazy), "no lazy parameters", "Run the model on an input first")
    return model


def matrix_types(hidden: type[nn.Module] | Iterable[type[nn.Module]]) -> tuple[type[nn.Module], ...]:
    """The types of modules whose weights are matrices: torch's, and those in ``hidden``."""
    types = (hidden,) if isinstance(hidden, type) else tuple(hidden)
    for one in types:
        if not (isinstance(one, type) and issubclass(one, nn.Module)):
            raise bad_argument("hidden", one, "types of modules")
    return (*MATRICES, *types)
