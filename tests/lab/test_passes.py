"""An optimizer that asks for the loss is charged for every pass: half the steps for two passes, and none beyond."""

import itertools
import math

import pytest
import torch

import thalweg
from tests.lab.tasks.small import write_small
from tests.lab.test_run import _numbers, spec_of
from thalweg.lab.passes import fit_by_passes
from thalweg.lab.run import execute
from thalweg.lab.tasks import get_task
from thalweg.lab.timing import PARTS, quiet_pass
from thalweg.schedule import constant, linear
from thalweg.train import Watcher, fit


class Log(Watcher):
    """Remembers steps, losses, learning rates, and the weights after each step."""

    def __init__(self):
        self.steps, self.losses, self.lrs, self.weights = [], [], [], []

    def on_loss(self, event):
        self.losses.append(event.loss)
        self.lrs.append(event.lr)

    def on_step(self, event):
        self.steps.append(event.step + 1)
        self.weights.append([p.detach().clone() for p in event.model.parameters()])


@pytest.fixture
def task(tmp_path):
    return get_task(write_small(tmp_path))


def _trained(task, make, passes, schedule=None, train=fit_by_passes, **more):
    """The model, the batches and the generator's state at each call of the loss, and the log."""
    calls, log, model = [], Log(), task.model(0)
    torch.manual_seed(0)

    def loss(model, batch):
        calls.append((batch[0].sum().item(), torch.get_rng_state()))
        return task.loss(model, batch)

    optimizer = make(model.parameters())
    train(model, task.batches(0), loss, optimizer, schedule or constant(), steps=passes, watchers=[log], **more)
    return model, calls, log


def _sam(parameters):
    return thalweg.SAM(thalweg.SGD(parameters, lr=0.1, backend="eager"))


def _lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=0.5, max_iter=4)


def test_sam_makes_half_the_steps_each_on_one_batch_with_the_same_dropout(task):
    _, calls, log = _trained(task, _sam, 10)
    assert log.steps == [2, 4, 6, 8, 10]
    firsts, seconds = calls[::2], calls[1::2]
    assert [batch for batch, _ in firsts] == [x.sum().item() for x, _ in itertools.islice(task.batches(0), 5)]
    assert len(seconds) == 5
    for one, other in zip(firsts, seconds, strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])


def test_the_schedule_goes_by_passes(task):
    schedule = linear(10, warmup=2)
    _, _, log = _trained(task, _sam, 10, schedule)
    assert log.lrs == pytest.approx([0.1 * schedule(step) for step in (0, 2, 4, 6, 8)])


def test_one_pass_a_step_trains_as_the_loop_does(task):
    by_passes, loop = (
        _trained(task, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 12, linear(12), train)
        for train in (fit_by_passes, fit)
    )
    assert by_passes[2].losses == loop[2].losses
    for a, b in zip(by_passes[0].parameters(), loop[0].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("passes", range(20, 26))
def test_no_pass_is_made_beyond_the_budget_and_a_step_cut_short_is_undone(task, passes):
    model, calls, log = _trained(task, _lbfgs, passes)
    assert log.steps[-1] <= len(calls) <= passes
    assert len(log.steps) > 2
    for now, then in zip(model.parameters(), log.weights[-1], strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("entry", ["sam(adamw)", "lbfgs", "lookahead(sam(momentum))"])
def test_its_run_is_evaluated_where_those_of_others_are(tmp_path, entry):
    path = write_small(tmp_path)
    run, plain = (execute(spec_of(path, e, steps=25, lr=1e-3), "verdict") for e in (entry, "adamw"))
    assert [step for step, _ in run["curve"]] == [step for step, _ in plain["curve"]]
    assert run["status"] == "finished"
    assert run["curve"][-1] == (25, run["final_loss"])
    assert _numbers(run) == _numbers(execute(spec_of(path, entry, steps=25, lr=1e-3), "verdict"))


def test_sam_is_told_apart_from_what_it_wraps(tmp_path):
    path = write_small(tmp_path)
    losses = {
        execute(spec_of(path, entry), "tune")["final_loss"] for entry in ("adamw", "sam(adamw)", "sam(adamw,rho=1)")
    }
    assert len(losses) == 3


def test_a_run_that_diverges_is_stopped(tmp_path):
    run = execute(spec_of(write_small(tmp_path), "sam(sgd)", lr=1e30, steps=100), "tune")
    assert run["status"] == "diverged"
    assert math.isfinite(run["final_loss"])


def test_the_quiet_pass_gives_the_time_of_one_pass(tmp_path):
    spec = spec_of(write_small(tmp_path), "sam(sgd)")
    (block,) = quiet_pass([spec], 1).blocks.values()
    assert all(block[0][part] > 0 for part in PARTS)


def test_the_mean_of_the_weights_is_what_is_evaluated(tmp_path):
    path = write_small(tmp_path)
    mean, plain = (execute(spec_of(path, entry), "verdict") for entry in ("ema(adamw,decay=0.9)", "adamw"))
    assert mean["train_loss"] == plain["train_loss"]
    assert mean["final_loss"] != plain["final_loss"]


def test_what_a_wrapper_keeps_is_part_of_the_size_of_the_state(tmp_path):
    path = write_small(tmp_path)
    plain, slow = (execute(spec_of(path, entry), "tune")["state_bytes"] for entry in ("sgd", "lookahead(sgd)"))
    assert (plain, slow) == (0, 4 * 105)
