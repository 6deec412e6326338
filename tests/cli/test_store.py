"""`thalweg store`: what was raced and found, and whether it is whole."""

import contextlib
import json
import sqlite3
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from thalweg.cli.app import app
from thalweg.lab.looks import Look
from thalweg.lab.store import Store

RUN = {"optimizer": "adamw", "lr": 0.003, "seed": 100, "steps": 40, "final_loss": 1.25}
ABOUT = {
    "task": "small",
    "content": "task",
    "optimizers": [{"label": "adamw"}, {"label": "muon"}],
    "budget": "quick",
    "steps": 400,
    "seeds": 5,
}


def outcome(word, difference, low, high):
    told = {"verdict": word, "difference": difference, "low": low, "high": high}
    return {"labels": ["adamw", "muon"], "steps": 400, "seeds": 5, "margin": 0.02, "outcome": told}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a store: four runs, a race with its verdict and one without, two looks."""
    monkeypatch.chdir(tmp_path)
    store = Store("runs/thalweg.db")
    for key in "abcd":
        store.put(key * 64, RUN)
    store.begin("one", ABOUT)
    store.end("one", "small, 400 steps: muon is better than adamw")
    store.begin("two", {**ABOUT, "seeds": 8})
    when = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    found = [outcome("better", -0.24, -0.26, -0.22)], [outcome("not settled", -0.1, None, None)]
    for number, verdicts in enumerate(found, 1):
        assert store.take([Look("task", "AdamW, Muon", number, f"evidence {number}", when, verdicts)])
    store.close()
    return tmp_path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["store", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def edit(statement):
    with contextlib.closing(sqlite3.connect("runs/thalweg.db")) as connection:
        connection.execute(statement)
        connection.commit()


def test_it_lists_runs_races_and_looks(folder):
    text = run()
    assert "sqlite:///runs/thalweg.db\n4 runs of 20" in text
    assert "kB, 2 races, 2 looks\n" in text
    assert "small, quick, 400 steps, 5 seeds: adamw, muon" in text
    assert "small, 400 steps: muon is better than adamw" in text
    assert "no verdict: it was stopped, or goes on" in text
    assert "looks at AdamW, Muon on small" in text
    assert "muon against adamw, 400 steps, 5 seeds: better, −0.240 (−0.260 to −0.220; margin ±0.020)" in text
    assert "not settled, −0.100 (no interval; margin ±0.020)" in text
    assert "damaged" not in text


def test_its_lines_fit_a_narrow_terminal(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert max(map(len, CliRunner().invoke(app, ["store"], color=False).output.splitlines())) <= 80


def test_for_programs_it_is_json(folder):
    found = json.loads(run("--json"))
    assert found["store"] == "sqlite:///runs/thalweg.db"
    assert found["runs"]["whole"] == 4
    assert found["bytes"] == (folder / "runs" / "thalweg.db").stat().st_size
    assert [race["headline"] for race in found["races"]] == ["small, 400 steps: muon is better than adamw", None]
    assert [(look["task"], look["look"], look["outcome"]["verdict"]) for look in found["looks"]] == [
        ("small", 1, "better"),
        ("small", 2, "not settled"),
    ]
    assert (found["damaged"], found["unchecked"], found["dropped"]) == ({}, [], None)


def test_damaged_runs_are_named_and_removed_on_request(folder):
    edit(f"update runs set run = replace(run, '1.25', '1.24') where key = '{'b' * 64}'")
    edit(f"update runs set checksum = null where key = '{'c' * 64}'")
    text = " ".join(run().split())
    assert "1 run edited or damaged: bbbbbbbbbbbb… (adamw, lr 0.003, seed 100, 40 steps)." in text
    assert "1 run without a checksum, of an earlier version. No race uses them; --drop-damaged removes them." in text
    assert "2 removed." in run("--drop-damaged")
    assert json.loads(run("--json", "--drop-damaged"))["dropped"] == 0
    assert json.loads(run("--json"))["runs"]["whole"] == 2


def test_many_damaged_runs_are_counted(folder):
    store = Store("runs/thalweg.db")
    for i in range(20):
        store.put(str(i), RUN)
    store.close()
    edit("update runs set run = run || ' '")
    assert "and 14 more" in " ".join(run().split())


def test_what_was_edited_in_looks_and_races_is_no_crash(folder):
    edit("update verdicts set verdicts = 'x' where number = 1")
    edit("update races set about = 'x' where identity = 'one'")
    edit("update races set about = '{\"optimizers\": 7}' where identity = 'two'")
    assert "what it said was edited or damaged; it counts all the same" in run()
    assert len(json.loads(run("--json"))["looks"]) == 2


def test_a_store_that_is_not_there_is_not_made(folder):
    assert "there is no store sqlite:///other.db" in run("--store", "other.db", code=1)
    assert not (folder / "other.db").exists()


def test_a_store_is_not_made_for_another_that_is_not_there(folder):
    assert "there is no store sqlite:///other.db" in run("new.db", "--merge", "other.db", code=1)
    assert not (folder / "new.db").exists()


def test_two_stores_at_once_are_refused():
    message = "--store runs/thalweg.db: expected one store, and other.db is given as well"
    assert message in run("other.db", "--store", "runs/thalweg.db", code=1)


def test_a_file_that_is_no_store_is_one_line(folder):
    (folder / "text.db").write_text("no database at all, but long enough to be looked at" * 40)
    text = run("--store", "text.db", code=1)
    assert "file is not a database" in text
    assert len(text.splitlines()) == 1


def test_a_password_is_never_shown(folder):
    text = run("--store", "postgresql+nosuchdriver://me:secret@localhost/x", code=1)
    assert "secret" not in text
