"""The lines for the user's script train as the race did, bit for bit."""

import contextlib
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import thalweg
from tests.lab.tasks.small import write_small
from thalweg.lab import script
from thalweg.lab.contestants import CONTESTANTS, parse
from thalweg.lab.run import Spec, execute
from thalweg.lab.tasks import get_task


def _spec(path, entry, **changes):
    given = {"lr": 4e-3 * math.sqrt(10), "multiplier": 3.0, "weight_decay": 0.3, "extra": (), "seed": 7, "steps": 25}
    return Spec(path, "f", parse(entry), **{**given, **changes}, evaluations=1)


def trained_by(lines, spec):
    """What a user gets who puts the lines into a script."""
    task = get_task(spec.task)
    names = {"model": task.model(spec.seed), "sample": task.sample(), "task": task}
    exec(lines, names)
    model, optimizer, scheduler = names["model"], names["optimizer"], names["scheduler"]
    torch.manual_seed(spec.seed)
    asks, steps = "def closure" in lines or "where closure()" in lines, 0
    stream = iter(task.batches(spec.seed))
    while True:
        batch = [next(stream) for _ in range(task.accumulate)]
        steps += (
            _stepped_with_closure(task, model, optimizer, batch) if asks else _stepped(task, model, optimizer, batch)
        )
        for _ in range(steps - scheduler.last_epoch):
            scheduler.step()
        if steps >= spec.steps:
            break
    with _evaluated(lines, optimizer):
        return optimizer, task.evaluate(model)


def _stepped(task, model, optimizer, batch):
    optimizer.zero_grad()
    _backward(task, model, optimizer, batch)
    optimizer.step()
    return 1


def _backward(task, model, optimizer, batches):
    """As the comments in the lines say."""
    for batch in batches:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=task.autocast is not None):
            loss = task.loss(model, batch)
        (loss / task.accumulate).backward()
    if task.clip is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, task.clip)
    return loss


def _stepped_with_closure(task, model, optimizer, batch):
    calls, generator = [], torch.get_rng_state()

    def closure():
        calls.append(torch.set_rng_state(generator))
        optimizer.zero_grad()
        return _backward(task, model, optimizer, batch)

    optimizer.step(closure)
    return len(calls)


@contextlib.contextmanager
def _evaluated(lines, optimizer):
    if "optimizer.swap()" in lines:
        with optimizer.swap():
            yield
    else:
        if "optimizer.eval()" in lines:
            optimizer.eval()
        yield


@pytest.mark.parametrize("entry", CONTESTANTS)
def test_the_lines_train_as_the_race_did(tmp_path, entry):
    spec = _spec(write_small(tmp_path), entry)
    optimizer, loss = trained_by(script.lines(spec), spec)
    assert type(optimizer) is getattr(thalweg, spec.contestant.optimizer)
    assert loss == execute(spec, "verdict")["final_loss"]


@pytest.mark.parametrize("entry", CONTESTANTS)
def test_a_further_setting_is_in_the_lines(tmp_path, entry):
    for name, values in CONTESTANTS[entry].knobs.items():
        spec = _spec(write_small(tmp_path), entry, extra=((name, values[-1]),))
        lines = script.lines(spec)
        assert f"{name}={values[-1]!r}" in lines
        assert lines.count(f"{name}=") == 1
        assert trained_by(lines, spec)[1] == execute(spec, "verdict")["final_loss"]


#: a model whose output layer is registered first, and that does not say what it takes
BACKWARDS = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(8, 1)
        self.inner = nn.Linear(2, 8)

    def forward(self, *given):
        return self.out(self.inner(given[0]).tanh())

class Small(Task):"""


@pytest.mark.parametrize("entry", ["adamw", "momentum", "muon", "normuon"])
@pytest.mark.parametrize("way", ["sample", "head"])
def test_the_lines_name_the_output_layer_where_the_model_does_not_show_it(tmp_path, entry, way):
    text = Path(write_small(tmp_path)).read_text().replace("class Small(Task):", BACKWARDS)
    start = text.index("return nn.Sequential")
    text = text[:start] + "return Net()" + text[text.index("\n", start) :]
    said = {"sample": "    def sample(self):\n        return torch.zeros(3, 2)\n", "head": "    head = ('out',)\n"}[way]
    (tmp_path / "small.py").write_text(text.replace("    def loss", said + "\n    def loss"))
    spec = _spec(str(tmp_path / "small.py"), entry)
    lines = script.lines(spec)
    assert {"sample": "sample=sample", "head": "head=['out']"}[way] in lines
    assert trained_by(lines, spec)[1] == execute(spec, "verdict")["final_loss"]


@pytest.mark.parametrize("head", ["", "    head = ('5',)\n"])
def test_the_lines_for_muon_take_the_kernels_of_a_conv1d(tmp_path, head):
    path = Path(write_small(tmp_path))
    text = path.read_text().replace("    def loss", head + "\n    def loss")
    start = text.index("return nn.Sequential")
    layers = "nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 4, 1), nn.Tanh(), nn.Conv1d(4, 4, 1), nn.Flatten(), nn.Linear(8, 1)"
    path.write_text(text[:start] + f"return nn.Sequential({layers})" + text[text.index("\n", start) :])
    spec = _spec(str(path), "muon")
    assert trained_by(script.lines(spec), spec)[1] == execute(spec, "verdict")["final_loss"]


@pytest.mark.parametrize("entry", ["adamw", "muon"])
def test_the_lines_for_a_task_without_output_layer(entry):
    spec = _spec("ravine", entry, seed=0)
    lines = script.lines(spec)
    assert "head=[]" in lines
    assert trained_by(lines, spec)[1] == execute(spec, "verdict")["final_loss"]


def test_the_weight_decay_in_the_lines_makes_a_difference(tmp_path):
    path = write_small(tmp_path)
    losses = {
        trained_by(script.lines(spec), spec)[1] for spec in (_spec(path, "adamw", weight_decay=d) for d in (0, 9.0))
    }
    assert len(losses) == 2


OWN = """
import torch


class Mine(torch.optim.SGD):
    pass
"""


@pytest.mark.parametrize(
    "entry",
    [
        "torch.optim:NAdam",
        "torch.optim:Rprop",
        "torch.optim:SGD(lr=0.1,momentum=0.9)",
        "adamw(lr=3e-4,weight_decay=0.1)",
        "adam(lr=3e-4,weight_decay=0.1)",
        "muon(lr=0.02)",
        "adamw(betas=(0.9,0.99))",
        "schedulefreeadamw",
        "sam(adamw)",
        "sam(torch.optim:AdamW(lr=1e-3))",
        "lookahead(adamw,k=3)",
        "ema(adamw,decay=0.9)",
        "mechanic(adamw)",
        "MINE",
    ],
)
def test_the_lines_of_whatever_may_enter_train_as_the_race_did(tmp_path, monkeypatch, entry):
    (tmp_path / "my_rule.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = _spec(write_small(tmp_path), entry.replace("MINE", f"{tmp_path}/my_rule.py:Mine"), steps=24)
    entered = spec.contestant
    if not entered.tuned:
        spec = replace(spec, lr=entered.centre, multiplier=1.0, weight_decay=entered.decay(0.0))
    lines = script.lines(spec)
    assert trained_by(lines, spec)[1] == execute(spec, "verdict")["final_loss"]
