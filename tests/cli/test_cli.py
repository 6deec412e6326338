"""The command line: what it refuses and how it says so, what it writes, what it leaves alone."""

import csv
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import sys

import pytest
from click.testing import CliRunner

import thalweg
from tests.lab.few import FEW
from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline
from thalweg.cli import main, progress, screen
from thalweg.cli.app import app
from thalweg.lab import forecast, workers
from thalweg.lab import plan as planning
from thalweg.lab import race as racing
from thalweg.lab.result import RaceResult, Run
from thalweg.lab.store.database import Database
from thalweg.lab.tasks import TASKS, template

QUICKLY = ["--optimizers", "adamw,momentum", "--seeds", "2", "--steps", "20", "--jobs", "1"]
#: runs of these two: trials, two finalists on each seed, and two shorter runs a seed
LEAST = 2 * (FEW.trials + 2 * 2 + 4)
pytestmark = pytest.mark.usefixtures("few_trials")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of its own with the small task in it, and no worker processes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "Pool", Inline)
    monkeypatch.setenv("COLUMNS", "200")
    write_small(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def runs(tmp_path_factory, few_trials):
    """A store with every run of the race that most tests ask for."""
    made = tmp_path_factory.mktemp("raced")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.setattr(workers, "Pool", Inline)
        write_small(made)
        result = run("race", "small.py", *QUICKLY)
    assert result.exit_code == 0, result.output
    assert "found in the store" not in result.output
    return made / "runs" / "thalweg.db"


@pytest.fixture
def raced_before(folder, runs):
    """That race has been run in the folder."""
    (folder / "runs").mkdir()
    shutil.copy(runs, folder / "runs")


def run(*arguments):
    return CliRunner().invoke(app, arguments)


def refused(*arguments):
    """The one line that a command is refused with."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["byte-gpt"], "no task 'byte-gpt'; did you mean bytes-gpt"),
        (["ravine", "--optimizers", "adamw,mion"], "no optimizer 'mion'; did you mean muon"),
        (["ravine", "--optimizers", "adamw,adamw"], "names 'adamw' twice; give one another label: twin=adamw"),
        (["ravine", "--optimizers", "adamw,"], "'' is not NAME, LABEL=NAME or LABEL=NAME@OFFSET"),
        (["ravine", "--optimizers", "sgd,muon"], "--baseline 'adamw' is not among the optimizers of this race: sgd"),
        (["ravine", "--baseline", "lion"], "--baseline 'lion' is not among the optimizers"),
        (["ravine", "--budget", "quik"], "no budget 'quik'; did you mean quick"),
        (["ravine", "--seeds", "1"], "seeds=1: expected an integer of at least 2"),
        (["ravine", "--steps", "3"], "steps=3: expected an integer of at least 20"),
        (["ravine", "--jobs", "0"], "jobs=0: expected an integer of at least 1"),
        (["ravine", "--margin", "-1"], "margin=-1.0: expected a number in [0, ∞)"),
        (["ravine", "--margin", "nan"], "margin=nan: expected a number in [0, ∞)"),
        (["ravine", "--gpus", "1"], "--gpus 1: expected --cluster beside it"),
        (["ravine", "--cpus", "2"], "--cpus 2: expected --cluster beside it"),
        (["ravine", "--checkpoints", "a file/x"], "cannot write to --checkpoints a file"),
        (["none.py"], "there is no file none.py; `thalweg task new none.py` writes an example there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_is_typed_wrongly_is_refused_with_one_line_before_anything_runs(folder, arguments, words):
    (folder / "a file").touch()
    before = sorted(folder.iterdir())
    assert words in refused("race", *arguments)
    assert sorted(folder.iterdir()) == before


def test_all_tasks_are_looked_at_before_the_first_is_raced(folder):
    assert "no task 'ravin'" in refused("race", "small.py", "ravin", *QUICKLY)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("arguments", [["race", "ravine", "--seeds", "two"], ["race", "--no-such"], ["rase", "ravine"]])
def test_what_click_refuses_has_its_exit_code(arguments):
    assert run(*arguments).exit_code == 2


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch):
    def fail(*_, **__):
        raise ValueError("a fault of ours")

    monkeypatch.setattr("thalweg.lab.plan.check", fail)
    result = run("race", "ravine")
    assert isinstance(result.exception, ValueError)
    assert result.exit_code == 1


def test_an_out_that_is_a_file_is_refused(folder):
    (folder / "taken").write_text("mine")
    result = run("race", "small.py", *QUICKLY, "--out", "taken")
    assert result.exit_code == 2
    assert "taken" in result.stderr
    assert not (folder / "runs").exists()


def test_an_out_below_a_file_is_refused_before_anything_runs(folder):
    (folder / "taken").write_text("mine")
    assert "cannot write to --out taken/below: Not a directory" in refused(
        "race", "small.py", *QUICKLY, "--out", "taken/below"
    )
    assert not (folder / "runs").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="no folder is closed to root")
def test_an_out_without_permission_is_refused(folder):
    (folder / "closed").mkdir(mode=0o500)
    assert "permission denied" in refused("race", "small.py", *QUICKLY, "--out", "closed")


@pytest.mark.parametrize("option", ["--json", "--csv"])
@pytest.mark.parametrize("path", ["no/such", "."])
def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(folder, option, path):
    assert f"cannot write {path}: " in refused("race", "small.py", *QUICKLY, option, path)
    assert not (folder / "runs" / "thalweg.db").exists()


def test_a_store_of_a_newer_version_is_refused(folder):
    with sqlite3.connect(folder / "new.db") as database:
        database.execute("create table about (schema integer primary key)")
        database.execute("insert into about values (99)")
    database.close()
    assert "written by a newer thalweg (its format is 99, this one reads 2)" in refused(
        "race", "small.py", *QUICKLY, "--store", "new.db"
    )


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("text.db", "file is not a database"),
        ("no+such://x", "Can't load plugin"),
        ("small.py/x.db", "cannot open the store"),
    ],
)
def test_a_store_that_cannot_be_opened_is_refused(folder, store, words):
    (folder / "text.db").write_text("no database at all, but long enough to be looked at" * 40)
    assert words in refused("race", "small.py", *QUICKLY, "--store", store)


def test_a_dry_run_shows_the_plan_and_leaves_nothing_behind(folder, monkeypatch):
    monkeypatch.setattr(racing, "race", None)
    before = sorted(folder.iterdir())
    result = run("race", "small.py", *QUICKLY, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "adamw (baseline)" in result.stdout
    assert f"about {LEAST} runs; about" in result.stdout
    assert sorted(folder.iterdir()) == before


def _strict(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture(scope="module")
def told(runs, tmp_path_factory):
    """What was typed, the result of the command, the folder, and the JSON, of a race whose runs were there before."""
    made, opened, check = tmp_path_factory.mktemp("told"), [], Database._check_file
    arguments = ["race", "small.py", *QUICKLY, "--json", "there/all.json", "--csv", "runs.csv", "--out", "there"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.setattr(workers, "Pool", Inline)
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", ["thalweg", *arguments])
        patch.setattr(Database, "_check_file", lambda self: opened.append(self.file) or check(self))
        write_small(made)
        (made / "runs").mkdir()
        shutil.copy(runs, made / "runs")
        result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert len(opened) == 1  # all of a large file is read then
    return arguments, result, made, json.loads((made / "there" / "all.json").read_text(), parse_constant=_strict)


def test_a_race_writes_its_report_its_json_and_its_csv(told):
    """Also into the folder that it makes."""
    arguments, result, folder, raced = told
    assert (folder / "there" / "report.html").exists()
    assert json.loads((folder / "there" / "race.json").read_text()) == raced
    assert (folder / "there" / "runs.csv").read_bytes() == (folder / "runs.csv").read_bytes()
    assert shlex.split(raced["protocol"]["command"]) == ["thalweg", *arguments]
    assert raced.keys() == RaceResult.__annotations__.keys()
    assert raced["headline"] in " ".join(result.stdout.split())  # a long one is wrapped
    with (folder / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(raced["runs"])
    assert rows[0].keys() == Run.__annotations__.keys() - {"curve", "train_curve"}
    for row, run_ in zip(rows, raced["runs"], strict=True):
        assert (row["key"], float(row["final_loss"])) == (run_["key"], run_["final_loss"])


def test_the_winner_is_recommended_with_lines_that_run(told):
    _, result, _, raced = told
    lines = screen.best_of(raced)["script"]
    for line in lines.splitlines():
        assert line in result.stdout


def test_the_same_command_again_finds_every_run(told):
    assert re.search(r"\b(\d+) of \1 runs were found in the store", told[1].output)


@pytest.mark.usefixtures("raced_before")
def test_json_on_the_standard_output_is_nothing_but_json():
    result = run("race", "small.py", *QUICKLY, "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout, parse_constant=_strict)["schema"] == 2
    assert "report: " in result.stderr


@pytest.mark.usefixtures("raced_before")
def test_csv_on_the_standard_output_is_nothing_but_csv(folder):
    result = run("race", "small.py", *QUICKLY, "--csv", "-")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert len(rows) >= LEAST
    assert rows[0].keys() == Run.__annotations__.keys() - {"curve", "train_curve"}
    assert "report: " in result.stderr
    assert not (folder / "-").exists()


def test_json_and_csv_are_not_mixed_on_the_standard_output(folder):
    assert "--json - --csv -: expected a file for one" in refused("race", "small.py", *QUICKLY, "--json=-", "--csv=-")


def test_after_ctrl_c_the_command_is_shown_as_it_can_be_typed(folder, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    write_small(folder, name="my task.py")
    arguments = ["race", "my task.py", *QUICKLY]
    monkeypatch.setattr(sys, "argv", ["thalweg", *arguments])
    monkeypatch.setattr(racing, "race", stop)
    result = run(*arguments)
    assert result.exit_code == 130
    assert result.stderr.strip().endswith(f"thalweg race 'my task.py' {' '.join(QUICKLY)}")


def test_diverged_runs_are_finite_in_the_json(folder):
    """Learning rates far too high for plain gradient descent on a steep loss."""
    write_small(folder, "return 1e4 * F.mse_loss(model(x), y)")
    result = run("race", "small.py", "--optimizers", "adamw,sgd", *QUICKLY[2:], "--json", "all.json")
    assert result.exit_code == 0, result.output
    raced = json.loads((folder / "all.json").read_text(), parse_constant=_strict)
    assert any(r["status"] == "diverged" for r in raced["runs"])


@pytest.mark.slow(reason="two races")
@pytest.mark.usefixtures("raced_before")
def test_several_tasks_have_a_report_each_and_share_the_files(folder):
    text = (folder / "small.py").read_text()
    (folder / "other.py").write_text(text.replace('name = "small"', 'name = "other"'))
    result = run("race", "small.py", "other.py", *QUICKLY, "--json", "all.json", "--csv", "runs.csv")
    assert result.exit_code == 0, result.output
    assert (folder / "runs" / "small" / "report.html").exists()
    assert (folder / "runs" / "other" / "report.html").exists()
    raced = json.loads((folder / "all.json").read_text(), parse_constant=_strict)
    assert [r["task"]["name"] for r in raced["races"]] == raced["overview"]["tasks"] == ["small", "other"]
    assert 'href="other/report.html"' in (folder / "runs" / "index.html").read_text(encoding="utf-8")
    assert raced["overview"]["headline"] in " ".join(result.stdout.split())
    assert "overview: runs/index.html" in result.stdout
    assert len((folder / "runs.csv").read_text().splitlines()) == 1 + sum(len(r["runs"]) for r in raced["races"])


def test_two_tasks_of_one_name_are_refused_before_anything_runs(folder):
    write_small(folder, name="other.py")
    assert "TASK: 2 tasks are called 'small'; each needs a name" in refused("race", "small.py", "other.py", *QUICKLY)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("store", "words"),
    [
        (
            "runs/thalweg.db",
            "finished runs are kept in sqlite:///runs/thalweg.db. The same command goes on there: thalweg",
        ),
        ("sqlite://", "sqlite:// is in memory alone, so its runs are gone; --store runs/thalweg.db would keep them"),
    ],
)
def test_a_race_that_is_stopped_says_what_is_kept(folder, monkeypatch, store, words):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(racing, "race", stopped)
    result = run("race", "small.py", *QUICKLY, "--store", store)
    assert result.exit_code == 130
    assert f"stopped; {words}" in result.stderr
    assert result.stdout.count("stopped") == 0


@pytest.mark.posix
def test_a_command_that_is_stopped_before_it_races_says_that_nothing_went_on(folder, monkeypatch):
    def terminated(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(planning, "plan", terminated)
    before = signal.getsignal(signal.SIGTERM)
    result = run("race", "small.py", *QUICKLY)
    assert result.exit_code == 143
    assert result.stderr.strip() == "stopped; no run was under way"
    assert signal.getsignal(signal.SIGTERM) is before


def test_tasks_lists_every_task():
    result = run("tasks")
    assert result.exit_code == 0
    assert len(TASKS) >= 9
    words = result.stdout.split()
    for name in TASKS:
        assert name in words


def test_a_new_task_is_the_example_and_races_as_it_is(folder):
    result = run("task", "new", "mine.py")
    assert result.exit_code == 0
    assert (folder / "mine.py").read_text() == template()
    assert "thalweg race mine.py" in result.stdout
    assert run("race", "mine.py", *QUICKLY, "--dry-run").exit_code == 0


def test_a_new_task_overwrites_nothing(folder):
    (folder / "mine.py").write_text("mine")
    assert "mine.py exists; name another file" in refused("task", "new", "mine.py")
    assert (folder / "mine.py").read_text() == "mine"


def test_a_new_task_in_no_folder_is_refused():
    assert "cannot write no/mine.py: No such file or directory" in refused("task", "new", "no/mine.py")


def test_the_version_is_the_packages():
    assert run("--version").stdout == f"thalweg, version {thalweg.__version__}\n"


def test_without_the_labs_packages_the_command_says_how_to_install_them(monkeypatch):
    find = importlib.util.find_spec
    missing = ("sklearn", "rich")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in missing else find(name, *rest))
    monkeypatch.setattr(sys, "argv", ["thalweg", "tasks"])
    with pytest.raises(SystemExit) as left:
        main()
    words = "thalweg: the command needs packages of thalweg[lab] that are not installed: pip install rich scikit-learn"
    assert str(left.value) == words


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (89.0, "89 s"), (91.0, "2 min"), (5399.0, "90 min"), (9000.0, "2.5 h")]
)
def test_durations_are_said_in_fitting_units(seconds, text):
    assert forecast.duration(seconds) == text


def test_a_sparkline_falls_with_the_loss_and_bears_what_is_not_finite():
    assert progress.sparkline([8, 7, 6, 5, 4, 3, 2, 1]) == progress.BARS[::-1]
    assert progress.sparkline([1.0, float("nan"), float("inf"), 2.0]) == progress.BARS[0] + progress.BARS[-1]
    assert progress.sparkline([3.0, 3.0]) == progress.BARS[0] * 2
    assert progress.sparkline([]) == ""
