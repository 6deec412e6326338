"""Which matrices each hidden weight is taken to hold: as its use tells, or as rules say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.groups.assign import assign
from thalweg.groups.matrices import Matrices, matrices, warn_flat, warn_unseen
from thalweg.groups.rules import Rule
from thalweg.groups.table import Groups, Row
from thalweg.groups.view import Param, View
from thalweg.ir.fields import Each
from thalweg.linalg.blocks import Blocks, blocks_given

#: what a word asks for: the matrices that the weights' use tells, those of each head apart, or none within a weight
WORDS = ("auto", "heads", "none")
_EXAMPLE = "Rule('*.qkv.*', blocks=3)"
#: what an optimizer or a rule says of blocks
How = str | Rule | Iterable[Rule]


@dataclass(frozen=True)
class Held:
    """The matrices of one weight, in an optimizer's terms.

    Attributes:
        blocks: how they lie in it, seen as (out, in, …) if it is kept the other way round; None where it is one matrix.
        why: how that is known.
        unseen: what kept it from being seen.
    """

    blocks: Blocks | None
    why: str
    unseen: str = ""


def held(view: View, how: How, sample: Any = None) -> dict[str, Held]:
    """The matrices of each trainable hidden weight, and of each stack of matrices that is told or seen to be one.

    Args:
        view: of the model.
        how: a word, or rules whose only setting is ``blocks``; ``"auto"`` stands below them.
        sample: an input that the model runs on.

    Raises:
        ValueError: for another word, for a rule that matches no hidden weight, and for blocks that do not fit.
    """
    rules = _rules(how)
    word = how if isinstance(how, str) else "auto"
    found = _by_word(view, word, sample)
    return {**found, **_by_rules(view, rules, found, sample)} if rules else found


def told(view: View, how: How, sample: Any = None) -> dict[str, Held]:
    """The same; of weights whose use was not seen it is said once, with the argument that would settle it."""
    found = held(view, how, sample)
    warn_flat(view)
    warn_unseen(view.model, {name: one.unseen for name, one in found.items() if one.unseen}, sample)
    return found


def cut_by(groups: Iterable[dict[str, Any]], found: Mapping[str, Held]) -> None:
    """Say in groups of (name, parameter) pairs, where all are weights with matrices, which these are."""
    for group in groups:
        if all(name in found for name, _ in group["params"]):
            group["blocks"] = Each.of([found[name].blocks for name, _ in group["params"]])


def with_blocks(groups: Groups, found: Mapping[str, Held]) -> Groups:
    """The same groups and their table, where Muon's say which matrices each weight holds; unless none holds several."""
    if any(one.blocks is not None for one in found.values()):
        cut_by([group for group in groups if group.get("use_muon")], found)
        groups.rows = tuple(_told_row(row, found.get(row.name)) for row in groups.rows)
    return groups


def _told_row(row: Row, one: Held | None) -> Row:
    if one is None or one.blocks is None or not row.settings.get("use_muon"):
        return row
    return replace(row, blocks=str(one.blocks), why=f"{row.why}; {one.why}")


def _rules(how: How) -> list[Rule]:
    if isinstance(how, str):
        if how not in WORDS:
            words = ", ".join(map(repr, WORDS))
            raise bad_argument("blocks", how, f"one of {words}, or rules: {_EXAMPLE}")
        return []
    rules = list(how) if isinstance(how, Iterable) else [how]
    for rule in rules:
        if not isinstance(rule, Rule) or rule.keys != {"blocks"}:
            raise bad_argument("blocks", rule, f"a word, or rules that set blocks and nothing else: {_EXAMPLE}")
    return rules


def _by_word(view: View, word: str, sample: Any) -> dict[str, Held]:
    if word == "none":
        return {p.name: Held(None, "one matrix, as asked") for p in _trained(view) if p.kind == "hidden"}
    by_name = {param.name: param for param in view.params}
    return {
        name: Held(_as_blocks(one, by_name[name]), one.why, one.unseen)
        for name, one in matrices(view, sample, by_head=word == "heads").items()
    }


def _trained(view: View) -> list[Param]:
    return [param for param in view.params if param.parameter.requires_grad]


def _by_rules(view: View, rules: list[Rule], found: Mapping[str, Held], sample: Any) -> dict[str, Held]:
    known = {"auto": found}
    out = {}
    for given in assign(view, rules, {}):
        param = given.param
        if "blocks" not in given.values or not (param.name in found or _may_be_stack(param)):
            continue
        value = given.values["blocks"]
        if isinstance(value, str) and value in WORDS:
            known[value] = known.get(value) or _by_word(view, value, sample)
            blocks = known[value][param.name].blocks if param.name in known[value] else None
        else:
            blocks = _fitted(value, param)
        out[param.name] = Held(blocks, given.why[-1])
    for rule in rules:
        if not any(rule.bind(view)(param) for param in _trained(view) if param.name in out):
            raise bad_argument("blocks", rule, f"rules that match a hidden weight: {', '.join(list(found)[:5])}, …")
    return out


def _may_be_stack(param: Param) -> bool:
    return param.kind == "other" and param.parameter.ndim > 2


def _fitted(value: Any, param: Param) -> Blocks | None:
    """The blocks that a rule says a weight has."""
    blocks = blocks_given(value, param.parameter, param.name)
    if blocks is None or blocks.one:
        return None
    return blocks.fitted(_seen(param).shape, param.name)


def _seen(param: Param) -> Tensor:
    """A weight as an optimizer's rule sees it."""
    return param.parameter.transpose(0, 1) if param.transposed else param.parameter


def _as_blocks(one: Matrices, param: Param) -> Blocks | None:
    """The matrices that a weight's use tells, in an optimizer's terms."""
    if one.shape != tuple(param.parameter.shape):  # the groups of a transposed convolution lie along what it takes
        return Blocks(one.shape[0], along="in")
    words = ["n" if dim in one.stack else "out" if dim in one.out else "in" for dim in range(len(one.shape))]
    before = 1
    for dim in sorted(one.out):
        if dim == one.out[0]:
            break
        before *= one.shape[dim]
    if param.transposed:
        words[:2] = words[1::-1]
    if one.taken > 1:
        return Blocks(one.taken, along="in", layout=_layout(words))
    blocks = Blocks(one.split.sizes, one.split.repeats * before, layout=_layout(words)).lowest
    return None if blocks.one else blocks


def _layout(words: list[str]) -> str:
    """The words of a tensor's dimensions; a kernel's are as those of a matrix."""
    return "out in" if words == ["out", *["in"] * (len(words) - 1)] else " ".join(words)
