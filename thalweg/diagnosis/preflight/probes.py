"""Questions that are put to the model itself: does an output depend on what it must not depend on?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from thalweg.diagnosis import limits
from thalweg.diagnosis.preflight.forward import Forward
from thalweg.diagnosis.preflight.losses import LossCall
from thalweg.diagnosis.preflight.reading import copied, tensors_of
from thalweg.groups.running import mapped
from thalweg.train import rng

#: by how many places targets are compared with the inputs
SHIFTS = (-2, -1, 0, 1, 2, 3)


@dataclass
class Answers:
    """What was found; every number is the relative change of outputs, None where the question has no meaning.

    Attributes:
        others: of the outputs for all examples but the first, when the first is another.
        earlier: of the outputs for the first half of the positions, when the tokens of the second half are others.
        shift: by how many places the targets are ahead of the inputs: 1 in a language model.
        modes: of the loss, from training to eval mode.
        repeated: of the loss, when it is computed twice with the same random numbers.
        filled: of the outputs at the first place of rows that are filled up, when what fills them is something else,
            when the rest of their text is, and when their first token is.
    """

    others: float | None = None
    earlier: float | None = None
    shift: int | None = None
    modes: float | None = None
    repeated: float | None = None
    filled: tuple[float, float, float] | None = None
    skipped: list[str] = field(default_factory=list)


def examples(model: nn.Module, seen: Forward) -> float | None:
    """How much the outputs for other examples change with the first one, in eval mode."""
    size = _batch_size(model, seen)
    if size is None or seen.inputs is None:
        return None

    def replaced(x: Tensor) -> Tensor:
        return torch.cat([x[1:2], x[1:]]) if x.ndim and x.shape[0] == size else x

    before, after = _both(model, seen.inputs, mapped(list(seen.inputs), replaced))
    if before is None or after is None or before.shape != after.shape or before.shape[:1] != (size,):
        return None
    if before.shape[1:2] == (size,):  # similarities of each example with each: those with the first one may change
        before, after = before[:, 1:], after[:, 1:]
    change = _change(before[1:], after[1:])
    return None if change > limits.CHANGED and _meet_on_purpose(model, seen.inputs, size) else change


#: operations by which rows meet along the edges of a graph
_ALONG_EDGES = ("index_add", "scatter_add", "scatter_reduce", "index_reduce", "sparse", "segment_reduce")


class _Edges(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees whether rows meet along edges: by one of these operations, or by a product with a matrix of edges.

    Args:
        matrices: where the memory of such matrices begins.
    """

    def __init__(self, matrices: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.matrices, self.found = matrices, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [x for x in args if isinstance(x, Tensor)]
        self.found |= any(part in str(func) for part in _ALONG_EDGES)
        self.found |= any(x.layout != torch.strided or x.data_ptr() in self.matrices for x in given)
        return func(*args, **(kwargs or {}))


def _meet_on_purpose(model: nn.Module, inputs: Any, rows: int) -> bool:
    """Whether rows are the nodes of a graph."""
    edges = _Edges({x.data_ptr() for x in model.buffers() if x.shape == (rows, rows) and x.is_floating_point()})
    with edges:
        _evaluated(model, inputs)
    return edges.found


def _batch_size(model: nn.Module, seen: Forward) -> int | None:
    """The number of examples; None where the first dimension may be another one, or rows are meant to meet."""
    given = [x for x in tensors_of(list(seen.inputs or ())) if x.ndim]
    sizes = {x.shape[0] for x in given}
    if len(sizes) != 1 or (size := sizes.pop()) < 2 or any(x.shape == (size, size) for x in given[1:]):
        return None
    by_place = any(getattr(module, "batch_first", True) is False for module in model.modules())
    if by_place and not _row_by_row(seen) and not _labels_of_rows(seen, given, size):
        return None
    return size if all(len(call.target) % size == 0 for call in seen.calls if call.target.ndim) else None


def _row_by_row(seen: Forward) -> bool:
    """Whether the targets are later tokens of the same row: then a row is an example, whatever a layer may think."""
    tokens = tokens_of(seen)
    return tokens is not None and shift(tokens, seen.calls) is not None


def _labels_of_rows(seen: Forward, given: list[Tensor], size: int) -> bool:
    """Whether there is a target for each row and the inputs have another number of columns: then rows are examples."""
    fits = [call.target.shape == (size,) for call in seen.calls]
    return bool(fits) and all(fits) and all(x.ndim > 1 and x.shape[1] != size for x in given)


def tokens_of(seen: Forward) -> Tensor | None:
    """The token numbers, (batch, places), that the model was given; None where there are none."""
    for x in tensors_of(list(seen.inputs or ())):
        if x.dtype in (torch.int64, torch.int32) and x.ndim == 2 and x.shape[1] >= 4:
            return x
    return None


def padding_of(tokens: Tensor) -> int | None:
    """The token that fills up rows of different lengths; None where there is none.

    It stands nowhere but at the ends of rows, at least twice in half of them.
    """
    last = int(tokens[:, -1].mode().values)
    is_it = tokens == last
    ends = is_it.flip(1).long().cumprod(1).sum(1)  # as many times does each row end with it
    fills = bool((is_it.sum(1) == ends).all()) and 2 * int((ends >= 2).sum()) >= len(tokens)
    return last if fills and int(ends.min()) < int(ends.max()) else None


def filled(model: nn.Module, seen: Forward, tokens: Tensor) -> tuple[float, float, float] | None:
    """How much the outputs at the first place of filled rows change with the filling, the rest of the text, and itself.

    Of a model that gives one output for a row, that one counts. None without such rows.
    """
    filling = padding_of(tokens)
    if filling is None or seen.inputs is None:
        return None
    fills = tokens == filling
    rows, known = (fills.sum(1) > 1) & ((~fills).sum(1) > 2), torch.unique(tokens[~fills])
    if len(known) < 2 or not rows.any():
        return None
    others = known[(torch.searchsorted(known, tokens.contiguous()) + 1) % len(known)]
    place = torch.arange(tokens.shape[1], device=tokens.device)
    first, last = place == 0, place == len(place) - 1
    found = []
    for where in (fills & ~last, ~fills & ~first, ~fills & first):  # a row without any filling may have no key at all
        changed = others.where(where, tokens)

        def replaced(x: Tensor, by: Tensor = changed) -> Tensor:
            return by if x.shape == tokens.shape and x.dtype == tokens.dtype and torch.equal(x, tokens) else x

        before, after = _both(model, seen.inputs, mapped(list(seen.inputs), replaced))
        if before is None or after is None or before.shape != after.shape or len(before) != len(tokens):
            return None
        if before.shape[:2] == tokens.shape:
            before, after = before[:, 0], after[:, 0]
        if not bool(before[rows].isfinite().all()):
            return None
        found.append(_change(before[rows], after[rows].nan_to_num(torch.inf)))
    return found[0], found[1], found[2]


def shift(tokens: Tensor, calls: list[LossCall]) -> int | None:
    """By how many places the targets are the tokens ahead; None where they are not, or where several places fit."""
    for call in calls:
        if call.name != "cross_entropy" or call.target.is_floating_point() or call.target.numel() % len(tokens):
            continue
        targets = call.target.reshape(len(tokens), -1)
        fits = [by for by in SHIFTS if _fits(tokens, targets, by, call.ignored)]
        if len(fits) == 1:
            return fits[0]
    return None


def _fits(tokens: Tensor, targets: Tensor, by: int, ignored: int) -> bool:
    places = range(max(0, -by), min(targets.shape[1], tokens.shape[1] - by))
    if len(places) < 2:
        return False
    ahead = tokens[:, places.start + by : places.stop + by]
    mine = targets[:, places.start : places.stop]
    counts = mine != ignored
    if counts.float().mean() < 0.5:
        return False
    return float((ahead == mine)[counts].float().mean()) >= limits.SHIFTED


def earlier(model: nn.Module, seen: Forward, tokens: Tensor) -> float | None:
    """How much the outputs for the first half of the places change with the tokens of the second half."""
    half = tokens.shape[1] // 2

    def replaced(x: Tensor) -> Tensor:
        if x.shape != tokens.shape or not torch.equal(x, tokens):
            return x
        others = tokens.max() + tokens.min() - x[:, half:]
        return torch.cat([x[:, :half], others], dim=1)

    if seen.inputs is None:
        return None
    before, after = _both(model, seen.inputs, mapped(list(seen.inputs), replaced))
    if before is None or after is None or before.shape != after.shape or before.shape[:2] != tokens.shape:
        return None
    return _change(before[:, :half], after[:, :half])


def _both(model: nn.Module, inputs: Any, others: Any) -> tuple[Tensor | None, Tensor | None]:
    """What the model gives for its inputs, and for others; None where it remembers what it was given before.

    A recurrent model that goes on from the state of the last batch gives something else each time.
    """
    first, before, after = (_evaluated(model, given) for given in (inputs, inputs, others))
    pair = first is not None and before is not None and first.shape == before.shape
    if pair and _change(first, before) > limits.CHANGED:  # type: ignore[arg-type]
        return None, None
    return before, after


def _evaluated(model: nn.Module, inputs: Any) -> Tensor | None:
    """The first tensor of numbers that the model gives in eval mode, without gradients."""
    args, kwargs = copied(list(inputs))
    with evaluating(model), torch.no_grad():
        output = model(*args, **kwargs)
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    found = [logits] if isinstance(logits, Tensor) else tensors_of(output)
    return next((x.detach().float() for x in found if x.is_floating_point() and x.ndim), None)


@contextlib.contextmanager
def evaluating(model: nn.Module, on: bool = True) -> Iterator[None]:
    """Eval mode (or training mode), the same random numbers each time, and each module's mode put back."""
    modes = [(module, module.training) for module in model.modules()]
    state = rng.capture()
    model.train(not on)
    try:
        yield
    finally:
        rng.restore(state)
        for module, mode in modes:
            module.training = mode


def _change(before: Tensor, after: Tensor) -> float:
    return float((after - before).abs().amax() / before.abs().amax().clamp_min(1e-12))
