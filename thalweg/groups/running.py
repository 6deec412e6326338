"""A forward pass as autograd sees it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import bad_argument
from thalweg.groups import dims
from thalweg.groups.dims import ON_THE_LEFT, ON_THE_RIGHT, Fans
from thalweg.groups.flow import Does, Flow, Known, Operation
from thalweg.groups.shapes import ShapesOnly, on_meta
from thalweg.groups.twin import randomness_kept, twin, undisturbed

#: what looks on while a copy runs on its input
Watching = Callable[[nn.Module, Any], contextlib.AbstractContextManager[Any]]

#: how many numbers a model has that is run with its values
SMALL = 20_000_000

_REMEDY = "Leave sample out, or name the output layers: head=[…]"
_VECTORS = ("Mv", "Dot", "Vdot")
_NODES: dict[str, Does] = {
    **dict.fromkeys(("Addmm", "Mm", "Bmm", "Baddbmm", "Addbmm", "Linear", *_VECTORS), "multiply"),
    **dict.fromkeys(("MkldnnLinear", "Trilinear", "ScaledMm", "GroupedMm", "SparseAddmm"), "multiply"),
    **dict.fromkeys(("Embedding", "EmbeddingBag", "Index", "IndexSelect", "Gather"), "look up"),
    **dict.fromkeys(("Mul", "Div"), "scale"),
}
_MOVES = (
    *("View", "UnsafeView", "Reshape", "ReshapeAlias", "Permute", "Transpose", "T", "Unsqueeze", "Squeeze", "Expand"),
    *("Clone", "ToCopy", "Slice", "Select", "Alias"),
)
_SUMS = ("Sum", "Mean")
_FANS: dict[str, tuple[Fans | None, ...]] = {
    **dict.fromkeys(("Mm", "Bmm", "Mv", "GroupedMm"), (ON_THE_LEFT, ON_THE_RIGHT)),
    **dict.fromkeys(("Addmm", "Baddbmm"), (None, ON_THE_LEFT, ON_THE_RIGHT)),
    **dict.fromkeys(("Linear", "MkldnnLinear"), (ON_THE_LEFT, dims.LINEAR)),
}


def _unwatched(model: nn.Module, given: Any) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext()


def by_running(model: nn.Module, sample: Any, known: Known, *, training: bool = False) -> Flow:
    """Run a copy of the model on a copy of ``sample`` and read autograd's graph.

    Of a large model the copy has shapes and no values, and takes no memory, unless the pass depends on values. A small
    one is run as it is, which takes less time than what torch imports for the shapes alone.

    Args:
        model: any module; neither it nor any random state is changed.
        sample: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments.
        known: what is known of the parameters.
        training: whether it runs in training mode.

    Raises:
        ValueError: where the model cannot be copied, does not run on the sample, or returns nothing that depends on
            its parameters.
    """
    source = "a run on the sample"
    if sum(p.numel() for p in model.parameters()) > SMALL:
        with contextlib.suppress(Exception):  # whatever a user's forward may raise without values
            if flow := on_shapes(model, sample, known, source, training=training):
                return flow
    if flow := with_values(model, sample, known, source, training=training):
        return flow
    raise bad_argument("sample", _shown(sample), "an input whose output depends on the parameters", _REMEDY)


def on_shapes(
    model: nn.Module,
    sample: Any,
    known: Known,
    source: str,
    *,
    training: bool = False,
    guesses: bool = False,
    watching: Watching = _unwatched,
) -> Flow | None:
    """The flow through a copy that has no values; None where no output depends on parameters.

    Args:
        model, sample, known, training: as of :func:`by_running`; raises whatever the model raises on shapes.
        source: how the graph was seen, as a phrase.
        guesses: whether values that the pass asks for are guessed, as :class:`ShapesOnly` does.
        watching: what looks on.
    """
    with undisturbed():
        double = twin(model, values=False).train(training)
        had = _names(double)
        given = _cloned(mapped(sample, on_meta))
        with ShapesOnly(guesses):
            returned = _call(double, given, watching)
        return _flow(double, returned, known, source, _names(double) - had)


def with_values(
    model: nn.Module,
    sample: Any,
    known: Known,
    source: str,
    *,
    training: bool = False,
    watching: Watching = _unwatched,
) -> Flow | None:
    """The flow through a copy with all values; None where no output depends on parameters.

    Raises:
        ValueError: where the model cannot be copied, or does not run on the sample.
    """
    hooked = any(module._forward_hooks for module in model.modules())
    with undisturbed(), randomness_kept(model):
        double = _copy(model).train(training)
        had = _names(double)
        try:
            returned = _call(double, _cloned(sample), watching)
        except Exception as error:  # whatever a user's forward may raise
            if not hooked:
                raise _refusal(sample, error) from error
            double = _copy(model, hooks=True).train(training)  # it may need what they return
            try:
                returned = _call(double, _cloned(sample), watching)
            except Exception as again:
                raise _refusal(sample, again) from again
        return _flow(double, returned, known, source, _names(double) - had)


def _names(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def _refusal(sample: Any, error: Exception) -> Exception:
    expected = f"an input that the model runs on, but: {type(error).__name__}: {error}"
    return bad_argument("sample", _shown(sample), expected, _REMEDY)


def _flow(double: nn.Module, returned: Any, known: Known, source: str, appeared: set[str]) -> Flow | None:
    names = {id(p): name for name, p in double.named_parameters()}
    outputs = [t.grad_fn for t in tensors(returned, set()) if t.grad_fn is not None]
    if not outputs:
        return None
    steps = {node: _step(node, names) for node in _forward_order(outputs)}
    ends = [term for node in outputs for term in _terms(node)]
    flow = Flow(steps, ends, known, source, lambda node: dims.origins(node, names), appeared)
    return flow if flow.met else None


def _copy(model: nn.Module, *, hooks: bool = False) -> nn.Module:
    try:
        return twin(model, values=True, hooks=hooks)
    except Exception as error:  # whatever a user's object may raise
        raise bad_argument(
            "model", type(model).__name__, f"a module that copy.deepcopy copies, but: {error}", _REMEDY
        ) from error


def _call(model: nn.Module, given: Any, watching: Watching) -> Any:
    with watching(model, given):
        if isinstance(given, Mapping):
            return model(**given)
        return model(*given) if isinstance(given, (tuple, list)) else model(given)


def _cloned(sample: Any) -> Any:
    """The sample with its tensors cloned; the floating ones need a gradient, to be told from constants."""
    return mapped(sample, _clone)


def _clone(x: Tensor) -> Tensor:
    known = x.is_floating_point() or x.is_complex()
    return x.detach().clone().requires_grad_(known).clone()  # the last: in-place layers refuse leaves


def mapped(sample: Any, change: Any) -> Any:
    """The sample with each of its tensors changed."""
    if isinstance(sample, Tensor):
        return change(sample)
    if isinstance(sample, Mapping):
        return {key: mapped(one, change) for key, one in sample.items()}
    return type(sample)(mapped(one, change) for one in sample) if type(sample) in (tuple, list) else sample


def tensors(value: Any, seen: set[int], kind: type = Tensor) -> Iterator[Any]:
    """All tensors (or values of another ``kind``) in a model's output: nested tuples, dicts, dataclasses, objects."""
    if id(value) in seen or isinstance(value, nn.Module):
        return
    seen.add(id(value))
    if isinstance(value, kind):
        yield value
    elif isinstance(value, Mapping):
        yield from (t for one in value.values() for t in tensors(one, seen, kind))
    elif isinstance(value, (tuple, list)):
        yield from (t for one in value for t in tensors(one, seen, kind))
    elif not isinstance(value, type):
        yield from (t for one in _attributes(value).values() for t in tensors(one, seen, kind))


def _attributes(value: Any) -> dict[str, Any]:
    """What an object holds, in slots too."""
    listed = [vars(cls).get("__slots__", ()) for cls in type(value).__mro__]
    slots = [name for names in listed for name in ([names] if isinstance(names, str) else names)]
    return {**getattr(value, "__dict__", {}), **{one: getattr(value, one) for one in slots if hasattr(value, one)}}


def _step(node: Any, names: Mapping[int, str]) -> Operation:
    if hasattr(node, "variable"):
        name = names.get(id(node.variable))
        return Operation("input") if name is None else Operation("parameter", own=frozenset({name}))
    does, inputs = _does(node), tuple(before for before, _ in node.next_functions)
    if does in ("convolve", "filter"):
        shape = dims.shape_of(inputs[1]) if inputs[1] is not None else None
        weight = dims.kernel(len(shape), getattr(node, "_saved_transposed", False)) if shape else None
        return Operation(does, inputs[:2] if inputs[2] is None else inputs, fans=(None, weight))
    kind = _kind(node)
    beyond = _beyond(inputs) if does == "scale" else ()
    return Operation(does, inputs, fans=_FANS.get(kind, ()), beyond=beyond, moves=kind in _MOVES, sums=kind in _SUMS)


def _beyond(inputs: Sequence[Any]) -> tuple[bool, ...]:
    """Of the factors of numbers, whether each has dimensions that no other has."""
    shapes = [None if one is None else dims.shape_of(one) for one in inputs]
    if len(shapes) != 2 or None in shapes:
        return ()
    first, second = (tuple(shape or ()) for shape in shapes)
    return _has_more(first, second), _has_more(second, first)


def _has_more(shape: Sequence[int], other: Sequence[int]) -> bool:
    return any(size > 1 and (back > len(other) or other[-back] == 1) for back, size in enumerate(reversed(shape), 1))


def _kind(node: Any) -> str:
    return re.sub(r"Backward\d*$", "", type(node).__name__)


def _does(node: Any) -> Does:
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        return "opaque"
    kind = _kind(node)
    if "Conv" in kind:
        return "filter" if _is_filter(node) else "convolve"
    if kind in _VECTORS and any(before is None for before, _ in node.next_functions):
        return "other"  # of a weight and a constant, such as the power iteration of a spectral norm
    return "multiply" if re.search("Rnn|RNN|Lstm|Gru", kind) else _NODES.get(kind, "other")


def _is_filter(node: Any) -> bool:
    """Whether a convolution filters each channel by itself."""
    weight = node.next_functions[1][0] if len(node.next_functions) > 1 else None
    shape = dims.shape_of(weight) if weight is not None else None
    return bool(shape) and getattr(node, "_saved_groups", 1) > 1 and shape[1] == 1  # type: ignore[index]


def _forward_order(outputs: Sequence[Any]) -> list[Any]:
    """Every node of the graph, each behind its inputs."""
    order: dict[Any, None] = {}
    opened: set[Any] = set()
    todo = [(node, False) for node in outputs]
    while todo:
        node, done = todo.pop()
        if done:
            order[node] = None
        elif node not in opened:
            opened.add(node)
            todo.append((node, True))
            todo.extend((before, False) for before, _ in node.next_functions if before is not None)
    return list(order)


def _terms(node: Any) -> list[Hashable]:
    """The terms of a sum of scalars, such as a loss with a penalty on earlier activations; else the node itself."""
    before = [one for one, _ in node.next_functions if one is not None]
    if before and all(_is_scalar(one) for one in before):
        return [term for one in before for term in _terms(one)]
    return [node]


def _is_scalar(node: Any) -> bool:
    metadata: Any = getattr(node, "_input_metadata", None)
    return bool(metadata) and tuple(metadata[0].shape) == ()


def _shown(sample: Any) -> str:
    if isinstance(sample, Tensor):
        return f"{str(sample.dtype).removeprefix('torch.')} {tuple(sample.shape)}"
    if isinstance(sample, Mapping):
        return ", ".join(f"{key}: {_shown(one)}" for key, one in sample.items())
    return ", ".join(map(_shown, sample)) if isinstance(sample, (tuple, list)) else repr(sample)
