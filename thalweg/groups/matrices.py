"""The logical matrices of each weight: what a forward pass uses apart, though it is kept in one tensor."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.groups import example
from thalweg.groups.branches import numbering
from thalweg.groups.carried import Axis
from thalweg.groups.flow import Known
from thalweg.groups.partition import Cut, by_fate, disjoint, equal_parts
from thalweg.groups.places import Place
from thalweg.groups.running import SMALL, on_shapes, with_values
from thalweg.groups.seen import PassRecord, Side, Signature
from thalweg.groups.view import Param, View
from thalweg.groups.watching import PassWatch

#: what is said of a weight that is no matrix, as far as is seen
_POSITIONS = "it gives a number for each distance of two positions, as a table of these does"
_TRILINEAR = "numbers of two layers meet it, and it is not seen which of its dimensions numbers matrices"
_MIXED = "what it gives is a weight, so each of its inputs may have a matrix of its own"
_TURNED = "some of its matrices are kept as (out, in), others as (in, out); keep these in a weight of their own"
_GATES = {"LSTM": 4, "GRU": 3, "LSTMCell": 4, "GRUCell": 3}


@dataclass(frozen=True)
class Matrices:
    """The matrices that a weight holds.

    Attributes:
        shape: of the weight.
        stack: its dimensions that number matrices, as of experts.
        out: its dimensions that a matrix gives, the first of which is cut as ``split`` says; all others are taken.
        split: the parts of that dimension.
        why: how that is known.
        unseen: what kept it from being seen; empty where it was.
        taken: into how many equal parts the first dimension that is taken is cut.
    """

    shape: tuple[int, ...]
    stack: tuple[int, ...]
    out: tuple[int, ...]
    split: Cut
    why: str
    unseen: str = ""
    taken: int = 1

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(out, in) of each matrix."""
        count = math.prod(self.shape[d] for d in self.stack)
        gives = math.prod(self.shape[d] for d in self.out[1:])
        takes = math.prod(n for d, n in enumerate(self.shape) if d not in (*self.stack, *self.out))
        return [(part * gives, takes // self.taken) for part in self.split.parts] * (count * self.taken)


def blocks(model: nn.Module, sample: Any = None) -> dict[str, list[tuple[int, int]]]:
    """The (out, in) shapes of the matrices that each hidden weight holds, by its name.

    Most weights hold one. Weights that hold several are those whose outputs a forward pass uses apart: q, k and v of
    an attention in one weight, gate and up, the gates of a recurrent layer, the groups of a convolution. Stacks of
    matrices, as of experts, stand beside the hidden weights: each of their matrices is one.

    A copy of the model is run, and each number that a weight gives is followed through whatever moves it (views,
    permutes, chunks, slices, copies, concatenations) and whatever changes numbers one by one (biases, activations,
    norms, dropout), to where it meets others. What meets the same others in the same way is one matrix; a rotation of
    pairs within a part (as of rotary positions) leaves that part whole.

    Args:
        model: any module; nothing of it is changed.
        sample: as :func:`thalweg.groups.roles` takes it. Without one, the copy runs on what the model itself says that
            it takes, or on an input made up for its first layers.

    Raises:
        ValueError: as :func:`thalweg.groups.roles`.

    Warns:
        UserWarning: once, for the weights whose outputs could not be followed; these are left uncut.
    """
    view = View(model, sample)
    found = matrices(view, sample)
    warn_flat(view)
    warn_unseen(model, {name: one.unseen for name, one in found.items() if one.unseen}, sample)
    return {name: one.shapes for name, one in found.items()}


def warn_unseen(model: nn.Module, unseen: Mapping[str, str], sample: Any) -> None:
    """Say once of which weights it was not seen how their outputs are used, why, and what would settle it."""
    if text := unseen_words(model, unseen, sample):
        warnings.warn(text, stacklevel=3)


def unseen_words(model: nn.Module, unseen: Mapping[str, str], sample: Any) -> str:
    """The same in words; none where all was seen."""
    if not unseen:
        return ""
    shown = [f"{name} ({why})" for name, why in unseen.items()]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    tables = [name for name, why in unseen.items() if why in (_POSITIONS, _MIXED)]
    return (
        f"left uncut, since it is not seen how {type(model).__name__} uses what they give: "
        f"{', '.join(shown[:3])}{more}. {_remedy(sample, next(iter(unseen)))}{_for_tables(tables)}"
    )


def _for_tables(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f". AdamW takes {names[0]} by thalweg.groups.muon(model, Rule({names[0]!r}, use_muon=False), …)"


def warn_flat(view: View) -> None:
    """Say once which matrices are kept in one dimension."""
    if text := flat_words(view):
        warnings.warn(text, stacklevel=4)


def flat_words(view: View) -> str:
    """Which parameters of one dimension are matrices in use, in words; none where there are none."""
    found = [param.names[0] for param in view.params if param.parameter.ndim == 1 and _is_flat(param)]
    if not found:
        return ""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return (
        f"{', '.join(found[:3])}{more} of {type(view.model).__name__}: matrices that are kept in one dimension, so "
        "they are stepped as vectors. Keep each as a parameter (out, in) for it to be stepped as a matrix"
    )


def _is_flat(param: Param) -> bool:
    return param.parameter.requires_grad and param.layout == (frozenset({0}), frozenset({0}))


def _remedy(sample: Any, name: str) -> str:
    rule = f"an optimizer for matrices takes a rule: blocks=[Rule({name!r}, blocks=3)], or blocks=None for one matrix"
    if sample is None:
        return f"Pass sample=… (an input that the model runs on), or {rule}"
    return f"Say how such a weight is cut ({rule})"


def matrices(view: View, sample: Any = None, by_head: bool = False) -> dict[str, Matrices]:
    """The matrices of each trainable hidden weight, and of each stack of matrices.

    Args:
        view: of a model.
        sample: an input that it runs on.
        by_head: whether a matrix that gives what several heads use apart, or takes what they give, is several.
    """
    trained = [(param, param.kind) for param in view.params if param.parameter.requires_grad]
    asked = [p for p, kind in trained if kind in ("hidden", "other") and (by_head or _of_module(p) is None)]
    tables = {param.names[0] for param in view.params if param.at_sight[0] == "embedding"}
    tables |= {param.names[0] for param, kind in trained if kind == "embedding"}  # by its use
    watch = _watched(view.model, sample, {param.names[0] for param in asked}, tables) if asked else None
    found = {
        param.name: (_of_module(param) or _of_use(param, watch), param.names[0])
        for param, kind in trained
        if kind == "hidden" or (kind == "other" and _is_stack(param, watch))
    }
    if by_head and watch is not None:
        return {name: _by_head(watch, inner, one) for name, (one, inner) in found.items()}
    return {name: one for name, (one, _) in found.items()}


# -- a forward pass ---------------------------------------------------------------------------------------------------


def _watched(model: nn.Module, sample: Any, names: set[str], tables: set[str]) -> PassRecord | None:
    """The pass that meets the most of the named weights; None where none was possible.

    Weights that it does not meet, or on one side alone, may be multiplied with constants, as coordinates are, which is
    seen apart: constants also stand in what makes a weight of others.
    """
    best: PassRecord | None = None
    ways = list(_ways(model, sample))
    for way in ways:
        if (watch := _run(way, tables, constants=False)) is not None:
            best = max([*([best] if best else []), watch], key=lambda watch: len(names & watch.met))
            if names <= best.met:
                break
    for way in ways:
        if best is not None and names & best.half_met and (watch := _run(way, tables, constants=True)) is not None:
            best.adopt(watch, names & best.half_met & watch.whole)
    return best


def _run(way: Any, tables: set[str], constants: bool) -> PassRecord | None:
    """What is seen of one pass; None where it fails."""
    watches: list[PassWatch] = []

    def watching(model: nn.Module, given: Any) -> PassWatch:
        watches.append(PassWatch(model, given, tables, constants))
        return watches[-1]

    try:
        way(watching=watching)
    except Exception:  # whatever a user's forward may raise
        return None
    return watches[-1].seen


def _ways(model: nn.Module, sample: Any) -> Iterator[Any]:
    samples = [sample] if sample is not None else [*example.of_hub(model), *example.inferred(model)]
    size = sum(p.numel() for p in model.parameters())
    for one in samples:
        given = example.suited(one, model) if sample is None else one
        shapes = partial(on_shapes, model, given, Known(), "", guesses=True)
        values = partial(with_values, model, given, Known(), "")
        yield from (values, shapes) if size <= SMALL else (shapes, values)


# -- what it tells ----------------------------------------------------------------------------------------------------


def _of_module(param: Param) -> Matrices | None:
    """As modules of torch are known to use their weights; None for others."""
    return next((found for place in param.places if (found := _known(param, place))), None)


def _known(param: Param, place: Place) -> Matrices | None:
    module, shape = place.module, tuple(param.parameter.shape)
    if isinstance(module, nn.MultiheadAttention) and place.name == "in_proj_weight":
        return Matrices(shape, (), (0,), _equal(shape[0], 3), "q, k and v of nn.MultiheadAttention")
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and place.name.startswith(("weight_ih", "weight_hh")):
        kind = next((name for name in _GATES if isinstance(module, getattr(nn, name))), "")
        gates = _GATES.get(kind, 1)
        why = f"gates of nn.{kind}" if gates > 1 else f"a matrix of {type(module).__name__}"
        return Matrices(shape, (), (0,), _equal(shape[0], gates), why)
    return None


def _equal(size: int, count: int) -> Cut:
    return Cut(1, (size // count,) * count)


def _sides(param: Param, watch: PassRecord | None) -> list[set[Side]] | None:
    """What each dimension is for; None where it was not met, or is used in several ways."""
    sides = watch.sides.get(param.names[0]) if watch else None
    return sides if sides and any(sides) else None


def _is_stack(param: Param, watch: PassRecord | None) -> bool:
    """Whether a weight of three dimensions or more that is no kernel is multiplied with activations."""
    sides = _sides(param, watch)
    p = param.parameter
    if watch is None or sides is None or p.ndim < 3 or p.is_complex():
        return False
    if param.names[0] in watch.groups or param.names[0] in watch.complex:
        return False
    return any("in" in side for side in sides) and any("out" in side for side in sides)


def _of_use(param: Param, watch: PassRecord | None) -> Matrices:
    """As a forward pass uses them."""
    shape, name, sides = tuple(param.parameter.shape), param.names[0], _sides(param, watch)
    at_sight = 1 if param.transposed else 0
    if watch is None or sides is None:
        if (groups := max(getattr(place.module, "groups", 1) for place in param.places)) > 1:
            return _grouped(shape, at_sight, groups)
        return _one(shape, at_sight, "no forward pass meets it" if watch else "no forward pass was possible")
    if (groups := watch.groups.get(name, 1)) > 1:
        return _grouped(shape, at_sight, groups)
    sides = _with_inner(watch, name, [_as_one(side) for side in sides])
    if name in watch.skewed and param.at_sight[0] == "unknown":
        return _one(shape, at_sight, _POSITIONS)
    if (found := _both_ways(watch, name, shape, sides, at_sight)) is not None:
        return found
    if name in watch.made and (found := _of_made(param, watch, sides, at_sight)) is not None:
        return found
    if any(len(side) > 1 for side in sides):
        return _unsure(watch, name, shape, at_sight, "it is used in several ways")
    if any(not sides[dim] and size > 1 and (name, dim) not in watch.constant for dim, size in enumerate(shape)):
        return _unsure(watch, name, shape, at_sight, "it is not seen what each dimension is for")
    apart = [_is_apart(watch, (name, dim), side) for dim, side in enumerate(sides)]
    if not any(side == {"out"} and not one for side, one in zip(sides, apart, strict=True)):
        apart = [_numbers(watch, (name, dim), side) for dim, side in enumerate(sides)]
    stack = tuple(dim for dim, size in enumerate(shape) if apart[dim] and size > 1)
    out = tuple(dim for dim, side in enumerate(sides) if side == {"out"} and not apart[dim])
    if not out:  # labels do not tell a dimension of one index
        out = tuple(dim for dim, size in enumerate(shape) if size == 1)[:1]
    if not out:
        return _one(shape, at_sight, "it is not seen which dimension it gives")
    return _cut(watch, name, Matrices(shape, stack, out, Cut(1, (shape[out[0]],)), "used as one"))


def _both_ways(
    watch: PassRecord, name: str, shape: tuple[int, ...], sides: Sequence[set[Side]], at_sight: int
) -> Matrices | None:
    """A matrix, or each of a stack, that is multiplied with activations from either side; None for others."""
    both = [dim for dim, side in enumerate(sides) if side == {"in", "out"}]
    stack = tuple(dim for dim, side in enumerate(sides) if side and side <= {"batch", "picked"} and shape[dim] > 1)
    rest = [dim for dim, side in enumerate(sides) if side and dim not in (*both, *stack)]
    if len(both) != 2 or rest or any(_parts(watch, (name, dim), True) for dim in both):
        return None
    out = watch.first_out.get(name, both[0]) if stack else at_sight
    if any(_differ(watch.turned[name, dim]) for dim in stack):
        return Matrices(shape, stack, (out,), Cut(1, (shape[out],)), "a stack", _TURNED)
    return Matrices(shape, stack, (out,), Cut(1, (shape[out],)), "used as one, both ways")


def _differ(ways: Mapping[int, set[int]]) -> bool:
    """Whether some matrices are summed over along one dimension, others along the other, and none along both."""
    return all(len(way) == 1 for way in ways.values()) and len({*map(frozenset, ways.values())}) > 1


def _with_inner(watch: PassRecord, name: str, sides: Sequence[set[Side]]) -> list[set[Side]]:
    """What each dimension is for; one that is summed over with another weight alone is what the others are not."""
    rest = {side for each in sides for side in each} - {"batch", "picked"}
    other: dict[frozenset[str], set[Side]] = {frozenset({"in"}): {"out"}, frozenset({"out"}): {"in"}}
    inner = other.get(frozenset(rest), set())
    return [side or (inner if (name, dim) in watch.inner else side) for dim, side in enumerate(sides)]


def _of_made(param: Param, watch: PassRecord, sides: Sequence[set[Side]], at_sight: int) -> Matrices | None:
    """A stack of matrices of which activations mix one; None where what a weight gives is not known to be that."""
    shape, name, (takes, gives) = tuple(param.parameter.shape), param.names[0], watch.made[param.names[0]]
    mixed = tuple(dim for dim, side in enumerate(sides) if side == {"in"} and dim not in takes | gives)
    if param.at_sight[0] != "unknown" or not mixed:
        return None
    if takes & gives:  # inputs that are shares mix matrices; of other inputs a layer gives, among others, a matrix
        return _one(shape, at_sight, _MIXED) if name in watch.shared else None
    if len(shape) == 3 and name in watch.unshared - watch.shared:
        return _unsure(watch, name, shape, at_sight, _TRILINEAR)
    out = tuple(sorted(gives))
    return Matrices(shape, mixed, out, Cut(1, (shape[out[0]],)), "mixed by activations into one")


def _as_one(side: set[Side]) -> set[Side]:
    """What a dimension is for whose indices are also used one by one, which its cut tells apart."""
    several = side & {"batch", "picked"}
    return (side - several or {"batch"}) if several and side <= {"out", "batch", "picked"} else side


def _unsure(watch: PassRecord, name: str, shape: tuple[int, ...], at_sight: int, unseen: str) -> Matrices:
    """A matrix, or a stack of them where the weight is no kernel."""
    if len(shape) < 3 or name in watch.groups:
        return _one(shape, at_sight, unseen)
    last = len(shape) - 2
    why = f"{unseen}; it is taken for a stack of matrices along its last two dimensions"
    return Matrices(shape, tuple(range(last)), (last,), Cut(1, (shape[last],)), "left uncut", why)


def _is_apart(watch: PassRecord, axis: Axis, side: set[Side]) -> bool:
    """Whether a dimension numbers matrices. One that numbers heads may meet a weight of the heads: it is one."""
    return _numbers(watch, axis, side) or (axis in watch.beside and not watch.heads.get(axis))


def _numbers(watch: PassRecord, axis: Axis, side: set[Side]) -> bool:
    """The same, by the weight's own use alone."""
    return axis in watch.chosen or (bool(side) and side <= {"batch", "picked"})


def _cut(watch: PassRecord, name: str, whole: Matrices) -> Matrices:
    """The same, with the dimension cut whose parts are used apart."""
    if name in watch.unseen:
        return replace(whole, why="left uncut", unseen=f"not followed beyond {watch.unseen[name]}")
    dims = [dim for dim in range(len(whole.shape)) if dim not in whole.stack]
    apart = [found for dim in dims if (found := _parts(watch, (name, dim), dim in whole.out))]
    if not apart:
        return whole
    first, cut = apart[0]
    if cut is None or len(apart) > 1:
        return replace(whole, why="left uncut", unseen="what is used apart is no part of a view")
    if first in whole.out:
        out = (first, *(dim for dim in whole.out if dim != first))
        return replace(whole, out=out, split=cut, why="used apart")
    if first != min(set(dims) - {*whole.out}) or cut.repeats > 1 or len({*cut.sizes}) > 1:
        return replace(whole, why="left uncut", unseen="parts of what it takes that are not equal")
    return replace(whole, taken=len(cut.sizes), why="takes in apart")


def _parts(watch: PassRecord, axis: Axis, gives: bool) -> tuple[int, Cut | None] | None:
    """A dimension whose parts are used apart, and its cut, if they are parts of a view; None where it is one part."""
    cut = by_fate(_masks(watch, axis, gives), watch.sizes[axis])
    return (axis[1], cut) if cut is None or len(cut.sizes) > 1 else None


def _by_head(watch: PassRecord, name: str, whole: Matrices) -> Matrices:
    """The same matrices, cut by head where that is a view."""
    if whole.unseen:
        return whole
    taken = [dim for dim in range(len(whole.shape)) if dim not in (*whole.stack, *whole.out)][:1]
    given = _heads(watch, name, whole.out[0], whole.shape, whole.split.masks)
    takes = _heads(watch, name, taken[0], whole.shape, []) if taken else None
    if given is not None and takes is None:
        return replace(whole, split=given, why="by head")
    if takes is None or given is not None or takes.repeats > 1 or len({*takes.sizes}) > 1:
        return whole
    alone = len(whole.split.sizes) == whole.taken == 1
    return replace(whole, taken=len(takes.sizes), why="by head, of what it takes") if alone else whole


def _heads(watch: PassRecord, name: str, dim: int, shape: Sequence[int], parts: Sequence[Tensor]) -> Cut | None:
    """The parts of a dimension by head; None where it has no heads, or these are no parts of a view."""
    heads = watch.heads.get((name, dim), [])
    if not heads or len(heads[0]) != shape[dim]:  # a weight that is seen in another shape than it is kept in
        return None
    found = by_fate([*parts, *heads], shape[dim])
    return found if found is not None and len(found.sizes) > 1 else None


def _masks(watch: PassRecord, axis: Axis, gives: bool) -> list[Tensor]:
    """Which indices of a dimension have the same fate, or are multiplied together where others are apart."""
    parts, fates = watch.parts[axis], _fates(watch, axis) if gives else []
    count = equal_parts(parts)
    if count == 1:
        return [*parts, *fates]
    size = watch.sizes[axis]
    every = torch.arange(size) // (size // count)
    alike = [mask.view(count, -1).any(0).repeat(count) for mask in fates]  # not every expert may have been chosen
    return [*(every == i for i in range(count)), *alike]


def _fates(watch: PassRecord, axis: Axis) -> list[Tensor]:
    """Which indices have each fate, or give what has it."""
    later = [
        torch.stack([mask for mask, has in zip(masks, fate.tolist(), strict=True) if has]).any(0)
        for part, masks in watch.through[axis]
        for fate in _apart_beside(watch.fates[part])
        if fate.any()
    ]
    apart = watch.branches.with_fates(axis, _apart_beside(watch.fates[numbering(axis)]))
    return [*_apart_beside(watch.fates[axis]), *later, *apart]


def _apart_beside(fates: Mapping[Signature, Tensor]) -> list[Tensor]:
    """Which indices have each fate. Other factors tell parts apart, but not what is part of another: some of a
    residual stream may also be read by themselves."""
    alike: dict[Any, list[Tensor]] = defaultdict(list)
    for (*what, _), mask in fates.items():
        alike[tuple(what)].append(mask)
    return [mask for masks in alike.values() for mask in disjoint(masks)]


def _grouped(shape: tuple[int, ...], out: int, groups: int) -> Matrices:
    """Of a convolution in groups; a transposed one has the groups along what it takes."""
    if out == 0:
        return Matrices(shape, (), (0,), _equal(shape[0], groups), f"{groups} groups")
    return Matrices((groups, shape[0] // groups, *shape[1:]), (0,), (2,), Cut(1, (shape[1],)), f"{groups} groups")


def _one(shape: tuple[int, ...], out: int, unseen: str) -> Matrices:
    return Matrices(shape, (), (out,), Cut(1, (shape[out],)), "left uncut", unseen)
