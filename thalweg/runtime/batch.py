"""Parameters that take the same step, side by side: what a backend gets, and is used again while nothing moves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from ctypes import c_float
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx

from thalweg._base.errors import bad_argument
from thalweg.ir.fields import StateSpec
from thalweg.ir.passes import Plan, plan
from thalweg.ir.trace import Host, Specialization
from thalweg.runtime.formats import PLAIN, Format, Storage, name_of
from thalweg.runtime.guards import Guards
from thalweg.runtime.sharding import is_part
from thalweg.runtime.state import beside_name, formats_of, slots
from thalweg.runtime.tensors import is_dense, local, opaque, oriented

#: why a batch is left to `eager`
OPAQUE = "a tensor is of a subclass whose memory is elsewhere, or on meta, where there is none"


@dataclass
class Batch:
    """Tensors of one group, device and dtype, at the same step; lists of equal length.

    Attributes:
        specialization: which graph.
        formats: how ``p`` and each state tensor lie in memory.
        params, grads: local, real tensors (complex ones are seen as pairs of reals), as (out, in, …) where the group
            says that they are kept transposed; so are the states of their shape.
        addresses: of the gradients.
        states: the state tensors by name; ``beside``: the second tensor of formats that have one, by name.
        narrow: by name, what is kept of each tensor or row, all in one vector; ``views`` are its parts, as they
            stand in the state.
        asides: by name, what is kept in other shapes, with None for a parameter that has none; a list to write to.
        ids: position of each parameter in the optimizer.
        h: hyperparameters as plain numbers, with ``step`` (1 at the first update), ``first`` (1.0 at the first, else
            0.0) and the numbers of the state.
        values: of every number of the host that follows from ``h``.
        key: what random bits start from at this update.
        sharded: whether the tensors are parts of larger ones, whose shapes and sums they do not tell.
    """

    specialization: Specialization
    formats: dict[str, Format]
    params: list[Tensor]
    grads: list[Tensor]
    states: dict[str, list[Tensor]]
    beside: dict[str, list[Tensor]]
    ids: list[int]
    dense: bool
    sharded: bool = False
    narrow: dict[str, Tensor] = field(default_factory=dict)
    views: dict[str, list[Tensor]] = field(default_factory=dict)
    asides: dict[str, list[Tensor | None]] = field(default_factory=dict)
    addresses: Sequence[int] = field(default_factory=list)
    h: SimpleNamespace = field(default_factory=SimpleNamespace)
    values: dict[fx.Node, Any] = field(default_factory=dict)
    key: int = 0

    @cached_property
    def exact(self) -> bool:
        """Whether what is stored of the state, and beside a parameter, is what was computed."""
        return all(f.exact for name, f in self.formats.items() if name != "p" or f.beside)

    @cached_property
    def plan(self) -> Plan:
        return plan(self.specialization, self.exact)

    @property
    def device(self) -> torch.device:
        return self.params[0].device

    @property
    def opaque(self) -> bool:
        """Whether the memory of some tensor cannot be addressed; then only `eager` serves."""
        kept = chain(*self.states.values(), *self.beside.values())
        return any(map(opaque, chain(self.params, self.grads, kept)))

    @property
    def compute(self) -> torch.dtype:
        """The dtype of computation."""
        return torch.float64 if self.params[0].dtype == torch.float64 else torch.float32

    @cached_property
    def slots(self) -> dict[str, int]:
        """The states and ``p`` by name, numbered: which stream of random bits rounds them."""
        return slots(self.formats)


class SparseGradientError(ValueError, RuntimeError):
    """An optimizer for which a gradient's zeros mean something got a sparse one. In torch it is a RuntimeError."""


def check_gradient(p: Tensor, g: Tensor, rule: Any) -> None:
    """Refuse a gradient that no backend or this rule cannot use, before anything changes."""
    if name_of(p.dtype) not in PLAIN:
        raise bad_argument("params", p.dtype, "one of " + ", ".join(PLAIN) + ", or complex ones")
    if g.layout != torch.strided:
        if not rule.takes_sparse:
            raise SparseGradientError(
                f"grad={g.layout}: expected a dense gradient: {rule.__name__} does not support sparse gradients. "
                "SGD and Adagrad do, as does torch.optim.SparseAdam"
            )
        warnings.warn(
            f"a sparse gradient of shape {tuple(g.shape)} is made dense at each step, which takes memory and time for "
            "the whole tensor; those of torch.optim move its rows alone",
            stacklevel=2,
        )
    if g.shape != p.shape:
        raise bad_argument("grad.shape", tuple(g.shape), f"the parameter's, {tuple(p.shape)}")
    if g.device != p.device:
        raise bad_argument("grad.device", str(g.device), f"the parameter's, {p.device}")
    if g.is_complex() != p.is_complex() or not (g.is_floating_point() or g.is_complex()):
        raise bad_argument("grad.dtype", g.dtype, f"a kind of number like the parameter's, {p.dtype}")
    if hasattr(g, "_local_tensor") != hasattr(p, "_local_tensor"):
        raise bad_argument("grad", type(g).__name__, f"what the parameter is, {type(p).__name__}")


class BoundBatch:
    """A batch with the parameters and states that it was made of; the only one that writes to the batch.

    It serves every further step for which :meth:`refresh` finds that nothing has moved.

    Args:
        owners: the parameters.
        states: the state of each, as the optimizer holds it.
        specs: what is kept for each.
        key: the graph.
        storage: how parameters and states are kept.
        ids: position of each parameter in the optimizer.
        all_states: the dict from parameters to their states.
        group: index of the parameter group.
        firsts: numbers that tell which states begin with the next step.
    """

    def __init__(
        self,
        owners: list[Tensor],
        states: list[dict[str, Any]],
        specs: Sequence[StateSpec],
        key: Specialization,
        storage: Storage,
        ids: list[int],
        all_states: dict[Any, Any],
        group: int,
        firsts: dict[str, float],
    ) -> None:
        self.owners, self.states, self.group, self.firsts = owners, states, group, firsts
        self.requested = key  # the group's; parameters that are not matrices may have another
        self.transposed: bool = dict(key.choices).get("transposed", False)
        params = self._oriented(owners)
        formats = formats_of(params[0].dtype, specs, storage)
        tensors = {name: self._oriented([s[name] for s in states]) for name in formats if name != "p"}
        beside = {n: self._oriented([s[beside_name(n, f)] for s in states]) for n, f in formats.items() if f.beside}
        dense = all(is_dense(p) for p in params)
        self.distributed = any(hasattr(p, "_local_tensor") for p in owners)
        self.batch = Batch(key, formats, params, [], tensors, beside, ids, dense, any(map(is_part, owners)))
        self.executor: Any = None
        self.backend, self.why = "", ""
        self.stateless = not (specs or beside)
        self.lists_gradients = True  # until a backend is chosen that takes addresses alone
        self.values: dict[str, float] = {}
        self.objects: dict[str, list[Any]] = {}
        self.end_pointers: dict[str, tuple[int, int]] = {}
        self.numbers = {spec.name: self._join_numbers(spec.name) for spec in specs if spec.counted}
        self.first_numbers = {name: c_float.from_address(home.data_ptr()) for name, home in self.numbers.items()}
        narrow = [spec for spec in specs if spec.narrow]
        self.asides = [spec.name for spec in specs if spec.kind == "aside"]
        for spec in narrow:
            self.batch.narrow[spec.name], self.batch.views[spec.name] = self._join_narrow(spec)
        names = [*tensors, *(beside_name(n, f) for n, f in formats.items() if f.beside), *self.batch.narrow]
        self.guards = Guards(owners, states, names, self.objects, dense, key.rule.takes_sparse, all_states)

    def _oriented(self, tensors: Sequence[Any]) -> list[Tensor]:
        """The local parts of tensors, one for each parameter, oriented as the rule sees them."""
        pairs = zip(tensors, self.owners, strict=True)
        return [oriented(local(x), p, self.transposed and x.shape == p.shape) for x, p in pairs]

    def _join_numbers(self, name: str) -> Tensor:
        """Put the numbers of all parameters into one vector, so that one addition counts an update of all."""
        home = torch.tensor([float(s[name]) for s in self.states], dtype=torch.float32, device="cpu")
        for i, s in enumerate(self.states):
            s[name] = _part(home, i, torch.Size())
        self.objects[name] = [s[name] for s in self.states]
        self.end_pointers[name] = home.data_ptr(), home[-1].data_ptr()
        return home

    def _join_narrow(self, spec: StateSpec) -> tuple[Tensor, list[Tensor]]:
        """Put what is kept for each tensor or row into one vector."""
        shapes = [s[spec.name].shape for s in self.states]
        # kernels see no rows in a tensor without elements: what is kept of such rows lies behind that of the others
        seen = [spec.kind == "per_tensor" or p.numel() > 0 for p in self.batch.params]
        order = sorted(range(len(shapes)), key=lambda i: not seen[i])
        home = torch.cat([self.states[i][spec.name].flatten() for i in order])
        begin = dict(zip(order, accumulate((shapes[i].numel() for i in order), initial=0), strict=False))
        views = [_part(home, begin[i], shape) for i, shape in enumerate(shapes)]
        for s, view in zip(self.states, views, strict=True):
            s[spec.name] = view
        return home[: sum(shape.numel() for shape, here in zip(shapes, seen, strict=True) if here)], views

    def set_numbers(self, h: SimpleNamespace, shared: dict[str, float], inverse_scale: float | None) -> None:
        """Give the batch the numbers of this step.

        Args:
            h: the hyperparameters of the group as plain numbers.
            shared: the numbers that all parameters of the group have in common.
            inverse_scale: what gradients must be multiplied with; None for 1.
        """
        now = SimpleNamespace(**{**vars(h), **self.values, **shared}, **self.firsts, inverse_scale=inverse_scale)
        now.matrix = self.batch.specialization.matrix
        if "step" in self.values:
            now.step = int(self.values["step"]) + 1
        self.batch.h, self.batch.values = now, Host.of(self.batch.specialization)(now)

    def set_executor(self, backend: str, why: str, executor: Any) -> None:
        """Let a backend run the batch from now on."""
        self.backend, self.why, self.executor = backend, why, executor
        self.lists_gradients = getattr(executor, "reads_gradients", True)

    def finish(self) -> None:
        """Count the update, write updated auxiliary state back, and release the gradients."""
        traced = self.batch.plan.traced
        for spec in traced.numbers:
            self.numbers[spec.name].fill_(self.batch.values[traced.outputs[spec.name]])
        if "step" in self.numbers:
            self.guards.count(self.numbers["step"])
        for name, tensors in self.batch.asides.items():
            for s, x in zip(self.states, tensors, strict=True):
                if x is not None:
                    s[name] = x
        self.batch.grads = []
        if self.distributed:  # the local parts have version counters of their own
            torch.autograd.graph.increment_version(self.owners)

    def refresh(self, owners: list[Tensor], states: Callable[[], Sequence[Any]]) -> bool:
        """Take the gradients of a further step; False if parameters or states were replaced or moved.

        Args:
            owners: the parameters as the optimizer has them now.
            states: gives their states as the optimizer has them now.
        """
        grads = self.guards.gradients(owners, None if self.stateless else states, self.lists_gradients)
        if grads is None:
            return False
        # code that moves one tensor of a state moves all: the first and the last tell whether they lie side by side
        for name, objects in self.objects.items():
            if (objects[0].data_ptr(), objects[-1].data_ptr()) != self.end_pointers[name]:
                return False
        if self.guards.uniform:
            values: dict[str, float] | None = {name: first.value for name, first in self.first_numbers.items()}
        else:
            values = self.common_numbers()
        if values is None:
            return False
        if self.transposed and grads:
            grads = [oriented(g, p, True) for g, p in zip(grads, owners, strict=True)]
        self.batch.grads, self.batch.addresses, self.values = grads, self.guards.addresses, values
        for name in self.asides:
            self.batch.asides[name] = [s.get(name) for s in self.states]
        return True

    def common_numbers(self) -> dict[str, float] | None:
        """The numbers of the state, if they are the same for all parameters; None otherwise."""
        values = {}
        for name, home in self.numbers.items():
            low, high = home.aminmax()
            if low != high and not bool(low.isnan() & high.isnan()):
                return None
            values[name] = float(low)
        return values


def _part(home: Tensor, at: int, shape: torch.Size) -> Tensor:
    """A part of a vector as a tensor whose storage holds this part only, so that saving it saves no more."""
    if home.is_meta:
        return home.new_empty(shape)
    size = home.element_size()
    storage = home.untyped_storage()[at * size : (at + shape.numel()) * size]
    return home.new_empty(0).set_(storage, 0, shape)  # type: ignore[call-overload, no-any-return]
