"""A forward pass as torch.fx sees it, without any input."""

from __future__ import annotations

import inspect
import operator
import warnings
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from torch import fx, nn

from thalweg.groups.flow import Does, Flow, Step
from thalweg.groups.places import EMBEDDINGS
from thalweg.groups.twin import twin, undisturbed

_FUNCTIONS: dict[str, Does] = {
    **dict.fromkeys(("linear", "matmul", "__matmul__", "mm", "bmm", "mv", "dot", "einsum", "tensordot"), "multiply"),
    **dict.fromkeys(("addmm", "addmv", "baddbmm", "addbmm", "bilinear"), "multiply"),
    **dict.fromkeys(("embedding", "embedding_bag", "index_select", "gather", "take_along_dim"), "look up"),
    **dict.fromkeys(("mul", "imul", "multiply", "div", "truediv", "itruediv", "divide"), "scale"),
}
_SIZES = ("shape", "size", "ndim", "dim", "numel", "dtype", "device", "stride", "len")


def by_tracing(model: nn.Module, matrices: AbstractSet[str]) -> Flow | None:
    """Trace a copy of the model symbolically; None where that fails, as with control flow on values.

    Args:
        model: any module; neither it nor any random state is changed.
        matrices: names of the parameters that are known to be matrices.
    """
    try:
        with undisturbed(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a trace that nobody runs
            double = twin(model, values=False)
            nodes = list(fx.Tracer().trace(double, concrete_args=_defaults(double)).nodes)
    except Exception:  # whatever a user's forward may raise when it is given symbols
        return None
    read = _Reader(double)
    steps = {node: step for node in nodes if (step := read(node)) is not None}
    outputs = [node for node in nodes[-1].all_input_nodes if node in steps]
    return Flow(steps, outputs, matrices, "a symbolic trace") if outputs else None


def _defaults(model: nn.Module) -> dict[str, Any]:
    """The arguments that forward does without, such as ``targets=None``: what hangs on them goes as by default."""
    plain = (type(None), bool, int, float, str)
    parameters = inspect.signature(model.forward).parameters
    return {name: one.default for name, one in parameters.items() if isinstance(one.default, plain)}


class _Reader:
    """Reads the nodes of a trace in their order; None for one that depends on no input and no parameter."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.constants: set[fx.Node] = set()

    def __call__(self, node: fx.Node) -> Step | None:
        step = self._step(node)
        if step.own or step.does == "input" or any(step.inputs):
            return step
        self.constants.add(node)
        return None

    def _step(self, node: fx.Node) -> Step:
        if node.op == "placeholder":
            return Step("input")
        if node.op == "get_attr":
            return Step("parameter", own=self._own([operator.attrgetter(str(node.target))(self.model)]))
        inputs = tuple(self._input(one) for one in node.all_input_nodes)
        if node.op == "call_module":
            module = self.model.get_submodule(str(node.target))
            return Step(_does_module(module), inputs, self._own(_last_matrices(module)))
        return Step(self._does_function(node), () if _name(node) in _SIZES else inputs)

    def _input(self, node: fx.Node) -> fx.Node | None:
        return None if node in self.constants else node

    def _own(self, values: Iterable[Any]) -> frozenset[str]:
        return frozenset(self.names[id(value)] for value in values if id(value) in self.names)

    def _does_function(self, node: fx.Node) -> Does:
        name = _name(node)
        if name == "getitem":  # by an index that is computed from the input; a slice is only a view
            return "look up" if any(self._input(one) for one in node.all_input_nodes[1:]) else "other"
        if name.startswith("conv"):
            return "convolve"
        if callable(node.target) and not _is_torch(node.target):
            return "opaque"
        return _FUNCTIONS.get(name, "other")


def _name(node: fx.Node) -> str:
    if node.target is getattr:
        return str(node.args[1])
    return str(getattr(node.target, "__name__", node.target))


def _is_torch(function: Callable[..., Any]) -> bool:
    home = getattr(function, "__module__", None) or "torch"  # torch's built-in functions name no module
    return home.split(".")[0] in ("torch", "_operator", "math", "builtins")


def _does_module(module: nn.Module) -> Does:
    if isinstance(module, EMBEDDINGS):
        return "look up"
    return "multiply" if _last_matrices(module) else "other"


def _last_matrices(module: nn.Module) -> list[nn.Parameter]:
    """The matrices that make the output of a module that the trace does not look into: those registered last."""
    owned = [[p for p in one.parameters(recurse=False) if p.ndim >= 2] for one in module.modules()]
    return next((matrices for matrices in reversed(owned) if matrices), [])
