"""The numbers of a step that do not depend on any tensor: one Python function of a group's hyperparameters."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, cast

from torch import fx

from thalweg.ir import ops
from thalweg.ir.ops import GLOBAL, HOST
from thalweg.ir.trace import Specialization, TracedRule, trace


class Host:
    """The numbers of a step that do not depend on any tensor, evaluated in Python floats."""

    def __init__(self, traced: TracedRule) -> None:
        self.after = [n for n in traced.graph.nodes if n.op == "call_function" and n.meta["extent"] == GLOBAL]
        self.order = [n for n in traced.graph.nodes if n.op != "output" and n.meta["extent"] == HOST]
        rule = traced.specialization.rule
        own = {"step", "first", *rule.firsts.values(), *(spec.name for spec in traced.numbers)}
        self.evaluate = _HostSource(self.order, own).function()

    def __call__(self, h: SimpleNamespace) -> dict[fx.Node, Any]:
        """The value of every node of the host, from the group's hyperparameters as plain numbers."""
        return dict(zip(self.order, self.evaluate(vars(h), vars(h), {}), strict=True))

    def picks(self, nodes: Collection[fx.Node]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
        """A function that takes the values of these nodes out of what ``evaluate`` gives."""
        at = {node: i for i, node in enumerate(self.order)}
        places = [at[node] for node in nodes]
        if len(places) > 1:
            return itemgetter(*places)
        return itemgetter(slice(places[0], places[0] + 1) if places else slice(0))  # a tuple, too

    def with_totals(self, h: SimpleNamespace, totals: Mapping[str, float]) -> dict[fx.Node, Any]:
        """The same, with every node that follows from sums over all tensors."""
        values = self(h)
        for node in self.after:
            target: Any = node.target
            args = [values.get(a) if isinstance(a, fx.Node) else a for a in node.args]
            values[node] = totals[target.name] if isinstance(target, ops.Total) else target.host(*args)
        return values

    @staticmethod
    @functools.cache
    def of(key: Specialization) -> Host:
        """The numbers of a specialization, compiled once."""
        return Host(trace(key))


#: operations of Python that a compiled function spells as such
INFIX = {operator.add: "+", operator.sub: "-", operator.mul: "*", operator.pow: "**"}


class _HostSource:
    """Writes the numbers of the host as one Python function, which runs at every step.

    It takes the hyperparameters of a group, what parameters have of their own, and a dict for what follows from that:
    of two groups that agree in all that this needs otherwise, the second finds it there.

    Args:
        nodes: in order.
        own: names of what parameters have of their own.
    """

    def __init__(self, nodes: list[fx.Node], own: Collection[str]) -> None:
        self.known: dict[str, Any] = {}
        self.names = {node: f"value_{i}" for i, node in enumerate(nodes)}  # the rule's own names could be those in use
        given = [node for node in nodes if node.op == "placeholder"]
        self.own = {node for node in given if node.meta["place"][0] in own}
        self.needs: dict[fx.Node, set[fx.Node]] = {node: {node} for node in given}
        for node in nodes:
            if node not in self.needs:
                self.needs[node] = set().union(*(self.needs[a] for a in node.all_input_nodes))
        computed = [node for node in nodes if node.op != "placeholder"]
        shared = [node for node in computed if self.needs[node] & self.own]
        alone = [node for node in computed if node not in shared]
        needed = set().union(*(self.needs[node] for node in shared)) - self.own
        body = [*map(self._given, given), *map(self._line, alone)]
        if shared:
            key = self._tuple([node for node in given if node in needed])
            found = self._tuple(shared)
            body += [f"key = {key}", "found = memo.get(key)", "if found is None:"]
            body += [*("    " + self._line(node) for node in shared), f"    memo[key] = {found}"]
            body += ["else:", f"    {found} = found"]
        body.append(f"return {self._tuple(nodes)}")
        self.text = "def evaluate(h, own, memo):\n    " + "\n    ".join(body)

    def function(self) -> Callable[[Mapping[str, Any], Mapping[str, Any], dict[Any, Any]], tuple[Any, ...]]:
        """The function."""
        exec(self.text, self.known)
        return cast("Callable[[Mapping[str, Any], Mapping[str, Any], dict[Any, Any]], Any]", self.known["evaluate"])

    def _tuple(self, nodes: Iterable[fx.Node]) -> str:
        return "(" + "".join(f"{self.names[node]}, " for node in nodes) + ")"

    def _given(self, node: fx.Node) -> str:
        place = "".join(f"[{key!r}]" for key in node.meta["place"])
        return f"{self.names[node]} = {'own' if node in self.own else 'h'}{place}"

    def _line(self, node: fx.Node) -> str:
        target: Any = node.target
        name = self.names[node]
        args = []
        for j, a in enumerate(node.args):
            if not isinstance(a, fx.Node):
                self.known[f"given_{name}_{j}"] = a
            args.append(self.names[a] if isinstance(a, fx.Node) else f"given_{name}_{j}")
        if target.host in INFIX:
            return f"{name} = {args[0]} {INFIX[target.host]} {args[1]}"
        self.known[f"op_{name}"] = target.host
        return f"{name} = op_{name}({', '.join(args)})"
