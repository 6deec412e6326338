"""What `thalweg check` looks at: a task, or what a function of a script returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from thalweg._base.errors import ThalwegError
from thalweg.diagnosis import CheckReport, check
from thalweg.lab.tasks import user
from thalweg.lab.tasks.blame import raised
from thalweg.lab.tuned import tuned

#: what a function of a script returns, in this order or by these names; the last one may be left out
NAMES = ("model", "optimizer", "scheduler", "batch", "loss", "steps")
FORM = f"({', '.join(NAMES[:-1])}), or a dict of these names; steps may stand beside them"


def check_target(target: str, optimizer: str, steps: int | None, seed: int) -> CheckReport:
    """Check a task with an optimizer of the race, or what ``script.py:function`` returns.

    Args:
        target: a built-in task, the file of a task, or ``FILE.py:FUNCTION``.
        optimizer: for a task, as an entry of ``thalweg race --optimizers``.
        steps: of the run; None for what the task or the script says.
        seed: for a task.

    Raises:
        ThalwegError: for a target that is none of these; whatever is wrong with the file.
        ValueError: for arguments that :func:`thalweg.check` refuses.
    """
    file, _, function = target.rpartition(":")
    if file.endswith(".py"):
        return _of_script(file, function, steps)
    run = tuned(target, optimizer, seed)
    return check(
        run.model,
        run.optimizer,
        loss=run.loss,
        batches=run.batches,
        scheduler=run.scheduler,
        steps=steps or run.steps,
        clip=run.task.clip,
    )


def _of_script(file: str, function: str, steps: int | None) -> CheckReport:
    build = user.function_in(file, function)
    try:
        returned = build()
    except Exception as error:
        raise raised(error, str(Path(file).expanduser().resolve()), f"{function}()") from error
    made = _named(returned, f"{file}:{function}")
    batch = made["batch"]
    many = isinstance(batch, (Iterator, DataLoader))
    return check(
        made["model"],
        made["optimizer"],
        loss=made["loss"],
        batches=batch if many else [batch],
        scheduler=made["scheduler"],
        steps=steps or made.get("steps"),
    )


def _named(returned: Any, where: str) -> Mapping[str, Any]:
    if isinstance(returned, Mapping):
        made = dict(returned)
    elif isinstance(returned, tuple):
        made = dict(zip(NAMES, returned, strict=False))
    else:
        made = dict(getattr(returned, "__dict__", {}))
    made.setdefault("scheduler", None)
    if "batches" in made:
        made.setdefault("batch", iter(made["batches"]))
    if missing := [name for name in NAMES[:-1] if name not in made]:
        raise ThalwegError(f"{where} returned a {type(returned).__name__} without {missing[0]}; expected {FORM}")
    return made
