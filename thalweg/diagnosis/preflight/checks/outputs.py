"""What the loss is given: its value against guessing, its shapes, labels within range, logits that are logits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from thalweg.diagnosis import limits
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.known import Preflight
from thalweg.diagnosis.preflight.losses import BINARY, DISTANCES, WITH_CLASSES, LossCall
from thalweg.diagnosis.preflight.probes import padding_of, shift, tokens_of
from thalweg.diagnosis.preflight.subject import modules_of

#: what autograd calls an activation that must not stand before a loss which applies its own
_ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "Relu": "ReLU", "Tanh": "tanh"}
#: outputs for each class that there is, from which a head is another task's
_WIDE = 5
#: how far the probabilities of an example may be from adding up to 1
_TOTAL = 0.05


def in_range(known: Preflight) -> Iterator[Finding | Fine]:
    """Labels that are no class."""
    if known.labels_outside:
        label, classes = known.labels_outside
        yield finding(
            "labels_out_of_range",
            f"A label is {label}, and the output has {classes} classes: 0 to {classes - 1} are expected.",
            head_of(known),
            numbers={"label": label, "classes": classes},
            classes=max(label + 1, classes),
        )


def initial(known: Preflight) -> Iterator[Finding | Fine]:
    """The loss before training against a guess that looks at no input.

    Of several losses those after the first are judged where they make up most of what is descended: their targets may
    come from the model itself, so that the spread of these is no scale.
    """
    for number, call in enumerate(known.first.calls):
        if known.labels_outside or (guessed := call.guessed()) is None:
            continue
        value = call.value()
        error = call.name in DISTANCES
        if math.isnan(value) or _is_frozen_head(known, call):  # of a loss that is NaN another check tells the reason
            continue
        limit = limits.INITIAL_ERROR * guessed if error else limits.INITIAL_LOSS * guessed + 1
        classes = call.classes if call.name in WITH_CLASSES else 2
        what = "the spread of the targets" if error else f"the logarithm of {classes} classes"
        if math.isfinite(value) and value > limit and guessed > 0 and (number == 0 or 2 * value > known.losses[0]):
            yield finding(
                "initial_loss_high",
                f"Before training the mean {_which(known, number)} is {value:.4g}; guessing gives {guessed:.4g}, "
                f"{what}.",
                layer_of(known, call),
                numbers={"loss": value, "guess": guessed},
            )
        elif error and (size := _unscaled(call)):
            yield finding(
                "initial_loss_high",
                f"The root mean square of the targets is {size:.3g}, and the first outputs are a hundred "
                f"times smaller or less; about 1 is expected, at most {limits.TARGET_SIZE:g}.",
                layer_of(known, call),
                numbers={"targets": size},
            )
        else:
            yield Fine(f"{_which(known, number)} before training", f"{value:.4g}; guessing gives {guessed:.4g}, {what}")


def _unscaled(call: LossCall) -> float:
    """The root mean square of targets that are far from unit size and from the outputs; 0 where they are not."""
    size, own = (float(x.float().square().mean().sqrt()) for x in (call.target, call.output))
    return size if size > limits.TARGET_SIZE and size > 100 * own else 0.0


def _is_frozen_head(known: Preflight, call: LossCall) -> bool:
    """Whether classes are told by a frozen layer, beside which an adapter trains: it was trained, for these classes."""
    if call.name not in WITH_CLASSES:
        return False
    heads = [p for p in known.subject.parameters.values() if p.ndim == 2 and p.shape[0] == call.classes]
    return bool(heads) and not max(heads, key=torch.Tensor.numel).requires_grad


def _which(known: Preflight, number: int) -> str:
    """What texts call one of the losses."""
    calls = known.first.calls
    return f"loss {number + 1} of {len(calls)} ({calls[number].name})" if len(calls) > 1 else "loss"


def uphill(known: Preflight) -> Iterator[Finding | Fine]:
    """A loss that is descended with the wrong sign, or ascended."""
    calls, total = known.first.calls, known.losses[0] if known.losses else math.nan
    # of a binary loss nothing is said: a generator may raise what its critic lowers
    if known.labels_outside or len(calls) != 1 or calls[0].name in BINARY:
        return
    value = calls[0].value()
    negated = value > 0 and any(math.isclose(-total, times * value, rel_tol=0.02) for times in (1, calls[0].elements))
    if negated != known.subject.ascends and (negated or total > 0):
        what = f"its negative, {total:.4g}, is minimized" if negated else "the optimizer has maximize=True"
        yield finding("update_uphill", f"{calls[0].name} gives {value:.4g}, and {what}, so that training raises it.")


def activations(known: Preflight) -> Iterator[Finding | Fine]:
    """Softmax or sigmoid before a loss that applies its own; logits where logarithms are expected."""
    for call in known.first.calls:
        if call.name in ("cross_entropy", "binary_cross_entropy_with_logits"):
            for name, shown in _ACTIVATIONS.items():
                if call.made_by.startswith(name) and not call.made_by.startswith("LogSoftmax"):
                    yield finding(
                        "activation_before_loss",
                        f"{call.name} is given the output of {shown}, from {float(call.output.min()):.3g} to "
                        f"{float(call.output.max()):.3g}; the output of a linear layer is expected.",
                        activation=shown,
                    )
        if call.name == "nll_loss" and call.output.ndim > 1 and _off(call, 1) > _TOTAL:
            yield _no_logarithms(call)


def _no_logarithms(call: LossCall) -> Finding:
    """What nll_loss is given instead of logarithms of probabilities: such over another dimension, or logits."""
    others = [d for d in range(call.output.ndim) if d != 1 and _off(call, d) <= _TOTAL]
    text = "The exponentials of nll_loss's input do not add up to 1 over the classes"
    if not others and not call.made_by.startswith("LogSoftmax"):
        return finding("nll_of_logits", f"{text} (they are off by {_off(call, 1):.3g}).")
    over = (
        f"dimension {others[0]}, and the classes are dimension 1" if others else "a dimension that is not the classes"
    )
    found = finding(
        "nll_of_logits",
        f"{text} (they are off by {_off(call, 1):.3g}): of its shape {tuple(call.output.shape)}, log_softmax was taken "
        f"over {over}.",
        numbers={"dimension": others[0]} if others else None,
    )
    remedy = "Take log_softmax over the dimension of the classes, or use cross_entropy, which takes logits."
    return replace(found, remedy=remedy)


def _off(call: LossCall, dim: int) -> float:
    """How far the exponentials are from adding up to 1 over a dimension, on average."""
    return float((call.output.float().exp().sum(dim) - 1).abs().mean())


def exclusive(known: Preflight) -> Iterator[Finding | Fine]:
    """A softmax where one example has several labels."""
    for call in known.first.calls:
        softmax = call.name == "cross_entropy" or call.made_by.startswith("Softmax")
        if not softmax or call.target.shape != call.output.shape or call.target.ndim != 2 or not known.has_units(call):
            continue
        several = call.target.sum(1) >= 2
        if bool(((call.target == 0) | (call.target == 1)).all()) and bool(several.any()):
            yield finding(
                "labels_not_exclusive",
                f"{float(several.float().mean()):.0%} of {len(several)} examples have two labels or more, up to "
                f"{int(call.target.sum(1).max())}, and the outputs pass a softmax, whose probabilities add up to 1.",
                layer_of(known, call),
            )


def weights(known: Preflight) -> Iterator[Finding | Fine]:
    """A softmax over another dimension than that over which its weights weigh, as in attention."""
    if (found := known.first.astray) is not None:
        yield finding(
            "softmax_over_wrong_dimension",
            f"Weights of shape {found.shape} are a softmax over dimension {found.dim} and are multiplied by what "
            f"stands along dimension {found.weighs}, over which they do not add up to 1.",
            found.layer,
            dim=found.weighs,
        )


def collapses(known: Preflight) -> Iterator[Finding | Fine]:
    """Latent variables that cost more than they can explain."""
    if (found := known.first.latent) is None:
        return
    if found.variance > limits.COLLAPSES * found.largest:
        yield finding(
            "posterior_collapses",
            f"By the weights of the two parts of the loss, a latent variable pays if it explains a variance of "
            f"{found.variance:.3g}; the largest principal variance of the targets is {found.largest:.3g}.",
            found.layer.rpartition(".")[0] or found.layer,
            numbers={"variance": found.variance, "largest": found.largest},
        )
    else:
        yield Fine("latent variables", f"pay from a variance of {found.variance:.3g} on; {found.largest:.3g} is there")


def padding(known: Preflight) -> Iterator[Finding | Fine]:
    """Tokens that only fill up rows, and are predicted all the same."""
    tokens = tokens_of(known.first)
    filling = None if tokens is None else padding_of(tokens)
    if tokens is None or filling is None or shift(tokens, known.first.calls) != 1:
        return
    for call in known.first.calls:
        if call.labels is None or call.reduction == "none" or not call.counts(filling):
            continue
        share = float((call.labels == filling).float().mean())
        if share > limits.PADDED:
            yield finding(
                "padding_counted",
                f"{share:.0%} of the targets that count are token {filling}, which stands at the ends of rows alone, "
                "as what fills them up; such targets are expected to be ignored.",
                numbers={"share": share, "token": filling},
                token=filling,
            )
            return


def inverted(known: Preflight) -> Iterator[Finding | Fine]:
    """Attention that sees what fills rows up, and of the text nothing: a mask that means the contrary.

    A model without a mask sees both, a causal one neither from the first place, and a recurrent one forgets the first
    token before it forgets the others.
    """
    if (found := known.answers.filled) is None:
        return
    filling, text, own = found
    if min(filling, own) > limits.CHANGED and text < limits.UNSEEN * min(filling, own):
        yield finding(
            "padding_mask_inverted",
            f"The outputs at the first place of filled rows change by {filling:.2g} of their size when what fills "
            f"them up is replaced, and by {text:.2g} when the rest of their text is; the contrary is expected.",
            numbers={"filling": filling, "text": text},
        )


def reshaped(known: Preflight) -> Iterator[Finding | Fine]:
    """Outputs that were reshaped where dimensions should have changed places."""
    for call in known.first.calls:
        if call.reshaped is not None:
            yield finding(
                "outputs_reshaped",
                f"Outputs of shape {call.reshaped} are reshaped into {tuple(call.output.shape)}, so the "
                f"{call.classes} numbers of one prediction come from several.",
                layer_of(known, call),
            )


def shapes(known: Preflight) -> Iterator[Finding | Fine]:
    """Output and target of different shapes."""
    for call in known.first.calls:
        if call.name in (*DISTANCES, *BINARY) and call.output.shape != call.target.shape:
            if call.target.numel() == 1 or call.output.numel() == 1:
                continue
            yield finding(
                "loss_broadcasts",
                f"The output has the shape {tuple(call.output.shape)} and the target {tuple(call.target.shape)}; "
                "the same shape is expected.",
                layer_of(known, call),
            )
            return


def head(known: Preflight) -> Iterator[Finding | Fine]:
    """Far more classes than labels, where labels are no tokens."""
    if any(modules_of(known.subject.model, nn.Embedding)):
        return
    for number, call in enumerate(known.first.calls):
        if call.target.ndim == 1 and known.has_units(call):
            yield from _too_wide(known, number)


def _too_wide(known: Preflight, number: int) -> Iterator[Finding]:
    calls = [seen.calls[number] for seen in known.forwards if number < len(seen.calls)]
    labels = [call.labels for call in calls]
    found = {label for its in labels if its is not None for label in its.tolist()}
    examples, classes, there = sum(call.target.numel() for call in calls), calls[0].classes, max(found, default=0) + 1
    if all(its is not None for its in labels) and classes >= _WIDE * there and examples >= 10 * there:
        yield finding(
            "wrong_head",
            f"The output has {classes} classes, and the largest of {examples} labels is {there - 1}: "
            f"{there} classes are expected.",
            layer_of(known, calls[0]),
            classes=there,
        )


def visible(known: Preflight) -> Iterator[Finding | Fine]:
    """Whether a language model sees what it is to predict, and how targets are shifted."""
    answers = known.answers
    by, change = answers.shift, answers.earlier
    if by is None or change is None:
        return
    causal = change < limits.CHANGED
    if by == 1 and not causal:
        yield finding(
            "label_visible",
            f"The outputs for the first half of the positions change by {change:.2g} of their size when the tokens "
            "after them are others; no change is expected, since each position is to predict the next token.",
            numbers={"change": change},
        )
    elif by != 1 and causal:
        where = "at the same place" if by == 0 else f"{by} places ahead"
        yield finding(
            "labels_shifted",
            f"At least {limits.SHIFTED:.0%} of the targets are the input {where}; 1 place ahead is expected.",
            numbers={"places": by},
        )
    elif causal:
        yield Fine("targets", "each is the next token, and no output depends on it")


def leak(known: Preflight) -> Iterator[Finding | Fine]:
    """Outputs that depend on other examples, in eval mode."""
    change = known.answers.others
    if change is None:
        return
    if change > limits.CHANGED:
        yield finding(
            "examples_leak",
            f"In eval mode the outputs for the other examples change by {change:.2g} of their size when the first "
            "example is another; no change is expected.",
            numbers={"change": change},
        )
    else:
        yield Fine("examples", f"no output depends on another example ({change:.1g})")


def nonfinite(known: Preflight) -> Iterator[Finding | Fine]:
    """A loss that is not finite before any step."""
    bad = [number for number, loss in enumerate(known.losses) if not math.isfinite(loss)]
    if bad:
        seen = known.forwards[bad[0]]
        where = f", and {seen.nonfinite} is the first layer whose output is not finite" if seen.nonfinite else ""
        yield finding(
            "nonfinite_loss",
            f"The loss of batch {bad[0]} is {known.losses[bad[0]]} before training{where}.",
            seen.nonfinite,
        )


def layer_of(known: Preflight, call: LossCall) -> str:
    """The layer that makes the output of one of several losses; of a single one the head."""
    near = known.nearest(call)
    return near.rpartition(".")[0] if near and len(known.first.calls) > 1 else head_of(known)


def head_of(known: Preflight) -> str:
    """The layer that makes the output; the last one with parameters where that is not known."""
    heads = [name for name, role in known.roles.items() if role.kind == "head"]
    if heads:
        return heads[-1].rpartition(".")[0]
    modules = known.subject.model.named_modules()  # with a tied head, whose weight stands under the embedding's name
    owners = [
        name for name, module in modules if any(p is not None and p.ndim > 1 for p in module._parameters.values())
    ]
    return owners[-1] if owners else ""


CHECKS = (
    *(
        in_range,
        nonfinite,
        initial,
        uphill,
        activations,
        exclusive,
        weights,
        collapses,
        padding,
        inverted,
        shapes,
        reshaped,
        head,
    ),
    *(visible, leak),
)
