"""The batches: finite, different, mixed and scaled."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from thalweg.diagnosis import limits
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.forward import Forward
from thalweg.diagnosis.preflight.known import Preflight
from thalweg.diagnosis.preflight.losses import finite
from thalweg.diagnosis.preflight.reading import same, tensors_of
from thalweg.groups.places import is_norm

#: examples of a class-by-class batch, at least, and batches of them
EXAMPLES, BATCHES = 8, 3


def not_finite(known: Preflight) -> Iterator[Finding | Fine]:
    """NaN or infinity in a batch."""
    for number, batch in enumerate(known.read.batches):
        if any(not finite(x) for x in tensors_of(batch)):
            yield finding("nonfinite_batch", f"Batch {number} holds NaN or infinity; none is expected.")
            return


def repeated(known: Preflight) -> Iterator[Finding | Fine]:
    """Batches that are copies of each other; the same object again and again is training on all data at once."""
    batches = known.read.batches
    if len(batches) < 2 or not all(same(b, batches[0]) for b in batches[1:]):
        return
    if not any(a is b for a, b in zip(tensors_of(batches[0]), tensors_of(batches[1]), strict=False)):
        yield finding(
            "data_repeated",
            f"The first {len(batches)} batches hold the same numbers, in tensors of their own; different ones are "
            "expected.",
        )


def one_class_each(known: Preflight) -> Iterator[Finding | Fine]:
    """Batches that hold a single class each."""
    found = []
    for seen in known.forwards:
        for call in seen.calls[:1]:
            labels = call.labels
            if labels is not None and call.target.ndim == 1 and len(labels) >= EXAMPLES and known.has_units(call):
                found.append(set(labels.tolist()))
    if len(found) >= BATCHES and all(len(classes) == 1 for classes in found):
        classes = ", ".join(str(next(iter(its))) for its in found)
        yield finding(
            "not_shuffled",
            f"Each of the first {len(found)} batches holds one class alone, {classes}; a mixture is expected.",
        )


def scaled(known: Preflight) -> Iterator[Finding | Fine]:
    """The size of real inputs; a model that begins with a norm takes any."""
    given = [x for x in tensors_of(list(known.first.inputs or ())) if x.is_floating_point() and x.numel()]
    begins = next((m for m in known.subject.model.modules() if m._parameters or is_norm(m)), None)
    if not given or begins is None or is_norm(begins):
        return
    size = float(given[0].detach().float().square().mean().sqrt())
    if math.isfinite(size) and size > limits.INPUT_SIZE:
        yield finding(
            "inputs_not_scaled",
            f"The root mean square of the inputs is {size:.3g}; about 1 is expected, at most {limits.INPUT_SIZE:g}.",
            numbers={"rms": size},
        )
    else:
        yield Fine("size of the inputs", f"root mean square {size:.3g}")


def paired(known: Preflight) -> Iterator[Finding | Fine]:
    """Labels that belong to the neighbour's input."""
    scores = known.paired
    if not scores:
        return
    by, best = max(((b, z) for b, z in scores.items() if b), key=lambda item: item[1])
    if best > limits.PAIRED and scores[0] < best / 2:
        yield finding(
            "labels_mispaired",
            f"Labels are told from the inputs {best:.1f} standard deviations above chance when they are shifted by "
            f"{by} within the batch, and {scores[0]:.1f} as they are.",
            numbers={"shifted": best, "as they are": scores[0], "by": by},
        )


def independent(known: Preflight) -> Iterator[Finding | Fine]:
    """Whether the loss depends on which batch it is, also after some steps: before them, the output may be zero."""
    batches = known.read.batches
    if not all(map(math.isfinite, known.losses)):
        return
    if known.after is not None and _constant(known.first) and _constant(known.after):
        yield finding(
            "loss_ignores_batch",
            f"The model gives the same output for each of {len(known.first.calls[0].output)} examples, to the last "
            "bit; different ones are expected.",
        )
        return
    if len(known.losses) < 2 or all(same(b, batches[0]) for b in batches[1:]):
        return
    alike = len(set(known.losses)) == 1
    if alike and not known.drawn and (not known.losses_after or len(set(known.losses_after)) == 1):
        yield finding(
            "loss_ignores_batch",
            f"The loss of {len(batches)} different batches is {known.losses[0]:.6g} each time, to the last bit; "
            "different losses are expected.",
            numbers={"loss": known.losses[0]},
        )
    elif not alike:
        low, high = min(known.losses), max(known.losses)
        yield Fine("the loss depends on the batch", f"{low:.4g} to {high:.4g} over {len(batches)} batches")


def _constant(seen: Forward) -> bool:
    """Whether the outputs for the examples of a batch are all equal, though their inputs are not."""
    outputs = [call.output for call in seen.calls[:1] if call.output.ndim > 1 and len(call.output) > 1]
    given = [x for x in tensors_of(list(seen.inputs or ())) if x.ndim > 1 and len(x) > 1]
    return bool(outputs) and bool(given) and _equal_rows(outputs[0])


def _equal_rows(x: Tensor) -> bool:
    return bool((x == x[:1]).all())


CHECKS = (not_finite, repeated, one_class_each, scaled, paired, independent)
