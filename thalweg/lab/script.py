"""The lines that put a race's outcome into the user's training script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thalweg.groups import roles
from thalweg.lab.contestant import Contestant
from thalweg.lab.protocol import warmup_steps
from thalweg.lab.run import Spec
from thalweg.lab.tasks import get_task

#: one step of an optimizer that asks for the loss itself
_CLOSURE = """\
# each step: optimizer.step(closure), where closure() calls optimizer.zero_grad(), computes the loss, calls
# loss.backward() and returns the loss; the same batch and the same dropout in all its calls
# after each step: scheduler.step() as many times as closure was called"""


def lines(spec: Spec) -> str:
    """Optimizer, groups and schedule with the tuned values, for a script that has ``model`` and steps ``scheduler``.

    Where the model alone does not show which layer makes its output, the lines say what the task says: its ``head``, or
    that they need a ``sample``. Numbers have all their digits: the lines train as the race did, to the last bit.
    """
    entered = spec.contestant
    built = [*_groups(spec), *_wraps(entered)]
    need = ["# sample: an input that the model takes"] if any("sample=sample" in line for line in built) else []
    if entered.without_schedule:
        built.append("optimizer.train()")
    warmup = f"warmup={warmup_steps(spec.steps)}"
    shape = f"constant({warmup})" if entered.without_schedule else f"linear({spec.steps}, {warmup})"
    built.append(f"scheduler = thalweg.schedule.Scheduler(optimizer, thalweg.schedule.{shape})")
    built += _evaluation(entered)
    built.append(_CLOSURE if entered.traits.closure else "# after each optimizer.step(): scheduler.step()")
    return "\n".join(["import thalweg", *_imports(entered), "", *need, *built])


def _imports(entered: Contestant) -> Iterator[str]:
    home, _, name = entered.optimizer.rpartition(":")
    if home:
        yield f"from {Path(home).stem if entered.file else home} import {name}"


def _groups(spec: Spec) -> list[str]:
    """The parameter groups, and the optimizer over them; as :meth:`Contestant.build_for` makes them."""
    entered = spec.contestant
    home, _, name = entered.optimizer.rpartition(":")
    made = name if home else f"thalweg.{name}"
    extra = _arguments({**entered.settings, **dict(spec.extra)})
    lr, decay = f"lr={spec.lr!r}", f"weight_decay={spec.weight_decay!r}"
    if not entered.multiplies:
        return _one_group(spec, made, f"{lr}{f', {decay}' * (entered.traits.decay != 'none')}{extra}")
    seen = _seen(spec)
    groups = f"groups = thalweg.groups.multiplied(model, {lr}, multiplier={spec.multiplier!r}, {decay}{seen})"
    if not entered.ours:
        keys = ["lr"] if entered.traits.decay == "none" else ["lr", "weight_decay"]
        values = ", ".join(f'"{key}": group["{key}"]' for key in keys)
        plain = f'groups = [{{"params": [p for _, p in group["params"]], {values}}} for group in groups]'
        return [groups, plain, f"optimizer = {made}(groups, {lr}{extra})"]
    if name != "Muon" or home:
        takes = entered.rule.hypers["decoupled_weight_decay"].init  # type: ignore[attr-defined]  # AdamW's is anyway
        decoupled = ", decoupled_weight_decay=True" * (takes and "decoupled_weight_decay" not in entered.settings)
        return [groups, f"optimizer = {made}(groups, {lr}{extra}{decoupled})"]
    if "head=" in seen:  # which Muon reads from groups alone
        use = 'groups = [{**group, "use_muon": group["role"] == "hidden", "flatten": True} for group in groups]'
        return [groups, use, f"optimizer = thalweg.Muon(groups, {lr}{extra})"]
    return [f"optimizer = thalweg.Muon(model, {lr}, lr_ratio={spec.multiplier!r}, {decay}{extra}{seen})"]


def _one_group(spec: Spec, made: str, arguments: str) -> list[str]:
    """All parameters together; a class that tells those of a model apart by itself takes the model."""
    entered = spec.contestant
    if entered.takes_model:
        return [f"optimizer = {made}(model, {arguments}{_seen(spec)})"]
    return [f"optimizer = {made}([p for p in model.parameters() if p.requires_grad], {arguments})"]


def _wraps(entered: Contestant) -> Iterator[str]:
    for one in reversed(entered.wraps):
        yield f"optimizer = thalweg.{one.name}(optimizer{_arguments(one.settings)})"


def _evaluation(entered: Contestant) -> Iterator[str]:
    if entered.without_schedule:
        yield "# optimizer.eval() before evaluation, optimizer.train() after"
    if any(one.name == "EMA" for one in entered.wraps):
        yield "# evaluate within optimizer.swap()"


def _arguments(settings: Mapping[str, Any]) -> str:
    return "".join(f", {key}={value!r}" for key, value in settings.items())


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
