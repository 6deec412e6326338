"""What each parameter is in its model: a hidden matrix, an embedding, the output head, a vector, or something else."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from thalweg._base.errors import bad_argument
from thalweg._base.given import iterates, no_model
from thalweg.groups import output
from thalweg.groups.evidence import ForwardEvidence, look
from thalweg.groups.flow import Known
from thalweg.groups.places import MATRICES, Kind, Place, Verdict, by_module, is_transposed, places_of
from thalweg.groups.twin import unwrapped

Heads = nn.Module | str | Iterable[nn.Module | str] | None
Types = type[nn.Module] | Iterable[type[nn.Module]]


@dataclass(frozen=True)
class Role:
    """One parameter, what it is, why that was concluded, and whether it is kept as (in, out, …)."""

    name: str
    parameter: nn.Parameter
    kind: Kind
    why: str
    transposed: bool = False


def roles(
    model: nn.Module,
    sample: Any = None,
    *,
    head: Heads = None,
    hidden: Types = (),
) -> list[Role]:
    """What every trainable parameter is, each exactly once, in the order of ``named_parameters()``.

    In this order:

    - fewer than two dimensions, or of a norm: a *vector*;
    - of an ``nn.Embedding``, or tied with one, or looked up in another way: an *embedding*;
    - a matrix that makes the output: the *head*;
    - of a linear, convolutional, recurrent or attention layer, or of a type in ``hidden``: *hidden*;
    - of another module, what it is used as: a matrix (or kernel) that activations are multiplied (convolved) with is
      *hidden*, what is added to them an *embedding* (learned positions); what scales them one by one, stacks of
      matrices, also where an index picks one of them, and kernels that filter each channel by itself are *other*.

    The use of a parameter, and which layer makes the output, are seen by running a copy of the model on ``sample``.
    Without one, a copy is run on what the model itself says that it takes (``config`` and ``main_input_name`` or
    ``dummy_inputs``, as models of ``transformers`` have them), or on symbols, or on an input made up for its first
    layers. Where all that fails, a guess is made, and said in a warning, in ``why`` and in tables: what
    ``get_output_embeddings()`` gives, or the last registered matrix, is taken for the head. The copy of a large model
    has shapes and no values. A pass in training mode follows where the first does not meet all matrices, so heads that
    run in training alone are heads; so are those that no pass meets, but that are placed and shaped as heads are.
    Where the output is a residual stream that several blocks add to, none of them is the head, and all stay hidden.

    Which way a matrix is kept, (out, in, …) or ``transposed`` (in, out, …), is told by its module or its use. Nothing
    of the process is changed meanwhile, so other threads may run models, and look at some.

    Args:
        model: any module; nothing of it is changed. Names are its own, also of one wrapped by torch.compile or DDP.
        sample: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments, for which the model
            runs; only a small model, or one whose pass depends on values, is copied with all its values for that.
        head: the output layers, by module or dotted name, if the guess is wrong; ``()`` for none.
        hidden: further module types whose weights are matrices (of three dimensions or more: as a kernel is one).

    Raises:
        ValueError: for a parameter of an unknown module whose use could not be seen (it says what to pass), lazy
            parameters, a sample that the model does not run on, or a head that it does not have.
    """
    found, made = _judged(model, sample, head, hidden)
    warn(model, made)
    return found


def certain(model: nn.Module, *, head: Heads = None, hidden: Types = ()) -> list[Role] | None:
    """As :func:`roles` without a sample; None where that takes a guess, or a parameter's use cannot be seen."""
    try:
        found, made = _judged(model, None, head, hidden)
    except ValueError:
        return None
    return None if made.guess else found


def _judged(model: nn.Module, sample: Any, head: Heads, hidden: Types) -> tuple[list[Role], output.Output]:
    prefix, model = unwrapped(checked(model))
    types, places = matrix_types(hidden), places_of(model)
    evidence = see(model, sample, types)
    found, made = verdicts(model, evidence, head, by_use(model, evidence, types))
    judged = [
        Role(prefix + name, p, *known(model, found, name, sample), transposed(p, places[id(p)], evidence, name))
        for name, p in model.named_parameters()
        if p.requires_grad
    ]
    return judged, made


def see(model: nn.Module, sample: Any, types: tuple[type[nn.Module], ...]) -> ForwardEvidence | None:
    """What can be seen of the model's forward pass; ``types``: of modules whose weights are matrices."""
    found = _at_sight(model, types)
    stacks = {name for name, p in model.named_parameters() if p.ndim > 2} - _of_kind(found, "embedding")
    evidence = look(model, sample, Known(_of_kind(found, "hidden", "other"), stacks))
    if evidence is not None and evidence.appeared:
        _warn_of_new(model, sorted(evidence.appeared))
    return evidence


def _warn_of_new(model: nn.Module, names: list[str]) -> None:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    warnings.warn(
        f"a forward pass makes parameters that {type(model).__name__} does not have yet: {', '.join(names[:3])}{more}. "
        "They are in no group. Run the model on an input first, then make the optimizer",
        stacklevel=4,
    )


def by_use(
    model: nn.Module, evidence: ForwardEvidence | None, types: tuple[type[nn.Module], ...]
) -> dict[str, Verdict]:
    """What every parameter is by its module, its shape and its use, but for which of them make the output."""
    found = _at_sight(model, types)
    if evidence is None:
        return found
    return {name: _by_use(p, found[name], evidence, name) for name, p in model.named_parameters()}


def verdicts(
    model: nn.Module, evidence: ForwardEvidence | None, head: Heads, used: dict[str, Verdict]
) -> tuple[dict[str, Verdict], output.Output]:
    """What every parameter is as far as it can be seen, as :func:`roles`; frozen ones too (a frozen head is a head).

    And what makes the output.
    """
    made = _output(model, evidence, used, head)
    return {name: _in_output(made, name, verdict) for name, verdict in used.items()}, made


def warn(model: nn.Module, made: output.Output) -> None:
    """Say what was guessed, once for all parameters."""
    if made.guess:
        warnings.warn(
            f"what makes the output of {type(model).__name__} is guessed: {made.guess}. Pass sample=… (an input that "
            "the model runs on), or name the output layers: head=[…], or head=() for none",
            stacklevel=3,
        )


def transposed(p: nn.Parameter, places: list[Place], evidence: ForwardEvidence | None, name: str) -> bool:
    """Whether a matrix or kernel is kept as (in, out, …): its first dimension is summed over with activations.

    The module tells, or else the first use; what cannot be seen is taken for (out, in, …).
    """
    told = is_transposed(p, places)
    if told is not None or evidence is None:
        return bool(told)
    contracted, produced = evidence.first_layout(name) or (frozenset(), frozenset())
    flat = p.ndim == 2 or "convolve" in evidence.uses(name)  # of a stack of matrices these are other dimensions
    return flat and bool({0} & contracted | {1} & produced) and not ({1} & contracted or {0} & produced)


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
    rows = [(r.name, _shape(r), r.kind, r.why) for r in found]
    widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else [0, 0, 0]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows
    )


def notes(found: dict[str, Verdict], made: output.Output, evidence: ForwardEvidence | None) -> tuple[str, ...]:
    """What was guessed, and what no forward pass has met, in words for those who read a table."""
    lines = []
    if made.guess:
        lines.append(f"guessed to make the output: {made.guess}; sample=… or head=… settles it")
    met = found.keys() if evidence is None else evidence.met
    unmet = [name for name, (kind, _) in found.items() if kind != "vector" and name not in met]
    if unmet and evidence is not None:
        more = f" and {len(unmet) - 3} more" if len(unmet) > 3 else ""
        lines.append(f"never met in {evidence.source}: {', '.join(unmet[:3])}{more}")
    return tuple(lines)


def _shape(role: Role) -> str:
    return ("×".join(map(str, role.parameter.shape)) or "scalar") + " (in×out)" * role.transposed


def _at_sight(model: nn.Module, types: tuple[type[nn.Module], ...]) -> dict[str, Verdict]:
    places = places_of(model)
    return {name: by_module(p, places[id(p)], types) for name, p in model.named_parameters()}


def _by_use(p: nn.Parameter, verdict: Verdict, flow: ForwardEvidence, name: str) -> Verdict:
    """What a parameter's use adds to what its module told."""
    kind, why = verdict
    uses = flow.uses(name)
    if kind != "vector" and name not in flow.met:
        return kind, f"{why}, never met in {flow.source}"
    if kind in ("hidden", "unknown") and "look up" in uses:
        return "embedding", f"{why}, looked up ({flow.source})"
    if kind != "unknown":
        return verdict
    if uses == {"filter"}:
        return "other", f"{why}, a kernel for each channel by itself ({flow.source})"
    if "convolve" in uses or ("multiply" in uses and p.ndim == 2):
        return "hidden", f"{why}, multiplied with activations ({flow.source})"
    if "multiply" in uses:
        return "other", f"{why}, a stack of matrices? ({flow.source}; hidden=… takes it for a kernel)"
    if "scale" in uses:
        return "other", f"{why}, scales activations ({flow.source})"
    return ("embedding", f"{why}, added to activations ({flow.source})") if "other" in uses else verdict


def _output(
    model: nn.Module,
    flow: ForwardEvidence | None,
    verdicts: dict[str, Verdict],
    head: Heads,
) -> output.Output:
    if head is not None:
        return output.given(model, head)
    if flow is None:
        return output.guessed(model, _of_kind(verdicts, "hidden", "other"))
    matrices = _of_kind(verdicts, "hidden", "other")
    return output.seen(model, flow, matrices | _of_kind(verdicts, "embedding"), matrices)


def _of_kind(found: dict[str, Verdict], *kinds: Kind) -> set[str]:
    return {name for name, (kind, _) in found.items() if kind in kinds}


def _in_output(found: output.Output, name: str, verdict: Verdict) -> Verdict:
    kind, why = verdict
    if kind in ("hidden", "other") and name in found.placed:
        return "head", f"{why}, placed and shaped as the output's"
    if kind in ("hidden", "other") and name in found.heads:
        return "head", f"{why}, makes the output ({found.source})"
    if kind == "hidden" and name in found.beside:
        return kind, f"{why}, not alone in making the output ({found.source})"
    return verdict


def checked(model: nn.Module) -> nn.Module:
    """``model``, if it is a module whose parameters have a shape."""
    if not isinstance(model, nn.Module):
        raise no_model(model)
    if lazy := [name for name, p in model.named_parameters() if is_lazy(p)]:
        raise bad_argument("model", ", ".join(lazy), "no lazy parameters", "Run the model on an input first")
    return model


def matrix_types(hidden: Types) -> tuple[type[nn.Module], ...]:
    """The types of modules whose weights are matrices: torch's, and those in ``hidden``."""
    types = [hidden] if isinstance(hidden, type) or not iterates(hidden) else list(hidden)
    for one in types:
        if not (isinstance(one, type) and issubclass(one, nn.Module)):
            remedy = f"Give its type, {type(one).__name__}" if isinstance(one, nn.Module) else ""
            raise bad_argument("hidden", one, "types of modules, such as (MyLinear,)", remedy)
    return (*MATRICES, *types)
