"""Parameter groups by what the parameters are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from thalweg._base.errors import bad_argument
from thalweg.groups.assign import of
from thalweg.groups.held import How, cut_by, held, told
from thalweg.groups.matrices import flat_words, unseen_words
from thalweg.groups.roles import Heads, Role, Types, roles
from thalweg.groups.rules import Effect, Rule, times
from thalweg.groups.view import Param, View

Named = list[tuple[str, nn.Parameter]]


def split(model: nn.Module, sample: Any = None, **options: Any) -> tuple[Named, Named]:
    """The hidden matrices, and everything else, as (name, parameter) pairs; arguments as :func:`roles`."""
    found = roles(model, sample, **options)
    hidden = [(r.name, r.parameter) for r in found if r.kind == "hidden"]
    rest = [(r.name, r.parameter) for r in found if r.kind != "hidden"]
    return hidden, rest


def routes(
    model: nn.Module, sample: Any, head: Heads, hidden: Types, blocks: How = "none", asked: bool = True
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], tuple[str, ...]]:
    """Groups of the hidden matrices, groups of everything else, and what was guessed or never met, in words.

    The groups of matrices say as ``blocks`` which matrices each weight holds.

    Args:
        model, sample, head, hidden: as :func:`roles`.
        blocks: as :func:`thalweg.groups.held.held`.
        asked: whether somebody asked for them; then what cannot be seen is warned of, else it is in the words.
    """
    view = View(model, sample, head, hidden)
    found = told(view, blocks, sample) if asked else held(view, blocks, sample)
    unseen = {} if asked else {name: one.unseen for name, one in found.items() if one.unseen}
    params = [param for param in view.params if param.parameter.requires_grad]
    groups = turned(param for param in params if param.name in found)
    cut_by(groups, found)
    words = [unseen_words(model, unseen, sample), "" if asked else flat_words(view)]
    rest = turned(param for param in params if param.name not in found)
    return groups, rest, (*view.notes, *filter(None, words))


def cut(
    groups: Sequence[dict[str, Any]],
    model: nn.Module,
    blocks: How,
    sample: Any = None,
    asked: bool = True,
    **options: Any,
) -> Sequence[dict[str, Any]]:
    """The same groups; those of hidden weights say as ``blocks`` which matrices each of them holds.

    Args:
        groups: of (name, parameter) pairs.
        model: whose parameters these are.
        blocks: as :func:`thalweg.groups.held.held`.
        asked: whether what cannot be seen is warned of.
        sample, options: as :func:`roles`.
    """
    view = View(model, sample, **options)
    cut_by(groups, told(view, blocks, sample) if asked else held(view, blocks, sample))
    return groups


def whole(model: nn.Module) -> list[dict[str, Any]]:
    """Groups of all parameters of a model, frozen ones too: one, or two where some are kept as (in, out, …)."""
    if any(map(is_lazy, model.parameters())):  # which have no dimensions yet
        return [{"params": list(model.named_parameters())}]
    return turned(View(model).params)


def turned(found: Iterable[Role | Param]) -> list[dict[str, Any]]:
    """Groups of the parameters, those that are kept as (in, out, …) apart; no group without any."""
    groups: dict[bool, dict[str, Any]] = {}
    for role in found:
        group = groups.setdefault(role.transposed, {"params": [], **({"transposed": True} if role.transposed else {})})
        group["params"].append((role.name, role.parameter))
    return [groups[key] for key in sorted(groups)]


def multiplied(
    model: nn.Module,
    lr: float,
    multiplier: float = 1.0,
    weight_decay: float = 0.0,
    sample: Any = None,
    *,
    rules: Sequence[Rule] = (),
    **options: Any,
) -> list[dict[str, Any]]:
    """Groups for any optimizer: hidden matrices at ``lr`` with decay; the rest at ``lr * multiplier`` without.

    Of each, what is kept as (in, out, …) has a group of its own, which says ``transposed=True``.

    Args:
        model: any module.
        lr: learning rate of the hidden matrices, ≥ 0.
        multiplier: of the learning rate of embeddings, head and vectors, ≥ 0.
        weight_decay: of the hidden matrices, ≥ 0.
        rules: further rules, as :func:`of` reads them; they stand above.
        sample, options: as :func:`roles`.

    Raises:
        ValueError: for a number outside its range, or as :func:`roles`.
    """
    for name, value in (("lr", lr), ("multiplier", multiplier), ("weight_decay", weight_decay)):
        if not (isinstance(value, (int, float)) and 0 <= value < float("inf")):
            raise bad_argument(name, value, "a number in [0, ∞)")
    if rules:
        return of(model, *rules, _ByRole(multiplier), lr=lr, weight_decay=weight_decay, sample=sample, **options)
    found = roles(model, sample, **options)
    hidden = {"lr": lr, "weight_decay": weight_decay, "role": "hidden"}
    rest = {"lr": lr * multiplier, "weight_decay": 0.0, "role": "rest"}
    return [
        *({**group, **hidden} for group in turned(r for r in found if r.kind == "hidden")),
        *({**group, **rest} for group in turned(r for r in found if r.kind != "hidden")),
    ]


class _ByRole(Rule):
    """What hidden matrices, and what the rest get; a model may have nothing of either."""

    optional = True

    def __init__(self, multiplier: float) -> None:
        super().__init__("*", role="rest", lr=times(multiplier), weight_decay=0.0)

    def bind(self, view: View) -> Callable[[Param], Effect]:
        """This rule for one model."""
        return lambda param: ({"role": "hidden"}, "hidden") if param.kind == "hidden" else (self.settings, param.kind)
