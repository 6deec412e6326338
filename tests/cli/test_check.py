"""`thalweg check`: what it prints, the lines to change, JSON, and the exit code."""

import json

import pytest
from click.testing import CliRunner

from thalweg.cli.app import app

SCRIPT = """
import torch
from torch import nn
from torch.nn import functional as F


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def healthy():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    x = torch.randn(32, 16)
    return model, optimizer, None, (x, x[:, :4].argmax(1)), loss


def replaced():
    model, optimizer, scheduler, batch, loss = healthy()
    model[2] = nn.Linear(64, 4)
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "batch": batch, "loss": loss, "steps": 200}


def many():
    model, optimizer, scheduler, batch, loss = healthy()
    return model, optimizer, scheduler, iter([batch] * 3), loss


def incomplete():
    return healthy()[:3]


def raising():
    return 1 / 0
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    return lambda function, *options: CliRunner().invoke(app, ["check", f"{tmp_path}/script.py:{function}", *options])


@pytest.mark.parametrize("function", ["healthy", "many"])
def test_a_healthy_run_ends_with_0(run, function):
    result = run(function)
    assert result.exit_code == 0, result.output
    assert "nothing wrong was found" in result.output
    assert "✗" not in result.output


def test_a_finding_ends_with_1_and_shows_what_to_do(run):
    result = run("replaced")
    assert result.exit_code == 1, result.output
    assert "✗ not_in_optimizer in 2" in result.output
    assert 'optimizer.add_param_group({"params": model[2].parameters()})' in result.output


def test_the_lines_to_change(run):
    assert run("replaced", "--fix").output.splitlines()[1:] == [
        'optimizer.add_param_group({"params": model[2].parameters()})'
    ]
    assert run("healthy", "--fix").output == "# nothing to change\n"


def test_json(run):
    result = run("replaced", "--json")
    (found,) = json.loads(result.stdout)["findings"]
    assert (found["cause"], found["layer"], result.exit_code) == ("not_in_optimizer", "2", 1)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("absent", "found no absent; expected a function without arguments"),
        ("incomplete", "returned a tuple without batch; expected (model, optimizer, scheduler, batch, loss)"),
        ("raising", "in raising(): ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_be_checked_ends_with_2(run, function, says):
    result = run(function)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_a_task_that_is_not_there():
    result = CliRunner().invoke(app, ["check", "mnist2d"])
    assert result.exit_code == 2
    assert "did you mean mnist1d" in result.stderr


@pytest.mark.slow(reason="looks at a built-in task twice")
def test_a_built_in_task_is_healthy_as_tuned_and_an_optimizer_may_be_named():
    assert CliRunner().invoke(app, ["check", "mnist1d"]).exit_code == 0
    result = CliRunner().invoke(app, ["check", "mnist1d", "--optimizer", "adamw(lr=3)"])
    assert result.exit_code == 1
    assert "lr_too_high" in result.output
