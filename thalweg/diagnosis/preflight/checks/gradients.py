"""Gradients: that they arrive, are finite, and are of one order of magnitude."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator

import torch

from thalweg.diagnosis import limits
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.known import Preflight
from thalweg.diagnosis.preflight.losses import DISTANCES
from thalweg.diagnosis.symmetry import units_alike


def arriving(known: Preflight) -> Iterator[Finding | Fine]:
    """Trainable parameters without a gradient on any batch, at every step of the rehearsal."""
    subject, rehearsal = known.subject, known.rehearsal
    if not known.losses or known.labels_outside:
        return
    if rehearsal is None:
        yield finding("no_gradient", "The loss depends on no parameter: it has no gradient.", "")
        return
    if not rehearsal.steps:
        return
    silent = [name for name in subject.trainable if name in rehearsal.silent - known.apart]
    silent = [name for name in silent if not cancels(name, silent)]
    if silent:
        tried = f"{rehearsal.steps} steps and {len(known.read.batches)} batches"
        yield finding(
            "no_gradient",
            f"{len(silent)} of {len(subject.trainable)} trainable parameters got no gradient but zeros in {tried}.",
            silent,
        )
    else:
        count = len(subject.trainable) - len(known.apart)
        yield Fine("gradients", f"every trainable parameter gets one ({count} of them)")


def cancels(name: str, silent: Collection[str]) -> bool:
    """Whether a parameter is the bias of a layer that does learn: a loss of differences does not depend on it."""
    owner, _, own = name.rpartition(".")
    return own == "bias" and f"{owner}.weight" not in silent


def copies(known: Preflight) -> Iterator[Finding | Fine]:
    """Layers whose units begin as copies of one another and get gradients that keep them so."""
    if known.rehearsal and known.rehearsal.steps and (names := known.rehearsal.alike):
        yield units_alike(names, known.subject.trainable)


def not_finite(known: Preflight) -> Iterator[Finding | Fine]:
    """A gradient that is not finite although the loss is."""
    if known.rehearsal and known.rehearsal.nonfinite:
        yield finding(
            "nonfinite_gradient",
            f"The loss is {known.rehearsal.losses[0]:.4g}, and the gradient of {known.rehearsal.nonfinite} is NaN or "
            "infinite.",
            known.rehearsal.nonfinite,
        )


def dead(known: Preflight) -> Iterator[Finding | Fine]:
    """Units of ReLUs that no example switches on."""
    seen = [forward.dead for forward in known.forwards]
    for layer, number in seen[0] if seen else ():
        masks = [found[layer, number] for found in seen if (layer, number) in found]
        if len({mask.shape for mask in masks}) != 1:
            continue
        share = float(torch.stack(masks).all(0).float().mean())
        if share >= limits.DEAD:
            yield finding(
                "dead_relus",
                f"{share:.0%} of the {masks[0].numel()} units of the ReLU after {layer or 'the input'} give zero for "
                f"every example of {len(masks)} batches; less than {limits.DEAD:.0%} is expected.",
                layer,
                numbers={"share": share},
            )


def balanced(known: Preflight) -> Iterator[Finding | Fine]:
    """Relative gradients of the matrices against each other, at the first step."""
    rehearsal = known.rehearsal
    if rehearsal is None or not rehearsal.steps:
        return
    relative = {
        name: rehearsal.sizes[name] / rehearsal.weights[name]
        for name, p in known.subject.trainable.items()
        if p.ndim > 1 and rehearsal.sizes.get(name, 0.0) > 0 and rehearsal.weights[name] > 0
    }
    if len(relative) < 2:
        return
    top, middle = max(relative.values()), statistics.median(relative.values())
    vanished = [name for name, size in relative.items() if size < limits.VANISHED * top]
    if vanished:
        least = min(relative.values())
        yield finding(
            "gradients_vanish",
            f"‖g‖ / ‖w‖ is {least:.2g} in one layer and {top:.2g} in another; at least {limits.VANISHED:g} of the "
            "largest is expected.",
            vanished,
            numbers={"least": least, "largest": top},
        )
    exploded = [
        name
        for name, size in relative.items()
        if size > limits.EXPLODED_AT_LEAST and size > limits.EXPLODED * min(relative.values())
    ]
    if exploded or (middle > limits.EXPLODED_AT_LEAST and not _have_the_size_of_targets(known)):
        yield finding(
            "gradients_explode",
            f"‖g‖ / ‖w‖ reaches {top:.2g} in one layer, {middle:.2g} is its median over layers; below "
            f"{limits.EXPLODED_AT_LEAST:g} is expected.",
            exploded or list(relative),
            numbers={"largest": top, "median": middle},
        )
    if not vanished and not exploded:
        yield Fine("sizes of gradients", f"‖g‖ / ‖w‖ from {min(relative.values()):.2g} to {top:.2g} over the matrices")


def _have_the_size_of_targets(known: Preflight) -> bool:
    """Whether gradients are as large as the targets of a regression, beside which the first outputs are small."""
    call = next(iter(known.first.calls), None)
    if call is None or call.name not in DISTANCES:
        return False
    size, own = (float(x.float().square().mean()) for x in (call.target, call.output))
    return size > own


def underflow(known: Preflight) -> Iterator[Finding | Fine]:
    """Gradients in float16 that are mostly zero."""
    rehearsal = known.rehearsal
    half = {
        name: rehearsal.lively[name]
        for name, p in known.subject.trainable.items()
        if rehearsal and p.dtype == torch.float16 and p.ndim > 1 and name in rehearsal.lively
    }
    lost = [name for name, share in half.items() if 0 < share < 1 - limits.UNDERFLOW]
    if lost:
        least = min(half[name] for name in lost)
        yield finding(
            "fp16_underflow",
            f"Only {least:.0%} of a float16 gradient are not zero; at least {1 - limits.UNDERFLOW:.0%} is expected.",
            lost,
        )


def clipped(known: Preflight) -> Iterator[Finding | Fine]:
    """The norm of the gradients against the norm at which they are clipped."""
    clip, rehearsal = known.subject.clip, known.rehearsal
    if clip is None or rehearsal is None or not rehearsal.gradients:
        return
    low, middle = min(rehearsal.gradients), statistics.median(rehearsal.gradients)
    text = f"the norm of the gradients is {low:.3g} to {max(rehearsal.gradients):.3g} and is clipped at {clip:g}"
    if low > limits.CLIPPED * clip:
        yield finding(
            "clip_always",
            f"At each of {rehearsal.steps} steps {text}; it is expected to be below it at most steps.",
            numbers={"least": low, "clip": clip},
            norm=f"{middle:.2g}",
        )
    else:
        acts = sum(norm > clip for norm in rehearsal.gradients)
        yield Fine("clipping", f"{text}: it acts at {acts} of {rehearsal.steps} steps", note=acts == 0)


CHECKS = (arriving, copies, not_finite, dead, balanced, underflow, clipped)
