"""The rule, with what surrounds it, as one `torch.fx` graph."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol, cast

from torch import Tensor, fx

from thalweg.engine import ops
from thalweg.engine.around import update
from thalweg.engine.declare import Hyper, StateSpec


class UnsupportedOpError(TypeError):
    """A rule uses an operation that no backend knows; the message names it and the line of the rule."""


class Rule(Protocol):
    """What the engine asks of an optimizer class."""

    hypers: ClassVar[dict[str, Hyper]]
    states: ClassVar[dict[str, StateSpec]]

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Which way to go."""
        ...


@dataclass(frozen=True)
class Variant:
    """What of the hyperparameters shapes the rule: choices by value, numbers by whether they are off.

    Two groups with the same variant share one graph, whatever their learning rates.
    """

    rule: type[Rule]
    choices: tuple[tuple[str, Any], ...]
    off: frozenset[str]
    counted: bool


@dataclass(frozen=True)
class Traced:
    """The graph of one variant; its placeholders are ``p``, ``g``, the ``states``, the ``scalars``, in that order."""

    graph: fx.Graph
    states: tuple[str, ...]
    scalars: tuple[str, ...]


class _Tracer(fx.proxy.GraphAppendingTracer):
    """Appends to a graph, remembers the rule's line at each node, and lets a rule ask whether a number is on."""

    def __init__(self, graph: fx.Graph, rule: type) -> None:
        super().__init__(graph)
        self.file = sys.modules[rule.__module__].__file__

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """As in torch.fx, and note the line of the rule that asked for it."""
        node = super().create_node(*args, **kwargs)
        node.meta["line"] = self.line()
        return node

    def line(self) -> str:
        """File and line of the rule that is being run now."""
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename != self.file:
            frame = frame.f_back
        return f"{self.file}:{frame.f_lineno}" if frame else "around the rule"

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Numbers that are off were traced as themselves, so a symbol that may be off is on; no other can be asked."""
        if obj.node.meta.get("switch"):
            return True
        raise UnsupportedOpError(
            f"{self.line()}: a branch on {obj.node.name!r}, whose value is not known when the rule is "
            "traced. Write it as arithmetic, or declare the hyperparameter with hyper(off=...)"
        )


def variant(rule: type[Rule], group: Mapping[str, Any]) -> Variant:
    """The variant of ``rule`` that a parameter group asks for."""
    hypers = rule.hypers
    choices = tuple((name, _frozen(group[name])) for name, h in hypers.items() if not h.symbolic)
    off = frozenset(name for name, h in hypers.items() if h.symbolic and h.off is not None and group[name] == h.off)
    return Variant(rule, choices, off, any(spec.count for spec in kept(rule, group)))


def kept(rule: type[Rule], group: Mapping[str, Any]) -> list[StateSpec]:
    """The state that ``rule`` keeps for each parameter of a group."""
    h = SimpleNamespace(**group)
    return [spec for spec in rule.states.values() if spec.when(h)]


def trace(key: Variant) -> Traced:
    """Run the rule once on symbols.

    Raises:
        UnsupportedOpError: for an operation that is not in the table of ops, or a branch on a number.
    """
    graph = fx.Graph()
    tracer = _Tracer(graph, key.rule)
    choices = dict(key.choices)
    hypers = key.rule.hypers
    specs = kept(key.rule, {**choices, **{name: name not in key.off for name, h in hypers.items() if h.symbolic}})
    states = tuple(spec.name for spec in specs if not spec.count)

    def symbol(name: str, kind: str, switch: bool = False) -> fx.Proxy:
        proxy = fx.Proxy(graph.placeholder(name), tracer)
        proxy.node.meta.update(kind=kind, switch=switch)
        return proxy

    p, g = symbol("p", ops.TENSOR), symbol("g", ops.TENSOR)
    s = SimpleNamespace(**{name: symbol(name, ops.TENSOR) for name in states})
    values: dict[str, Any] = dict(choices)
    for name, h in hypers.items():
        if name in key.off:
            values[name] = h.off
        elif h.symbolic and "tuple" in h.annotation:
            size = h.annotation.count("float")
            values[name] = tuple(symbol(f"{name}_{i}", ops.SCALAR) for i in range(size))
        elif h.symbolic:
            values[name] = symbol(name, ops.SCALAR, switch=h.off is not None)
    values["first"] = symbol("first", ops.SCALAR)
    if key.counted:
        values["step"] = symbol("step", ops.SCALAR)

    new_p: Any = update(key.rule, cast(Tensor, p), cast(Tensor, g), s, SimpleNamespace(**values))
    outputs = {"p": new_p.node, **{name: getattr(s, name).node for name in states}}
    graph.output(outputs)
    graph.eliminate_dead_code()
    classify(graph)
    scalars = tuple(n.name for n in graph.nodes if n.op == "placeholder" and n.meta["kind"] == ops.SCALAR)
    return Traced(graph, states, scalars)


def classify(graph: fx.Graph) -> None:
    """Sort the nodes into host scalars, numbers a tensor, and tensors; refuse what no backend can do."""
    for node in graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        kinds = {n.meta["kind"] for n in node.all_input_nodes}
        if isinstance(node.target, ops.Leaf):
            node.meta["kind"] = node.target.kind
        elif kinds <= {ops.SCALAR} and ops.scalar_op(node.target):
            node.meta["kind"] = ops.SCALAR
        elif ops.name_of(node.target) in ops.ROWS and ops.TENSOR in kinds:
            node.meta["kind"] = ops.TENSOR
        else:
            raise UnsupportedOpError(
                f"{node.meta['line']}: {ops.name_of(node.target)!r} is not an operation that a rule may use here; "
                f"there are: {', '.join(sorted(ops.ROWS))}"
            )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
