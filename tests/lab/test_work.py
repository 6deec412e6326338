"""What a task does in a worker that no run should do: it ends the process, or takes more threads than one."""

import pytest
import torch

from tests.lab.cluster.test_executors import planned
from tests.lab.tasks.small import line_of, write_small
from thalweg._base.errors import ThalwegError
from thalweg.lab.search import Setting
from thalweg.lab.work import work

#: in a loss: only in a run whose environment says so, so that the plan can be made
LATER = "if 'THALWEG_TEST_LATER' in os.environ: {}"


def worked(path, monkeypatch):
    made = planned(path)
    monkeypatch.setenv("THALWEG_TEST_LATER", "1")
    contestant = made.contestants[0]
    return work(made.spec(contestant, Setting(contestant.centre), 0, 20), "tune")


def test_a_run_that_exits_is_an_error_with_its_line_and_ends_nobody(tmp_path, monkeypatch):
    path = write_small(tmp_path, LATER.format("raise SystemExit(3)"))
    with pytest.raises(ThalwegError, match=rf"{path}:{line_of(path, 'SystemExit')}: in a run of .*: SystemExit: 3"):
        worked(path, monkeypatch)


def test_a_task_that_exits_is_refused_before_any_run(tmp_path):
    path = write_small(tmp_path, "raise SystemExit(3)")
    with pytest.raises(ThalwegError, match=rf"{path}:{line_of(path, 'SystemExit')}: .*SystemExit: 3"):
        planned(path)


def test_a_run_that_takes_more_threads_is_refused_and_the_next_has_one(tmp_path, monkeypatch):
    path = write_small(tmp_path, LATER.format("torch.set_num_threads(2)"))
    before = torch.get_num_threads()
    with pytest.raises(ThalwegError, match=r"small, in a run of .*, has set torch to 2 threads: a run has one"):
        worked(path, monkeypatch)
    assert torch.get_num_threads() == before


def test_a_task_that_takes_more_threads_is_refused_before_any_run(tmp_path):
    with pytest.raises(ThalwegError, match=r"small has set torch to 2 threads: a run has one"):
        planned(write_small(tmp_path, "torch.set_num_threads(2)"))


def test_what_a_run_prints_is_not_shown_but_known(tmp_path, monkeypatch, capsys):
    made = worked(write_small(tmp_path, LATER.format("print('a loss')")), monkeypatch)
    assert made.printed
    assert "a loss" not in capsys.readouterr().out
    (tmp_path / "quiet").mkdir()
    assert not worked(write_small(tmp_path / "quiet"), monkeypatch).printed
