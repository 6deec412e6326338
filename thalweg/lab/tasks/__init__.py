"""The tasks: built-in ones by name, and the user's own from a file."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from thalweg._base.errors import unknown_name
from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks.autoencoder import Autoencoder
from thalweg.lab.tasks.bytes_gpt import BytesGpt
from thalweg.lab.tasks.bytes_lstm import BytesLstm
from thalweg.lab.tasks.digits import Digits
from thalweg.lab.tasks.digits_cnn import DigitsCnn
from thalweg.lab.tasks.fashion_cnn import FashionCnn
from thalweg.lab.tasks.mnist1d import Mnist1d
from thalweg.lab.tasks.photo import Photo
from thalweg.lab.tasks.probe import Probe, check
from thalweg.lab.tasks.ravine import Ravine
from thalweg.lab.tasks.ravine_aligned import RavineAligned
from thalweg.lab.tasks.scaled import AS_IT_IS, TaskScale, scaled
from thalweg.lab.tasks.user import load

__all__ = ["AS_IT_IS", "TASKS", "Probe", "Task", "TaskScale", "check", "get_task", "task_table", "template"]

_BUILT_IN: tuple[type[Task], ...] = (
    BytesGpt,
    BytesLstm,
    Digits,
    DigitsCnn,
    Autoencoder,
    Mnist1d,
    Ravine,
    RavineAligned,
    Photo,
    FashionCnn,
)
TASKS: dict[str, type[Task]] = {task.name: task for task in _BUILT_IN}


def get_task(name: str, scale: TaskScale = AS_IT_IS) -> Task:
    """A built-in task by name; or, for what ends in ``.py`` or holds a path separator, the task in the user's file.

    Args:
        name: of the task, or its file's path.
        scale: with how many times its parameters, and examples in a batch.

    Raises:
        ThalwegError: for an unknown name (the nearest are offered), whatever is wrong with the file, or a task that
            cannot be scaled.
    """
    return scaled(_found(name), scale)


def _found(name: str) -> Task:
    if name.endswith(".py") or "/" in name or "\\" in name:
        return load(name)
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]()


def task_table() -> list[dict[str, Any]]:
    """What `thalweg tasks` lists: name, title, parameters, steps, batch_size, good_for, seconds_per_run.

    The seconds are those of one core of an AMD EPYC (AVX-512) with ``torch.optim.AdamW``, evaluation left out, measured
    once; another machine takes other times, and a matrix method more.
    """
    return [
        {
            "name": task.name,
            "title": task.title,
            "parameters": sum(p.numel() for p in task.model(0).parameters()),
            "steps": task.steps,
            "batch_size": task.batch_size,
            "seconds_per_run": task.seconds_per_run,
            "good_for": task.good_for,
        }
        for task in (kind() for kind in TASKS.values())
    ]


def template(scalable: bool = False) -> str:
    """The text of an example file for a task of one's own; it runs as it is.

    Args:
        scalable: whether its model takes a size.
    """
    text = files(__name__).joinpath("example.py").read_text(encoding="utf-8")
    return _with_size(text) if scalable else text


def _with_size(text: str) -> str:
    for old, new in _SIZED.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


#: what makes the example's model one that takes a size
_SIZED = {
    "    def model(self, seed):\n": "    def model(self, seed, size=1):\n",
    'the same seed must give the same weights."""\n': "the same seed must give the same weights.\n\n"
    "        With size times the parameters: of a square matrix the width grows as the root of the size.\n"
    '        """\n        width = round(64 * size**0.5)\n',
    "nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)": "nn.Linear(30, width), nn.ReLU(), "
    "nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)",
}
