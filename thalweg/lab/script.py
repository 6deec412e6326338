"""The lines that put a race's outcome into the user's training script."""

from __future__ import annotations

from thalweg.lab.protocol import warmup_steps
from thalweg.lab.run import Spec


def lines(spec: Spec) -> str:
    """Optimizer, groups and schedule with the tuned values, for a script that has ``model`` and steps ``scheduler``."""
    name = spec.contestant.optimizer
    settings = {**spec.contestant.settings, **dict(spec.extra)}
    extra = "".join(f", {key}={value!r}" for key, value in settings.items())
    lr = f"lr={spec.lr:.4g}"
    if name == "Muon":
        optimizer = [
            f"optimizer = thalweg.Muon(model, {lr}, lr_ratio={spec.multiplier:g}, "
            f"weight_decay={spec.weight_decay:g}{extra})"
        ]
    else:
        decoupled = "" if name == "AdamW" else ", decoupled_weight_decay=True"
        optimizer = [
            f"groups = thalweg.groups.multiplied(model, {lr}, multiplier={spec.multiplier:g}, "
            f"weight_decay={spec.weight_decay:g})",
            f"optimizer = thalweg.{name}(groups, {lr}{extra}{decoupled})",
        ]
    schedule = (
        "scheduler = thalweg.schedule.Scheduler("
        f"optimizer, thalweg.schedule.linear({spec.steps}, warmup={warmup_steps(spec.steps)}))"
    )
    return "\n".join(["import thalweg", "", *optimizer, schedule, "# after each optimizer.step(): scheduler.step()"])
