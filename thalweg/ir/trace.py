"""The rule, with what surrounds it, as one `torch.fx` graph in the rows of the table of ops."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol, cast

from torch import Tensor, fx

from thalweg._base.locked_cache import locked_cache
from thalweg.ir import ops
from thalweg.ir.fields import Each, Hyper, StateSpec, kinds_of_one, of_numpy
from thalweg.ir.names import Hypers, State
from thalweg.ir.ops import ASIDE, ELEMENT, GLOBAL, HOST, PER_TENSOR, ROW
from thalweg.ir.remedies import remedy
from thalweg.ir.transforms import update
from thalweg.ir.transforms.base import Transform

#: how many numbers a state of each kind stands for
EXTENT = {"tensor": ELEMENT, "row": ROW, "per_tensor": PER_TENSOR, "aside": ASIDE, "number": HOST, "shared": HOST}


WORDS = {
    HOST: "a number",
    GLOBAL: "a number of the group",
    PER_TENSOR: "a number for each tensor",
    ROW: "a number for each row",
    ELEMENT: "a tensor",
    ASIDE: "a tensor of another shape",
}


class UnsupportedOpError(TypeError):
    """A rule uses an operation that no backend knows; the message names it and the line of the rule."""


class RuleClass(Protocol):
    """What tracing and the runtime ask of an optimizer class."""

    hypers: ClassVar[dict[str, Hyper]]
    states: ClassVar[dict[str, StateSpec]]
    takes_sparse: ClassVar[bool]
    matrices_apart: ClassVar[bool]
    #: what surrounds it: the built-in transforms, and those of its list
    standard: ClassVar[tuple[type[Transform], ...]]
    listed: ClassVar[tuple[type[Transform], ...]]
    #: by state of a transform, the number of the step that tells whether it begins
    firsts: ClassVar[dict[str, str]]
    #: the switches of those that draw random numbers; "" of one that always does
    drawing: ClassVar[tuple[str, ...]]

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """Which way to go."""
        ...

    @classmethod
    def check_hypers(cls, group: Mapping[str, Any]) -> None:
        """Refuse a value outside its range."""
        ...


@dataclass(frozen=True)
class Specialization:
    """What of the hyperparameters shapes the rule: choices by value, numbers by whether they are off.

    Two groups with the same specialization share one graph, whatever their learning rates.
    """

    rule: type[RuleClass]
    choices: tuple[tuple[str, Any], ...]
    off: frozenset[str]
    counted: bool
    scaled: bool = False
    matrix: bool = True

    def __str__(self) -> str:
        shown = [f"{k}={v}" for k, v in self.choices if v != self.rule.hypers[k].default]
        on = {k for k, h in self.rule.hypers.items() if h.switchable and h.symbolic} - self.off
        parts = [*shown, *sorted(on), *(["loss scale"] if self.scaled else []), *([] if self.matrix else ["vectors"])]
        return self.rule.__name__ + (f" ({', '.join(parts)})" if parts else "")


@dataclass(frozen=True)
class TracedRule:
    """The graph of one specialization: its placeholders are ``p``, ``g``, the state tensors, and numbers of the host.

    Attributes:
        specialization: whose graph it is.
        graph: every node calls a row of the table, a sum, a total or a leaf, and knows its extent.
        outputs: what is kept, by name: ``p``, and everything of the state but its count.
        states: what of the state is shaped as the parameter.
        narrow: what of it is one number for each tensor or row.
        asides: what of it has another shape.
        numbers: the numbers of the state.
        shared: the numbers that stand in the group.
        scalars: names of the host's placeholders.
    """

    specialization: Specialization
    graph: fx.Graph
    outputs: dict[str, fx.Node]
    states: tuple[StateSpec, ...]
    narrow: tuple[StateSpec, ...]
    asides: tuple[StateSpec, ...]
    numbers: tuple[StateSpec, ...]
    shared: tuple[StateSpec, ...]
    scalars: tuple[str, ...]

    @property
    def common(self) -> list[str]:
        """Which of the numbers that stand in the group follow from sums over all tensors: all groups have the same."""
        return [spec.name for spec in self.shared if self.outputs[spec.name].meta["extent"] == GLOBAL]


class _RuleSymbol(fx.Proxy):
    """A symbolic value in a rule. Functions and methods of tensors are treated alike."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand a call over to the tracer, without the list of all functions of torch, which takes long to make."""
        found: list[_RuleSymbol] = []
        fx.node.map_aggregate((args, kwargs or {}), lambda a: found.append(a) if isinstance(a, cls) else None)
        return found[0].tracer.create_proxy("call_function", function, args, kwargs or {})


class _RuleTracer(fx.proxy.GraphAppendingTracer):
    """Turns calls into nodes for rows of the table, notes the rule's lines, and answers whether a number is on."""

    def __init__(self, graph: fx.Graph, rule: Any) -> None:
        super().__init__(graph)
        self.files = _files(rule)

    def proxy(self, node: fx.Node) -> _RuleSymbol:
        return _RuleSymbol(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:
        """A node for a row of the table; an equivalent function of torch or Python becomes that row."""
        args = fx.node.map_aggregate(args, self._number)
        if kind == "placeholder" or isinstance(target, ops._Symbolic):
            return super().create_proxy(kind, target, args, kwargs, *rest, **more)
        spelling = ops.SPELLINGS.get(ops.name_of(target))
        if kind not in ("call_function", "call_method") or spelling is None:
            raise self._unknown(str(args[1]) if target is getattr else ops.name_of(target))
        try:
            return spelling(*args, **kwargs)
        except UnsupportedOpError:
            raise
        except TypeError as error:
            raise UnsupportedOpError(f"{self.line()}: {ops.name_of(target)}: {error}") from error

    def create_arg(self, a: Any) -> Any:
        """As in torch; a function among the hyperparameters, and a record of plain values, go to a leaf as they are."""
        return a if (callable(a) and not isinstance(a, fx.Proxy)) or is_dataclass(a) else super().create_arg(a)

    def _number(self, arg: Any) -> Any:
        """Replace a constant tensor of one element by its number."""
        if not isinstance(arg, Tensor):
            return arg
        if arg.numel() != 1:
            raise UnsupportedOpError(f"{self.line()}: a constant tensor of shape {tuple(arg.shape)}: give it to a leaf")
        return arg.item()

    def create_node(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> fx.Node:
        """As in torch.fx; the node knows its extent and the line of the rule that asked for it."""
        node = super().create_node(kind, target, args, kwargs, *rest, **more)
        node.meta["line"] = self.line()
        if kind == "call_function":
            extents = [ops.extent_of(a) for a in node.all_input_nodes]
            if isinstance(target, ops.Op):
                node.meta["extent"] = max(extents)
            else:
                node.meta["extent"] = target.extent
            if isinstance(target, ops.Leaf) and target.extent == PER_TENSOR and len(node.all_input_nodes) > 1:
                raise UnsupportedOpError(
                    f"{self.line()}: {target.name} depends on shapes alone, and is given a number that may change"
                )
            whole = isinstance(target, ops.Leaf) and target.extent != PER_TENSOR
            if whole and any(map(ops.is_product, node.all_input_nodes)):
                raise UnsupportedOpError(f"{self.line()}: {target.name} takes whole tensors, and is given a product")
            if isinstance(target, ops.Leaf) and not {HOST, ELEMENT, ASIDE}.issuperset(extents):
                raise UnsupportedOpError(f"{self.line()}: {target.name} takes whole tensors and numbers of the host")
            if isinstance(target, ops.Op) and max(extents) == ASIDE:
                raise UnsupportedOpError(
                    f"{self.line()}: {target.name} of what is shaped unlike the parameter; write it within a leaf"
                )
            if isinstance(target, ops.Op) and ops.mistakes_conditions(target, args):
                raise UnsupportedOpError(
                    f"{self.line()}: {target.name} of conditions, which torch does not take for numbers; "
                    "write ops.where(condition, a, b)"
                )
            summed = isinstance(target, (ops.Sum, ops.Total)) and not ops.folds(node)
            if summed and ops.extent_of(node.args[0]) != ELEMENT:
                raise UnsupportedOpError(f"{self.line()}: {target.name} of what is no tensor's elements")
        return node

    def _unknown(self, name: str) -> UnsupportedOpError:
        return UnsupportedOpError(f"{self.line()}: a rule cannot use {name!r}. {remedy(name)}")

    def line(self) -> str:
        """File and line of the rule that is being run now."""
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename not in self.files:
            frame = frame.f_back
        return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "around the rule"

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Whether a number is on: a symbol is, since of a number that is off the value itself is traced."""
        if obj.node.meta.get("switch"):
            return True
        raise UnsupportedOpError(
            f"{self.line()}: a branch on {obj.node.name!r}, whose value is not known when the rule is "
            "traced. Write it as arithmetic, or declare the hyperparameter with hyper(off=...)"
        )

    def iter(self, obj: fx.Proxy) -> Any:
        """Refuse to iterate over a symbol: it is one value."""
        raise UnsupportedOpError(f"{self.line()}: {obj.node.name!r} is one value; it cannot be iterated over")


def _files(rule: Any) -> set[str]:
    """The files whose lines are the rule's: those in which it, and the parent that it builds on, state a direction.

    So are those of the functions of the transforms in its list.
    """
    stated = [c.direction for c in rule.__mro__ if "direction" in c.__dict__][:2]
    stated += [f for t in rule.listed for f in (t.before, t.after, t.step) if f.__module__ != Transform.__module__]
    return {f.__code__.co_filename for f in stated}


def is_matrix(rule: type[RuleClass], p: Tensor) -> bool:
    """Whether a parameter is what ``rule`` takes for a matrix: where it makes no difference, all are."""
    return p.ndim > 1 or not rule.matrices_apart


def specialize(
    rule: type[RuleClass], group: Mapping[str, Any], scaled: bool = False, matrix: bool = True
) -> Specialization:
    """The specialization of ``rule`` for the matrices of a parameter group, or for its other tensors."""
    hypers = rule.hypers
    choices = tuple((name, _frozen(group[name])) for name, h in hypers.items() if not h.symbolic)
    off = frozenset(n for n, h in hypers.items() if h.symbolic and h.switchable and is_off(group[n], h.off))
    counted = any(spec.kind == "count" for spec in kept_states(rule, group, matrix))
    return Specialization(rule, choices, off, counted, scaled, matrix)


def specializations(rule: type[RuleClass], group: Mapping[str, Any]) -> list[Specialization]:
    """Every specialization that the parameters of a group may need."""
    kinds = kinds_of_one(rule.hypers, group)
    matrices = (True, False) if rule.matrices_apart else (True,)
    return [specialize(rule, {**group, **own}, matrix=matrix) for own in kinds for matrix in matrices]


def is_off(value: Any, off: Any) -> bool:
    """Whether a hyperparameter has the value at which it does nothing."""
    return value is None if off is None else bool(value == off)


def kept_states(rule: type[RuleClass], group: Mapping[str, Any], matrix: bool = True) -> list[StateSpec]:
    """The state that ``rule`` keeps for each matrix of a group, or for each parameter that is none.

    Where parameters have values of their own, the group is one parameter's, or the first is asked.
    """
    first = {name: x[0] for name, x in group.items() if isinstance(x, Each)}
    h = SimpleNamespace(**{**group, **first, **({"matrix": matrix} if rule.matrices_apart else {})})
    return [spec for spec in rule.states.values() if spec.when(h)]


@locked_cache  # a graph's nodes are told apart by what they are, not by what they say
def trace(key: Specialization) -> TracedRule:
    """Run the rule once on symbols.

    Raises:
        UnsupportedOpError: for an operation that is not in the table of ops, or a branch on a number.
    """
    graph = fx.Graph()
    tracer = _RuleTracer(graph, key.rule)
    choices = dict(key.choices)
    hypers = key.rule.hypers
    on = {name: name not in key.off for name, h in hypers.items() if h.symbolic}
    specs = kept_states(key.rule, {**choices, **on}, key.matrix)
    states = tuple(spec for spec in specs if spec.kind == "tensor")
    narrow = tuple(spec for spec in specs if spec.narrow)
    asides = tuple(spec for spec in specs if spec.kind == "aside")
    numbers = tuple(spec for spec in specs if spec.kind == "number")
    shared = tuple(spec for spec in specs if spec.kind == "shared")

    def symbol(name: str, extent: ops.Extent, switch: bool = False, place: tuple[Any, ...] = ()) -> fx.Proxy:
        proxy = tracer.proxy(graph.placeholder(name))
        proxy.node.meta.update(extent=extent, switch=switch, place=place or (name,))
        return proxy

    p, g = symbol("p", ELEMENT), symbol("g", ELEMENT)
    kept_ = {spec.name: symbol(spec.name, EXTENT[spec.kind]) for spec in (*states, *narrow, *asides)}
    values: dict[str, Any] = dict(choices)
    for name, h in hypers.items():
        if name in key.off:
            values[name] = h.off
        elif h.symbolic and "tuple" in h.annotation:
            size = h.annotation.count("float")
            values[name] = tuple(symbol(f"{name}_{i}", HOST, place=(name, i)) for i in range(size))
        elif h.symbolic:
            values[name] = symbol(name, HOST, switch=h.switchable)
    kept_ |= {spec.name: symbol(spec.name, HOST) for spec in (*numbers, *shared)}
    for name in ("first", *dict.fromkeys(key.rule.firsts.values()), "initial_lr", *(["step"] if key.counted else [])):
        values[name] = symbol(name, HOST)
    values["inverse_scale"] = symbol("inverse_scale", HOST, switch=True) if key.scaled else None
    if key.rule.matrices_apart:
        values["matrix"] = key.matrix

    s = State(key.rule, kept_)
    new_p: Any = update(key.rule, cast(Tensor, p), cast(Tensor, g), s, Hypers(key.rule, values))
    outputs = {
        "p": _node(new_p, "the new parameter"),
        **{k.name: _node(getattr(s, k.name), k.name) for k in specs if k.kind != "count"},
    }
    for spec in specs:
        if spec.kind != "count":
            _fits(spec, outputs[spec.name])
    graph.output(outputs)
    graph.eliminate_dead_code()
    for node in [n for n in graph.nodes if n.op == "placeholder" and n.meta["extent"] == HOST and not n.users]:
        graph.erase_node(node)
    scalars = tuple(n.name for n in graph.nodes if n.op == "placeholder" and n.meta["extent"] == HOST)
    return TracedRule(key, graph, outputs, states, narrow, asides, numbers, shared, scalars)


def sums_over_all(key: Specialization) -> bool:
    """Whether a step follows from sums over all tensors."""
    traced = trace(key)
    return bool(traced.shared) or any(isinstance(n.target, ops.Total) for n in traced.graph.nodes)


def _node(value: Any, what: str) -> fx.Node:
    if not isinstance(value, fx.Proxy):
        raise UnsupportedOpError(f"{what} is {value!r}, which does not depend on anything that the rule was given")
    return value.node


def _fits(spec: StateSpec, node: fx.Node) -> None:
    """Refuse a new value whose extent is not that of the declared state."""
    most = GLOBAL if spec.kind == "shared" else EXTENT[spec.kind]
    extent = node.meta["extent"]
    if extent > most or (spec.kind == "aside" and extent != ASIDE):
        line = node.meta.get("line", spec.name)
        raise UnsupportedOpError(f"{line}: {spec.name} is declared as {WORDS[most]}, and is given {WORDS[extent]}")


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
        return lambda values: tuple(values[i] for i in places)

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


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else of_numpy(value)
