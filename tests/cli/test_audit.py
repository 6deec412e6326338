"""`thalweg audit`: a race's own file passes, and what a forger writes into it is found."""

import json
import re

import pytest
from click.testing import CliRunner

from tests.cli.test_cli import QUICKLY
from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline
from thalweg.cli.app import app
from thalweg.lab import workers


@pytest.fixture(scope="module")
def made(tmp_path_factory, few_trials):
    """The JSON of a small race."""
    folder = tmp_path_factory.mktemp("audited")
    path = write_small(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "Pool", Inline)
        told = ["--store", f"sqlite:///{folder}/s.db", "--out", str(folder)]
        result = CliRunner().invoke(app, ["race", path, *QUICKLY, "--seeds", "3", *told])
    assert result.exit_code == 0, result.output
    return json.loads((folder / "race.json").read_text())


def audited(tmp_path, content, *options):
    path = tmp_path / "race.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return CliRunner().invoke(app, ["audit", str(path), *options])


def test_a_race_gives_the_flags_that_its_file_holds(made, tmp_path):
    result = audited(tmp_path, made, "--json")
    (found,) = json.loads(result.stdout).values()
    assert found == made["flags"]
    assert result.exit_code == any(flag["level"] == "warning" for flag in found)
    shown = audited(tmp_path, made).stdout.replace("\n", " ")
    assert made["headline"].split(":")[0] in shown


def better(race):
    for run in race["runs"]:
        if run["role"] == "verdict" and run["optimizer"] == "momentum":
            run["final_loss"] -= 1.0


def same_seeds(race):
    for run in race["runs"]:
        run["seed"] %= 1000


def dropped(race):
    race["runs"] = [run for run in race["runs"] if (run["role"], run["optimizer"]) != ("verdict", "momentum")][:-1]


def narrow(race):
    (comparison,) = race["comparisons"]
    comparison["low"] = comparison["high"] = comparison["difference"]


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (better, "losses that are not those at the end|last point"),
        (same_seeds, "No verdict follows from these runs: .*seed"),
        (dropped, "runs|seeds"),
        (narrow, "interval"),
    ],
)
def test_what_was_forged_is_found(made, tmp_path, forge, says):
    race = json.loads(json.dumps(made))
    forge(race)
    result = audited(tmp_path, race, "--json")
    assert result.exit_code == 1, result.output
    found = [flag for flags in json.loads(result.stdout).values() for flag in flags]
    new = [flag["text"] + flag["short"] for flag in found if flag["level"] == "warning" and flag not in made["flags"]]
    assert any(re.search(says, text) for text in new), new


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "expected the JSON of a race"), ("[1]", "this is another"), ('{"runs": []}', "this is another")],
)
def test_what_is_no_race_is_one_error(tmp_path, content, says):
    result = audited(tmp_path, content)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert says in line


def test_a_race_without_its_values_is_one_error(made, tmp_path):
    race = json.loads(json.dumps(made))
    del race["runs"][0]["final_loss"], race["runs"][-1]["final_loss"]
    result = audited(tmp_path, race)
    assert result.exit_code == 1
    assert "cannot be checked" in result.stderr
