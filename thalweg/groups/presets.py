"""The usual groups, in one call each."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from torch import nn

from thalweg._base.errors import bad_argument
from thalweg.groups import keys
from thalweg.groups.assign import assign, check_keys, gather, of, orient
from thalweg.groups.decay import NoDecay
from thalweg.groups.depth import LayerDecay
from thalweg.groups.held import How, told, with_blocks
from thalweg.groups.roles import Heads, Types
from thalweg.groups.rules import Effect, Rule
from thalweg.groups.table import Groups
from thalweg.groups.view import Param, View
from thalweg.groups.width import Base, Like, MuP, Output

#: what tells thalweg.Muon which groups are its own, and that a kernel counts as a matrix
_ROUTE = ("use_muon", "flatten")


def no_decay(model: nn.Module, *rules: Rule, weight_decay: float, embeddings: bool = True, **options: Any) -> Groups:
    """Two groups: matrices with weight decay; norms, biases, vectors and embeddings without: :class:`NoDecay`.

    Args:
        model: any module.
        rules: further rules; they stand above.
        weight_decay: of the matrices.
        embeddings: whether embeddings are exempt.
        options: further defaults, such as ``lr``, and arguments of :func:`of`.
    """
    return of(model, *rules, NoDecay(embeddings=embeddings), weight_decay=weight_decay, **options)


def layer_decay(
    model: nn.Module, decay: float, *rules: Rule, lr: float, blocks: str | Iterable[str] = (), **options: Any
) -> Groups:
    """A group for each depth, with learning rates that shrink towards the input: :class:`LayerDecay`.

    Args:
        model: any module.
        decay, blocks: as :class:`LayerDecay` takes them.
        rules: further rules, such as ``NoDecay()``; they stand above.
        lr: of the head.
        options: further defaults, such as ``weight_decay``, and arguments of :func:`of`.
    """
    return of(model, *rules, LayerDecay(decay, blocks), lr=lr, **options)


def mup(
    model: nn.Module,
    base: Base,
    *rules: Rule,
    lr: float,
    weight_decay: float = 0.0,
    like: Like = "adam",
    output: Output = "lr",
    independent_decay: bool = True,
    **options: Any,
) -> Groups:
    """Learning rates that were tuned at a base width, for this model's: :class:`MuP`.

    Args:
        model: any module.
        base, like, output, independent_decay: as :class:`MuP` takes them.
        rules: further rules, such as ``NoDecay()``; they stand above.
        lr, weight_decay: as tuned at the base width.
        options: further defaults, and arguments of :func:`of`.
    """
    rule = MuP(base, like=like, output=output, independent_decay=independent_decay)
    return of(model, *rules, rule, lr=lr, weight_decay=weight_decay, **options)


def muon(
    model: nn.Module,
    *rules: Rule,
    muon: Mapping[str, Any],
    adamw: Mapping[str, Any],
    kernels: bool = True,
    blocks: How = "none",
    optimizer: keys.Optimizers = None,
    sample: Any = None,
    head: Heads = None,
    hidden: Types = (),
) -> Groups:
    """Muon for the hidden matrices, AdamW for everything else: embeddings, head, norms, biases.

    For one optimizer:

        thalweg.Muon(muon(model, muon={"lr": 0.02}, adamw={"lr": 3e-4}))

    For two, of which torch's Muon takes matrices only, so convolutions go to AdamW:

        parts = muon(model, muon={"lr": 0.02}, adamw={"lr": 3e-4}, kernels=False).by("use_muon")
        torch.optim.Muon(parts[True]), torch.optim.AdamW(parts[False])

    Args:
        model: any module.
        rules: further rules; they stand above. One that sets ``use_muon`` says itself which optimizer its parameters
            get; ``NoDecay()`` is of use where ``adamw`` has a weight decay.
        muon: hyperparameters of the hidden matrices.
        adamw: hyperparameters of the rest; without ``weight_decay``, it is 0.
        kernels: whether the kernels of convolutions count as hidden matrices.
        blocks: which matrices each weight holds, for one of our optimizers: ``"auto"`` as their use tells, ``"heads"``
            by head too, or rules that set ``blocks``; see :class:`thalweg.Muon`. The table says it.
        optimizer: what the groups are for, to refuse misspelt hyperparameters: ``thalweg.Muon``, or the two classes.
        sample, head, hidden: as :func:`roles` takes them.

    Raises:
        ValueError: as :func:`of`.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks",
    https://kellerjordan.github.io/posts/muon/
    """
    if isinstance(optimizer, tuple) and len(optimizer) != 2:
        raise bad_argument("optimizer", optimizer, "one class, or the two of Muon's part and the rest")
    check_keys(rules, {}, optimizer, *_ROUTE)
    classes = optimizer if isinstance(optimizer, tuple) else (optimizer, optimizer)
    for name, settings in (("muon", muon), ("adamw", adamw)):
        if not isinstance(settings, Mapping):
            raise bad_argument(name, settings, 'a dict of hyperparameters, such as {"lr": 0.02}')
    for settings, one in zip((muon, adamw), classes, strict=True):
        for key, value in settings.items():
            keys.check(key, value, one, _ROUTE)
    view = View(model, sample, head, hidden)
    found = {} if blocks == "none" else told(view, blocks, sample)  # which asks what each parameter is
    mine = _Side(True, kernels, {"flatten": True, **muon}, found)
    rest = _Side(False, kernels, {"weight_decay": 0.0, **adamw}, found)
    assigned = assign(view, (*rules, mine, rest), {})
    orient(assigned, optimizer)
    return with_blocks(gather(view, assigned), found)


class _Side(Rule):
    """What one of the two optimizers gets; a model may have nothing for it."""

    optional = True

    def __init__(self, use_muon: bool, kernels: bool, settings: Mapping[str, Any], held: Container[str]) -> None:
        super().__init__("*", use_muon=use_muon, **settings)
        self.use_muon, self.kernels, self.held = use_muon, kernels, held

    def bind(self, view: View) -> Callable[[Param], Effect]:
        """This rule for one model."""
        return self._effect

    def _effect(self, param: Param) -> Effect:
        chosen = param.settings.get("use_muon")
        kind = param.kind if chosen is None else "by rule"
        matrix = kind == "hidden" and (self.kernels or param.parameter.ndim == 2)
        to_muon = matrix or (kind == "other" and param.name in self.held) if chosen is None else bool(chosen)
        name = "Muon" if self.use_muon else "AdamW"
        return (self.settings, f"{kind}: {name}") if to_muon == self.use_muon else None
