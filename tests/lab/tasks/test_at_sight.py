"""A script is not run to find out that it is no task; whatever may be one is."""

import re

import pytest

from tests.lab.tasks.test_user import GOOD
from thalweg._base.errors import ThalwegError
from thalweg.lab.contestants import parse
from thalweg.lab.tasks import get_task
from thalweg.lab.tasks.at_sight import binds, may_define_task

SCRIPT = """\
import torch
from pathlib import Path
Path(__file__).with_name("ran").touch()
"""


@pytest.mark.parametrize(
    "more",
    [
        "",
        "model = torch.nn.Linear(2, 2)\nfor _ in range(3):\n    model(torch.ones(2)).sum().backward()\n",
        "class Net(torch.nn.Module):\n    def loss(self): pass\n    def evaluate(self): pass\n",
        "class Trainer:\n    def model(self): pass\n    def loss(self): pass\n    def evaluate(self): pass\n",
        "task = 'classification'\n",
        "from blocks import Block\nclass Net(Block):\n    pass\n",
        "from thalweg import Lion\nclass Mine(Lion):\n    pass\n",
        "def train():\n    from thalweg.lab.tasks import Task\n    class Inner(Task):\n        pass\ntrain()\n",
        "from thalweg.lab.tasks import Task\nprint(Task)\n",
    ],
)
def test_a_script_is_not_run(tmp_path, more):
    (tmp_path / "blocks.py").write_text("import torch\nclass Block(torch.nn.Module):\n    pass\n")
    path = tmp_path / "train.py"
    path.write_text(SCRIPT + more)
    with pytest.raises(ThalwegError, match=re.escape(f"{path}:1: found no task, and did not run the file")) as caught:
        get_task(str(path))
    assert "docs/from-a-script.md" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_file_of_optimizers_without_that_class_is_not_run(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    with pytest.raises(ThalwegError, match="found no Mine"):
        parse(f"{path}:Mine")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("import Task", "import Task as T").replace("(Task)", "(T)"),
        GOOD.replace("from thalweg.lab.tasks import Task", "import thalweg.lab.tasks as ts").replace(
            "(Task)", "(ts.Task)"
        ),
        "from thalweg.lab.tasks.digits import Digits\nclass Mine(Digits):\n    name = 'mine'\n",
        "from base import Base\nclass Mine(Base):\n    steps = 50\n",
        "import base\nclass Mine(base.Base):\n    steps = 50\n",
        "from base import Base as B\nclass Other(B): pass\nclass Mine(Other): pass\n",
        "from made import task\n",
        "import made\ntask = made.task\n",
        "task = lambda: None\n",
        "def task():\n    return None\n",
        "if True:\n    def task():\n        return None\n",
        "try:\n    from fast import Base\nexcept ImportError:\n    from base import Base\nclass Mine(Base): pass\n",
        "from company.tasks import Base\nclass Mine(Base):\n"
        + "".join(f"    def {name}(self): pass\n" for name in ("model", "batches", "loss", "evaluate")),
        "x = = 1\n",
    ],
)
def test_whatever_may_be_a_task_is_run(tmp_path, text):
    (tmp_path / "base.py").write_text("from more import More\nclass Base(More):\n    pass\n")
    (tmp_path / "more.py").write_text("from thalweg.lab.tasks import Task\nclass More(Task):\n    pass\n")
    assert may_define_task(text.encode(), tmp_path)


def test_files_that_import_one_another_in_a_circle_end(tmp_path):
    (tmp_path / "a.py").write_text("from b import B\nclass A(B): pass\n")
    (tmp_path / "b.py").write_text("from a import A\nclass B(A): pass\n")
    assert not may_define_task((tmp_path / "a.py").read_bytes(), tmp_path)


@pytest.mark.parametrize(
    "text", ["class Mine: pass", "from x import Mine", "Mine = make()", "from x import *", "x = ="]
)
def test_what_may_bind_a_name(text):
    assert binds(text.encode(), "Mine")
    assert not binds(b"def f():\n    Mine = 1\n", "Mine")
