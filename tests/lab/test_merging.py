"""Two stores become one."""

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from thalweg.cli.app import app
from thalweg.lab.looks import Look
from thalweg.lab.report.data import csv_lines, table
from thalweg.lab.store import Store
from thalweg.lab.store.runs import packed
from thalweg.lab.store.tables import RUNS, VERDICTS

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


def test_a_damaged_run_here_gives_way_to_the_whole_one_there(two):
    a, b, folder = two
    for harm in ("run = replace(run, '0.5', '0.1')", "checksum = NULL"):
        with contextlib.closing(sqlite3.connect(f"{folder}/a.db")) as connection:
            connection.execute(f"UPDATE runs SET {harm} WHERE key LIKE 'y%'")
            connection.commit()
        assert len(a.contents().unusable) == 1
        code, text = told(f"{folder}/a.db", "--merge", f"{folder}/b.db")
        assert (code, "1 run in the place of damaged ones" in text) == (0, True), text
        assert a.contents().unusable == []
    assert a.get(["y" * 64])["y" * 64]["final_loss"] == 0.5
    with (
        contextlib.closing(sqlite3.connect(f"{folder}/a.db")) as one,
        contextlib.closing(sqlite3.connect(f"{folder}/b.db")) as other,
    ):
        for connection in (one, other):
            connection.execute("UPDATE runs SET checksum = 'z' WHERE key LIKE 'y%'")
            connection.commit()
    merged = a.merge(b)
    assert (merged.runs, merged.mended, merged.damaged) == (0, 0, 0)
    assert len(a.contents().damaged) == 1


def test_runs_are_exported_one_by_one_and_whatever_only_some_have():
    given = []

    def runs():
        for i in range(1000):
            given.append(i)
            yield {"task": "small", "curve": [i], ("odd" if i % 2 else "even"): i}

    lines = csv_lines(runs)
    assert next(lines) == "task,even,odd\r\n"
    assert len(given) <= 1001
    assert next(lines) == "small,0,\r\n"
    assert len(given) <= 1002
    assert "".join(lines) == table(list(runs())).partition("small,0,\r\n")[2]


def test_a_large_store_is_merged_in_few_transactions(tmp_path, monkeypatch):
    a, b = Store(str(tmp_path / "a.db")), Store(str(tmp_path / "b.db"))
    b._database.insert(RUNS, *(packed(f"{i:064}", run()) for i in range(1200)))
    written = []
    together = a._database.together
    monkeypatch.setattr(a._database, "together", lambda *changes: written.append(1) or together(*changes))
    assert a.merge(b).runs == 1200
    assert len(written) < 10
    assert len(list(a.runs())) == 1200
    a.close()
    b.close()


def test_what_a_race_adds_at_the_same_time_is_neither_lost_nor_counted_twice(two, monkeypatch):
    """It stores one of the runs, and takes the number of the next look, just before they are added."""
    a, b, folder = two
    racing, insert = Store(f"{folder}/a.db"), a._database.insert

    def late(table, *rows):
        racing.put("z" * 64, run("other", curve=[[0, 1.0]]))
        if table is VERDICTS:
            racing.take([look(3, "five", 2)])
        return insert(table, *rows)

    monkeypatch.setattr(a._database, "insert", late)
    merged = a.merge(b)
    racing.close()
    assert (merged.runs, merged.looks) == (0, 2)
    assert sorted((one.number, one.evidence) for one in a.looks("t" * 64)) == [
        *((1, "one"), (2, "two"), (3, "five"), (4, "three"), (5, "four"))
    ]


def test_a_race_that_was_stopped_here_is_ended_by_its_verdict_there(two):
    a, b, _ = two
    a.begin("race", {"task": "small"})
    b.begin("race", {"task": "small"})
    b.end("race", "muon is better")
    a.merge(b)
    b.end("race", "muon is worse")
    a.merge(b)
    assert [race.headline for race in a.contents().races if race.headline] == ["muon is better"]


def test_a_store_is_merged_with_itself(two):
    a, _, folder = two
    with contextlib.closing(Store(f"{folder}/a.db")) as same:
        merged = a.merge(same)
    assert (merged.runs, merged.races, merged.looks, merged.damaged) == (0, 0, 0, 0)


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
