"""`thalweg watch`: a record as a page and in the terminal, also one that is being written."""

import json

import pytest
from click.testing import CliRunner

from tests.diagnosis.inflight.runs import net, watched
from tests.diagnosis.inflight.test_watching import adamw, poisoned
from thalweg.cli.app import app
from thalweg.lab.report.record import read_record


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
