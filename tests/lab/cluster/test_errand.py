"""What a worker elsewhere refuses, and what goes with a run."""

import dataclasses
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.cluster.test_executors import AtOnce, planned
from tests.lab.tasks.small import write_small
from thalweg._base.errors import ThalwegError
from thalweg.lab.cluster import away, errand, luggage
from thalweg.lab.cluster.errand import Header, answer
from thalweg.lab.cluster.luggage import Luggage
from thalweg.lab.search import Setting
from thalweg.lab.setting import setting
from thalweg.lab.work import work

HERE = Header("0.1", setting(), "cpu")


def asked(header, function=os.getpid, *arguments):
    return answer(header, Luggage(), pickle.dumps((function, arguments)), False, "").value()


def test_a_worker_like_the_race_takes_part():
    assert asked(HERE) == os.getpid()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("torch", r"has torch 2.*, and the race has other: install the same there"),
        ("python", r"has python 3.*, and the race has other"),
        ("code", r"has Thalweg .*, of other sources than the race's 0.1: install the same there"),
        ("processor", r"the race goes on other: a race needs one class of machines"),
        ("compiler", r"has the C compiler .*leave this node out"),
    ],
)
def test_a_worker_that_differs_refuses_and_says_how(what, said):
    with pytest.raises(ThalwegError, match=said):
        asked(dataclasses.replace(HERE, on={**HERE.on, what: "other"}))


def test_a_gpu_that_is_not_there_is_missed():
    with pytest.raises(ThalwegError, match="has the GPU None, and the race goes on H200"):
        asked(dataclasses.replace(HERE, on={**HERE.on, "accelerator": "H200"}))


def test_data_that_is_missing_or_other_on_a_node_is_one_error(tmp_path):
    data = tmp_path / "data"
    header = dataclasses.replace(HERE, files={str(data): "0" * 64})
    with pytest.raises(ThalwegError, match=rf"has no {data}, which the task reads: put it there"):
        asked(header)
    data.write_text("other")
    with pytest.raises(ThalwegError, match=rf"{data}, which the task reads, holds something else on"):
        asked(header)


def test_a_race_whose_workers_lack_its_data_ends_before_its_first_run(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.write_text("1")
    path = write_small(tmp_path, f"__import__('pathlib').Path({str(data)!r}).read_text()")
    made = planned(path)
    executor = AtOnce()
    monkeypatch.setattr(errand, "opened", type("Elsewhere", (), {"content": staticmethod(lambda path: "")}))
    errand._refuse_without_data.cache_clear()
    with pytest.raises(ThalwegError, match="which the task reads: put it there"):
        away.check(executor, made)
    assert executor.asked == 1


class StrangeError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a}{b}")


def _raise(kind, *arguments):
    raise kind(*arguments)


def test_what_a_run_raises_is_raised_by_the_race_with_its_place():
    with pytest.raises(KeyError, match="x") as caught:
        asked(HERE, _raise, KeyError, "x")
    assert "in _raise" in caught.value.__notes__[0]


def test_an_exception_that_cannot_travel_becomes_its_text():
    with pytest.raises(ThalwegError, match=r"^StrangeError: 12$"):
        asked(HERE, _raise, StrangeError, 1, 2)


MODULE = """
import torch
from {near} import RATE

class Signs(torch.optim.Optimizer):
    def __init__(self, params, lr=RATE):
        super().__init__(params, {{"lr": lr}})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad.sign())
"""

ELSEWHERE = """
import pickle, sys
from thalweg.lab.cluster import luggage
packed, payload = pickle.loads(open(sys.argv[1], "rb").read())
places = luggage.unpacked(packed)
function, specs = pickle.loads(payload)
for spec in places.here(specs):
    run = function(spec, "tune").run
    print(run["key"], run["final_loss"].hex())
"""


@pytest.mark.slow(reason="two processes that import torch")
def test_the_users_files_travel_and_give_the_same_run(tmp_path, monkeypatch):
    """On a machine that has none of them: a task with a package beside it, and an optimizer with a neighbour."""
    home, there = tmp_path / "home", tmp_path / "there"
    (home / "parts").mkdir(parents=True)
    there.mkdir()
    near, part = f"near_{tmp_path.name}".replace("-", "_"), f"parts_{tmp_path.name}".replace("-", "_")
    (home / "parts").rename(home / part)
    (home / part / "__init__.py").write_text("")
    (home / part / "widths.py").write_text("from . import more\nWIDTH = more.WIDTH\n")
    (home / part / "more.py").write_text("WIDTH = 8\n")
    (home / f"{near}.py").write_text("RATE = 0.01\n")
    (home / "mine.py").write_text(MODULE.format(near=near))
    task = Path(write_small(home))
    task.write_text(
        f"from {part}.widths import WIDTH\n" + task.read_text().replace("nn.Linear(8, 8)", "nn.Linear(WIDTH, 8)")
    )
    made = planned(str(task), ("adamw(lr=1e-2)", f"mine={home}/mine.py:Signs(lr=0.01)"))
    specs = [made.spec(c, Setting(c.centre), seed=3, steps=20) for c in made.contestants]
    here = [work(spec, "tune").run for spec in specs]
    packed = luggage.packed(made)
    assert [place for place, _ in packed.files] == sorted(
        ["mine.py", f"{near}.py", f"{part}/__init__.py", f"{part}/more.py", f"{part}/widths.py", "small.py"]
    )
    job = there / "job"
    job.write_bytes(pickle.dumps((packed, pickle.dumps((work, specs)))))
    shutil.rmtree(home)
    env = {**os.environ, "XDG_CACHE_HOME": str(there), "PYTHONPATH": str(Path(errand.__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, str(job)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [said for run in here for said in (run["key"], run["final_loss"].hex())]
