"""The traced graph over lists of tensors, through ``torch._foreach_*``: any device, no compiler."""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
from torch import Tensor, fx

from thalweg.engine import ops
from thalweg.engine.batch import Batch
from thalweg.engine.trace import Traced, Variant, trace


def run(batch: Batch) -> None:
    """Update every parameter of the batch in place, and its state."""
    traced, module = compiled(batch.variant)
    values: dict[str, Any] = {}
    for name, value in vars(batch.h).items():
        if isinstance(value, tuple):
            values.update({f"{name}_{i}": v for i, v in enumerate(value)})
        else:
            values[name] = value
    module(batch.params, batch.grads, *batch.states.values(), *(values[name] for name in traced.scalars))


@functools.cache
def compiled(key: Variant) -> tuple[Traced, fx.GraphModule]:
    """The graph of a variant and its list form; ``print(module.code)`` shows what will run."""
    traced = trace(key)
    return traced, fx.GraphModule({}, lower(traced))


def lower(traced: Traced) -> fx.Graph:
    """Spell the graph over lists, in place wherever nobody reads the old value again."""
    graph = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    last = {n: user for user in traced.graph.nodes for n in user.all_input_nodes}
    owned: set[fx.Node] = set()  # lists that may be written: temporaries, the parameters, their states
    home: dict[fx.Node, str] = {}  # which parameter or state list a value lies in
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            env[node] = graph.placeholder(node.target)
            if node.name == "p" or node.name in traced.states:
                owned.add(node)
                home[node] = node.name
        elif node.op == "output":
            _store(graph, env, home, node.args[0])
        else:
            first = _first_list(node)
            reuse = first in owned and last[first] is node
            env[node], written = _spell(graph, env, node, reuse)
            if node.meta["kind"] == ops.TENSOR:
                owned.add(node)
                if written and first in home:
                    home[node] = home[first]
    return graph


def _first_list(node: fx.Node) -> fx.Node | None:
    return next((arg for arg in node.args if isinstance(arg, fx.Node) and _is_list(arg)), None)


def _spell(graph: fx.Graph, env: dict[fx.Node, fx.Node], node: fx.Node, reuse: bool) -> tuple[fx.Node, bool]:
    """One node over lists; the second value tells whether it was written into its first list."""
    args = fx.map_arg(node.args, env.__getitem__)
    kwargs = fx.map_arg(node.kwargs, env.__getitem__)
    target: Any = node.target
    if isinstance(target, ops.Leaf):
        return graph.call_function(target.over, args, kwargs), False
    if node.meta["kind"] == ops.SCALAR:
        return graph.call_function(target, args, kwargs), False
    name = ops.name_of(target)
    if not _is_list(node.args[0]):
        if name not in ops.COMMUTING:
            return graph.call_function(ops.REFLECTED[name], args, kwargs), False
        args = (args[1], args[0], *args[2:])
    row = ops.ROWS[name]
    if reuse and row.foreach_ is not None and args[0] not in args[1:]:
        graph.call_function(row.foreach_, args, kwargs)
        return cast(fx.Node, args[0]), True
    return graph.call_function(row.foreach, args, kwargs), False


def _is_list(arg: Any) -> bool:
    return isinstance(arg, fx.Node) and arg.meta["kind"] == ops.TENSOR


def _store(graph: fx.Graph, env: dict[fx.Node, fx.Node], home: dict[fx.Node, str], outputs: Any) -> None:
    """Copy each new value to where it belongs, unless it was computed there."""
    targets = {node.target: node for node in graph.nodes if node.op == "placeholder"}
    moved = {name: value for name, value in outputs.items() if home.get(value) != name}
    # a value that lies in another list's place is set aside first, so that two states can trade places
    values = {n: graph.call_function(_clone, (env[v],)) if v in home else env[v] for n, v in moved.items()}
    for name, value in values.items():
        graph.call_function(torch._foreach_copy_, (targets[name], value))
    graph.output(None)


def _clone(xs: list[Tensor]) -> list[Tensor]:
    return [x.clone() for x in xs]
