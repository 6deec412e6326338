"""From rules to parameter groups: every parameter exactly once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from thalweg._base.errors import bad_argument
from thalweg.groups import keys
from thalweg.groups.roles import Heads, Types
from thalweg.groups.rules import Effect, Rule, times
from thalweg.groups.table import Groups, Row
from thalweg.groups.view import Param, View
from thalweg.ir.fields import is_number


def of(
    model: nn.Module,
    *rules: Rule,
    optimizer: keys.Optimizers = None,
    strict: bool = False,
    frozen: bool = False,
    sample: Any = None,
    head: Heads = None,
    hidden: Types = (),
    **defaults: Any,
) -> Groups:
    r"""Parameter groups of a model, by rules; ``print`` shows who gets what.

    For each parameter and each hyperparameter the rules are read from top to bottom until one that matches sets it; the
    defaults come last. A factor that is met on the way multiplies what is found below it, and nothing above:

    $$\text{value} = f_1 f_2 \cdots f_k \cdot v, \qquad
    v \text{ of the first rule that matches and sets it, } f_i \text{ the factors above it}$$

    So the special stands above the general, and what a rule sets is exactly what its parameters get, unless a factor
    stands above it. Parameters with equal values share a group. A tied parameter is one parameter.

        groups = of(
            model,
            Rule("*.gate.*", lr=1e-5),  # exactly this
            LayerDecay(0.75),           # a factor of what comes below: of 5e-4 for the rest
            NoDecay(),
            lr=5e-4,
            weight_decay=0.05,
            optimizer=torch.optim.AdamW,
        )
        print(groups)
        torch.optim.AdamW(groups)

    Args:
        model: any module; nothing of it is changed.
        rules: what decides, the most special first: :class:`Rule`, :class:`NoDecay`, :class:`LayerDecay`,
            :class:`MuP`.
        optimizer: the class that the groups are for (or several, for several parts): a hyperparameter that it does not
            have is refused. Without it, a misspelt one goes unseen, as everywhere in torch.
        strict: refuse a parameter that no :class:`Rule` matches.
        frozen: give parameters with ``requires_grad=False`` a place too, to be unfrozen later. Else they are in no
            group; the table lists them.
        sample, head, hidden: as :func:`roles` takes them; for rules that ask what a parameter is.
        defaults: hyperparameters of whatever the rules leave open.

    Returns:
        A list of dicts, for any ``torch.optim.Optimizer``. What neither a rule nor a default says is not in them, and
        is left to the optimizer. Weights that are kept as (in, out, …), by ``nn.ConvTranspose2d``, by ``Conv1D`` of
        ``transformers`` or for ``x @ W``, have groups that say ``transposed=True``, as our optimizers understand it;
        others pass over it, and where ``optimizer`` is one of those it is left out.

    Raises:
        ValueError: for a rule that matches no parameter, or none for which a rule above it has not decided already; a
            misspelt hyperparameter; a negative lr or weight_decay; a factor without anything to multiply; a parameter
            that no rule matches, where ``strict``; a model without any parameter to train; or as :func:`roles`, for a
            rule that asks what a parameter is where that cannot be seen. The error names it.
    """
    view = View(model, sample, head, hidden)
    check_keys(rules, defaults, optimizer)
    assigned = assign(view, rules, defaults, strict=strict, frozen=frozen)
    orient(assigned, optimizer)
    return gather(view, assigned)


@dataclass(frozen=True)
class Assigned:
    """What one parameter gets: values, factors by which they are to be multiplied, and why."""

    param: Param
    values: dict[str, Any] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)

    def take(self, effect: Effect) -> None:
        """Add what a rule says, of what is still open."""
        if effect is None:
            return
        settings, why = effect
        for key, value in settings.items():
            if key in self.values:
                continue
            if isinstance(value, times):
                self.factors[key] = self.factors.get(key, 1.0) * value.factor
            else:
                self.values[key] = value
        self.why.append(why)

    def finish(self, defaults: Mapping[str, Any]) -> Assigned:
        """With the defaults, and without factors of one.

        Raises:
            ValueError: for a factor of what is not given, or no number; for a learning rate or a decay below 0.
        """
        values = {**defaults, **self.values}
        values = {key: values[key] for key in sorted(values, key=lambda key: (key != "lr", key))}
        factors = {key: factor for key, factor in self.factors.items() if factor != 1}
        for key in ("lr", "weight_decay"):  # torch looks at what its constructor is given, not at groups
            if key in values and not (is_number(values[key]) and 0 <= values[key] < math.inf):
                raise bad_argument(key, values[key], f"a number in [0, ∞), for {self.param.name}")
        for key, factor in factors.items():
            value = values.get(key)
            if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
                allowed = f"a number to multiply by {factor:.4g}, for {self.param.name}"
                raise bad_argument(key, value, allowed, f"Pass {key}=… as a default")
        return replace(self, values=values, factors=factors)

    @property
    def multiplied(self) -> dict[str, Any]:
        """The values with their factors."""
        return {key: value * self.factors[key] if key in self.factors else value for key, value in self.values.items()}

    @property
    def key(self) -> tuple[Any, ...]:
        """What the parameters of a group have in common: numbers by value, tensors (a learning rate) by identity."""
        tensors = {
            key: (id(value), self.factors.get(key)) for key, value in self.values.items() if isinstance(value, Tensor)
        }
        return tuple(sorted((key, _hashable(value)) for key, value in {**self.multiplied, **tensors}.items()))


def check_keys(rules: Iterable[Rule], defaults: Mapping[str, Any], optimizer: keys.Optimizers, *also: str) -> None:
    """Refuse what is no rule, and every hyperparameter that the optimizer does not have; ``also`` may be there."""
    for rule in rules:
        if not isinstance(rule, Rule):
            raise bad_argument("rules", rule, "rules, such as Rule('*.bias', weight_decay=0) or NoDecay()")
        for key in sorted(rule.keys):
            keys.check(key, rule, optimizer, also)
    for key, value in defaults.items():
        if key in ("params", "param_names"):
            raise bad_argument(key, value, "no hyperparameter: the model says which parameters")
        keys.check(key, value, optimizer, also)


def assign(
    view: View, rules: Sequence[Rule], defaults: Mapping[str, Any], *, strict: bool = False, frozen: bool = False
) -> list[Assigned]:
    """What each parameter of a model gets, in the model's order; the arguments as :func:`of` has them."""
    bound = [rule.bind(view) for rule in rules]
    matched, late, uncovered = [False] * len(rules), [0] * len(rules), []
    assigned = []
    for param in view.params:
        if not (param.parameter.requires_grad or frozen):
            continue
        values: dict[str, Any] = {}
        given = Assigned(replace(param, settings=MappingProxyType(values)), values)
        covered = False
        for i, rule in enumerate(rules):
            if rule.keys <= values.keys():  # it is not even asked: so a rule above can answer for it
                late[i] += 1
            elif (effect := bound[i](given.param)) is not None:
                given.take(effect)
                matched[i] = True
                covered = covered or not rule.optional
        assigned.append(given)
        if not covered:
            uncovered.append(param.name)
    if strict and uncovered:
        raise bad_argument("model", ", ".join(uncovered), "a rule for each parameter, but none matches these")
    for i, rule in enumerate(rules):
        if not (matched[i] or rule.optional or _matches_frozen(bound[i], view)):
            raise _matches_nothing(rule, view, late[i])
    if not assigned:
        raise bad_argument("model", type(view.model).__name__, "a model with a parameter that needs a gradient")
    return [one.finish(defaults) for one in assigned]


def orient(assigned: Sequence[Assigned], optimizer: keys.Optimizers) -> None:
    """Say of what is kept as (in, out, …) that it is, in its group; not for optimizers that do not ask."""
    if keys.knows("transposed", optimizer):
        for one in assigned:
            if one.param.transposed:
                one.values.setdefault("transposed", True)


def gather(view: View, assigned: Sequence[Assigned]) -> Groups:
    """Parameters with equal values into groups, in the order in which these are met."""
    members: dict[Any, list[Assigned]] = {}
    for one in assigned:
        members.setdefault(one.key, []).append(one)
    groups, rows = Groups(), {}
    for same in members.values():
        values = same[0].multiplied
        rows.update({one.param.name: _row(one, len(groups), values) for one in same})
        groups.append({"params": [(one.param.name, one.param.parameter) for one in same], **values})
    groups.rows = tuple(rows.get(param.name) or _row(Assigned(param), None, {}) for param in view.params)
    groups.notes = view.notes
    return groups


def _row(given: Assigned, group: int | None, values: dict[str, Any]) -> Row:
    param, why = given.param, "; ".join(given.why)
    shape = tuple(param.parameter.shape)
    turned = bool(values.get("transposed", False))
    size = param.parameter.numel()
    return Row(group, param.name, param.names[1:], shape, size, dict(values), given.factors, why, turned)


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    return value if isinstance(value, Hashable) else id(value)


def _matches_frozen(bound: Callable[[Param], Effect], view: View) -> bool:
    return any(bound(param) is not None for param in view.params if not param.parameter.requires_grad)


def _matches_nothing(rule: Rule, view: View, late: int) -> ValueError:
    decided, count = " and ".join(sorted(rule.keys)), len(view.params)
    if late:
        allowed = f"a rule that matches a parameter whose {decided} is open; rules above it decide {late} of {count}"
        return bad_argument("rule", rule, allowed, "Put it further up")
    names = [param.name for param in view.params]
    where = rule.where if isinstance(rule.where, str) else ""
    if any(name.startswith(f"{where}.") for name in names) and where:
        hint = f"'{where}.*' is what is in {where}"
    else:
        near = difflib.get_close_matches(where, names, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"The names are like {names[0]}"
    return bad_argument("rule", rule, "a rule that matches a parameter", hint)
