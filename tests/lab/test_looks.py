"""Looks: what counts as one, what it pays, and that no two races take the same."""

import contextlib
import json
import sqlite3
from dataclasses import replace

import pytest

from thalweg._base.errors import ThalwegError
from thalweg.lab.contestants import parse
from thalweg.lab.looks import Ledger, Side, pair_of
from thalweg.lab.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "s.db"))
    yield store
    store.close()


def side(entry, runs=(("k", 1.0),), status="finished"):
    return Side(parse(entry), [{"key": key, "final_loss": loss, "status": status} for key, loss in runs])


def comparison(baseline, challenger, **more):
    outcome = {"verdict": "better", "difference": -0.1, "low": -0.2, "high": -0.05}
    return {"baseline": baseline, "challenger": challenger, "seeds": 5, "margin": 0.02, **outcome, **more}


def looked(store, baseline, *challengers, task="task", declared=(0.02,)):
    """Draw a verdict; the numbers of its looks."""
    ledger = Ledger(task, store.looks(task))
    numbers = ledger.open(baseline, challengers, *declared)
    compared = [comparison(baseline.contestant.label, label) for label in numbers]
    assert store.take(ledger.taken(compared, 400))
    return list(numbers.values())


def test_the_first_is_the_first_and_the_same_again_is_the_same(store):
    assert looked(store, side("adamw"), side("muon")) == [1]
    assert looked(store, side("adamw"), side("muon")) == [1]
    assert len(store.looks("task")) == 1


CHANGES = {
    "a run more": {"challenger": side("muon", [("k", 1.0), ("l", 1.0)])},
    "a run less": {"challenger": side("muon", [])},
    "another loss": {"challenger": side("muon", [("k", 1.5)])},
    "a run that diverged": {"challenger": side("muon", status="diverged")},
    "a label": {"challenger": side("mine=muon")},
    "a setting": {"baseline": side("adamw-bf16")},
    "the baseline's label": {"baseline": side("mine=adamw")},
    "the baseline": {"baseline": side("muon"), "challenger": side("adamw")},
    "the margin": {"declared": (0.03,)},
    "another in the field": {"other": side("sgd")},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_is_changed_is_a_further_look_at_the_same_pair(store, change):
    looked(store, side("adamw"), side("muon"))
    change = dict(change)
    challengers = [change.pop("challenger", side("muon")), *([change.pop("other")] if "other" in change else [])]
    declared = change.pop("declared", (0.02, len(challengers)))
    numbers = looked(store, change.pop("baseline", side("adamw")), *challengers, declared=declared)
    assert numbers == [2, 1][: len(challengers)]
    assert not change


def test_another_task_or_pair_of_classes_is_another_question(store):
    looked(store, side("adamw"), side("muon"))
    assert looked(store, side("adamw"), side("muon"), task="other") == [1]
    assert looked(store, side("adamw"), side("sgd")) == [1]
    assert looked(store, side("sgd"), side("muon")) == [1]


def test_a_pair_has_no_order_and_no_settings():
    assert pair_of(parse("adamw"), parse("momentum")) == pair_of(parse("sgd"), parse("adamw-int8")) == "AdamW, SGD"


def test_a_class_is_the_same_wherever_its_file_lies():
    half = replace(parse("adamw"), optimizer="/a/my.py:Half")
    assert pair_of(half, parse("sgd")) == pair_of(replace(half, optimizer="/b/other.py:Half"), parse("sgd"))


def test_comparisons_of_one_pair_in_one_race_are_one_look_and_all_are_listed(store):
    assert looked(store, side("adamw"), side("sgd"), side("momentum"), side("muon")) == [1, 1, 1]
    assert looked(store, side("adamw"), side("sgd")) == [2]
    ledger = Ledger("task", store.looks("task"))
    ledger.open(side("adamw"), [side("momentum")])
    assert [(one["look"], one["labels"][1]) for one in ledger.others()] == [(1, "sgd"), (1, "momentum"), (2, "sgd")]
    assert ledger.others()[0].keys() == {"look", "when", "classes", "labels", "steps", "seeds", "margin", "outcome"}


def test_the_same_number_is_taken_once_and_then_nothing_of_the_race_is(tmp_path, store):
    """Two races read the store, then both draw."""
    other = Store(str(tmp_path / "s.db"))
    first, second = (Ledger("task", one.looks("task")) for one in (store, other))
    first.open(side("adamw"), [side("muon")])
    second.open(side("adamw"), [side("muon", [("l", 2.0)]), side("sgd")])
    assert store.take(first.taken([comparison("adamw", "muon")], 400))
    drawn = second.taken([comparison("adamw", "muon"), comparison("adamw", "sgd")], 400)
    assert not other.take(drawn)
    assert {one.pair for one in store.looks("task")} == {"AdamW, Muon"}
    assert looked(other, side("adamw"), side("muon", [("l", 2.0)]), side("sgd")) == [2, 1]
    other.close()


def _edit(store, statement):
    with contextlib.closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_look_that_was_edited_counts_but_its_outcome_is_not_repeated(store):
    looked(store, side("adamw"), side("muon"))
    _edit(store, "update verdicts set verdicts = replace(verdicts, 'better', 'worse')")
    assert looked(store, side("adamw"), side("muon", [("l", 2.0)])) == [2]
    ledger = Ledger("task", store.looks("task"))
    ledger.open(side("adamw"), [side("muon", [("m", 3.0)])])
    first, second = ledger.others()
    assert (first["labels"], first["outcome"]) == (["AdamW", "Muon"], None)
    assert second["outcome"]["verdict"] == "better"


def test_a_look_that_was_removed_gives_its_number_to_nobody(store):
    for i in range(3):
        looked(store, side("adamw"), side("muon", [("k", float(i))]))
    _edit(store, "delete from verdicts where number = 1")
    assert looked(store, side("adamw"), side("muon", [("k", 9.0)])) == [4]


def test_a_time_that_is_none_is_one_sentence(store):
    looked(store, side("adamw"), side("muon"))
    _edit(store, "update verdicts set taken = 'soon'")
    with pytest.raises(ThalwegError, match=r"cannot read the store .*soon.*--store"):
        store.looks("task")


def test_a_number_that_is_none_is_one_sentence(store):
    looked(store, side("adamw"), side("muon"))
    _edit(store, "update verdicts set number = 'first'")
    with pytest.raises(ThalwegError, match=r"cannot read the store .* at AdamW, Muon has the number 'first'"):
        store.looks("task")


def test_races_are_noted_when_they_begin_and_when_they_end(store):
    store.begin("race", {"task": "small"})
    store.begin("race", {"task": "other"})
    store.end("race", "muon is better")
    with contextlib.closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as connection:
        [(about, begun, ended, headline)] = connection.execute("select about, begun, ended, headline from races")
    assert (json.loads(about), headline) == ({"task": "small"}, "muon is better")
    assert begun <= ended
