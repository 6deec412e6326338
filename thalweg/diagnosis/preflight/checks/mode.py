"""Training and eval mode, dropout, and whether a seed decides."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from thalweg.diagnosis import limits
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.known import Preflight
from thalweg.diagnosis.preflight.subject import modules_of

_DROPOUTS = nn.modules.dropout._DropoutNd


def training(known: Preflight) -> Iterator[Finding | Fine]:
    """A model in eval mode, where that makes a difference, or one that the loss leaves in eval mode."""
    model, change = known.subject.model, known.answers.modes
    left = bool(known.modes_changed)
    if model.training and not left:
        yield Fine("mode", "training")
        return
    depends = modal(model)
    if depends or (change or 0.0) > limits.CHANGED:
        how = "after loss(model, batch) " if model.training else ""
        what = f"{len(depends)} layers of dropout or batch norm" if depends else "the loss"
        number = f", and the loss changes by {change:.2g} of its value with it" if change is not None else ""
        yield finding(
            "mode_eval",
            f"The model is in eval mode {how}while {what} depend on the mode{number}; training mode is expected.",
            depends[:1],
        )
    else:
        yield Fine("mode", "eval, which makes no difference for this model", note=True)


def modal(model: nn.Module) -> list[str]:
    """The layers of dropout and batch norm that training and eval mode differ for."""
    layers = modules_of(model, (_DROPOUTS, nn.modules.batchnorm._BatchNorm))
    return [name for name, module in layers if getattr(module, "p", 1.0) > 0]


def dropout(known: Preflight) -> Iterator[Finding | Fine]:
    """Dropout that drops nearly everything."""
    for name, module in modules_of(known.subject.model, _DROPOUTS):
        if module.p > limits.DROPOUT:
            yield finding(
                "dropout_high",
                f"{name} drops {module.p:.0%} of its input; at most {limits.DROPOUT:.0%} is expected.",
                name,
                numbers={"p": module.p},
                kept=f"{1 - module.p:.3g}",
            )


def seeded(known: Preflight) -> Iterator[Finding | Fine]:
    """The loss of one batch twice, from the same random numbers."""
    if (change := known.answers.repeated) is not None:
        sure = change <= limits.CHANGED
        text = "the same loss twice" if sure else f"the loss differs by {change:.2g} of its value"
        yield Fine("a seed decides", f"from the same random numbers, {text}", note=not sure)


CHECKS = (training, dropout, seeded)
