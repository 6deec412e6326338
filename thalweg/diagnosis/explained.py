"""Findings that another one explains: of a cause and what follows from it, the cause is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from thalweg.diagnosis.finding import Finding

_LOST = {"lr_zero", "update_swallowed"}
_ASTRAY = {"initial_loss_high", "inputs_not_scaled", "gradients_explode", "nonfinite_gradient", "nonfinite_batch"}
_SUMMED = {"gradients_not_cleared", "accumulation_not_divided"}
_CLIMBS = {
    *("lr_too_high", "no_warmup", "update_uphill", "weights_grow", "decay_dominates", "lr_uneven"),
    "attention_logits_explode",
}
_RUNAWAY = _ASTRAY | _SUMMED | _CLIMBS
_NONFINITE = {
    *("nonfinite_batch", "nonfinite_loss", "nonfinite_gradient", "loss_became_nonfinite", "gradient_became_nonfinite")
}
#: updates that are lost, or move all units of a layer alike: the rest follows
_HELD = {"weights_overwritten", "units_alike"}
_UNLEARNT = {"loss_ignores_batch", "not_shuffled", "examples_leak"}

#: what explains the causes after it: they are left out where one of those was found
EXPLAINED: dict[str, set[str]] = {
    "lr_too_low": {
        *_HELD,
        *("clip_always", "horizon_too_short", "does_not_move", "no_gradient", "eps_dominates", "dead_relus"),
        *("inputs_not_scaled", "gradient_vanished", "gradients_vanish", "warmup_too_long", *_LOST, *_NONFINITE),
    },
    "nonfinite_gradient": {"inputs_not_scaled"},
    "does_not_move": _LOST,
    "lr_too_high": _ASTRAY | _SUMMED | _HELD | {"decay_dominates", "fp16_underflow"},
    "no_warmup": _ASTRAY
    | _SUMMED
    | _UNLEARNT
    | _HELD
    | {"lr_too_high", "decay_dominates", "activation_before_loss", "no_gradient"},
    "no_gradient": {"dead_relus", "router_collapsed", "units_alike", *_NONFINITE},
    "dead_relus": {"units_alike"},
    "gradients_vanish": {"units_alike", "softmax_over_wrong_dimension"},
    "gradient_vanished": {"dead_relus", "lr_too_high", "attention_logits_explode", "router_collapsed", *_NONFINITE},
    "eps_dominates": {"gradients_vanish", "dead_relus"},
    **{one: {"softmax_over_wrong_dimension"} for one in ("examples_leak", "label_visible")},
    "lr_uneven": {"lr_too_high", "softmax_over_wrong_dimension", "gradients_vanish"},
    "loss_ignores_batch": {"dead_relus", "gradients_vanish", "units_alike"},
    "not_shuffled": {"loss_ignores_batch"},
    "gradients_explode": {"inputs_not_scaled", "initial_loss_high"},
    "weights_overwritten": {"units_alike"},
    "initial_loss_high": {"inputs_not_scaled", "loss_broadcasts"},
    "attention_logits_explode": _RUNAWAY - {"attention_logits_explode"},
    "router_collapsed": _RUNAWAY | _NONFINITE,
    "weights_grow": _RUNAWAY - {"weights_grow"},
    "update_uphill": _RUNAWAY - {"update_uphill"},
    "loss_spikes": _RUNAWAY | _NONFINITE | _UNLEARNT | {"weights_overwritten"},
    "gradient_spikes": _RUNAWAY | _NONFINITE,
    "loss_became_nonfinite": _RUNAWAY | (_NONFINITE - {"loss_became_nonfinite"}),
    "gradient_became_nonfinite": _RUNAWAY | (_NONFINITE - {"gradient_became_nonfinite"}),
    "decay_dominates": {"lr_too_high", "gradients_vanish"},
}


def standing(found: Iterable[Finding], known: Collection[str] = ()) -> list[Finding]:
    """The findings that no other one explains; of two that explain each other the earlier one is told.

    Args:
        found: at once.
        known: causes that were told before.
    """
    found = list(found)
    causes = {one.cause for one in found} | {*known}
    before = {*known}
    kept = []
    for one in sorted(found, key=lambda one: -1 if one.step is None else one.step):
        explaining = EXPLAINED.get(one.cause, causes if one.cause == "cannot_overfit" else set()) & causes - {one.cause}
        mutual = {cause for cause in explaining if one.cause in EXPLAINED.get(cause, ())}
        if not explaining - mutual and not mutual & before:
            kept.append(one)
        before.add(one.cause)
    return [one for one in found if one in kept]
