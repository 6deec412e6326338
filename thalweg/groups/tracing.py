"""A forward pass on symbols, without any input.

As ``torch.fx`` traces, but for how a module is watched: that one replaces functions of ``nn.Module`` itself while it
traces, for every module and every thread of the process. Here the modules of a copy are given symbols for parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from thalweg.groups import dims
from thalweg.groups.dims import ON_THE_LEFT, ON_THE_RIGHT, Fans
from thalweg.groups.flow import Does, Flow, Known, Operation
from thalweg.groups.running import tensors
from thalweg.groups.shapes import ShapesOnly
from thalweg.groups.twin import twin, undisturbed

SOURCE = "a symbolic trace"

_FUNCTIONS: dict[str, Does] = {
    **dict.fromkeys(("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "dot"), "multiply"),
    **dict.fromkeys(("einsum", "tensordot", "addmm", "addmv", "baddbmm", "addbmm", "bilinear"), "multiply"),
    **dict.fromkeys(("embedding", "embedding_bag", "index_select", "gather", "take_along_dim"), "look up"),
    **dict.fromkeys(("mul", "imul", "multiply", "div", "truediv", "itruediv", "divide"), "scale"),
    **dict.fromkeys(("__mul__", "__rmul__", "__truediv__", "__rtruediv__", "mul_", "div_"), "scale"),
}
_SIZES = ("shape", "size", "ndim", "dim", "numel", "dtype", "device", "stride", "len")
#: what a symbol whose value is known tells of it
_KNOWN = ("shape", "ndim", "dtype", "device", "layout", "is_complex", "is_floating_point", "size", "dim", "numel")
#: modules of torch that are functions of symbols and need no other look
_TRACED = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag, nn.Sequential)
_VECTORS = ("mv", "dot", "vdot")
_MATMULS = ("matmul", "__matmul__", "mm", "bmm", "mv")


def by_tracing(model: nn.Module, known: Known, *, training: bool = False) -> Flow | None:
    """Run a copy of the model on symbols; None where that fails, as with control flow on values.

    Args:
        model: any module; neither it nor any random state is changed.
        known: what is known of the parameters.
        training: whether it runs in training mode.
    """
    try:
        with undisturbed():
            double = twin(model, values=False).train(training)
            tracer = _ModuleTracer(double)
            with ShapesOnly(guesses=False):
                outputs = tracer.run()
    except Exception:  # whatever a user's forward may raise when it is given symbols
        return None
    return tracer.flow(outputs, known)


class _ModuleSymbol(fx.Proxy):
    """A value of the pass. Of one that follows from parameters alone its size is known."""

    def __getattr__(self, name: str) -> Any:
        value = self.node.meta.get("value")
        return getattr(value, name) if value is not None and name in _KNOWN else super().__getattr__(name)

    def __len__(self) -> int:
        value = self.node.meta.get("value")
        return len(value) if value is not None else super().__len__()

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand a call over to the tracer, without the list of all functions of torch, which takes long to make."""
        found: list[fx.Proxy] = []
        fx.node.map_aggregate((args, kwargs or {}), lambda a: found.append(a) if isinstance(a, fx.Proxy) else None)
        return found[0].tracer.create_proxy("call_function", function, args or (), kwargs or {})


class _ModuleTracer(fx.proxy.GraphAppendingTracer):
    """Gives the modules of one copy symbols, and reads what becomes of them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(fx.Graph())
        self.model = model
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.symbols: dict[int, _ModuleSymbol] = {}
        self.steps: dict[Hashable, Operation] = {}
        for name, module in model.named_modules():
            self._prepare(name, module)

    def run(self) -> list[fx.Node]:
        """The pass; gives what it returns."""
        arguments, keywords = [], {}
        for name, one in inspect.signature(self.model.forward).parameters.items():
            if one.default is not one.empty or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
                continue
            symbol = self.create_proxy("placeholder", name, (), {})
            if one.kind == one.KEYWORD_ONLY:
                keywords[name] = symbol
            else:
                arguments.append(symbol)
        returned = self.model(*arguments, **keywords)
        return [symbol.node for symbol in tensors(returned, set(), fx.Proxy)]

    def flow(self, outputs: Iterable[fx.Node], known: Known) -> Flow | None:
        """What the pass did."""
        ends = [node for node in outputs if node in self.steps]
        appeared = {name for name, _ in self.model.named_parameters()} - {*self.names.values()}
        flow = Flow(self.steps, ends, known, SOURCE, self._origins, appeared)
        return flow if ends and flow.met else None

    # -- modules ----------------------------------------------------------------------------------------------------

    def _prepare(self, name: str, module: nn.Module) -> None:
        """Symbols in the place of a module's parameters; a module that is not looked into becomes one operation."""
        if isinstance(module, parametrize.ParametrizationList):
            self._replace(module, lambda: self._parameter(list(module.parameters())))
        elif _is_whole(module):
            self._replace(module, lambda *args, **kwargs: self.create_proxy("call_module", name, args, kwargs))
        else:
            for attribute, p in module._parameters.items():
                if p is not None:
                    vars(module)[attribute] = self._symbol(p)

    def _replace(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        """Another forward, for one module of the copy."""
        module._forward_pre_hooks.clear()
        vars(module)["forward"] = forward

    def _symbol(self, p: nn.Parameter) -> _ModuleSymbol:
        if id(p) not in self.symbols:
            self.symbols[id(p)] = self._parameter([p])
        return self.symbols[id(p)]

    def _parameter(self, own: list[nn.Parameter]) -> _ModuleSymbol:
        name = " ".join(self.names[id(p)] for p in own)
        symbol: _ModuleSymbol = self.create_proxy("get_attr", name, (), {})
        self.steps[symbol.node] = Operation("parameter", own=frozenset(self.names[id(p)] for p in own))
        if len(own) == 1:
            symbol.node.meta["value"] = own[0]
        return symbol

    # -- what torch.fx asks for -------------------------------------------------------------------------------------

    def proxy(self, node: fx.Node) -> _ModuleSymbol:
        """The value of a node."""
        return _ModuleSymbol(node, self)

    def create_arg(self, a: Any) -> Any:
        """An argument of a node: of tensors, parameters are symbols; what else is no symbol is as it is."""
        if isinstance(a, nn.Parameter) and id(a) in self.names:
            return self._symbol(a).node
        if isinstance(a, (Tensor, nn.Module)):
            return None
        try:
            return super().create_arg(a)
        except NotImplementedError:
            return None

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:
        """A node, and what it does; of what follows from parameters alone, the size of its value too."""
        symbol = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        if kind != "get_attr":
            step = Operation("input") if kind == "placeholder" else self._step(symbol.node)
            if step.own or step.does == "input" or any(step.inputs):
                self.steps[symbol.node] = step
        if kind in ("call_function", "call_method") and all("value" in n.meta for n in symbol.node.all_input_nodes):
            symbol.node.meta["value"] = _value(target, args, kwargs)
        return symbol

    # -- what a node does -------------------------------------------------------------------------------------------

    def _step(self, node: fx.Node) -> Operation:
        inputs = tuple(one if one in self.steps else None for one in node.all_input_nodes)
        if node.op == "call_module":
            module = self.model.get_submodule(str(node.target))
            own, inside = (
                frozenset(self.names[id(p)] for p in ps) for ps in (_last_matrices(module), module.parameters())
            )
            return Operation("multiply" if own else "other", inputs, own, inside=inside)
        name = _name(node)
        does = self._does(name, node)
        fans = _fans(name, node) if does in ("multiply", "convolve", "filter") else {}
        return Operation(
            does, () if name in _SIZES else inputs, fans=tuple(fans.get(one) for one in node.all_input_nodes)
        )

    def _does(self, name: str, node: fx.Node) -> Does:
        if name in ("getitem", "__getitem__"):  # by an index that is computed from the input; a slice is only a view
            return "look up" if any(one in self.steps for one in node.all_input_nodes[1:]) else "other"
        if name.startswith("conv"):
            return "filter" if _is_filter(node) else "convolve"
        if name in _VECTORS and len(node.all_input_nodes) < 2:
            return "other"  # of a weight and a constant, such as the power iteration of a spectral norm
        if callable(node.target) and not _is_torchs_function(node.target):
            return "opaque"
        return _FUNCTIONS.get(name, "other")

    def _origins(self, node: Any) -> list[dims.Origin] | None:
        value = node.meta.get("value")
        if not isinstance(value, Tensor):
            return None
        if value.grad_fn is not None:
            return dims.origins(value.grad_fn, self.names)
        name = self.names.get(id(value))
        return None if name is None else [frozenset({(name, i)}) for i in range(value.ndim)]


def _value(target: Any, args: Any, kwargs: Any) -> Any:
    """What a call gives, on ``meta``, whose arguments are parameters, what is computed from them, and constants."""
    args, kwargs = fx.node.map_aggregate(
        (args, kwargs), lambda a: a.node.meta["value"] if isinstance(a, fx.Proxy) else a
    )
    return target(*args, **kwargs) if callable(target) else getattr(args[0], target)(*args[1:], **kwargs)


def _is_torchs(module: nn.Module) -> bool:
    written = type(module).__mro__[1 if parametrize.is_parametrized(module) else 0]
    return written.__module__.startswith(("torch.nn", "torch.ao.nn"))


def _is_whole(module: nn.Module) -> bool:
    """Whether a module is seen as one operation: those of torch that ask for values or shapes."""
    does_nothing = type(module).forward is nn.Module.forward  # a container
    return _is_torchs(module) and not isinstance(module, _TRACED) and not does_nothing


def _name(node: fx.Node) -> str:
    if node.target is getattr:
        return str(node.args[1])
    target: Any = getattr(node.target, "overloadpacket", node.target)  # of an exported program
    return str(getattr(target, "__name__", target))


def _is_torchs_function(function: Callable[..., Any]) -> bool:
    home = getattr(function, "__module__", None) or "torch"  # torch's built-in functions name no module
    return home.split(".")[0] in ("torch", "_operator", "math", "builtins")


def _argument(node: fx.Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def _fans(name: str, node: fx.Node) -> Mapping[Any, Fans]:
    """Of each factor of a product, which dimensions are summed over."""
    if name == "linear":
        return {_argument(node, 1, "weight"): dims.LINEAR}
    if name in _MATMULS:
        left, right = _argument(node, 0, "input"), _argument(node, 1, "other")
        return {right if right is not None else node.kwargs.get("mat2"): ON_THE_RIGHT, left: ON_THE_LEFT}
    if name == "__rmatmul__":
        return {node.args[0]: ON_THE_RIGHT, node.args[1]: ON_THE_LEFT}
    if name in ("addmm", "baddbmm", "addmv"):
        return {node.args[1]: ON_THE_LEFT, node.args[2]: ON_THE_RIGHT} if len(node.args) > 2 else {}
    if name == "einsum" and isinstance(node.args[0], str):
        rest = node.args[1:] if not isinstance(node.args[1], (list, tuple)) else node.args[1]
        return {one: dims.einsum(node.args[0], i) for i, one in enumerate(rest)}
    weight = _argument(node, 1, "weight")
    if name.startswith("conv") and isinstance(weight, fx.Node):
        value = weight.meta.get("value")
        return {weight: dims.kernel(value.ndim, "transpose" in name)} if isinstance(value, Tensor) else {}
    return {}


def _is_filter(node: fx.Node) -> bool:
    """Whether a convolution filters each channel by itself."""
    weight, groups = _argument(node, 1, "weight"), _argument(node, 6, "groups")
    value = weight.meta.get("value") if isinstance(weight, fx.Node) else None
    return isinstance(value, Tensor) and isinstance(groups, int) and groups > 1 and value.shape[1] == 1


def _last_matrices(module: nn.Module) -> list[nn.Parameter]:
    """The matrices that make the output of a module that the trace does not look into: those registered last."""
    owned = [[p for p in one.parameters(recurse=False) if p.ndim >= 2] for one in module.modules()]
    return next((matrices for matrices in reversed(owned) if matrices), [])
