"""The task of the page trains as its script does, races, and the script itself is refused without being run."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.docs.test_blocks import BLOCK, ROOT
from tests.lab.test_race import Inline
from thalweg._base.errors import ThalwegError
from thalweg.lab import workers
from thalweg.lab.contestants import parse
from thalweg.lab.plan import plan
from thalweg.lab.race import race
from thalweg.lab.run import Spec, execute
from thalweg.lab.store import Store
from thalweg.lab.tasks import check, get_task

PAGE = (ROOT / "docs" / "from-a-script.md").read_text(encoding="utf-8")
RECIPE = re.search(r"mine=(adamw\([^']*\)),adamw,muon", PAGE)[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for what, name, code in BLOCK.findall(PAGE):
        if what == "file":
            (tmp_path / name).write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("prepare", "model"):
        sys.modules.pop(name, None)


def _spec(path, steps):
    recipe = parse(RECIPE)
    return Spec(str(path), "f", recipe, recipe.centre, 1.0, recipe.decay(0.0), (), seed=3, steps=steps, evaluations=1)


def test_the_task_trains_as_the_script_does(folder, capsys):
    runpy.run_path(str(folder / "train.py"))
    script = float(re.search(r"val loss ([\d.]+)", capsys.readouterr().out)[1])
    run = execute(_spec(folder / "gpt_task.py", 60), "verdict")
    assert run["final_loss"] == pytest.approx(script, abs=0.15)
    assert run["final_loss"] < 0.8 * run["curve"][0][1]
    assert 0 < run["metrics"]["accuracy"] < 1


def test_the_task_is_sound_and_held_out(folder):
    probe = check(get_task(str(folder / "gpt_task.py")))
    assert probe.seen[1] >= 8


def test_the_script_is_refused_and_not_run(folder):
    Path(folder / "val.bin").unlink(missing_ok=True)
    with pytest.raises(ThalwegError, match="found no task, and did not run the file"):
        get_task(str(folder / "train.py"))
    assert not (folder / "val.bin").exists()


@pytest.mark.slow(reason="races a language model")
def test_the_recipe_of_the_script_races(folder, monkeypatch):
    monkeypatch.setattr(workers, "Pool", Inline)
    entries = [f"mine={RECIPE}", "sgd(lr=0.1)"]
    made = plan(str(folder / "gpt_task.py"), optimizers=entries, baseline="mine", seeds=2, steps=20, jobs=1)
    store = Store(str(folder / "runs.db"))
    try:
        result = race(made, store)
    finally:
        store.close()
    assert list(result["contestants"][0]["settings"]["betas"]) == [0.9, 0.95]
    assert result["protocol"]["clip"] == 1.0
    assert "bfloat16 autocast" in result["protocol"]["precision"]
