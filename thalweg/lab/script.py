"""The lines that put a race's outcome into the user's training script."""

from __future__ import annotations

import thalweg
from thalweg.groups import roles
from thalweg.lab.protocol import warmup_steps
from thalweg.lab.run import Spec
from thalweg.lab.tasks import get_task


def lines(spec: Spec) -> str:
    """Optimizer, groups and schedule with the tuned values, for a script that has ``model`` and steps ``scheduler``.

    Where the model alone does not show which layer makes its output, the lines say what the task says: its ``head``, or
    that they need a ``sample``.
    """
    name = spec.contestant.optimizer
    settings = {**spec.contestant.settings, **dict(spec.extra)}
    extra = "".join(f", {key}={value!r}" for key, value in settings.items())
    lr, decay, seen = f"lr={spec.lr:.4g}", f"weight_decay={spec.weight_decay:g}", _seen(spec)
    groups = f"groups = thalweg.groups.multiplied(model, {lr}, multiplier={spec.multiplier:g}, {decay}{seen})"
    if name != "Muon":
        takes = getattr(thalweg, name).hypers["decoupled_weight_decay"].init  # AdamW's is decoupled anyway
        decoupled = ", decoupled_weight_decay=True" if takes else ""
        optimizer = [groups, f"optimizer = thalweg.{name}(groups, {lr}{extra}{decoupled})"]
    elif "head=" in seen:  # which Muon reads from groups alone
        use = 'groups = [{**group, "use_muon": group["role"] == "hidden"} for group in groups]'
        optimizer = [groups, use, f"optimizer = thalweg.Muon(groups, {lr}{extra})"]
    else:
        optimizer = [f"optimizer = thalweg.Muon(model, {lr}, lr_ratio={spec.multiplier:g}, {decay}{extra}{seen})"]
    schedule = (
        "scheduler = thalweg.schedule.Scheduler("
        f"optimizer, thalweg.schedule.linear({spec.steps}, warmup={warmup_steps(spec.steps)}))"
    )
    need = ["# sample: an input that the model takes"] if "sample=" in seen else []
    return "\n".join(
        ["import thalweg", "", *need, *optimizer, schedule, "# after each optimizer.step(): scheduler.step()"]
    )


def _seen(spec: Spec) -> str:
    """The further argument that makes the roles in the user's script those of the race; empty if none is needed."""
    task = get_task(spec.task)
    model = task.model(spec.seed)
    raced = [role.kind for role in roles(model, task.sample(), head=task.head)]
    try:
        if [role.kind for role in roles(model)] == raced:
            return ""
    except ValueError:  # a matrix whose use is seen only when the model runs
        pass
    return ", sample=sample" if task.head is None else f", head={list(task.head)!r}"
