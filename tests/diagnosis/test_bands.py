"""The table of tuned runs: whole, of the form that is read, and such that a wrong rate is told from a tuned one."""

import itertools
import json
import math
import runpy
import warnings
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torch import nn

import thalweg
from thalweg.diagnosis import bands
from thalweg.diagnosis.bands import Band, phase_of, provenance, tuned_runs
from thalweg.diagnosis.families import tuned_runs_of
from thalweg.lab.contestants import parse
from thalweg.lab.tuned import settings, tuned

#: so many times a tuned rate is too high
FAR = 60.0
#: one over it finds all: what goes far enough by small steps is not accused
FAR_BELOW = 1000.0
#: of a run that is watched, the first updates
UPDATES = 80
#: how far a number that is measured again may be from the table's, which has two digits: rounding takes 5 %, and other
#: processors add up in another order
REMADE = 0.15
CELLS = list(itertools.product(bands.PHASES, bands.ROLES, bands.QUANTITIES))


def test_the_file_is_of_its_schema():
    text = files("thalweg.diagnosis").joinpath("tuned.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert len(text) < 20_000
    assert content["schema"] == 1
    assert content.keys() == {"schema", "made", "optimizers"}
    assert provenance().keys() == {"by", "thalweg", "torch", "tasks", "runs", "seed", "settings", "quantiles"}
    assert set(provenance()["tasks"]) <= settings().keys()
    assert provenance()["runs"] == sum(one.runs for one in tuned_runs().values())
    for name, one in content["optimizers"].items():
        assert parse(name).label == name
        assert one.keys() == {"name", "runs", "travel", "fall", "bands"}
        assert set(one["bands"]) == set(bands.PHASES)


def test_every_run_of_the_table_is_one_that_a_race_has_tuned():
    tasks = provenance()["tasks"]
    for name, one in tuned_runs().items():
        assert one.runs == sum(name in settings()[task] for task in tasks) == len(tasks)


@pytest.fixture(scope="module")
def maker():
    """The program that has made the table."""
    return runpy.run_path(str(Path(__file__).parents[2] / ".ci" / "tuned_bands.py"))


def test_the_program_that_makes_the_table_measures_what_is_in_it(maker):
    assert maker["NAMES"] == {name: one.name for name, one in tuned_runs().items()}
    assert list(maker["QUANTILES"]) == provenance()["quantiles"]
    assert not maker["LEFT_OUT"] & {*provenance()["tasks"]}
    assert {*provenance()["tasks"]} | maker["LEFT_OUT"] == {*settings()}


@pytest.fixture
def one_thread():
    """As the table was made; several would wait for each other where the processor is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_rehearsals_of_one_row_give_its_numbers_again(maker, one_thread):
    """All of an optimizer's row that takes no whole run: its first steps, its peak rates, its way and its fall."""
    shipped, found = tuned_runs()["adamw"], []
    for task in provenance()["tasks"]:
        cells, travel, fall = maker["rehearsed"](task, "adamw")
        spread = {cell: maker["spread"](values) for cell, values in cells.items() if values}
        found.append({"travel": travel, "fall": fall, "cells": spread})
    again = maker["entry"](shipped.name, found)
    assert again["travel"] == pytest.approx(shipped.travel, rel=REMADE)
    assert again["fall"] == pytest.approx(shipped.fall, rel=REMADE)
    cells = [key for key in shipped.bands if key[0] in ("first", "peak")]
    assert len(cells) == 2 * len(bands.ROLES)
    for phase, role, quantity in cells:
        band = shipped.band(phase, role, quantity)
        numbers = again["bands"][phase][role][quantity]
        assert numbers == pytest.approx([band.low, band.middle, band.high], rel=REMADE), (phase, role)


@pytest.mark.parametrize("name", tuned_runs())
def test_bands_are_in_order_and_within_what_they_measure(name):
    runs = tuned_runs()[name]
    assert set(runs.bands) <= set(CELLS)
    assert runs.runs >= 3
    assert 0 < runs.fall < 1
    assert runs.travel > 0.1
    for phase in bands.PHASES:
        assert 0 < runs.updates(phase).middle < 1
    for (_, _, quantity), band in runs.bands.items():
        assert all(map(math.isfinite, (band.low, band.middle, band.high)))
        assert band.low <= band.middle <= band.high
        assert band.low >= (-1 if quantity in ("cosine", "turn") else 0)
        assert band.high <= 1 or quantity in ("update", "step")


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda m: torch.optim.SGD(m.parameters(), lr=0.1), "SGD"),
        (lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), "momentum SGD"),
        (lambda m: thalweg.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True), "momentum SGD"),
        (lambda m: torch.optim.RMSprop(m.parameters()), "RMSprop"),
        (lambda m: torch.optim.Adam(m.parameters()), "AdamW"),
        (lambda m: thalweg.Muon(m), "Muon"),
        (lambda m: thalweg.NorMuon(m), "NorMuon"),
        (lambda m: thalweg.SOAP(m.parameters()), "SOAP"),
        (lambda m: thalweg.Lion(m.parameters()), "sign descent"),
    ],
)
def test_an_optimizer_is_compared_with_its_own_runs_or_its_kin(build, name):
    optimizer = build(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)))
    assert tuned_runs_of(optimizer, optimizer.param_groups[0]).name == name


def test_what_muon_leaves_to_adam_is_compared_with_adam():
    optimizer = thalweg.NorMuon(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)))
    names = {group["use_muon"]: tuned_runs_of(optimizer, group).name for group in optimizer.param_groups}
    assert names == {True: "NorMuon", False: "AdamW"}


def test_of_what_was_never_tuned_nothing_is_said():
    p = [nn.Parameter(torch.ones(2, 2))]
    optimizer = torch.optim.Adadelta(p)
    assert tuned_runs_of(optimizer, optimizer.param_groups[0]) is None


def test_a_run_has_an_early_a_middle_and_a_late_part():
    parts = ["early"] * 2 + ["middle"] * 2 + ["late"] * 2
    assert [phase_of(step, 1000) for step in (0, 99, 100, 699, 700, 999)] == parts
    assert [phase_of(step, 80) for step in (0, 39, 40, 55, 56, 79)] == parts
    assert phase_of(5, None) == "any"
    whole = tuned_runs()["adamw"].updates("any")
    parts = [tuned_runs()["adamw"].updates(phase) for phase in ("early", "middle", "late")]
    assert (whole.low, whole.high) == (min(b.low for b in parts), max(b.high for b in parts))
    assert str(Band(0.00123, 0.1, 0.55)) == "0.0012 to 0.55"


def found(name, rate):
    """What check says of a run at a rate, and a watch in its first updates, by cause."""
    run = tuned("mnist1d", name, rate=rate)
    given = {"loss": run.loss, "batches": run.batches, "scheduler": run.scheduler, "steps": run.steps}
    before = thalweg.check(run.model, run.optimizer, **given).findings
    run = tuned("mnist1d", name, rate=rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with thalweg.watch(run.model, run.optimizer, run.scheduler, steps=run.steps) as w:
            for _ in range(UPDATES):
                w.loss(run.loss(run.model, next(run.batches))).backward()
                run.optimizer.step()
                run.optimizer.zero_grad()
                run.scheduler.step()
    return {one.cause: one for one in (*w.findings, *before)}


@pytest.mark.parametrize("name", tuned_runs())
def test_a_rate_far_from_the_tuned_one_is_found_and_the_tuned_one_is_not(name):
    assert found(name, 1.0) == {}
    for rate, cause in ((FAR, "lr_too_high"), (1 / FAR_BELOW, "lr_too_low")):
        one = found(name, rate)[cause]
        assert f"tuned runs of {tuned_runs()[name].name}" in one.evidence
        low, middle, high = one.numbers["tuned"]
        assert f"{low:.2g} to {high:.2g}" in one.evidence
        assert low <= middle <= high
