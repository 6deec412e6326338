"""What a worker is asked to do: a run, and a short one whose every value is kept to be compared."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from thalweg.lab import classes, resuming
from thalweg.lab.pool import report
from thalweg.lab.result import Role, Run
from thalweg.lab.run import Spec, Trace, execute, unchanged
from thalweg.lab.tasks import get_task, opened
from thalweg.lab.tasks.blame import blaming
from thalweg.lab.tasks.fingerprint import source_files
from thalweg.lab.tasks.printing import unshown
from thalweg.lab.threads import one_thread, refuse_more

#: environment variables with these beginnings are looked at when a repeat differs
_ENVIRONMENT = ("ATEN_", "CUBLAS_", "CUDA_", "MKL_", "OMP_", "PYTHONHASHSEED", "TORCH_")


@dataclass(frozen=True)
class Made:
    """A finished run.

    Attributes:
        run: as it is stored.
        files: path → SHA-256 of what was opened beyond the files that the race was planned with, such as one for each
            seed.
        trace: what it went through; None unless it was asked for.
        kept: whether the worker has stored it by itself.
        printed: whether the task has printed something, which was not shown.
        notes: what else is to be said of it, once.
    """

    run: Run
    files: dict[str, str] = field(default_factory=dict)
    trace: dict[str, Any] | None = None
    kept: bool = False
    printed: bool = False
    notes: tuple[str, ...] = ()


def ready() -> None:
    """A worker that has been asked for this has imported all that it needs."""


def work(spec: Spec, role: Role, checkpoints: str | None = None) -> Made:
    """A whole run, in this process; a long one goes on from what was left of it in the folder of checkpoints."""
    return _made(spec, role, None, checkpoints)


def traced(spec: Spec) -> Made:
    """The same, with its trace, and what of the surroundings is not in the key of a run."""
    return _made(spec, "repeat", Trace())


def _made(spec: Spec, role: Role, trace: Trace | None, checkpoints: str | None = None) -> Made:
    with unshown() as said:
        made = _trained(spec, role, trace, checkpoints)
    return replace(made, printed=said.something, notes=resuming.notes())


def _trained(spec: Spec, role: Role, trace: Trace | None, checkpoints: str | None) -> Made:
    unchanged(spec)
    task = get_task(spec.task, spec.scale)
    what = opened.afresh(f"a run of {task.module}")
    doing = f"a run of {spec.contestant.label}, lr={spec.lr:g}, seed {spec.seed}"
    with blaming(task, doing), opened.watching(what), one_thread():
        run = execute(spec, role, report, trace, checkpoints)
        refuse_more(f"{task.name}, in {doing},")
    unchanged(spec)  # what was imported on the way
    known = {file.path for file in spec.files}
    of_class = opened.by(classes.find(spec.contestant.optimizer).__module__)
    seen = [*what.files(code=source_files(task)), *of_class.files()]
    more = [f for f in seen if f.path not in known and os.path.dirname(f.path) not in known]
    told = {**asdict(trace), "around": _around()} if trace else None
    return Made(run, {file.path: file.content for file in more}, told)


def _around() -> dict[str, str]:
    """The versions of all modules that are loaded, and settings of the libraries beneath."""
    loaded = ((name, module) for name, module in list(sys.modules.items()) if "." not in name and module)
    versions = {name: vars(module).get("__version__") for name, module in loaded}  # asked, a module may warn
    found = {name: version for name, version in versions.items() if isinstance(version, str)}
    return found | {f"${k}": v for k, v in os.environ.items() if k.startswith(_ENVIRONMENT)}
