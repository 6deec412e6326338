"""The lines that put a race's outcome into the user's training script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from thalweg.groups.roles import Role, certain, roles
from thalweg.lab.contestant import Contestant
from thalweg.lab.protocol import warmup_steps
from thalweg.lab.run import Spec
from thalweg.lab.tasks import Task, get_task
from thalweg.lab.tasks.training import model_of, sample_of
from thalweg.registry import find
from thalweg.wrap.shown import Shown

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
    task = get_task(spec.task, spec.scale)
    built.append(f"scheduler = thalweg.schedule.Scheduler(optimizer, {_schedule(spec, task)})")
    if any("MuP(base" in line for line in built):
        need.append("# base: the model of the size at which the rates were tuned")
    need += ["# task: the task of this race"] if any("task." in line for line in built) else []
    built += [*_evaluation(entered), *_hooks(task)]
    built.append(_CLOSURE if entered.traits.closure else "# after each optimizer.step(): scheduler.step()")
    return "\n".join(["import thalweg", *_imports(entered), "", *need, *built])


def _schedule(spec: Spec, task: Task) -> str:
    warmup = f"warmup={warmup_steps(spec.steps)}"
    if spec.contestant.without_schedule:
        return f"thalweg.schedule.constant({warmup})"
    own = task.schedule(spec.steps) is not None
    return f"task.schedule({spec.steps})" if own else f"thalweg.schedule.linear({spec.steps}, {warmup})"


def _hooks(task: Task) -> Iterator[str]:
    """What else the task asks for."""
    if task.compile:
        yield f"model.compile({f'backend={task.compile!r}' * isinstance(task.compile, str)})"
    if task.autocast is not None:
        yield f'# the loss under torch.autocast("{torch.device(task.device).type}", dtype={task.autocast})'
    if task.accumulate > 1:
        yield f"# each step: the gradients of (loss / {task.accumulate}) of {task.accumulate} batches"
    if task.clip is not None:
        yield 'parameters = [p for group in optimizer.param_groups for p in group["params"]]'
        yield f"# before each optimizer.step(): torch.nn.utils.clip_grad_norm_(parameters, {task.clip!r})"


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
    if not entered.multiplies and not (entered.takes_model and get_task(spec.task, spec.scale).groups()):
        return _one_group(spec, made, f"{lr}{f', {decay}' * (entered.traits.decay != 'none')}{extra}")
    seen = _seen(spec)
    rules = _rules(spec)
    groups = f"groups = thalweg.groups.multiplied(model, {lr}, multiplier={spec.multiplier!r}, {decay}{seen}{rules})"
    if not entered.ours:
        drop = '("role",)' if entered.traits.decay != "none" else '("role", "weight_decay")'
        own = f"{{key: value for key, value in group.items() if key not in {drop}}}"
        plain = f'groups = [{{**{own}, "params": [p for _, p in group["params"]]}} for group in groups]'
        return [groups, plain, f"optimizer = {made}(groups, {lr}{extra})"]
    hypers = entered.rule.hypers  # type: ignore[attr-defined]
    if "use_muon" not in hypers:
        takes = hypers["decoupled_weight_decay"].init  # AdamW's is anyway
        decoupled = ", decoupled_weight_decay=True" * (takes and "decoupled_weight_decay" not in entered.settings)
        return [groups, f"optimizer = {made}(groups, {lr}{extra}{decoupled})"]
    if rules or "head=" in seen:  # which Muon reads from groups alone
        use = 'groups = [{**group, "use_muon": group["role"] == "hidden", "flatten": True} for group in groups]'
        return [groups, use, f"optimizer = {made}(groups, {lr}{extra})"]
    return [f"optimizer = {made}(model, {lr}, lr_ratio={spec.multiplier!r}, {decay}{extra}{seen})"]


def _rules(spec: Spec) -> str:
    """The further argument that makes the task's rules, and those of transferred rates, part of the groups."""
    own = ["*task.groups()"] * bool(get_task(spec.task, spec.scale).groups())
    carried = spec.contestant.carried
    mup = [f"thalweg.groups.MuP(base, like={carried.like!r})"] if carried and carried.base else []
    return f", rules=[{', '.join((*own, *mup))}]" if mup else ", rules=task.groups()" * bool(own)


def _one_group(spec: Spec, made: str, arguments: str) -> list[str]:
    """All parameters together; a class that tells those of a model apart by itself takes the model."""
    entered = spec.contestant
    if entered.takes_model:
        return [f"optimizer = {made}(model, {arguments}{_seen(spec)})"]
    if not get_task(spec.task, spec.scale).groups():
        return [f"optimizer = {made}([p for p in model.parameters() if p.requires_grad], {arguments})"]
    groups = f"groups = thalweg.groups.of(model, *task.groups(), lr={spec.lr!r}{_seen(spec)})"
    plain = 'groups = [{**group, "params": [p for _, p in group["params"]]} for group in groups]'
    return [groups, plain, f"optimizer = {made}(groups, {arguments})"]


def _wraps(entered: Contestant) -> Iterator[str]:
    for one in reversed(entered.wraps):
        yield f"optimizer = thalweg.{one.name}(optimizer{_arguments(one.settings)})"


def _evaluation(entered: Contestant) -> Iterator[str]:
    if entered.without_schedule:
        yield "# optimizer.eval() before evaluation, optimizer.train() after"
    if any(issubclass(find(one.name), Shown) for one in entered.wraps):
        yield "# evaluate within optimizer.swap()"


def _arguments(settings: Mapping[str, Any]) -> str:
    return "".join(f", {key}={value!r}" for key, value in settings.items())


def _seen(spec: Spec) -> str:
    """The further argument that makes the roles in the user's script those of the race; empty if none is needed."""
    task = get_task(spec.task, spec.scale)
    model = model_of(task, spec.seed)
    raced, alone = roles(model, sample_of(task), head=task.head), certain(model)
    if alone is not None and _judged(alone) == _judged(raced):
        return ""
    return ", sample=sample" if task.head is None else f", head={list(task.head)!r}"


def _judged(found: list[Role]) -> list[tuple[str, bool]]:
    return [(role.kind, role.transposed) for role in found]
