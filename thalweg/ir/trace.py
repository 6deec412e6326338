"""The rule, with what surrounds it, as one `torch.fx` graph in the rows of the table of ops."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from numbers import Real
from traceback import walk_tb
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol, cast

from torch import Tensor, fx

from thalweg._base.locked_cache import locked_cache
from thalweg.ir import arity, ops
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

#: what torch says where a function of its own is called with other arguments than it takes
_TORCH_REFUSES = re.compile(r"(?P<name>\w+)\(\) received an invalid combination of arguments - got \((?P<given>.*?)\),")


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
        if wrong := arity.refusal(ops.name_of(target), spelling, args, kwargs):
            raise UnsupportedOpError(f"{self.line()}: {wrong}")
        return spelling(*args, **kwargs)

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
            is_row = isinstance(target, ops.Op)
            node.meta["extent"] = max(map(ops.extent_of, node.all_input_nodes)) if is_row else target.extent
            if wrong := _row_refusal(node, target) if is_row else _whole_refusal(node, target):
                raise UnsupportedOpError(f"{self.line()}: {target.name} {wrong}")
        return node

    def located(self, error: TypeError) -> UnsupportedOpError:
        """An error of Python or torch, with the line of the rule in which it arose."""
        frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
        lines = [f"{name}:{line}" for name, line in frames if name in self.files]
        said = str(error).replace(_RuleSymbol.__name__, Tensor.__name__)
        if (call := _TORCH_REFUSES.match(said)) and (spelling := ops.SPELLINGS.get(call["name"])):
            said = arity.miscount(call["name"], *arity.limits(spelling), call["given"].count(",") + 1) or said
        return UnsupportedOpError(f"{lines[-1] if lines else 'around the rule'}: {said}")

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


def _row_refusal(node: fx.Node, row: ops.Op) -> str:
    """What is wrong with the arguments of a pointwise operation; empty where nothing is."""
    if strange := [a for a in node.args if not isinstance(a, (fx.Node, Real))]:
        return f"of {strange[0]!r}, which is neither a number nor a tensor"
    if node.meta["extent"] == ASIDE:
        return "of what is shaped unlike the parameter; write it within a leaf"
    if ops.mistakes_conditions(row, node.args):
        return "of conditions, which torch does not take for numbers; write ops.where(condition, a, b)"
    return ""


def _whole_refusal(node: fx.Node, target: Any) -> str:
    """What is wrong with the arguments of a sum, a total or a leaf; empty where nothing is."""
    extents = [ops.extent_of(a) for a in node.all_input_nodes]
    if isinstance(target, (ops.Sum, ops.Total)):
        wrong = not ops.folds(node) and ops.extent_of(node.args[0]) != ELEMENT
        return "of what is no tensor's elements" if wrong else ""
    if not isinstance(target, ops.Leaf):
        return ""
    if target.extent == PER_TENSOR and len(extents) > 1:
        return "depends on shapes alone, and is given a number that may change"
    if target.extent != PER_TENSOR and any(map(ops.is_product, node.all_input_nodes)):
        return "takes whole tensors, and is given a product"
    if not {HOST, ELEMENT, ASIDE}.issuperset(extents):
        return "takes whole tensors and numbers of the host"
    return ""


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
        UnsupportedOpError: for an operation that is not in the table of ops, a call of one with other arguments than it
            takes, or a branch on a number.
    """
    given = _Symbols(key)
    try:
        new_p: Any = update(key.rule, given.p, given.g, given.state, given.hypers)
    except UnsupportedOpError:
        raise
    except TypeError as error:
        raise given.tracer.located(error) from error
    outputs = {
        "p": _node(new_p, "the new parameter"),
        **{spec.name: _node(getattr(given.state, spec.name), spec.name) for spec in given.specs},
    }
    for spec in given.specs:
        _fits(spec, outputs[spec.name])
    graph = given.graph
    graph.output(outputs)
    graph.eliminate_dead_code()
    for node in [n for n in graph.nodes if n.op == "placeholder" and n.meta["extent"] == HOST and not n.users]:
        graph.erase_node(node)
    scalars = tuple(n.name for n in graph.nodes if n.op == "placeholder" and n.meta["extent"] == HOST)
    return TracedRule(
        key, graph, outputs, given.kept("tensor"), given.kept("row", "per_tensor"), given.kept("aside"),
        given.kept("number"), given.kept("shared"), scalars,
    )  # fmt: skip


class _Symbols:
    """What a rule is run on: a placeholder of an empty graph for each value that it is given.

    Attributes:
        specs: the states that it keeps, but for the count of steps.
        p, g, state, hypers: the arguments of the rule.
    """

    def __init__(self, key: Specialization) -> None:
        self.key, self.graph = key, fx.Graph()
        self.tracer = _RuleTracer(self.graph, key.rule)
        on = {name: name not in key.off for name, h in key.rule.hypers.items() if h.symbolic}
        kept = kept_states(key.rule, {**dict(key.choices), **on}, key.matrix)
        self.specs = [spec for spec in kept if spec.kind != "count"]
        self.p, self.g = (cast(Tensor, self._symbol(name, ELEMENT)) for name in ("p", "g"))
        tensors = self.kept("tensor") + self.kept("row", "per_tensor") + self.kept("aside")
        state = {spec.name: self._symbol(spec.name, EXTENT[spec.kind]) for spec in tensors}
        values = {**dict(key.choices), **self._declared()}
        state |= {spec.name: self._symbol(spec.name, HOST) for spec in self.kept("number") + self.kept("shared")}
        values |= self._by_the_engine()
        self.state, self.hypers = State(key.rule, state), Hypers(key.rule, values)

    def kept(self, *kinds: str) -> tuple[StateSpec, ...]:
        """The states of these kinds."""
        return tuple(spec for spec in self.specs if spec.kind in kinds)

    def _declared(self) -> dict[str, Any]:
        """The hyperparameters that are no choices: the value of one that is off, else a symbol for each number."""
        values: dict[str, Any] = {}
        for name, h in self.key.rule.hypers.items():
            if name in self.key.off:
                values[name] = h.off
            elif h.symbolic and "tuple" in h.annotation:
                size = h.annotation.count("float")
                values[name] = tuple(self._symbol(f"{name}_{i}", HOST, place=(name, i)) for i in range(size))
            elif h.symbolic:
                values[name] = self._symbol(name, HOST, switch=h.switchable)
        return values

    def _by_the_engine(self) -> dict[str, Any]:
        """What a rule finds among its hyperparameters beside those that it declares."""
        key = self.key
        names = ["first", *dict.fromkeys(key.rule.firsts.values()), "initial_lr", *(["step"] if key.counted else [])]
        values: dict[str, Any] = {name: self._symbol(name, HOST) for name in names}
        values["inverse_scale"] = self._symbol("inverse_scale", HOST, switch=True) if key.scaled else None
        return values | ({"matrix": key.matrix} if key.rule.matrices_apart else {})

    def _symbol(self, name: str, extent: ops.Extent, switch: bool = False, place: tuple[Any, ...] = ()) -> _RuleSymbol:
        symbol = self.tracer.proxy(self.graph.placeholder(name))
        symbol.node.meta.update(extent=extent, switch=switch, place=place or (name,))
        return symbol


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


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else of_numpy(value)
