"""A forward pass as autograd sees it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import bad_argument
from thalweg.groups.flow import Does, Flow, Step
from thalweg.groups.twin import twin, undisturbed

_REMEDY = "Leave sample out, or name the output layers: head=[…]"
_VECTORS = ("Mv", "Dot", "Vdot")
_NODES: dict[str, Does] = {
    **dict.fromkeys(("Addmm", "Mm", "Bmm", "Baddbmm", "Addbmm", "Linear", *_VECTORS), "multiply"),
    **dict.fromkeys(("MkldnnLinear", "Trilinear", "ScaledMm", "GroupedMm", "SparseAddmm"), "multiply"),
    **dict.fromkeys(("Embedding", "EmbeddingBag", "Index", "IndexSelect", "Gather"), "look up"),
    **dict.fromkeys(("Mul", "Div"), "scale"),
}


def by_running(model: nn.Module, sample: Any, matrices: AbstractSet[str]) -> Flow:
    """Run a copy of the model on a copy of ``sample`` and read autograd's graph.

    Args:
        model: any module; neither it nor any random state is changed.
        sample: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments.
        matrices: names of the parameters that are known to be matrices.

    Raises:
        ValueError: where the model cannot be copied, does not run on the sample, or returns nothing that depends on
            its parameters.
    """
    with undisturbed(model):
        double = _copy(model)
        names = {id(p): name for name, p in double.named_parameters()}
        outputs = [t.grad_fn for t in _tensors(_run(double, sample), set()) if t.grad_fn is not None]
    if not outputs:
        raise bad_argument("sample", _shown(sample), "an input whose output depends on the parameters", _REMEDY)
    steps = {node: _step(node, names) for node in _forward_order(outputs)}
    return Flow(steps, [term for node in outputs for term in _terms(node)], matrices, "a run on the sample")


def _copy(model: nn.Module) -> nn.Module:
    try:
        return twin(model, values=True)
    except Exception as error:  # whatever a user's object may raise
        raise bad_argument(
            "model", type(model).__name__, f"a module that copy.deepcopy copies, but: {error}", _REMEDY
        ) from error


def _run(model: nn.Module, sample: Any) -> Any:
    given = _cloned(sample)
    try:
        if isinstance(given, Mapping):
            return model(**given)
        return model(*given) if isinstance(given, (tuple, list)) else model(given)
    except Exception as error:  # whatever a user's forward may raise
        expected = f"an input that the model runs on, but: {type(error).__name__}: {error}"
        raise bad_argument("sample", _shown(sample), expected, _REMEDY) from error


def _cloned(sample: Any) -> Any:
    """The sample with its tensors cloned; the floating ones need a gradient, to be told from constants."""
    if isinstance(sample, Tensor):
        known = sample.is_floating_point() or sample.is_complex()
        return sample.detach().clone().requires_grad_(known).clone()  # the last: in-place layers refuse leaves
    if isinstance(sample, Mapping):
        return {key: _cloned(one) for key, one in sample.items()}
    return type(sample)(map(_cloned, sample)) if type(sample) in (tuple, list) else sample


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """All tensors in a model's output: nested tuples, dicts, dataclasses and objects."""
    if id(value) in seen or isinstance(value, nn.Module):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from (t for one in value.values() for t in _tensors(one, seen))
    elif isinstance(value, (tuple, list)):
        yield from (t for one in value for t in _tensors(one, seen))
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from _tensors(vars(value), seen)


def _step(node: Any, names: Mapping[int, str]) -> Step:
    if hasattr(node, "variable"):
        name = names.get(id(node.variable))
        return Step("input") if name is None else Step("parameter", own=frozenset({name}))
    does, inputs = _does(node), tuple(before for before, _ in node.next_functions)
    return Step(does, inputs[:2] if does == "convolve" and inputs[2] is None else inputs)


def _does(node: Any) -> Does:
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        return "opaque"
    kind = re.sub(r"Backward\d*$", "", type(node).__name__)
    if "Conv" in kind:
        return "convolve"
    if kind in _VECTORS and any(before is None for before, _ in node.next_functions):
        return "other"  # of a weight and a constant, such as the power iteration of a spectral norm
    return "multiply" if re.search("Rnn|RNN|Lstm|Gru", kind) else _NODES.get(kind, "other")


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
