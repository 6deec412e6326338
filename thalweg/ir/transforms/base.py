"""What a transform is: hyperparameters and states, declared as a rule's are, and pure functions around a direction."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any, ClassVar, dataclass_transform

import torch

from thalweg.ir import fields
from thalweg.ir.fields import Hyper, StateSpec, hyper, number, shared, state


@dataclass_transform(field_specifiers=(hyper, state, number, shared))
class Transform:
    """Base of what surrounds a direction: a subclass declares what it has, and writes ``before``, ``after`` or both.

    All of it is traced into the graph of the rule that it surrounds. Where the first hyperparameter that it declares
    may be off (``hyper(off=0)``, or a bool), that is its switch: where it is off, nothing of the transform is in the
    graph, and none of its states is kept.

    ``p`` is the parameter, ``g`` its gradient, ``s`` the states that the transform declares (assign to them), ``h`` the
    hyperparameters of the group: its own, those of the rule (``h.lr``), and ``h.first``, 1.0 where its states begin.
    """

    hypers: ClassVar[dict[str, Hyper]] = {}
    states: ClassVar[dict[str, StateSpec]] = {}
    #: the hyperparameter that turns it off; empty where it is always on
    switch: ClassVar[str] = ""
    #: under which name ``h.first`` stands among the numbers of a step
    first: ClassVar[str] = ""
    #: whether it looks at rows, of which tensors of complex numbers have none
    of_rows: ClassVar[bool] = False
    #: whether it draws random numbers (:func:`normal`), which follow the optimizer's seed and count of updates
    draws: ClassVar[bool] = False
    _arguments: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Collect what the class body declares."""
        super().__init_subclass__(**kwargs)
        fields.collect(cls)
        cls.hypers = fields.declarations(cls, Hyper)
        main = next(iter(cls.hypers.values()), None)
        may_be_off = main is not None and (main.switchable or "bool" in main.annotation)
        cls.switch = main.name if main is not None and may_be_off else ""
        if main is not None and main.switchable and main.off:
            raise TypeError(f"{cls.__name__}.{main.name}: off={main.off!r}: expected 0, None or False, which switch it")
        counts = [name for name, spec in fields.declarations(cls, StateSpec).items() if spec.kind == "count"]
        if counts:
            raise TypeError(
                f"{cls.__name__}.{counts[0]}: expected number(): count() is of rules, whose updates h.step tells"
            )
        cls.first = f"{cls.__name__}_first"
        cls.states = {name: _kept_while_on(cls, spec) for name, spec in fields.declarations(cls, StateSpec).items()}
        cls._arguments = fields.signature(cls.hypers, first="")
        cls.__signature__ = cls._arguments  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        cls = type(self)
        self.given: dict[str, Any] = fields.given(cls, self._arguments, args, kwargs)
        if cls.switch and not self.given[cls.switch] and not args and cls.switch not in kwargs:
            main = cls.hypers[cls.switch]
            if "bool" not in main.annotation:
                raise TypeError(
                    f"{cls.__name__}(): expected {main.name}, {main.doc or 'a value'}: it is off by default"
                )
            self.given[cls.switch] = True
        for name, value in self.given.items():
            cls.hypers[name].check(value)
        self.given = {name: fields.frozen(value) for name, value in self.given.items()}

    @staticmethod
    def before(p: Any, g: Any, s: Any, h: Any) -> Any:
        """The gradient that the direction sees, and the transforms that come after this one."""
        return g

    @staticmethod
    def after(p: Any, g: Any, u: Any, q: Any, s: Any, h: Any) -> Any:
        """The direction that is stepped along; a pair (u, q) says what decoupled decay takes from, too.

        Args:
            p: the parameter. g: the gradient that the direction saw. s: the states. h: the hyperparameters.
            u: the direction.
            q: what decoupled decay takes from: p, unless the rule or another transform says otherwise; None where
                nothing decays any more.
        """
        return u

    @staticmethod
    def step(p: Any, u: Any, q: Any, s: Any, h: Any) -> Any:
        r"""The new parameter: $p - \gamma u$ after decoupled decay. One of the transforms may replace it."""
        return torch.add(decayed(p, q, h), u, alpha=-h.lr)

    @classmethod
    def is_on(cls, h: Any) -> bool:
        """Whether it does anything with these hyperparameters: 0 is a number like any other where None is off."""
        if not cls.switch:
            return True
        value, main = getattr(h, cls.switch), cls.hypers[cls.switch]
        return True if main.off is None and isinstance(value, (int, float)) else bool(value)

    def __repr__(self) -> str:
        shown = [
            repr(value) if i == 0 and not h.kw_only else f"{h.name}={value!r}"
            for i, (h, value) in enumerate(zip(self.hypers.values(), self.given.values(), strict=True))
            if (value is not True if i == 0 else value != h.default)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transform) and type(self) is type(other) and self.given == other.given

    def __hash__(self) -> int:
        return hash((type(self), *self.given))


def _kept_while_on(cls: type[Transform], spec: StateSpec) -> StateSpec:
    """Its states, which exist while the transform is on and a ``when`` of their own holds."""
    return replace(spec, when=lambda h: cls.is_on(h) and spec.when(h))


def decays(h: Any) -> bool:
    """Whether weights decay by themselves, and not within the gradient."""
    return bool(h.weight_decay and h.decoupled_weight_decay)


def coupled(p: Any, g: Any, h: Any) -> Any:
    r"""The gradient with coupled decay in it: $g + \lambda p$."""
    return torch.add(g, p, alpha=h.weight_decay) if h.weight_decay and not h.decoupled_weight_decay else g


def decayed(p: Any, q: Any, h: Any) -> Any:
    r"""The parameter after decoupled decay.

    It is $p - \gamma\lambda q$, or where ``independent_weight_decay`` $p - \eta\lambda q$ with $\eta$ the learning rate
    over its initial value (Loshchilov & Hutter 2019, algorithm 2).
    """
    if q is None or not decays(h):
        return p
    rate = (h.lr / h.initial_lr if h.independent_weight_decay else h.lr) * h.weight_decay
    return p * (1 - rate) if q is p else torch.add(p, q, alpha=-rate)
