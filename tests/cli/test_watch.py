"""`thalweg watch`: a record as a page and in the terminal, also one that is being written."""

import json

import pytest
from click.testing import CliRunner

import thalweg
from tests.diagnosis.inflight.runs import net, watched
from tests.diagnosis.inflight.test_watching import adamw, poisoned
from thalweg.cli.app import app
from thalweg.lab.report.record import read_record
from thalweg.lab.report.within import load_by_router, logits_by_layer, ranks_by_name
from thalweg.testing.faults import HEALTHY


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("watch") / "run.jsonl"
    watched(model := net(), adamw(model), steps=60, step=poisoned(40), log=path)
    return path


def shown(*arguments):
    return CliRunner().invoke(app, ["watch", *map(str, arguments)])


def test_it_writes_a_page_that_loads_nothing_and_says_what_was_found(record, tmp_path):
    result = shown(record, "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert "gradient_became_nonfinite in 2.weight, since step 40" in " ".join(result.output.split())
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "gradient_became_nonfinite" in page
    assert page.count("<svg") >= 4
    assert "src=" not in page
    assert "2.weight" in page


@pytest.mark.filterwarnings("ignore")
def test_what_was_seen_within_the_model_has_charts_and_tables(tmp_path):
    setup, path = HEALTHY["routing"](), tmp_path / "routing.jsonl"
    setup.loop.accumulate = 2
    with thalweg.watch(setup.model, setup.optimizer, setup.scheduler, every=2, log=path) as w:
        setup.loop.watch = w
        list(setup.updates(50))
    result = shown(path, "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    for line in ("promised decrease", "seen decrease", "noise scale", "largest attention logit", "experts in effect"):
        assert line in result.output
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 8
    seen, last = read_record(path), w.history.inside[-1]
    routers = {row[0].text: row for row in load_by_router(seen).rows}
    load = last.routers["blocks.1.router"]
    assert float(routers["blocks.1.router"][4].value) == load.used
    assert routers["blocks.1.router"][6].text == str(load.idle)
    (row,) = (row for row in logits_by_layer(seen).rows if row[0].text == "blocks.0.attention")
    assert float(row[4].value) == pytest.approx(last.logits["blocks.0.attention"], rel=1e-5)
    assert ranks_by_name(seen)["head.weight"][1] >= 1


def test_a_half_written_line_is_left_for_later(record, tmp_path):
    whole = record.read_text(encoding="utf-8")
    torn = tmp_path / "torn.jsonl"
    torn.write_text(whole + '{"step": 70, "loss', encoding="utf-8")
    assert read_record(torn) == read_record(record)
    assert len(read_record(record).samples) == sum(
        '"step"' in line and '"update"' in line for line in whole.splitlines()
    )


def test_what_is_no_record_is_one_clear_error(tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"step": 1}), encoding="utf-8")
    assert "is not a record of thalweg.watch" in shown(other).output
    assert "cannot be read" in shown(tmp_path / "none.jsonl").output
