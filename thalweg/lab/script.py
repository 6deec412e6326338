"""The lines that put a race's outcome into the user's training script."""

from __future__ import annotations

from pathlib import Path

from thalweg.groups import roles
from thalweg.lab.protocol import warmup_steps
from thalweg.lab.run import Spec
from thalweg.lab.tasks import get_task


def lines(spec: Spec) -> str:
    """Optimizer, groups and schedule with the tuned values, for a script that has ``model`` and steps ``scheduler``.

    Where the model alone does not show which layer makes its output, the lines say what the task says: its ``head``, or
    that they need a ``sample``.
    """
    file, _, name = spec.contestant.optimizer.rpartition(":")
    made = name if file else f"thalweg.{name}"
    settings = {**spec.contestant.settings, **dict(spec.extra)}
    extra = "".join(f", {key}={value!r}" for key, value in settings.items())
    lr, decay, seen = f"lr={spec.lr:.4g}", f"weight_decay={spec.weight_decay:g}", _seen(spec)
    groups = f"groups = thalweg.groups.multiplied(model, {lr}, multiplier={spec.multiplier:g}, {decay}{seen})"
    if name != "Muon":
        takes = spec.contestant.rule.hypers["decoupled_weight_decay"].init  # AdamW's is decoupled anyway
        decoupled = ", decoupled_weight_decay=True" if takes else ""
        optimizer = [groups, f"optimizer = {made}(groups, {lr}{extra}{decoupled})"]
    elif "head=" in seen:  # which Muon reads from groups alone
        use = 'groups = [{**group, "use_muon": group["role"] == "hidden", "flatten": True} for group in groups]'
        optimizer = [groups, use, f"optimizer = thalweg.Muon(groups, {lr}{extra})"]
    else:
        optimizer = [f"optimizer = thalweg.Muon(model, {lr}, lr_ratio={spec.multiplier:g}, {decay}{extra}{seen})"]
    warmup = f"warmup={warmup_steps(spec.steps)}"
    shape = f"constant({warmup})" if spec.contestant.without_schedule else f"linear({spec.steps}, {warmup})"
    schedule = f"scheduler = thalweg.schedule.Scheduler(optimizer, thalweg.schedule.{shape})"
    if spec.contestant.without_schedule:
        schedule += "\n# optimizer.eval() before evaluation, optimizer.train() after"
    need = ["# sample: an input that the model takes"] if "sample=" in seen else []
    own = [f"from {Path(file).stem} import {name}"] if file else []
    return "\n".join(
        ["import thalweg", *own, "", *need, *optimizer, schedule, "# after each optimizer.step(): scheduler.step()"]
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
