"""One run: bit for bit the same again, its key, its curve, its end when it diverges, the size of its state."""

import dataclasses
import math
from pathlib import Path
from statistics import fmean

import pytest
import torch

from tests.lab.tasks.small import write_small
from thalweg import registry
from thalweg._base.errors import ThalwegError
from thalweg.lab.contestants import parse
from thalweg.lab.result import Run
from thalweg.lab.run import Spec, execute, set_up, state_bytes
from thalweg.lab.tasks import check, get_task

#: 2×8 + 8, 8×8 + 8, 8×1 + 1
PARAMETERS, TENSORS = 105, 6


@pytest.fixture
def path(tmp_path):
    return write_small(tmp_path)


@pytest.fixture
def spec(path):
    return spec_of(path)


def spec_of(path, entry="adamw", **changes):
    """A run of 20 steps."""
    given = {
        "task": path,
        "fingerprint": "f",
        "contestant": parse(entry),
        "lr": 1e-2,
        "multiplier": 3.0,
        "weight_decay": 0.0,
        "extra": (),
        "seed": 5,
        "steps": 20,
        "evaluations": 4,
    }
    return Spec(**{**given, **changes})


def _numbers(run):
    """All of a run but what a clock measured."""
    return {k: v for k, v in run.items() if k not in ("seconds", "optimizer_seconds")}


@pytest.mark.parametrize("name", sorted(registry.optimizers()))
def test_every_optimizer_of_the_library_trains_in_a_race_or_says_why_not(path, name):
    try:
        spec = spec_of(path, name.lower(), steps=4, evaluations=1, lr=1e-3)
    except ThalwegError as error:
        assert "does not race" in str(error)  # noqa: PT017
        return
    run = execute(spec, "tune")
    assert run["status"] == "finished"
    assert math.isfinite(run["final_loss"])


@pytest.mark.parametrize("entry", ["sgd", "momentum", "rmsprop", "adam", "adamw", "muon"])
def test_the_same_spec_gives_the_same_run_bit_for_bit(path, entry):
    first = execute(spec_of(path, entry), "tune")
    torch.rand(11)  # whatever the global generator went through
    again = execute(spec_of(path, entry), "tune")
    assert _numbers(first) == _numbers(again)
    assert math.isfinite(first["final_loss"])
    assert first["final_loss"] != first["curve"][0][1]


def test_a_run_has_the_declared_fields(spec):
    run = execute(spec, "verdict")
    assert run.keys() == Run.__annotations__.keys()
    assert (run["role"], run["status"], run["steps"], run["seed"]) == ("verdict", "finished", 20, 5)
    assert run["optimizer"] == "adamw"
    assert run["settings"] == {"betas": (0.9, 0.95)}
    assert 0 < run["optimizer_seconds"] < run["seconds"]


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 2e-2},
        {"multiplier": 1.0},
        {"weight_decay": 0.1},
        {"seed": 6},
        {"steps": 21},
        {"evaluations": 5},
        {"fingerprint": "g"},
        {"extra": (("eps", 1e-3),)},
        {"contestant": parse("adam")},
        {"contestant": dataclasses.replace(parse("adamw"), settings={"betas": (0.9, 0.99)})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_key_changes_with_what_changes_the_run(spec, change):
    assert dataclasses.replace(spec, **change).key != spec.key


@pytest.mark.parametrize(
    "change",
    [
        {"contestant": parse("twin=adamw")},
        {"contestant": parse("adamw@50")},  # the seed itself is in the spec
        {"task": "another/place.py"},  # the fingerprint says what the file does
    ],
    ids=["label", "offset", "place"],
)
def test_the_key_does_not_change_with_names(spec, change):
    assert dataclasses.replace(spec, **change).key == spec.key


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 2e-2},
        {"multiplier": 1.0},
        {"weight_decay": 30.0},
        {"seed": 6},
        {"steps": 24},
        {"extra": (("eps", 1.0),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_in_the_spec_reaches_the_run(spec, change):
    other = dataclasses.replace(spec, **change)
    assert execute(other, "tune")["final_loss"] != execute(spec, "tune")["final_loss"]


@pytest.mark.parametrize("entry", ["sgd", "momentum", "rmsprop", "adam", "adamw", "muon"])
def test_weight_decay_is_decoupled_and_of_the_hidden_matrices_alone(path, entry):
    """With the learning rate of everything else at 0, strong decay shrinks nothing but the hidden matrices."""
    spec = spec_of(path, entry, lr=1e-2, multiplier=1.0, weight_decay=10.0)
    task = get_task(path)
    model, optimizer = set_up(spec, task)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        # Linear(2, 8) is a hidden matrix too: only the output layer and the vectors are not
        hidden = name in ("0.weight", "2.weight")
        torch.testing.assert_close(p.detach(), before[name] * (0.9 if hidden else 1.0), msg=name)


def test_a_curve_starts_at_0_and_ends_with_the_final_loss(spec):
    run = execute(spec, "verdict")
    assert [step for step, _ in run["curve"]] == [0, 5, 10, 15, 20]
    assert run["curve"][-1][1] == run["final_loss"]
    task = get_task(spec.task)
    assert run["curve"][0][1] == task.evaluate(task.model(spec.seed))


def test_how_often_it_is_evaluated_does_not_change_the_run(spec):
    often, once = (execute(dataclasses.replace(spec, evaluations=n), "verdict") for n in (20, 1))
    assert often["final_loss"] == once["final_loss"]
    assert often["train_loss"] == once["train_loss"]
    assert [step for step, _ in once["curve"]] == [0, 20]
    assert len(often["curve"]) == 21


@pytest.mark.parametrize("entry", ["sgd", "momentum"])
@pytest.mark.parametrize("lr", [100.0, 1e30])
def test_a_diverging_run_ends_early_and_counts_with_the_loss_before_training(path, entry, lr):
    told = []
    spec = spec_of(path, entry, lr=lr, steps=200, evaluations=10)
    run = execute(spec, "tune", lambda key, step, loss: told.append((key, step)))
    task = get_task(path)
    assert run["status"] == "diverged"
    assert run["final_loss"] == run["train_loss"] == task.evaluate(task.model(spec.seed))
    assert len(told) < 20
    assert run["curve"][-1][0] < 200
    assert all(math.isfinite(loss) for _, loss in run["curve"])


@pytest.mark.parametrize("strict", ["in_loss", "in_evaluate"])
def test_a_task_that_raises_once_the_weights_are_not_finite_has_diverged(tmp_path, strict):
    path = Path(write_small(tmp_path, "assert model(x).isfinite().all()" if strict == "in_loss" else ""))
    if strict == "in_evaluate":
        path.write_text(path.read_text().replace("        model.eval()", "        assert model(x).isfinite().all()"))
    run = execute(spec_of(str(path), "sgd", lr=1e38, evaluations=20), "tune")
    assert run["status"] == "diverged"
    assert run["curve"] == [(0, run["final_loss"])]


def test_a_task_that_raises_while_the_weights_are_finite_raises(tmp_path):
    path = write_small(tmp_path, "model.calls = getattr(model, 'calls', 0) + 1; assert model.calls < 15")
    with pytest.raises(AssertionError):
        execute(spec_of(path, "sgd"), "tune")


#: losses of two examples each, far from one another: some first ones are many times smaller than the mean
NOISY = "y = y + 3 * torch.randn(16, 1, generator=torch.Generator().manual_seed(int(1e6 * x.abs().sum()))); "


@pytest.mark.parametrize("seed", range(20))
def test_a_first_batch_with_a_small_loss_does_not_make_a_good_run_diverge(tmp_path, seed):
    path = write_small(tmp_path, NOISY + "x, y = x[:2], y[:2]")
    run = execute(spec_of(path, "adamw", lr=1e-3, seed=seed, steps=100), "tune")
    assert run["status"] == "finished"


@pytest.mark.parametrize("loss", ["1e30", "(8 + 0 * y.mean())"])
def test_a_run_that_leaps_at_its_first_step_and_stays_there_has_diverged(tmp_path, loss):
    """What it is measured against is the untrained model, not its own early losses."""
    leap = f"moved = (model[0].bias.detach() - 1).abs().max() > 1e-3; return F.mse_loss(model(x), y) + moved * {loss}"
    path = Path(write_small(tmp_path, leap))
    text = path.read_text().replace("        return nn.Sequential(", "        net = nn.Sequential(")
    at = text.index("\n", text.index("net = "))
    path.write_text(f"{text[:at]}\n        nn.init.ones_(net[0].bias)\n        return net{text[at:]}")
    run = execute(spec_of(str(path), "sgd", lr=1.0, steps=100), "tune")
    assert run["status"] == "diverged"


def test_a_run_whose_last_step_breaks_the_model_has_diverged(path):
    spec = spec_of(path, "sgd", lr=1e38, steps=1, evaluations=1)  # no training loss is computed after it
    run = execute(spec, "tune")
    assert run["status"] == "diverged"
    assert run["curve"] == [(0, run["final_loss"])]


def test_progress_is_told_twenty_times_with_key_step_and_loss(spec):
    told = []
    execute(dataclasses.replace(spec, steps=60), "tune", lambda *message: told.append(message))
    assert [step for _, step, _ in told] == list(range(3, 61, 3))
    assert {key for key, _, _ in told} == {dataclasses.replace(spec, steps=60).key}
    assert all(math.isfinite(loss) for *_, loss in told)


@pytest.mark.parametrize(
    ("entry", "size"),
    [
        ("sgd", 0),
        ("momentum", 4 * PARAMETERS),
        ("adam", 8 * PARAMETERS + 4 * TENSORS),
        ("adamw", 8 * PARAMETERS + 4 * TENSORS),
    ],
)
def test_the_size_of_the_state_is_exact(path, entry, size):
    assert check(get_task(path)).parameters == PARAMETERS
    assert execute(spec_of(path, entry), "tune")["state_bytes"] == size


def test_the_size_of_torchs_own_state_is_counted_alike():
    parameter = torch.nn.Parameter(torch.zeros(7, 3))
    parameter.grad = torch.ones(7, 3)
    optimizer = torch.optim.AdamW([parameter])
    assert state_bytes(optimizer) == 0
    optimizer.step()
    assert state_bytes(optimizer) == 8 * 21 + 4


def test_the_training_curve_ends_with_the_mean_of_the_last_tenth(spec):
    run = execute(spec, "verdict")
    assert [step for step, _ in run["train_curve"]] == [spec.steps * i // 20 for i in range(1, 21)]
    assert fmean(loss for _, loss in run["train_curve"][-2:]) == pytest.approx(run["train_loss"])
