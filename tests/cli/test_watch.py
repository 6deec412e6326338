"""`thalweg watch`: a record as a page and in the terminal, also one that is being written."""

import json

import pytest
from click.testing import CliRunner

import thalweg
from tests.diagnosis.inflight.runs import net, watched
from tests.diagnosis.inflight.test_watching import adamw, poisoned
from thalweg.cli.app import app
from thalweg.lab.report.record import WatchRecord, read_record
from thalweg.lab.report.watched import render_watched
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


def test_a_run_that_has_ended_says_how_many_updates_it_had(record, tmp_path):
    assert "AdamW: 60 of 60 steps" in shown(record, "--out", tmp_path / "page.html").output
    going_on = tmp_path / "on.jsonl"
    going_on.write_text(record.read_text(encoding="utf-8").rsplit('{"updates"', 1)[0], encoding="utf-8")
    assert "AdamW: 51 of 60 steps" in shown(going_on).output  # those up to the last look


@pytest.mark.parametrize("columns", [80, 110])
def test_in_the_terminal_curves_stand_under_each_other_and_no_line_is_broken(record, tmp_path, monkeypatch, columns):
    monkeypatch.chdir(tmp_path)  # the page's path, too, is a line
    output = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["watch", str(record), "--out", "p.html"]).output
    lines = output.splitlines()
    curves = [line for line in lines if line.startswith(("loss", "gradient norm", "learning rate"))]
    assert len({line.rindex(line.split()[-1]) for line in curves}) == 1
    assert all(len(line) <= columns for line in lines)
    begun = next(i for i, line in enumerate(lines) if line.startswith("✗"))
    assert all(line.startswith("  ") for line in lines[begun + 1 : -1])


def test_a_long_run_shows_its_one_spike_and_its_last_look(record):
    (sample, *_), count = read_record(record).samples, 2001
    samples = [{**sample, "step": step, "loss": 77.25 if step == 999 else 1.5, "norm": 1.5} for step in range(count)]
    samples[-1]["loss"] = 0.125
    seen = read_record(record)
    page = render_watched(WatchRecord(seen.names, seen.shapes, seen.optimizers, count, samples), "r", "")
    rows = page.split("Step by step")[1].split("</tbody>")[0]
    assert "2,000" in rows
    assert "0.125" in rows
    points = page.split('class="thick s0" points="')[1].split('"')[0].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(points) < 500
    assert min(heights) < 40 < sorted(heights)[1]  # near the top, it alone


def test_several_runs_are_compared_in_every_chart(record, tmp_path):
    other = tmp_path / "other.jsonl"
    watched(model := net(), adamw(model), steps=60, log=other)
    result = shown(record, other, "--out", tmp_path / "both.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 4
    assert all(svg.count('<polyline class="thick') == 2 for svg in page.split("<svg")[1:5])
    summary = page.split("</table>")[0]
    assert "gradient_became_nonfinite, since step 40" in summary
    assert "nothing found" in summary
