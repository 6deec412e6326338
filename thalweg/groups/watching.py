"""Follows the outputs of each weight through a forward pass, to where they meet others.

The labels of a value (see :mod:`thalweg.groups.labels`) go through the same views, copies and concatenations as the
value itself, so which way a weight's outputs are cut up need not be understood, only repeated.

:class:`thalweg.groups.flow.Flow` answers another question, and reads a graph, with or without an input: which operation
takes a parameter as a whole, and which layers make the output. Here it is the single indices of a dimension that are
told apart, which takes a run.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from thalweg.groups import branches, by_head, folding, gains, labels, moving, scaled
from thalweg.groups.carried import Axis, Carried, Value, Written, key_of, latest, together
from thalweg.groups.running import tensors
from thalweg.groups.seen import PassRecord

#: values that carry more labels than these are not followed further
MOST = 8

_PRODUCTS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("mm", "bmm", "mv", "_grouped_mm"), (0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), (1, 2)),
}
#: that change numbers where they are, whatever their neighbours are
_IN_PLACE = (
    *("native_layer_norm", "native_group_norm", "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"),
    *("_native_batch_norm_legit_no_training", "_batch_norm_with_update", "_batch_norm_no_update", "_fused_rms_norm"),
    *("_softmax", "_log_softmax", "_weight_norm_interface", "native_dropout", "_to_copy", "tril", "triu", "cumsum"),
)
_MOVES = ("_unsafe_view", "flip", "roll", "repeat", "index_select", "index", "constant_pad_nd", "_reshape_copy")
_SUMS = ("add", "sub", "rsub", "add_", "sub_")
#: that only multiply a number, if what they multiply it with is no activation
_FACTORS = ("mul", "div", "mul_", "div_", "neg", "neg_")
#: that leave a number as it is, or put a constant in its place
_LEAVES = ("native_dropout", "_to_copy", "clone", "tril", "triu", "where", "masked_fill", "masked_fill_")
#: that write into a part of another tensor
_WRITES = (
    *("index_put", "index_put_", "index_copy", "index_copy_", "slice_scatter", "select_scatter", "scatter"),
    *("scatter_", "index_fill", "index_fill_", "masked_scatter", "masked_scatter_"),
)
#: that make a tensor of the same kind, without its values
_LIKE = re.compile("_like$|^new_")


class PassWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, in this thread, the outputs of a model's weights are followed.

    Args:
        model: a model.
        given: its input.
        tables: embeddings, of which what is looked up, or the whole, is an activation.
        constants: whether a tensor that is neither a weight nor follows from the input is an activation where it is
            multiplied with a weight, as coordinates are.

    Attributes:
        seen: what is seen of the weights.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: what torch puts around a mode for its compiler imports the compiler, which takes seconds."""
        return False

    def __init__(self, model: nn.Module, given: Any, tables: Collection[str] = (), constants: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.constants = constants
        self.seen = PassRecord()
        self._values: dict[Any, Value] = {}
        self._kept: list[Tensor] = []  # so that no other has their storage
        self._written: dict[int, Written] = {}
        with torch._C.DisableTorchFunction():
            for name, p in model.named_parameters():
                if name in tables:
                    self._put(p, Value())
                elif p.ndim > 1:
                    self._enter(name, p)
            for x in tensors(given, set()):
                self._put(x, Value())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation of torch, as it is."""
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            if torch._C._current_graph_task_id() < 0 or func.is_view:
                self._follow(func, args, kwargs or {}, out)
            else:
                self._derive((args, kwargs), out)
        return out

    # -- values -----------------------------------------------------------------------------------------------------

    def _enter(self, name: str, p: Tensor) -> None:
        self.seen.sides[name] = [set() for _ in p.shape]
        self.seen.sizes.update({(name, dim): size for dim, size in enumerate(p.shape)})
        carried = {(name, dim): Carried((labels.along(dim, p.shape),)) for dim in range(p.ndim)}
        self._put(p, Value(carried, of_weights=True))

    def _put(self, x: Any, value: Value) -> None:
        if isinstance(x, Tensor) and (key := key_of(x)) is not None:
            self._values[key] = value
            self._kept.append(x)

    def _get(self, x: Any) -> Value | None:
        """What is known of a tensor; None for a constant, and what is no tensor."""
        if not isinstance(x, Tensor) or (key := key_of(x)) is None:
            return None
        if key not in self._values and (written := self._written.get(key[0])) is not None:
            return written.read(x)
        return self._values.get(key)

    # -- operations -------------------------------------------------------------------------------------------------

    def _follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        operands = [(i, value) for i, x in enumerate(_flat((args, kwargs))) if (value := self._get(x)) is not None]
        if not operands or _LIKE.search(func.overloadpacket.__name__):
            return
        try:
            self._by_kind(func, args, kwargs, operands, out)
        except Exception:  # by indices that have no values, or to a kind of tensor that labels cannot be
            self.seen.lose(str(func), operands)
            self._end(func, operands, out)

    def _derive(self, given: Any, out: Any) -> None:
        """A derivative, where a forward pass asks for some, as of an energy: it uses weights as they have been used."""
        if values := [(0, value) for x in _flat(given) if (value := self._get(x)) is not None]:
            self._put_all(out, Value(depth=1 + latest(values)))

    def _by_kind(self, func: Any, args: Any, kwargs: Any, operands: list[tuple[int, Value]], out: Any) -> None:
        name = func.overloadpacket.__name__
        if name in _PRODUCTS:
            self._multiply(name, [args[i] for i in _PRODUCTS[name]], out)
            if _PRODUCTS[name][0]:
                self._add_to_product(operands, out)
        elif name == "convolution":
            self._convolve(args, out)
        elif name == "copy_":
            self._write(args[0], args[1])
        elif name in ("cat", "stack"):
            self._join(func, args, operands, out)
        elif name in _WRITES and not any(value.carried for i, value in operands if i):
            self._meet(name, operands[:1], out)
        elif name.removesuffix("_") in moving.WRITES and (written := self._written_by(func, args, out)) is not None:
            self._store(out, written)
        elif name.removesuffix("_") in moving.ADDS and (added := self._added_rows(args, out)) is not None:
            self._meet("add", added, out)
        elif name == "glu":
            self._gate(operands, args[1] if len(args) > 1 else -1, out)
        elif func.is_view or name in _MOVES:
            self._move(func, args, kwargs, operands, out)
        elif name in _FACTORS and (scaled_value := self._scaled(args, out)) is not None:
            self._put(out, scaled_value)
        elif name in (*folding.SUMS, *folding.TRANSFORMS) and (dims := folding.dims_of(func, args, kwargs)):
            self._fold(name, operands[0][1], dims, args[0], out)
        elif torch.Tag.pointwise in func.tags or name in _IN_PLACE:
            if name in ("mul", "mul_"):
                operands = self._without_gains(operands, list(_flat((args, kwargs))))
            self._meet(name, operands[:1] if name in _IN_PLACE else operands, out)
        else:
            if name == "gather":
                self._look_up(func, args)
            self._end(func, operands, out)

    def _end(self, func: Any, operands: list[tuple[int, Value]], out: Any) -> None:
        """Outputs are mixed with others, and followed no further."""
        name = func.overloadpacket.__name__
        self.seen.use(name, operands)
        if func.namespace != "aten" or (name in _WRITES and any(value.carried for _, value in operands)):
            self.seen.lose(str(func), operands)
        self._put_all(out, Value({}, all(v.constant for _, v in operands), 1 + latest(operands)))
        if "scaled_dot_product" in name:
            result = next(iter(_flat(out)))
            factors = [(i, value) for i, value in operands if i < 3]
            apart = self._by_branch([value for _, value in factors], result, frozenset({name}))
            heads = self._by_head(factors, [result], result)
            self._put(result, Value({**apart, **(heads or {})}, depth=1 + latest(operands)))

    def _put_all(self, out: Any, value: Value) -> None:
        for x in _flat(out):
            self._put(x, value)

    # -- what becomes of outputs ------------------------------------------------------------------------------------

    # -- by kind of operation ---------------------------------------------------------------------------------------

    def _move(self, func: Any, args: Any, kwargs: Any, operands: list[tuple[int, Value]], out: Any) -> None:
        """The same view or copy of the labels."""
        value = operands[0][1]
        several = isinstance(out, (tuple, list))
        outs = list(out) if several else [out]
        if value.of_weights:
            self._choose(func, args, value)
            if func.overloadpacket.__name__ == "view_as_complex":
                self.seen.complex |= {name for name, _ in value.carried}
        rest, kwargs = tree_map(moving.here, (args[1:], kwargs))
        known = {axis: one for axis, one in value.carried.items() if value.of_weights or moving.knows(func, args, one)}
        lost = {axis: one for axis, one in value.carried.items() if axis not in known}
        self.seen.lose(str(func), [(0, replace(value, carried=lost))])
        moved = {
            axis: [
                moving.moved(func, moving.laid_out(func, one, args[0]), rest, kwargs, outs) for one in carried.labels
            ]
            for axis, carried in known.items()
        }
        for i, x in enumerate(outs):
            carried = {
                axis: replace(value.carried[axis], labels=labels.distinct(part for parts in each for part in parts[i]))
                for axis, each in moved.items()
            }
            self._put(x, replace(value, carried=carried))

    def _choose(self, func: Any, args: Any, value: Value) -> None:
        """Note from which dimensions of weights an index picks that follows from activations."""
        if func.overloadpacket.__name__ == "index":
            dims = [dim for dim, index in enumerate(args[1]) if self._get(index) is not None]
        else:
            dims = [args[1]] if func.overloadpacket.__name__ == "index_select" and self._get(args[2]) else []
        self.seen.chosen |= {
            axis for axis, one in value.carried.items() if any(labels.varies(one.labels[0], d) for d in dims)
        }

    def _added_rows(self, args: Any, out: Tensor) -> list[tuple[int, Value]] | None:
        """What a tensor carries, and the rows that are added to some of its own; None if rows differ in labels."""
        value = self._get(args[3])
        if value is None:
            return None
        carried = {axis: [moving.same_row(one, args[1], out) for one in c.labels] for axis, c in value.carried.items()}
        if any(one is None for found in carried.values() for one in found):
            return None
        rows = replace(
            value,
            carried={a: replace(value.carried[a], labels=labels.distinct(found)) for a, found in carried.items()},  # type: ignore[arg-type]
        )
        before = self._get(args[0])
        return [*([(0, before)] if before is not None else []), (1, rows)]

    def _without_gains(self, operands: list[tuple[int, Value]], xs: list[Any]) -> list[tuple[int, Value]]:
        """The factors of a product of numbers without the gains of whole vectors, which have served as one by that."""
        if len(operands) != 2 or any(value.of_weights for _, value in operands):
            return operands
        kept = []
        for (i, value), (j, other) in (operands, operands[::-1]):
            found = {axis: one for axis, one in value.carried.items() if gains.of_vectors(one, xs[i], other, xs[j])}
            self.seen.use("mul", [(i, replace(value, carried=found))], latest(operands))
            kept.append((i, replace(value, carried={a: one for a, one in value.carried.items() if a not in found})))
        return kept

    def _meet(self, name: str, operands: list[tuple[int, Value]], out: Any) -> None:
        """Number by number: where parts of one weight's outputs meet, they are used apart."""
        result = next(iter(_flat(out)))
        depth = latest(operands)
        merged: dict[Axis, Carried] = {}
        for axis in dict.fromkeys(axis for _, value in operands for axis in value.carried):
            found = [(place, value.carried[axis]) for place, value in operands if axis in value.carried]
            if any(folding.skewed(one.labels[0]) for _, one in found):
                self.seen.skewed.add(axis[0])
            spread = [
                (i, replace(c, labels=tuple(moving.spread(one, result.shape) for one in c.labels))) for i, c in found
            ]
            others = [value for _, value in operands if axis not in value.carried and not value.of_weights]
            if (one := self._met(axis, name, depth, spread)) is not None:
                merged[axis] = replace(one, changed=one.changed | _change(name, others))
        of_weights = all(value.of_weights for _, value in operands)
        shared = [value.shared for _, value in operands if value.shared is not None]
        if shared and not (of_weights and name in (*_FACTORS, *_LEAVES)):
            of_weights, shared = False, []
        self._put(result, Value(merged, of_weights, depth, frozenset().union(*shared) if shared else None))

    def _met(self, axis: Axis, name: str, depth: int, found: list[tuple[int, Carried]]) -> Carried | None:
        """Parts that meet in one value; a sum treats terms alike that were changed alike, as in a rotation of pairs."""
        if len(found) == 1:
            return found[0][1]
        if axis[0].startswith((branches.MARK, by_head.MARK)) and name in _SUMS:
            self.seen.add_branches(axis, [carried for _, carried in found])
        which = [self.seen.members(axis, carried) for _, carried in found]
        alone = all(carried.alone for _, carried in found)
        if not all(torch.equal(which[0], other) for other in which[1:]):
            alone = alone and name in _SUMS and len({carried.changed for _, carried in found}) == 1
            for (place, carried), one in zip(found, which, strict=True) if not alone else ():
                self.seen.note(axis, (name, place, depth - carried.born, carried.changed, ""), one)
        else:  # a mean over all of them, by which each is divided, tells nothing of each
            fewest = min(len(carried.labels) for _, carried in found)
            found = [(place, carried) for place, carried in found if len(carried.labels) == fewest]
        every = labels.distinct(one for _, carried in found for one in carried.labels)
        met = replace(together([carried for _, carried in found], every), alone=alone)
        return met if len(every) <= MOST else None

    def _write(self, to: Tensor, x: Tensor) -> None:
        """Values are written into a tensor, or a part of one."""
        if (value := self._get(x)) is None:
            return
        spread = {
            axis: replace(one, labels=tuple(moving.spread(part, to.shape) for part in one.labels))
            for axis, one in value.carried.items()
        }
        self._store(to, replace(value, carried=spread))

    def _written_by(self, func: Any, args: Any, out: Tensor) -> Value | None:
        """What a tensor carries of which a part is written; None where labels do not tell."""
        x = args[moving.WRITES[func.overloadpacket.__name__.removesuffix("_")]]
        before, value = self._get(args[0]) or Value(of_weights=True), self._get(x)
        carried = dict(before.carried)
        for axis, one in value.carried.items() if value is not None else ():
            found = [moving.written(func, args, part, out) for part in one.labels]
            if not (known := [part for part in found if part is not None]) or len(known) < len(found):
                return None
            both = [*(carried[axis].labels if axis in carried else ()), *known]
            carried[axis] = together([*([carried[axis]] if axis in carried else []), one], labels.distinct(both))
        if value is None:
            return None
        return Value(carried, before.constant and value.constant, max(before.depth, value.depth))

    def _store(self, to: Tensor, value: Value) -> None:
        self._put(to, value)
        storage = to.untyped_storage()
        if (size := storage.nbytes() // to.element_size()) > to.numel():
            self._written.setdefault(storage._cdata, Written(size)).write(to, value)

    def _gate(self, operands: list[tuple[int, Value]], dim: int, out: Tensor) -> None:
        """A gated linear unit: one half times a function of the other."""
        value = operands[0][1]
        halves = [
            (i, replace(value, carried={
                axis: replace(carried, labels=tuple(one.chunk(2, dim)[i] for one in carried.labels))
                for axis, carried in value.carried.items()
            }))
            for i in range(2)
        ]  # fmt: skip
        self._meet("glu", halves, out)

    def _join(self, func: Any, args: Any, operands: list[tuple[int, Value]], out: Tensor) -> None:
        pieces = [(x, self._get(x)) for x in args[0]]
        carried = {
            axis: self._joined(func, args[1:], [(x, v.carried.get(axis) if v else None) for x, v in pieces])
            for axis in dict.fromkeys(axis for _, value in operands for axis in value.carried)
        }
        self._put(out, Value(carried, all(value.constant for _, value in operands), latest(operands)))

    def _joined(self, func: Any, where: Any, pieces: list[tuple[Tensor, Carried | None]]) -> Carried:
        found = [carried for _, carried in pieces if carried]
        most = max(len(carried.labels) for carried in found)
        columns = [[moving.labels_of(x, carried, i) for x, carried in pieces] for i in range(most)]
        return together(found, labels.distinct(func(column, *where) for column in columns))

    def _multiply(self, name: str, factors: list[Tensor], out: Tensor) -> None:
        """A product of matrices, or of stacks of them: sums over the last dimension of the first factor."""
        values = scaled.settled([self._get(x) for x in factors])
        known = [(i, value) for i, value in enumerate(values) if value is not None]
        if not known:  # what is added to the product
            return
        by_constant = len(known) < len(factors)
        used = any(not value.of_weights for _, value in known) or (self.constants and by_constant)
        for i, value in known:
            self.seen.use(name, [(i, value)], latest(known), _beside(values[1 - i], factors[1 - i]))
        heads: dict[Axis, Carried] = {}
        apart: dict[Axis, Carried] = {}
        if not any(value.of_weights for _, value in known):
            heads = self._by_head(known, factors, out) or {}
            apart = self._by_branch([value for _, value in known], out, frozenset())
        summed = (-1, -2 if factors[1].ndim > 1 else -1)
        carried: dict[Axis, Carried] = {}
        parts: dict[Axis, Carried] = {}
        for i, value in known:
            other = values[1 - i]
            between = not value.of_weights and other is not None and not other.of_weights
            if value.of_weights and used:
                self.seen.turn(value, summed[i])
                self.seen.mix(value, other)
            if not value.of_weights and factors[i].ndim > 1:
                self.seen.make(value, [summed[i]], -3 - summed[i])
            for axis, one in value.carried.items():
                if value.of_weights and used:
                    self.seen.lay(axis, one, summed[i])
                    if other is not None:
                        self.seen.lay_rows(axis, one, -3 - summed[i], other)
                elif value.of_weights and labels.varies(one.labels[0], summed[i]):
                    (self.seen.constant if by_constant else self.seen.inner).add(axis)
                if not value.of_weights and other is not None and other.of_weights:
                    self.seen.pair(axis, one)
                    parts |= self.seen.pass_through(axis, one, other, factors[i].shape[:-2], out)
                    if axis[0].startswith(by_head.MARK):
                        self.seen.take_heads(one.labels[0], summed[i], other, summed[1 - i])
                if between and axis[0] in self.seen.sides and "_softmax" in one.changed:
                    continue  # of what shares pick or mix, they number places, as the slots of Soft MoE
                left = tuple(
                    moving.kept(part, summed[i], i, out) for part in one.labels if not labels.varies(part, summed[i])
                )
                if left and (kept := [part for part in left if part is not None]):
                    before = carried[axis].labels if axis in carried else ()
                    born = latest(known) if value.of_weights else one.born
                    carried[axis] = replace(one, labels=labels.distinct([*before, *kept]), born=born)
        if any(value.of_weights and self.seen.is_part(value) for _, value in known):  # of a projection, a part a head
            carried = {axis: one for axis, one in carried.items() if not axis[0].startswith(branches.MARK)}
        apart = {axis: branches.merged(one, carried.get(axis)) for axis, one in apart.items()}
        self._put(out, Value({**carried, **parts, **heads, **apart}, not used, latest(known) + used))

    def _add_to_product(self, operands: list[tuple[int, Value]], out: Tensor) -> None:
        """What is added to a product in the same operation."""
        if operands[0][0] == 0 and (added := operands[0][1]).carried and (product := self._get(out)) is not None:
            self._meet("add", [(0, added), (1, product)], out)

    def _by_head(
        self, known: Sequence[tuple[int, Value]], factors: Sequence[Tensor], out: Tensor
    ) -> dict[Axis, Carried] | None:
        """Note which indices of weights stand together in products of activations; the heads of the result."""
        batch = factors[0].ndim - 2
        every: list[tuple[Axis, list[Tensor], Tensor]] = []
        for _, value in known if batch > 0 else ():
            for axis, one in value.carried.items():
                if axis[0].startswith(by_head.MARK) or (found := by_head.sets(one, batch)) is None:
                    continue
                every.append((axis, by_head.masks(found[0], self.seen.sizes[axis]), found[1]))
                self.seen.heads[axis] += every[-1][1]
        if not every:
            return None
        place = max((one for _, _, one in every), key=lambda one: int(one.max()))  # keys may serve several heads
        heads = f"{by_head.MARK}{int(self.constants)} {len(self.seen.sizes)}"  # of this pass
        self.seen.sizes[heads, 0] = int(place.max()) + 1
        for axis, masks, own in every:
            self.seen.through[axis].append(((heads, by_head.ADDED), by_head.of_each(masks, own, place)))
        return {(heads, 0): Carried((by_head.side_by_side(place, factors[0].shape[:batch], out),))}

    def _by_branch(self, values: Sequence[Value], out: Tensor, changed: frozenset[str]) -> dict[Axis, Carried]:
        """What a product of activations carries of the parts of a weight's outputs that alone take part in it."""
        found: dict[Axis, Carried] = {}
        for axis in dict.fromkeys(axis for value in values for axis in value.carried):
            numbering = branches.numbering(axis)
            each = [value.carried[axis] for value in values if axis in value.carried]
            numbers = [self.seen.branches.number(axis, self.seen.members(axis, one)) for one in each]
            known = [number for number in dict.fromkeys(numbers) if number is not None]
            if known and not axis[0].startswith((branches.MARK, by_head.MARK)):
                self.seen.sizes[numbering] = branches.MOST
                found[numbering] = branches.numbered(known, out, each[0], changed)
        return found

    def _convolve(self, args: Any, out: Tensor) -> None:
        x, kernel = scaled.settled([self._get(args[0]), self._get(args[1])])
        values = [(i, value) for i, value in enumerate((x, kernel)) if value is not None]
        turned, groups = bool(args[6]), int(args[8])
        depth = latest(values)
        depthwise = groups > 1 and args[1].shape[1] == 1
        carried: dict[Axis, Carried] = {}
        if x is not None and not x.of_weights:
            carried = {
                axis: replace(one, labels=tuple(moving.of_channels(part, out) for part in one.labels))
                for axis, one in x.carried.items()
                if depthwise and args[0].shape[1] == out.shape[1] and moving.by_channel(one)
            }
            rest = {axis: one for axis, one in x.carried.items() if axis not in carried}
            self.seen.use("convolution", [(0, replace(x, carried=rest))], beside=_beside(kernel, args[1]))
        if kernel is not None and not kernel.of_weights:
            self.seen.make(kernel, range(1, args[1].ndim), 0)
        if kernel is not None and kernel.of_weights:
            for axis, one in kernel.carried.items():
                carried |= self._kernel(axis, one, 1 if turned else 0, groups, depth, out)
        self._put(out, Value(carried, not any(not value.of_weights for _, value in values), depth + (not depthwise)))

    def _kernel(self, axis: Axis, one: Carried, dim: int, groups: int, depth: int, out: Tensor) -> dict[Axis, Carried]:
        name, mine = axis
        first = one.labels[0]
        kept = labels.varies(first, dim) and not any(labels.varies(first, d) for d in range(first.ndim) if d != dim)
        self.seen.sides[name][mine].add("out" if kept else "in")
        self.seen.groups.setdefault(name, 1)
        if labels.varies(first, 0):
            self.seen.groups[name] = self.seen.groups_of(axis, first, groups)
        if not kept or first.shape[dim] != out.shape[1]:
            return {}
        shape = [-1 if d == 1 else 1 for d in range(out.ndim)]
        index = [slice(None) if d == dim else slice(0, 1) for d in range(first.ndim)]
        return {axis: Carried((first[tuple(index)].reshape(shape).expand(out.shape),), depth)}

    # -- weights that are made, scaled, or summed -------------------------------------------------------------------

    def _scaled(self, args: Any, out: Tensor) -> Value | None:
        """A weight that activations scale and that stays one."""
        pairs = [(x, value) for x in args[:2] if (value := self._get(x)) is not None]
        weights = [(x, value) for x, value in pairs if value.of_weights and value.carried]
        others = [(x, value) for x, value in pairs if not value.of_weights]
        if len(weights) != 1 or len(others) != 1:
            return None
        found = scaled.by(*weights[0], *others[0], out)
        if found is not None:
            self.seen.use("mul", [(1, others[0][1])])
        return found

    def _fold(self, name: str, value: Value, dims: Sequence[int], x: Tensor, out: Tensor) -> None:
        """A sum over dimensions, or a transform along them."""
        if value.shared is not None and name in folding.SUMS:
            if (along := scaled.summed(value, dims)) is not None:
                self.seen.sum_product(value, along)
            value = replace(value, of_weights=False, shared=None, depth=value.depth + (along is not None))
        kept: dict[Axis, Carried] = {}
        for axis, one in value.carried.items():
            found = (
                [self._folded(name, part, dims, x, out) for part in one.labels]
                if axis[0] in self.seen.sides and axis[1] >= 0
                else [None]
            )
            every = labels.distinct(part for parts in found for part in parts or ())
            lost = None in found or len(every) > MOST or (value.of_weights and len(every) > len(one.labels))
            if lost:
                self.seen.use(name, [(0, replace(value, carried={axis: one}))])
            else:
                changed = one.changed if name in folding.SUMS else one.changed | {name}
                kept[axis] = replace(one, labels=every, changed=changed)
        self._put(out, Value(kept, value.constant, value.depth + (name in folding.TRANSFORMS)))

    def _folded(self, name: str, one: Tensor, dims: Sequence[int], x: Tensor, out: Tensor) -> list[Tensor] | None:
        if name in folding.TRANSFORMS:
            return folding.transformed(one, dims, out)
        return folding.added(one, dims, keep=out.ndim == x.ndim, most=MOST)

    def _look_up(self, func: Any, args: Any) -> None:
        """Note which weights give a number for each distance of two positions, by an index that tells it."""
        value = self._get(args[0])
        if value is not None and not args[2].is_meta:
            for axis, one in value.carried.items():
                if folding.skewed(func(one.labels[0], args[1], args[2].cpu())):
                    self.seen.skewed.add(axis[0])


def _beside(value: Value | None, x: Tensor) -> str:
    """The other factor of a product: which weights, or the shape of activations and how many products made them."""
    if value is None:
        return ""
    names = sorted({name for name, _ in value.carried})
    return " ".join(names) if value.of_weights else f"{tuple(x.shape[-2:])} {value.depth}"


def _change(name: str, others: Sequence[Value]) -> frozenset[str]:
    """What an operation on numbers one by one changes that a product with constants, or a sum, does not."""
    if name in (*_SUMS, *_LEAVES):
        return frozenset()
    if name in _FACTORS:
        return frozenset(map(gains.told, others))
    return frozenset({name})


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        yield from itertools.chain.from_iterable(map(_flat, value))
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value
