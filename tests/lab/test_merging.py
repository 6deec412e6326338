"""Two stores become one."""

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from thalweg.cli.app import app
from thalweg.lab.looks import Look
from thalweg.lab.store import Store

START = datetime(2026, 11, 1, tzinfo=UTC)


def look(number, evidence, hours, pair="AdamW, Muon"):
    told = {"labels": ["adamw", "muon"], "steps": 20, "seeds": 3, "margin": 0.1, "outcome": None}
    return Look("t" * 64, pair, number, evidence, START + timedelta(hours=hours), [told])


def run(task="small", **more):
    return {"task": task, "optimizer": "adamw", "lr": 1e-3, "seed": 1, "steps": 20, "final_loss": 0.5, **more}


@pytest.fixture
def two(tmp_path):
    a, b = Store(str(tmp_path / "a.db")), Store(str(tmp_path / "b.db"))
    for store, keys, task in ((a, "xy", "small"), (b, "yz", "other")):
        for key in keys:
            store.put(key * 64, run(task, curve=[[0, 1.0]]))
        store.begin(keys, {"task": task})
    a.take([look(1, "one", 0), look(2, "two", 3)])
    b.take([look(1, "two", 3), look(2, "three", 1), look(3, "four", 9)])
    yield a, b, str(tmp_path)
    a.close()
    b.close()


def test_what_the_other_holds_is_added_once_and_nothing_changes(two):
    a, b, _ = two
    merged = a.merge(b)
    assert (merged.runs, merged.races, merged.looks, merged.damaged) == (1, 2 - 1, 2, 0)
    assert {r["key"][0]: r["task"] for r in a.runs()} == {"x": "small", "y": "small", "z": "other"}
    assert [(one.number, one.evidence) for one in sorted(a.looks("t" * 64), key=lambda one: one.number)] == [
        (1, "one"),
        (2, "two"),
        (3, "three"),
        (4, "four"),
    ]
    again = a.merge(b)
    assert (again.runs, again.races, again.looks) == (0, 0, 0)
    assert [r["key"][0] for r in b.runs()] == ["y", "z"]


def test_a_damaged_run_is_left_where_it_is(two):
    a, b, folder = two
    with sqlite3.connect(f"{folder}/b.db") as connection:
        connection.execute("UPDATE runs SET run = replace(run, '0.5', '0.1') WHERE key LIKE 'z%'")
    connection.close()
    merged = a.merge(b)
    assert (merged.runs, merged.damaged) == (0, 1)


def told(*arguments):
    done = CliRunner().invoke(app, ["store", *arguments])
    return done.exit_code, done.output


def test_the_command_merges_lists_exports_and_removes(two, tmp_path):
    _, _, folder = two
    new = f"{folder}/new.db"
    code, text = told(new, "--merge", f"{folder}/a.db", "--merge", f"{folder}/b.db", "--runs")
    assert code == 0, text
    assert "2 runs, 1 race, 2 looks" in text
    assert "zzzzzzzzzzzz" in text
    assert told(new, "--csv", f"{folder}/runs.csv")[0] == 0
    head, *lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert head.startswith("task,optimizer,lr,seed,steps,final_loss")
    assert "curve" not in head
    assert len(lines) == 3
    assert told(new, "--csv", "-")[1].splitlines() == [head, *lines]
    code, text = told(new, "--remove", "small", "--remove", "z" * 8)
    assert "2 runs of small removed" in text
    assert "1 run of zzzzzzzz removed" in text
    assert "4 looks" in text  # they were taken
    code, text = told(new, "--remove", "small")
    assert code == 1
    assert "there are runs of: nothing" in text
