"""Who does more than an optimizer does is named, by what it does; who does not is not."""

from pathlib import Path

import pytest

from tests.lab.tasks.small import write_small
from tests.lab.test_run import spec_of
from thalweg.lab.run import execute
from thalweg.lab.tasks import check, get_task

CLASS = """
import random, sys
import numpy, torch

SEEN = {}

def frame(name):
    found = sys._getframe()
    while found and found.f_code.co_name != name:
        found = found.f_back
    return found and found.f_locals

class Cheat(torch.optim.SGD):
    best = None
    memory = {}

    def rule(self):
        pass

    def __init__(self, params, lr=1e-2, weight_decay=0.0):
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.count = 0
        # built

    def step(self, closure=None):
        self.count += 1
        if not frame("_executed"):
            return super().step()
        HERE
        super().step()
"""
MORE = """loop = frame("fit")
        with torch.enable_grad():
            for _ in range(3):
                loss = loop["loss"](loop["model"], loop["batch"])
                loss.backward()
                super().step()"""
HELD_OUT = """loop = frame("fit")
        x = torch.linspace(-2, 2, 64).view(32, 2)
        with torch.enable_grad():
            loss = (loop["model"](x) - x[:, :1].sin()).square().mean()
            loss.backward()"""
GRADIENT = """loop = frame("fit")
        x = torch.ones(4, 2)
        with torch.enable_grad():
            loss = torch.func.functional_call(loop["model"], dict(loop["model"].named_parameters()), (x,)).mean()
            torch.autograd.grad(loss, list(loop["model"].parameters()))"""
HOOKED = """if not hasattr(self, "hooked"):
            params = [p for group in self.param_groups for p in group["params"]]
            self.hooked = [p.register_post_accumulate_grad_hook(self.move) for p in params]
        super().zero_grad()
        return

    @torch.no_grad()
    def move(self, p):
        p.sub_(0.01 * p.grad)

    def rest(self):"""
KEEPS = "keeps something on its class or in its module"
CHEATS = {
    "calls backward itself, in its steps": MORE,
    "runs a model itself, in its steps": 'loop = frame("fit"); loop["model"](loop["batch"][0])',
    "feeds held-out examples to a model": HELD_OUT,
    "draws from a global random generator in its steps": "torch.rand(1)",
    "reads batches in its steps": 'next(frame("fit")["stream"])',
    "changes the weights outside of its steps": HOOKED,
    "changes the model's modules or hooks": 'frame("fit")["model"][0].register_forward_hook(lambda *_: None)',
    "changes the task": 'frame("_executed")["task"].evaluate = lambda model: 0.5',
    f"{KEEPS} (Cheat.best)": "Cheat.best = self.param_groups[0]['params'][0].detach().clone()",
    f"{KEEPS} (Cheat.memory)": "self.memory[self.count] = 1",
    f"{KEEPS} (SEEN)": "SEEN[self.count] = 1",
    f"{KEEPS} (Cheat.rule)": "self.rule.__func__.cache = self.count",
}


def _run(tmp_path, here="pass", task=None, entry="Cheat", built="pass", **changes):
    path = tmp_path / "cheat.py"
    path.write_text(CLASS.replace("HERE", here).replace("# built", built))
    return execute(spec_of(task or write_small(tmp_path), f"{path}:{entry}", **changes), "tune")


@pytest.mark.parametrize("named", CHEATS)
def test_each_is_named(tmp_path, named):
    assert named in _run(tmp_path, CHEATS[named])["conduct"]["found"]


@pytest.mark.parametrize("here", ["random.random()", "numpy.random.rand()", "torch.randn(2)"])
def test_every_global_generator_is_looked_at(tmp_path, here):
    assert "draws from a global random generator in its steps" in _run(tmp_path, here)["conduct"]["found"]


def test_passes_of_its_own_are_counted(tmp_path):
    counted = _run(tmp_path, MORE)["conduct"]
    assert (counted["steps"], counted["passes"]) == (20, 20)
    assert counted["own_forward"] == counted["own_backward"] == 60


def test_a_gradient_that_is_asked_of_autograd_counts_as_a_call_of_backward(tmp_path):
    counted = _run(tmp_path, GRADIENT)["conduct"]
    assert counted["own_backward"] == 20


def test_the_generator_of_the_batches_is_looked_at(tmp_path):
    draws = """generators = [v for v in frame("fit")["batches"].gi_frame.f_locals["batches"].gi_frame.f_locals.values()
                      if isinstance(v, torch.Generator)]
        torch.rand(1, generator=generators[0])"""
    assert "draws from the generator of the batches" in _run(tmp_path, draws)["conduct"]["found"]


def test_the_generator_of_a_loader_is_looked_at(tmp_path):
    loader = """
    def batches(self, seed):
        x = torch.arange(64.0)[:, None].expand(64, 2)
        data = torch.utils.data.TensorDataset(x, x[:, :1])
        self.generator = torch.Generator().manual_seed(seed)
        return torch.utils.data.DataLoader(data, 16, shuffle=True, generator=self.generator)

    def old"""
    path = Path(write_small(tmp_path))
    path.write_text(path.read_text().replace("\n    def batches", loader, 1))
    draws = 'torch.rand(1, generator=frame("_executed")["task"].generator)'
    assert "draws from the generator of the batches" in _run(tmp_path, draws, str(path), lr=1e-5)["conduct"]["found"]


def test_weights_that_are_changed_in_the_constructor_are_seen(tmp_path):
    built = "[p.data.mul_(0.5) for g in self.param_groups for p in g['params']]"
    assert _run(tmp_path, built=built)["conduct"]["found"] == ["changes the weights in its constructor"]


def test_buffers_and_frozen_weights_are_not_its_own(tmp_path):
    path = Path(write_small(tmp_path))
    text = (
        path.read_text()
        .replace("return nn.Sequential(", "net = nn.Sequential(")
        .replace("nn.Linear(8, 1))", "nn.Linear(8, 1))\n        net[0].requires_grad_(False)\n        return net")
    )
    path.write_text(text)
    moves = 'frame("fit")["model"][0].weight.data.mul_(0.9)'
    assert "changes buffers or frozen weights of the model" in _run(tmp_path, moves, str(path))["conduct"]["found"]
    assert _run(tmp_path, "pass", str(path))["conduct"]["found"] == []


def test_steps_are_counted_by_what_changes_the_weights(tmp_path):
    counted = _run(tmp_path, "if self.count % 2: return")["conduct"]
    assert (counted["steps"], counted["changes"], counted["found"]) == (20, 10, [])


def test_switching_to_the_mean_of_the_weights_is_watched_too(tmp_path):
    switch = """pass

    def train(self):
        pass

    def eval(self):
        model = self.__dict__.get("model")
        if self.count:
            x = self.param_groups[0]["params"][0].sum().requires_grad_()
            (x * x).backward()

    def rest(self):
        pass

    def last(self):"""
    found = _run(tmp_path, switch)["conduct"]["found"]
    assert found == ["calls backward itself, in train() or eval()"]


@pytest.mark.parametrize(
    "entry",
    ["torch.optim:NAdam", "torch.optim:Adafactor", "torch.optim:LBFGS", "sam(torch.optim:SGD)",
     "ema(torch.optim:AdamW)", "lookahead(torch.optim:RAdam)", "adamw", "sam(adamw)", "schedulefreeadamw"],
)  # fmt: skip
def test_honest_ones_are_not_accused(tmp_path, entry):
    run = execute(spec_of(write_small(tmp_path), entry, lr=1e-3), "tune")
    assert run["conduct"]["found"] == []
    assert run["conduct"]["own_backward"] == run["conduct"]["own_forward"] == 0
    assert 0 < run["conduct"]["changes"] <= run["conduct"]["steps"] <= run["conduct"]["passes"] <= 20


def test_an_honest_class_of_a_users_file_is_not_accused_and_trains_as_unwatched(tmp_path):
    run = _run(tmp_path)
    assert run["conduct"]["found"] == []
    assert run["final_loss"] == execute(spec_of(write_small(tmp_path), "torch.optim:SGD"), "tune")["final_loss"]


def test_a_cache_of_the_task_is_not_the_optimizers(tmp_path):
    """Where both stand in one file."""
    path = Path(write_small(tmp_path, "CACHE[len(CACHE)] = 1"))
    path.write_text("CACHE = {}\n" + path.read_text() + CLASS.replace("HERE", "pass"))
    assert execute(spec_of(str(path), f"{path}:Cheat"), "tune")["conduct"]["found"] == []


@pytest.mark.parametrize(("rows", "seen"), [("", 0), ("x = DATA[:32]", 32)])
def test_an_evaluation_on_training_examples_is_seen(tmp_path, rows, seen):
    path = Path(write_small(tmp_path))
    data = "DATA = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))\n\nclass Small"
    text = path.read_text().replace("class Small", data)
    text = text.replace(
        "x = torch.randn(16, 2, generator=generator)", "x = DATA[torch.randint(64, (16,), generator=generator)]"
    )
    if rows:
        text = text.replace("        model.eval()\n", f"        {rows}\n        model.eval()\n", 1)
    path.write_text(text)
    found = check(get_task(str(path))).seen
    assert found[:2] == (seen, 32)
    assert found[2] > 1
