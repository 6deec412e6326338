"""What all wrappers share: they stand around any `torch.optim.Optimizer`, and behave as one."""

from __future__ import annotations

import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import is_
from typing import Any, ClassVar, dataclass_transform

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg._base.given import check_closure
from thalweg.engine import docstrings, fitting
from thalweg.ir import fields
from thalweg.ir.fields import Hyper, hyper
from thalweg.optim.momo import Modelled
from thalweg.runtime.state import MASTER
from thalweg.shards.exchange import telling_ranks
from thalweg.wrap.beside import Beside
from thalweg.wrap.lists import NARROW, assign

#: what ``step`` may be given
Closure = Callable[[], Any]


@dataclass_transform(field_specifiers=(hyper,))
class DeclaredWrapper(torch.optim.Optimizer):
    """Reads the hyperparameters that a subclass declares and gives it its constructor's signature."""

    hypers: ClassVar[dict[str, Hyper]]
    prefix: ClassVar[str]
    _arguments: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Collect what the class body declares."""
        super().__init_subclass__(**kwargs)
        fields.collect(cls)
        cls.hypers = fields.declarations(cls, Hyper)
        cls.prefix = cls.__name__.lower()
        fitting.PREFIXES.add(cls.prefix)
        own = list(fields.signature(cls.hypers).parameters.values())[1:]
        first = inspect.Parameter("optimizer", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        cls._arguments = inspect.Signature([first, *own])
        cls.__signature__ = fields.own_signature(cls) or cls._arguments  # type: ignore[attr-defined]
        if cls.hypers and cls.__dict__.get("__doc__"):
            cls.__doc__ = docstrings.with_arguments(cls.__doc__ or "", "", cls.hypers, {})


class Wrapper(DeclaredWrapper):
    """Base of what stands around an optimizer: it has the same groups, and the face of `torch.optim.Optimizer`.

    Hyperparameters and counts stand in the inner optimizer's groups, under names that begin with the wrapper's own
    (``lookahead_alpha``): a schedule may move them, groups may differ in them, and ``add_param_group`` takes them. A
    ``state_dict`` is the inner optimizer's with the wrapper's tensors beside its own, so that it loads with or
    without the wrapper.

    Args:
        optimizer: any instance of ``torch.optim.Optimizer``, another wrapper too. Call ``step``, ``state_dict`` and
            the rest on the wrapper from now on; it stays reachable as ``.optimizer``.

    Raises:
        ValueError: for what is no optimizer, or a hyperparameter outside its range, before anything changes.

    Attributes:
        optimizer: the inner optimizer.
        given: what the constructor was given.
        kept: the wrapper's tensors for each parameter, by name.
        tensors: their names. counts: numbers that begin in every group, and their first values.
    """

    optimizer: torch.optim.Optimizer
    tensors: ClassVar[tuple[str, ...]] = ()
    counts: ClassVar[dict[str, int]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = fields.given(type(self), self._arguments, args, kwargs)
        optimizer = given.pop("optimizer")
        self._check_inner(optimizer)
        for name, h in self.hypers.items():
            h.check(given[name])
        self.optimizer = optimizer
        self.given: dict[str, Any] = given
        self.kept: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self._known: list[Tensor] = []
        self.__setstate__({})
        for group in self.param_groups:
            group.update(self._beginning())

    def _check_inner(self, optimizer: Any) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            what = optimizer.__name__ if isinstance(optimizer, type) else type(optimizer).__name__
            raise bad_argument(
                "optimizer", what, "an instance of torch.optim.Optimizer", "Build the optimizer first, then wrap it"
            )
        self._refuse_fused(optimizer)
        if any(isinstance(one, Wrapper) and one.prefix == self.prefix for one in layers(optimizer)):
            raise bad_argument("optimizer", type(optimizer).__name__, f"one without {type(self).__name__} in it")

    def _refuse_fused(self, optimizer: torch.optim.Optimizer) -> None:
        """What moves inside ``backward`` has moved before a wrapper's step begins."""
        last = layers(optimizer)[-1]
        if getattr(last, "fused_into_backward", False):
            raise bad_argument("optimizer", type(last).__name__, "one that updates in step(), not inside backward")

    def _told(self, loss: Any) -> dict[str, Any]:
        """What the inner step is given where the wrapper has called the closure itself."""
        return {"loss": loss} if looks_at_loss(self.optimizer) else {}

    def _evaluated(self, closure: Closure | None) -> tuple[Any, dict[str, Any]]:
        """The loss that a closure gives, called with gradients on, and what the inner step is then told of it."""
        if closure is None:
            return None, {}
        with torch.enable_grad(), telling_ranks():
            loss = closure()
        return loss, self._told(loss)

    # -- what stands in the groups ----------------------------------------------------------------------------------

    def _beginning(self) -> dict[str, Any]:
        """What a new group is given."""
        hypers = {name: self.given[name] for name, h in self.hypers.items() if not h.setup}
        return {f"{self.prefix}_{name}": value for name, value in {**hypers, **self.counts}.items()}

    def _check(self, group: dict[str, Any]) -> None:
        for name, h in self.hypers.items():
            if (key := f"{self.prefix}_{name}") in group:
                replace(h, name=key).check(group[key])

    def _check_step(self, closure: Any = None) -> None:
        """Before a step: the groups and the inner optimizer are the user's to change between two."""
        check_closure(closure)
        self._refuse_fused(self.optimizer)
        for group in self.param_groups:
            self._check(group)
        self._forget_departed()

    def _of(self, group: dict[str, Any], name: str) -> Any:
        """A hyperparameter or count of a group, as a plain number."""
        return fields.plain(group[f"{self.prefix}_{name}"])

    def _count(self, group: dict[str, Any]) -> int:
        """One more step of a group."""
        group[f"{self.prefix}_step"] += 1
        return int(group[f"{self.prefix}_step"])

    # -- what is kept for each parameter ----------------------------------------------------------------------------

    def _moving(self, group: dict[str, Any], closure: Any = None) -> list[Tensor]:
        """The parameters of a group that a step will move; a closure is yet to give them their gradients."""
        return [p for p in group["params"] if (p.requires_grad if closure else p.grad is not None)]

    def _forget_departed(self) -> None:
        """Let go of the tensors of parameters that stand in no group any more."""
        now = [p for group in self.param_groups for p in group["params"]]
        if len(now) != len(self._known) or not all(map(is_, now, self._known)):
            self._known, here = now, set(now)
            for p in [p for p in self.kept if p not in here]:
                del self.kept[p]

    def _refuse_between(self, what: str) -> None:
        """Refuse to save or copy while the parameters hold something else than what training goes on from."""

    def _write(self, params: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Overwrite parameters; the bits below one of 16 bits, which an inner optimizer may keep, are then zero."""
        assign(params, values)
        for p in params:
            bits = self.optimizer.state.get(p, {}).get(MASTER) if p.dtype in NARROW else None
            if bits is not None:
                bits.zero_()

    # -- the face of torch.optim.Optimizer --------------------------------------------------------------------------

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The inner optimizer's."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def _names(self) -> dict[str, str]:
        """The names of the wrapper's tensors, by the keys under which they stand beside an optimizer's state."""
        return {f"{self.prefix}_{name}": name for name in self.tensors}

    @property  # type: ignore[override]
    def state(self) -> MutableMapping[Tensor, Any]:
        """The inner optimizer's, with the wrapper's tensors in it, as in a checkpoint."""
        inner = self.optimizer.state
        return Beside(inner, self.kept, self._names) if self.tensors else inner

    @state.setter
    def state(self, state: MutableMapping[Tensor, Any]) -> None:
        mine = self.state
        if isinstance(mine, Beside):
            given = dict(state)
            mine.clear()
            mine.update(given)
        else:
            self.optimizer.state = state  # type: ignore[assignment]

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The inner optimizer's, and the wrapper's own under the names that they have in a group."""
        return {**self.optimizer.defaults, **self._beginning()}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As in torch."""
        self.optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; values outside their range are refused before the group is added."""
        if isinstance(param_group, dict):
            own = self._beginning()
            like_own = {key: value for key, value in param_group.items() if str(key).startswith(f"{self.prefix}_")}
            fields.check_keys(type(self).__name__, like_own, own, {f"{self.prefix}_{n}" for n in self.given} - {*own})
            self._check(param_group)
        self.optimizer.add_param_group(param_group)
        group = self.param_groups[-1]
        group.update({**self._beginning(), **group})

    def state_dict(self) -> dict[str, Any]:
        """As in torch: what the inner optimizer saves, with the wrapper's tensors beside its state.

        Raises:
            RuntimeError: while the parameters hold something else than the weights that are trained.
        """
        self._refuse_between("state_dict")
        self._forget_departed()
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        saved: dict[str, Any] = self.optimizer.state_dict()
        state = dict(saved["state"])
        for i, p in self._numbered(saved):
            if p in self.kept:
                mine = {key: self.kept[p][name] for key, name in self._names.items() if name in self.kept[p]}
                state[i] = {**state.get(i, {}), **mine}
        saved = {**saved, "state": state}
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, saved)
            saved = saved if changed is None else changed
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch. What was saved without the wrapper loads too: the wrapper then begins again.

        Raises:
            TypeError, ValueError: for what is no checkpoint of these parameters, before anything changes.
        """
        fitting.check_form(state_dict)
        state_dict = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state_dict)
            state_dict = state_dict if changed is None else changed
        fitting.check_keys(state_dict)
        state_dict = fitting.by_name(state_dict, self.param_groups)
        names = self._names
        found = fitting.filled(state_dict["state"])
        kept: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        for i, p in self._numbered(state_dict):
            mine = {names[key]: x for key, x in found.get(i, {}).items() if key in names}
            if mine:
                kept[p] = {name: _like(p, x, f"{self.prefix}_{name}") for name, x in mine.items()}
                rest = {key: x for key, x in found[i].items() if key not in names}
                if rest:
                    found[i] = rest
                else:  # an empty state is not what an optimizer takes for none
                    del found[i]
        for group in state_dict["param_groups"]:
            self._check(group)
        counted = any(group.get(f"{self.prefix}_step") for group in state_dict["param_groups"])
        if self.tensors and counted and found and not kept:
            warnings.warn(
                f"the checkpoint counts steps of {type(self).__name__} and has none of its tensors, which begin again: "
                "some steps were taken without it",
                stacklevel=2,
            )
        self.optimizer.load_state_dict({**state_dict, "state": found})
        self.kept = kept
        for group in self.param_groups:
            group.update({**self._beginning(), **group})
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _numbered(self, saved: dict[str, Any]) -> Iterator[tuple[Any, Tensor]]:
        """Each parameter with its number in a checkpoint."""
        ids = chain.from_iterable(group["params"] for group in saved["param_groups"])
        return zip(ids, chain.from_iterable(group["params"] for group in self.param_groups), strict=False)

    def __getstate__(self) -> dict[str, Any]:
        self._forget_departed()
        return {name: self.__dict__[name] for name in ("optimizer", "given", "kept", "_known")}

    def __repr__(self) -> str:
        own = ", ".join(f"{name}={value}" for name, value in self.given.items())
        return f"{type(self).__name__} ({own}) of {self.optimizer!r}"


def layers(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """An optimizer and what it stands around, from the outside in."""
    found = [optimizer]
    while isinstance(outer := found[-1], Wrapper):
        found.append(outer.optimizer)
    return found


def looks_at_loss(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step without a closure must be told the loss."""
    return isinstance(layers(optimizer)[-1], Modelled)


def _like(p: Tensor, x: Tensor, name: str) -> Tensor:
    """A tensor from a checkpoint, on the parameter's device and in memory of its own."""
    if x.shape != p.shape:
        raise bad_argument(f"state {name!r}", tuple(x.shape), f"the shape of the parameter, {tuple(p.shape)}")
    dtype = torch.float32 if p.dtype in NARROW else p.dtype
    return torch.empty_like(p, dtype=dtype, requires_grad=False).copy_(x)
