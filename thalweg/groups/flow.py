"""How parameters reach a model's output: the graph of one forward pass, seen by autograd or by torch.fx."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

#: autograd nodes that multiply a matrix with activations
_PRODUCTS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Mv", "Dot", "Linear", "Convolution", "Rnn", "Lstm", "Gru", "Bilinear")
#: autograd nodes that only change how a tensor is laid out
_LAYOUTS = (
    *("T", "Transpose", "View", "UnsafeView", "Permute", "ReshapeAlias", "Expand", "ToCopy", "Clone", "Unsqueeze"),
    *("Squeeze", "Split", "SplitWithSizes", "Chunk", "Slice", "Select", "Unbind", "Alias"),
)
_FX_PRODUCTS = ("linear", "matmul", "mm", "bmm", "addmm", "einsum", "conv1d", "conv2d", "conv3d", "bilinear")


@dataclass
class Flow:
    """A forward pass as a graph that is walked backwards.

    Attributes:
        outputs: the nodes that the model returns.
        inputs: the nodes that a node is computed from.
        products: node → names of the parameters that it multiplies activations with.
        others: names of parameters that are used in another way (looked up, added).
        source: how the graph was seen, as a phrase.
    """

    outputs: list[Any]
    inputs: Callable[[Any], Iterable[Any]]
    products: Mapping[Hashable, set[str]]
    others: set[str]
    source: str

    def nearest(self, names: set[str]) -> set[str]:
        """Those of the named matrices that make the output: the last ones on the paths to it.

        A residual connection leads past the last matrix to earlier ones; whatever another last matrix is computed from
        is none itself.
        """
        last = self._first_products(self.outputs, names)
        before = {node for end in last for node in self._upstream(end)}
        return {name for node in last - before for name in self.products[node] & names}

    def _first_products(self, start: Iterable[Any], names: set[str]) -> set[Any]:
        found, seen, todo = set(), set(), list(start)
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            if self.products.get(node, set()) & names:
                found.add(node)
            else:
                todo.extend(self.inputs(node))
        return found

    def _upstream(self, node: Any) -> set[Any]:
        seen: set[Any] = set()
        todo = list(self.inputs(node))
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo.extend(self.inputs(one))
        return seen


def by_running(model: nn.Module, sample: Any) -> Flow:
    """Run the model on ``sample`` and read autograd's graph; model, buffers and random states stay as they are.

    Args:
        model: any module.
        sample: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments.
    """
    names = {name: p for name, p in model.named_parameters() if p.requires_grad}
    values: dict[str, Tensor] = {name: p.detach().clone().requires_grad_() for name, p in names.items()}
    name_of = {id(value): name for name, value in values.items()}
    values |= {name: b.detach().clone() for name, b in model.named_buffers()}
    args, kwargs = ((), sample) if isinstance(sample, dict) else (_as_tuple(sample), {})
    training = [(module, module.training) for module in model.modules()]
    devices = sorted({p.device.index for p in names.values() if p.is_cuda and p.device.index is not None})
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            model.eval()
            output = torch.func.functional_call(model, values, args, kwargs)
    finally:
        for module, mode in training:
            module.training = mode
    return _read_autograd([t.grad_fn for t in _tensors(output) if t.grad_fn is not None], name_of)


def by_tracing(model: nn.Module) -> Flow | None:
    """Trace the model symbolically; None where its forward cannot be traced (control flow on values)."""
    try:
        graph = fx.symbolic_trace(model).graph
    except Exception:  # whatever a user's forward may raise when it is given symbols
        return None
    first = {id(p): name for name, p in model.named_parameters()}
    products: dict[Hashable, set[str]] = defaultdict(set)
    others: set[str] = set()
    for node in graph.nodes:
        if node.op == "call_module":
            module = model.get_submodule(str(node.target))
            products[node] |= {first[id(p)] for p in module.parameters() if p.ndim >= 2}
        elif node.op == "get_attr" and isinstance(value := operator.attrgetter(str(node.target))(model), nn.Parameter):
            for user in _users(node):
                (products[user].add if _is_product(user) else others.add)(first[id(value)])
    outputs = next(n for n in graph.nodes if n.op == "output").all_input_nodes
    used = {name for group in products.values() for name in group}
    return Flow(outputs, lambda n: n.all_input_nodes, products, others - used, "a symbolic trace")


def _read_autograd(outputs: list[Any], name_of: Mapping[int, str]) -> Flow:
    consumers: dict[Any, list[Any]] = defaultdict(list)
    leaves: dict[Any, str] = {}
    todo, seen = list(outputs), set(outputs)
    while todo:
        node = todo.pop()
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) in name_of:
            leaves[node] = name_of[id(variable)]
        for before in _before(node):
            consumers[before].append(node)
            if before not in seen:
                seen.add(before)
                todo.append(before)
    products: dict[Hashable, set[str]] = defaultdict(set)
    others: set[str] = set()
    for leaf, name in leaves.items():
        for user in _computing(leaf, consumers):
            if _kind(user).startswith(_PRODUCTS) or any(part in _kind(user) for part in ("Rnn", "Lstm", "Gru")):
                products[user].add(name)
            else:
                others.add(name)
    used = {name for group in products.values() for name in group}
    return Flow(outputs, _before, products, others - used, "a run on the sample")


def _before(node: Any) -> list[Any]:
    return [before for before, _ in node.next_functions if before is not None]


def _kind(node: Any) -> str:
    return str(type(node).__name__)


def _computing(leaf: Any, consumers: Mapping[Any, list[Any]]) -> set[Any]:
    """The nodes that compute with a leaf, past those that only change its layout."""
    found, todo = set(), list(consumers.get(leaf, ()))
    while todo:
        node = todo.pop()
        if _kind(node).removesuffix("0").removesuffix("Backward") in _LAYOUTS:
            todo.extend(consumers.get(node, ()))
        else:
            found.add(node)
    return found


def _users(node: fx.Node) -> set[fx.Node]:
    """The fx nodes that compute with a parameter, past those that only change its layout."""
    layouts = ("t", "transpose", "view", "reshape", "permute", "T", "mT", "contiguous", "to", "type_as", "getattr")
    found, todo = set(), list(node.users)
    while todo:
        user = todo.pop()
        if getattr(user.target, "__name__", user.target) in layouts:
            todo.extend(user.users)
        else:
            found.add(user)
    return found


def _is_product(node: fx.Node) -> bool:
    return str(getattr(node.target, "__name__", node.target)) in _FX_PRODUCTS


def _as_tuple(sample: Any) -> tuple[Any, ...]:
    return tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)


def _tensors(value: Any) -> Iterable[Tensor]:
    """All tensors in a model's output: nested tuples, dicts, dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _tensors(one)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value))
