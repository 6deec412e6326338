"""How an optimizer states its hyperparameters and its state: once, with default, range and one sentence."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument, misspelt, unknown_argument

MISSING: Any = inspect.Parameter.empty
INFINITY = "∞"
ROUNDING = 1e-12
#: keys that torch itself gives a parameter group
OF_EVERY_GROUP = frozenset({"params", "param_names"})


@dataclass(frozen=True)
class Interval:
    """A range of numbers in the notation of mathematics: ``[0, 1)``, ``(0, ∞)``."""

    text: str

    def holds(self, value: float) -> bool:
        """Whether a number lies in it, but for what the arithmetic of a schedule may leave below a 0 that does."""
        return value in self or (-ROUNDING <= value < 0 and 0.0 in self)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """Its lower and its upper end."""
        low, high = (float(end.replace(INFINITY, "inf")) for end in self.text[1:-1].split(","))
        return low, high

    def __contains__(self, value: float) -> bool:
        low, high = self.ends
        above = value >= low if self.text[0] == "[" else value > low
        below = value <= high if self.text[-1] == "]" else value < high
        return above and below


@dataclass(frozen=True)
class Hyper:
    """One hyperparameter. Built by :func:`hyper`; its name and type come from the class that declares it."""

    name: str
    annotation: str
    default: Any
    within: Interval | tuple[Any, ...] | None
    doc: str
    kw_only: bool
    off: Any
    init: bool
    setup: bool
    layout: bool = False
    each: bool = False

    @property
    def constant(self) -> bool:
        """Whether the class allows one value only."""
        return self.within == (self.default,)

    @property
    def switchable(self) -> bool:
        """Whether there is a value at which the rule takes another, cheaper path."""
        return self.off is not MISSING

    @cached_property
    def symbolic(self) -> bool:
        """Whether it is a number that may change at every step, not a choice that shapes the rule.

        Numbers some of which may be None are a choice.
        """
        kinds = _without_functions(self.annotation)
        return "float" in kinds and not ("tuple" in kinds and "None" in kinds)

    @cached_property
    def takes_function(self) -> bool:
        """Whether a function may stand in the place of a choice."""
        return _without_functions(self.annotation) != self.annotation

    @cached_property
    def choices(self) -> str:
        """What may be chosen, for an error."""
        assert isinstance(self.within, tuple)
        return "one of " + ", ".join(map(repr, self.within)) + (", or a function" if self.takes_function else "")

    def check(self, value: Any) -> None:
        """Raise ``ValueError`` that names the argument, the value and the range unless ``value`` is allowed."""
        value = frozen(of_numpy(value))
        if self.annotation == "int" and (not isinstance(value, int) or isinstance(value, bool)):
            within = f" in {self.within.text}" if isinstance(self.within, Interval) else ""
            raise bad_argument(self.name, value, f"an integer{within}", self._remedy(value))
        if isinstance(self.within, Interval):
            allowed = f"a number in {self.within.text}"
            values = value if isinstance(value, (tuple, list)) and "tuple" in self.annotation else (value,)
            values = tuple(map(of_numpy, values))
            if value is None and "None" in self.annotation and "tuple" not in self.annotation:
                return
            if "tuple" in self.annotation:
                count = self.annotation.count("float")
                allowed = f"{count} numbers in {self.within.text}"
                if not isinstance(value, (tuple, list)) or len(value) != count:
                    raise bad_argument(self.name, value, allowed, self._remedy(value))
            absent = "tuple" in self.annotation and "None" in self.annotation
            if not all((v is None and absent) or (is_number(v) and self.within.holds(float(v))) for v in values):
                raise bad_argument(self.name, value, allowed, self._remedy(value))
        elif self.within is not None and value not in self.within and not (self.takes_function and callable(value)):
            raise bad_argument(self.name, value, self.choices)
        elif self.annotation == "bool" and not isinstance(value, (bool, int)):
            raise bad_argument(self.name, value, "True or False", self._remedy(value))

    def _remedy(self, value: Any) -> str:
        """What to write instead of a value that is not allowed."""
        if isinstance(value, str) and re.fullmatch(r"\s*[-+]?[\d.]+([eE][-+]?\d+)?\s*|True|False", value):
            return f"Write {value.strip()} without quotes"
        if self.default is MISSING:
            return ""
        return (
            f"Leave it out for the default, {self.default!r}" if value is None else f"The default is {self.default!r}"
        )


Kind = Literal["tensor", "per_tensor", "row", "aside", "number", "count", "shared"]
#: what the shape of a state may depend on: the parameter and the group's hyperparameters; None: not kept for it
Shape = Callable[[Tensor, Any], "tuple[int, ...] | None"]


@dataclass(frozen=True)
class StateSpec:
    """What an optimizer keeps for each parameter.

    Attributes:
        kind: ``"tensor"``, like the parameter; ``"per_tensor"``, one number; ``"row"``, one for each row; ``"aside"``,
            a tensor of any shape, which only leaves read; ``"number"``, a 0-dim float32 tensor on the CPU that a rule
            sees as a number of the host; ``"count"``, such a number that counts updates; ``"shared"``, a number that
            all parameters of the group have in common.
        fill: the initial value, as a function of the group's hyperparameters.
        signed: whether it may be negative; an 8-bit format spends no bit on a sign that never comes.
        shape, dtype: of what is kept aside; no dtype is that of computation.
        begins_at_p: whether it begins as a copy of the parameter; then it is never kept in fewer bits than that.
    """

    name: str
    doc: str
    when: Callable[[Any], bool]
    kind: Kind = "tensor"
    fill: Callable[[Any], float] = lambda h: 0.0
    signed: bool = True
    shape: Shape | None = None
    dtype: torch.dtype | None = None
    begins_at_p: bool = False

    @property
    def counted(self) -> bool:
        """Whether it is a number of the host, the same for all parameters that step together."""
        return self.kind in ("number", "count")

    @property
    def narrow(self) -> bool:
        """Whether it is one number for each tensor or row."""
        return self.kind in ("per_tensor", "row")


def hyper(
    *,
    default: Any,
    within: str | tuple[Any, ...] | None = None,
    doc: str = "",
    kw_only: bool = False,
    off: Any = MISSING,
    init: bool = True,
    setup: bool = False,
    layout: bool = False,
    each: bool = False,
) -> Any:
    """Declare a hyperparameter.

    Args:
        default: its default value.
        within: an interval such as ``"[0, 1)"``, or a tuple of the allowed values.
        doc: one sentence: what it does, its unit.
        kw_only: whether it must be passed by keyword.
        off: the value at which the rule takes another, cheaper path (``momentum=0``). A rule may ask ``if h.momentum:``
            only of what declares this, since it makes being off a part of what is traced.
        init: False if a parameter group may hold it but the constructor does not take it.
        setup: the constructor alone uses it: it is no value of a parameter group, and the rule does not see it.
        layout: it says how parameters are kept, so a checkpoint does not change it.
        each: each parameter of a group may have its own: the group then holds them all (:class:`Each`). It is a choice
            that checkpoints do not hold.
    """
    options = {"kw_only": kw_only, "off": off, "init": init, "setup": setup, "layout": layout or each, "each": each}
    return {"default": default, "within": within, "doc": doc, **options}


class Each(tuple[Any, ...]):
    """What stands in a group for a choice that its parameters have each for itself, in their order."""

    @classmethod
    def of(cls, values: Sequence[Any]) -> Any:
        """These values; the one that all have, where they agree."""
        return values[0] if len({*values}) == 1 else cls(values)


def of_one(hypers: Mapping[str, Hyper], group: Mapping[str, Any], place: int) -> dict[str, Any]:
    """What the parameter at this place of its group has for itself.

    Raises:
        ValueError: where the group has more parameters than values.
    """
    found = {}
    for name, h in hypers.items():
        value = group.get(name) if h.each else None
        if isinstance(value, Each):
            if place >= len(value):
                raise bad_argument(
                    name, f"{len(value)} values", f"one for each of the {len(group['params'])} parameters of the group",
                    "Add parameters with add_param_group, not to the list of a group",
                )  # fmt: skip
            found[name] = value[place]
    return found


def of_each(hypers: Mapping[str, Hyper], group: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each parameter of a group has for itself, in their order."""
    size = len(group["params"])
    if not any(isinstance(group.get(name), Each) for name, h in hypers.items() if h.each):
        return [{}] * size
    return [of_one(hypers, group, place) for place in range(size)]


def kinds_of_one(hypers: Mapping[str, Hyper], group: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What parameters of a group have for themselves, each combination once; an empty one where none has."""
    return list({tuple(one.items()): one for one in of_each(hypers, group)}.values()) or [{}]


def always(h: Any) -> bool:
    """Kept whatever the hyperparameters are."""
    return True


def state(
    *,
    doc: str = "",
    when: Callable[[Any], bool] = always,
    fill: Callable[[Any], float] = lambda h: 0.0,
    signed: bool = True,
    per: Literal["element", "row", "tensor"] = "element",
    shape: Shape | None = None,
    dtype: torch.dtype | None = None,
    begins_at_p: bool = False,
    init: Literal[False] = False,
) -> Any:
    """Declare a state, kept where ``when(h)`` holds for the group, ``fill(h)`` at first.

    Args:
        doc: what it is, in a phrase that begins with its symbol.
        when: whether a group with these hyperparameters keeps it; ``h.matrix`` tells of a rule with ``matrices_apart``
            whether it is a matrix's.
        fill: its value before the first step.
        signed: whether it may be negative.
        per: whether there is a number for each element, for each row (slice along the first dimension; a vector is one
            row), or for each tensor.
        shape: of a tensor unlike the parameter, from the parameter and the hyperparameters; None where a parameter
            has none. The rule hands it to a leaf, and assigns what a leaf gives.
        dtype: of such a tensor, where it does not hold numbers of the rule.
        begins_at_p: whether it begins as a copy of the parameter, in no fewer bits.
    """
    kinds: dict[str, Kind] = {"element": "tensor", "row": "row", "tensor": "per_tensor"}
    return StateSpec("", doc, when, "aside" if shape else kinds[per], fill, signed, shape, dtype, begins_at_p)


def shared(
    *,
    doc: str = "",
    when: Callable[[Any], bool] = always,
    fill: Callable[[Any], float] = lambda h: 0.0,
    init: Literal[False] = False,
) -> Any:
    """Declare a number that all parameters of a group have in common: a Python float that stands in the group.

    A rule reads and assigns it like a state. What it assigns follows from numbers of the host and from sums over all
    tensors (:class:`thalweg.ir.ops.Total`), and is what the next step reads.
    """
    return StateSpec("", doc, when, "shared", fill)


def number(
    *,
    doc: str = "",
    when: Callable[[Any], bool] = always,
    fill: Callable[[Any], float] = lambda h: 0.0,
    init: Literal[False] = False,
) -> Any:
    """Declare a number that is kept for each parameter in a 0-dim float32 tensor, as torch does.

    It must be a function of steps and hyperparameters alone, so that it is the same for parameters that step together.
    """
    return StateSpec("", doc, when, "number", fill)


def count(*, when: Callable[[Any], bool] = always, init: Literal[False] = False) -> Any:
    """Declare that updates are counted as torch does, in a 0-dim float32 ``step`` on the CPU; read ``h.step``."""
    return StateSpec("step", "updates so far", when, "count")


def declarations(cls: type, kind: type) -> dict[str, Any]:
    """What ``cls`` and its bases declare of one kind (:class:`Hyper` or :class:`StateSpec`), base classes first."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, new in base.__dict__.get("_declared", {}).items():
            if isinstance(new, kind):
                old = found.get(name)
                if isinstance(old, Hyper) and isinstance(new, Hyper) and old.kw_only and not new.kw_only:
                    del found[name]  # it takes its place among the positional ones
                found[name] = new
    return found


#: a weight decay that enters elsewhere makes no other rule: Adam and AdamW, SGD and SGDW
WHERE_DECAY_ENTERS = ("decoupled_weight_decay", "independent_weight_decay")


def kin(cls: Any, hypers: Mapping[str, Hyper]) -> str:
    """One name for all rules whose states and learning rates mean the same, as those of Adam and AdamW do."""
    fixed = [f"{name}={h.default}" for name, h in hypers.items() if h.constant and name not in WHERE_DECAY_ENTERS]
    return " ".join([getattr(getattr(cls, "direction", None), "__qualname__", cls.__name__), *sorted(fixed)])


def kindred(cls: Any) -> list[str]:
    """Names of the class and of those of its bases that are of its kin."""
    return [base.__name__ for base in cls.__mro__ if getattr(base, "kin", {}).get("kin") == cls.kin["kin"]]


#: what a rule is given in addition to its declarations, or what the engine keeps under this name
TAKEN = {"p", "g", "params", "first", "initial_lr", "inverse_scale", "matrix"}


def collect(cls: type) -> None:
    """Read the declarations in the body of ``cls`` and take them off it: they are no attributes of an instance.

    Raises:
        TypeError: for a name that means something else already.
    """
    declared: dict[str, Hyper | StateSpec] = {}
    for name, annotation in inspect.get_annotations(cls).items():
        value = cls.__dict__.get(name)
        if isinstance(value, StateSpec):
            declared[name] = replace(value, name=value.name or name)
        elif isinstance(value, dict) and "within" in value:
            spelled = _spelled(annotation)
            within = Interval(value["within"]) if isinstance(value["within"], str) else value["within"]
            within = _choices(spelled) if within is None else within
            declared[name] = Hyper(name, spelled, **{**value, "within": within})
        else:
            continue
        if name in TAKEN:
            raise TypeError(f"{cls.__name__}.{name}: expected another name: {', '.join(sorted(TAKEN))} are taken")
        delattr(cls, name)
    beside = [name for name in declared if name.endswith("_scale") and name.removesuffix("_scale") in declared]
    if beside:
        raise TypeError(f"{cls.__name__}.{beside[0]}: expected another name: an 8-bit state keeps its scales there")
    cls._declared = declared  # type: ignore[attr-defined]


def _spelled(annotation: Any) -> str:
    """An annotation, with or without ``from __future__ import annotations``, in today's spelling."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    text = text.replace("typing.", "").replace("Tuple", "tuple")
    return f"{text} | None" if text.startswith("Optional") else text


def _without_functions(annotation: str) -> str:
    """An annotation with ``Function`` for what a function takes and gives."""
    return re.sub(r"Callable\[\[[^\]]*\], \w+\]", "Function", annotation)


def _choices(annotation: str) -> tuple[Any, ...] | None:
    """What may be chosen, from ``Literal["a", "b"] | None``; None where the type says more than that.

    A function may stand beside the choices.
    """
    kinds = re.sub(r"Literal\[([^\]]*)\]", "Literal", _without_functions(annotation)).split(" | ")
    if "Literal" not in kinds or not {*kinds} <= {"Literal", "None", "bool", "Function"}:
        return None
    found = ast.literal_eval(f"({', '.join(re.findall(r'Literal.([^]]*).', annotation))},)")
    return *((None,) if "None" in kinds else ()), *((False, True) if "bool" in kinds else ()), *found


def signature(hypers: Mapping[str, Hyper], first: str = "params") -> inspect.Signature:
    """The constructor's signature: ``(params, <positional hyperparameters>, *, <keyword-only ones>)``."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    own = [h for h in hypers.values() if h.init]
    parameters = [inspect.Parameter(first, either)] if first else []
    for ordered in ([h for h in own if not h.kw_only], [h for h in own if h.kw_only]):
        parameters += [
            inspect.Parameter(h.name, keyword if h.kw_only else either, default=h.default, annotation=h.annotation)
            for h in ordered
        ]
    return inspect.Signature(parameters)


def given(cls: Any, arguments: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a constructor was given, by name, with the defaults of the rest.

    What it does not take may be given all at once, each with the value that it has: as in ``type(optimizer)(params,
    **optimizer.defaults)``.

    Raises:
        TypeError: that names the class, and for a keyword that it does not have the nearest one.
    """
    settled = {h.name: (type(h.default), h.default) for h in cls.hypers.values() if not h.init}
    if settled and all((type(x := kwargs.get(name)), x) == known for name, known in settled.items()):
        kwargs = {name: value for name, value in kwargs.items() if name not in settled}
    for name in kwargs:
        if name not in arguments.parameters:
            raise unknown_argument(cls.__name__, name, arguments.parameters)
    try:
        bound = arguments.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{cls.__name__}: {error}") from None
    bound.apply_defaults()
    return dict(bound.arguments)


def check_keys(name: str, group: Mapping[str, Any], known: Collection[str], elsewhere: Collection[str] = ()) -> None:
    """Refuse a key of a parameter group that looks like a hyperparameter, misspelt; others are the user's own.

    Args:
        name: of the optimizer.
        group: the group.
        known: the hyperparameters.
        elsewhere: arguments of the constructor that are for all groups alike.

    Raises:
        TypeError: that names the nearest hyperparameter, or where such an argument belongs.
    """
    for key in group:
        if key in elsewhere:
            raise TypeError(
                f"{name} has no {key!r} in a parameter group: it is one for all groups; give it to {name}()"
            )
        if not isinstance(key, str) or key in known or key in OF_EVERY_GROUP:
            continue
        if meant := misspelt(key, known):
            raise TypeError(f"{name} has no {key!r} in a parameter group; did you mean {meant}?")


def is_number(value: Any) -> bool:
    """A finite-or-not real number, or a tensor with one element; not a bool, not NaN."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not bool(value.isnan())
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def own_signature(cls: Any) -> inspect.Signature | None:
    """Of a constructor that a subclass wrote itself; None where it hands all arguments on."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    if {x.kind for x in parameters} == {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return None
    return inspect.Signature(parameters)


def of_numpy(value: Any) -> Any:
    """A number of numpy's as Python's own, a vector as a tuple of such; anything else as it is."""
    if type(value).__module__ != "numpy" or not hasattr(value, "ndim"):
        return value
    return tuple(value.tolist()) if value.ndim == 1 else value.item() if value.ndim == 0 else value


def frozen(value: Any) -> Any:
    """A value as it stands in a group: numpy's numbers are Python's own, and a sequence of any other kind is a tuple.

    A checkpoint with anything else in it would not load with ``weights_only``.
    """
    value = of_numpy(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, Each)):
        return value if type(value) is list else tuple(map(of_numpy, value))
    return value


def plain(value: Any) -> Any:
    """A hyperparameter's value as a rule sees it: tensors and numpy's numbers become Python's, sequences tuples."""
    if isinstance(value, Tensor):
        return value.item()
    value = frozen(value)
    if isinstance(value, (tuple, list)) and not isinstance(value, Each):
        return tuple(plain(v) for v in value)
    return value


def read(hypers: Mapping[str, Hyper], group: Mapping[str, Any]) -> SimpleNamespace:
    """The hyperparameters of a group as plain numbers and flags: what a rule knows as ``h``."""
    return SimpleNamespace(**{name: plain(group[name]) for name in hypers})
