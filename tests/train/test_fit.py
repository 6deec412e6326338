import copy
import itertools
import math
import os
import pathlib
import random
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import thalweg
from thalweg._base.errors import ThalwegError
from thalweg.schedule import linear
from thalweg.train import Event, NonFiniteError, Watcher, fit


def net(dtype=torch.float64, dropout=0.0):
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2)).to(dtype)


def loss(model, batch):
    x, y = batch
    return nn.functional.mse_loss(model(x), y)


class Batches:
    """An endless stream from a seed, started anew at each iteration."""

    def __init__(self, size=6, seed=0, dtype=torch.float64):
        self.size, self.seed, self.dtype = size, seed, dtype

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            x = torch.randn(self.size, 4, generator=generator, dtype=self.dtype)
            yield x, x[:, :2] * 2


class Log(Watcher):
    """Writes down every event."""

    def __init__(self):
        self.events = []

    def __getattribute__(self, name):
        if name.startswith("on_"):
            return lambda event: self.events.append((name, event.step))
        return super().__getattribute__(name)


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_is_the_plain_loop():
    ours, theirs = net(), net()
    fit(ours, Batches(), loss, torch.optim.Adam(ours.parameters(), lr=0.1), linear(5), steps=5)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.1)
    batches = iter(Batches())
    for t in range(5):
        optimizer.param_groups[0]["lr"] = 0.1 * linear(5)(t)
        optimizer.zero_grad()
        loss(theirs, next(batches)).backward()
        optimizer.step()
    assert same(ours, theirs)


def test_events_come_in_order():
    model, log = net(), Log()
    outcome = fit(model, Batches(), loss, torch.optim.SGD(model.parameters(), lr=0.1), steps=2, watchers=[log])
    step = ["on_loss", "on_gradients", "on_step"]
    assert log.events == [("on_start", 0), *((e, 0) for e in step), *((e, 1) for e in step), ("on_end", 1)]
    assert outcome.steps == 2
    assert math.isfinite(outcome.loss)


def test_accumulating_micro_batches_equals_the_whole_batch():
    small, large = net(), net()
    parts = [next(iter(Batches(seed=s))) for s in range(4)]
    whole = [tuple(torch.cat(t) for t in zip(*parts[i : i + 2], strict=True)) for i in (0, 2)]
    fit(small, parts, loss, torch.optim.SGD(small.parameters(), lr=0.1), steps=2, accumulate=2)
    fit(large, whole, loss, torch.optim.SGD(large.parameters(), lr=0.1), steps=2)
    for p, q in zip(small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def test_clipping_heeds_what_the_optimizer_updates_and_nothing_else():
    model, norms = net(), []

    class Norms(Watcher):
        def on_gradients(self, event):
            norms.append(event.grad_norm)

    head = torch.optim.SGD(model[3].parameters(), lr=0.0)
    fit(model, [next(iter(Batches()))], loss, head, steps=3, clip=1e9, watchers=[Norms()])
    own = torch.autograd.grad(loss(model, next(iter(Batches()))), list(model[3].parameters()))
    assert norms == pytest.approx([float(torch.cat([g.flatten() for g in own]).norm())] * 3)


def test_clips_by_global_norm_and_tells_the_norm_before():
    model = net()
    norms = []

    class Norms(Watcher):
        def on_gradients(self, event):
            now = torch.cat([p.grad.flatten() for p in event.model.parameters()]).norm()
            norms.append((event.grad_norm, float(now)))

    fit(model, Batches(), loss, torch.optim.SGD(model.parameters(), lr=0.1), steps=1, clip=0.01, watchers=[Norms()])
    before, after = norms[0]
    assert before > 0.01
    assert after == pytest.approx(0.01, rel=1e-4)


class Rates(Watcher):
    """Writes down the learning rates."""

    def __init__(self):
        self.seen = []

    def on_step(self, event):
        self.seen.append(event.lr)


def rates(model, optimizer, schedule=None, **options):
    """What a training steps at."""
    watcher = Rates()
    fit(model, Batches(), loss, optimizer, schedule, watchers=[watcher], **options)
    return watcher.seen


@pytest.mark.parametrize("home", [thalweg, torch.optim])
@pytest.mark.parametrize("lr", [0.5, torch.tensor(0.5)], ids=["number", "tensor"])
def test_a_learning_rate_that_was_changed_between_two_trainings_is_the_new_peak(home, lr):
    model = net()
    optimizer = home.SGD([{"params": model[0].parameters()}, {"params": model[3].parameters()}], lr=lr)
    assert rates(model, optimizer, linear(4), steps=2) == [0.5, 0.375]
    assert rates(model, optimizer, linear(4), steps=2) == [0.5, 0.375]
    optimizer.param_groups[0]["lr"] = 0.125
    assert rates(model, optimizer, steps=1) == [0.125]
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.125, 0.5]


@pytest.mark.parametrize("wrong", [{"schedule": 0.5}, {"loss": lambda m, b: loss(m, b) * math.nan}])
def test_so_it_is_after_a_training_that_failed(wrong):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    fit(model, Batches(), loss, optimizer, linear(4), steps=2)
    with pytest.raises((ValueError, NonFiniteError)):
        fit(model, Batches(), optimizer=optimizer, steps=2, **{"loss": loss, **wrong})
    assert rates(model, optimizer, linear(4), steps=2) == [0.5, 0.375]
    with pytest.raises((ValueError, NonFiniteError)):
        fit(model, Batches(), optimizer=optimizer, steps=2, **{"loss": loss, **wrong})
    optimizer.param_groups[0]["lr"] = 0.125
    with pytest.raises((ValueError, NonFiniteError)):
        fit(model, Batches(), optimizer=optimizer, steps=2, **{"loss": loss, **wrong})
    assert rates(model, optimizer, linear(4), steps=2) == [0.125, 0.09375]


def test_the_peak_of_a_scheduler_that_was_there_before_stays():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    own = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5**t)
    fit(model, Batches(), loss, optimizer, steps=1)
    own.step()
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert rates(model, optimizer, steps=1) == [0.5]


def test_a_checkpoint_knows_its_peak(tmp_path):
    whole, parts = net(), net()
    fit(whole, Batches(), loss, torch.optim.SGD(whole.parameters(), lr=0.5), linear(9), steps=4)
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.5)
    fit(parts, Batches(), loss, optimizer, linear(9), steps=2, checkpoint=tmp_path / "c.pt")
    optimizer.param_groups[0]["lr"] = 0.25
    fit(parts, Batches(), loss, optimizer, linear(9), steps=4, checkpoint=tmp_path / "c.pt")
    assert same(whole, parts)


@pytest.mark.parametrize("home", [thalweg, torch.optim])
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW", "Muon"])
@settings(max_examples=4)
@given(stop=st.integers(1, 11))
def test_resume_equals_no_interruption_bit_for_bit(tmp_path_factory, home, name, stop):
    path = tmp_path_factory.mktemp("c") / "run.pt"

    def run(steps, path=None):
        model = net(torch.float32, dropout=0.5)
        momentum = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
        matrices = [p for p in model.parameters() if p.ndim == 2]
        target = model.parameters() if name != "Muon" else model if home is thalweg else matrices
        optimizer = getattr(home, name)(target, lr=0.01, **momentum)
        torch.manual_seed(1)
        random.seed(1)
        data = Batches(dtype=torch.float32)
        fit(model, data, loss, optimizer, linear(12, warmup=3), steps=steps, accumulate=2, checkpoint=path)
        return model, optimizer, torch.get_rng_state(), random.getstate()

    whole = run(12)
    run(stop, path)
    torch.manual_seed(99)
    resumed = run(12, path)
    assert same(whole[0], resumed[0])
    a, b = whole[1].state_dict(), resumed[1].state_dict()
    assert a["param_groups"] == b["param_groups"]
    for key, state in a["state"].items():
        for part, value in state.items():
            assert torch.equal(value, b["state"][key][part])
    assert torch.equal(whole[2], resumed[2])
    assert whole[3] == resumed[3]


KILLED = """
import sys, torch
from tests.train.test_fit import stubborn
torch.set_num_threads(1)
stubborn(10**6, sys.argv[1], lambda event: print(event.step, flush=True))
"""


def stubborn(steps, path=None, tell=lambda event: None):
    """A training that saves at each step."""

    class Tell(Watcher):
        def on_step(self, event):
            tell(event)

    model = net(torch.float32, dropout=0.5)
    torch.manual_seed(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    data = Batches(dtype=torch.float32)
    fit(model, data, loss, optimizer, linear(10**6), steps=steps, watchers=[Tell()], checkpoint=path, save_every=1)
    return model


@pytest.mark.slow(reason="two processes that train")
def test_a_process_killed_at_any_time_is_taken_up_by_another(tmp_path):
    path = tmp_path / "c.pt"
    victim = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    with victim:
        lines = itertools.islice(victim.stdout, random.Random().randint(5, 25))
        reached = int(list(lines)[-1])
        victim.kill()
    saved = torch.load(path, weights_only=True)["step"]
    assert saved >= reached
    assert same(stubborn(saved + 5), stubborn(saved + 5, path))
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_crash_between_saves_goes_on_from_the_last_one(tmp_path):
    class Crash(Watcher):
        def on_step(self, event):
            if event.step == 6:
                raise RuntimeError("power failure")

    def run(watchers=(), path=None):
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        fit(model, Batches(), loss, optimizer, steps=10, watchers=watchers, checkpoint=path, save_every=2)
        return model

    whole = run()
    with pytest.raises(RuntimeError, match="power failure"):
        run([Crash()], tmp_path / "c.pt")
    assert torch.load(tmp_path / "c.pt", weights_only=True)["step"] == 6
    assert same(whole, run(path=tmp_path / "c.pt"))
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize(("owner", "name"), [(torch, "save"), (os, "fsync"), (pathlib.Path, "replace")])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_is_cut_short_keeps_the_old_checkpoint(tmp_path, monkeypatch, owner, name, error):
    path = tmp_path / "c.pt"
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, Batches(), loss, optimizer, steps=2, checkpoint=path)
    old = path.read_bytes()

    def cut(*_):
        raise error

    monkeypatch.setattr(owner, name, cut)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ThalwegError
    with pytest.raises(expected, match="No space left" if expected is ThalwegError else None):
        fit(model, Batches(), loss, optimizer, steps=4, checkpoint=path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_foreign_file_is_named(tmp_path):
    path = tmp_path / "c.pt"
    path.write_text("hello")
    model = net()
    with pytest.raises(ThalwegError, match=r"c\.pt is no checkpoint"):
        fit(model, Batches(), loss, torch.optim.SGD(model.parameters(), lr=0.1), steps=1, checkpoint=path)


@pytest.mark.parametrize("state", ["model", "optimizer", "inner", "wrapper", "groups"])
def test_the_checkpoint_of_another_training_is_refused_and_changes_nothing(tmp_path, state):
    def run(model, make, steps=2):
        optimizer = make(model)
        fit(model, Batches(), loss, optimizer, steps=steps, checkpoint=tmp_path / "c.pt")

    def sgd(model):
        return torch.optim.SGD(model.parameters(), lr=0.1)

    def mean(make):
        return lambda model: thalweg.EMA(make(model))

    def adam(model):
        return torch.optim.Adam(model.parameters())

    wide = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)).double()
    there = mean(sgd) if state == "inner" else sgd
    model, make, message = {
        "model": (wide, sgd, r"0\.weight has shape \(8, 4\) there and \(5, 4\) here"),
        "optimizer": (net(), adam, "optimizer is SGD, not Adam"),
        "inner": (net(), mean(adam), "optimizer is EMA of SGD, not EMA of Adam"),
        "wrapper": (net(), mean(sgd), "optimizer is SGD, not EMA of SGD"),
        "groups": (net(), lambda m: torch.optim.SGD(m[0].parameters(), lr=0.1), r"groups of \[4\] tensors, not \[2\]"),
    }[state]
    run(net(), there)
    before, rng = copy.deepcopy(model), torch.get_rng_state()
    with pytest.raises(ThalwegError, match=message):
        run(model, make, steps=4)
    assert same(model, before)
    assert torch.equal(torch.get_rng_state(), rng)


def test_a_missing_folder_is_named_before_anything_changes(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"checkpoint='.*a folder that is there"):
        fit(model, Batches(), loss, optimizer, linear(9, warmup=3), steps=1, checkpoint=tmp_path / "none" / "c.pt")
    assert optimizer.state_dict() == before


def test_a_finished_training_is_not_trained_further(tmp_path):
    def run():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, fit(model, Batches(), loss, optimizer, steps=3, checkpoint=tmp_path / "c.pt")

    (first, _), (second, outcome) = run(), run()
    assert same(first, second)
    assert outcome.steps == 3


def test_a_loss_that_is_not_finite_updates_nothing():
    model = net()
    before = copy.deepcopy(model)
    with pytest.raises(NonFiniteError, match="training loss is nan at step 0"):
        fit(model, Batches(), lambda m, b: loss(m, b) * math.nan, torch.optim.SGD(model.parameters(), lr=0.1), steps=3)
    assert same(model, before)


def test_a_gradient_norm_that_is_not_finite_updates_nothing():
    def cusp(model, batch):
        return loss(model, batch) + (model[0].weight * 0).sum().sqrt()

    model = net()
    before = copy.deepcopy(model)
    with pytest.raises(NonFiniteError, match="norm of the gradients is nan at step 0"):
        fit(model, Batches(), cusp, torch.optim.SGD(model.parameters(), lr=0.1), steps=3, clip=1.0)
    assert same(model, before)


@pytest.mark.parametrize("where", ["on_loss", "on_gradients", "on_step"])
def test_a_watcher_may_stop_before_or_after_the_update(where):
    class Stop(Watcher):
        pass

    setattr(Stop, where, lambda self, event: event.stop() if event.step == 2 else None)
    model, log = net(), Log()
    outcome = fit(model, Batches(), loss, torch.optim.SGD(model.parameters(), lr=0.1), steps=9, watchers=[Stop(), log])
    assert outcome.stopped
    assert outcome.steps == (3 if where == "on_step" else 2)
    assert log.events[-2:] == [(where, 2), ("on_end", 2)]
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("where", ["on_loss", "on_gradients", "on_step"])
@given(at=st.integers(0, 5))
def test_a_stopped_or_broken_step_is_made_whole_or_not_at_all(tmp_path_factory, where, at):
    path = tmp_path_factory.mktemp("c") / "c.pt"

    def run(steps, watchers=(), path=None):
        model = net(dropout=0.4)
        torch.manual_seed(5)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        fit(model, Batches(), loss, optimizer, linear(9), steps=steps, watchers=watchers, checkpoint=path, save_every=1)
        return model

    class Break(Watcher):
        def __init__(self, how):
            self.how = how

    def act(self, event):
        if event.step == at:
            seen.append(copy.deepcopy(event.model))
            self.how(event)

    def fail(event):
        raise ZeroDivisionError

    seen = []
    setattr(Break, where, act)
    made = at + 1 if where == "on_step" else at
    with pytest.raises(ZeroDivisionError):
        run(8, [Break(fail)])
    assert same(seen[0], run(made))
    run(8, [Break(Event.stop)], path)
    assert same(run(8), run(8, path=path))


def test_autocast_runs_the_forward_in_low_precision():
    seen = []
    model = net(torch.float32)
    model[0].register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    data = Batches(dtype=torch.float32)
    fit(model, data, loss, torch.optim.SGD(model.parameters(), lr=0.1), steps=1, autocast=torch.bfloat16)
    assert seen == [torch.bfloat16]
    assert model[0].weight.dtype == torch.float32


@pytest.mark.parametrize(("argument", "message"), [
    ({"steps": -1}, "steps=-1"),
    ({"steps": 1, "accumulate": 0}, "accumulate=0"),
    ({"steps": True}, "steps=True"),
    ({"steps": 1, "clip": -1.0}, "clip=-1.0"),
    ({"steps": 1, "clip": "1"}, "clip='1'"),
    ({"steps": 1, "schedule": 0.5}, "schedule=0.5"),
    ({"steps": 1, "autocast": torch.float16}, "autocast=torch.float16.*loss scaling"),
    ({"steps": 1, "autocast": torch.int8}, "autocast=torch.int8"),
    ({"steps": 1, "save_every": -1}, "save_every=-1"),
])  # fmt: skip
def test_bad_arguments_are_named_before_anything_changes(argument, message):
    model = net()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        fit(model, Batches(), loss, torch.optim.SGD(model.parameters(), lr=0.1), **argument)
    assert same(model, before)


@pytest.mark.parametrize("wrong", [lambda m, b: 1.0, lambda m, b: m(b[0]), lambda m, b: torch.tensor(1.0)])
def test_a_loss_that_cannot_be_descended_is_named(wrong):
    model = net()
    with pytest.raises(ValueError, match="expected a 0-dim tensor that depends on the model's parameters"):
        fit(model, Batches(), wrong, torch.optim.SGD(model.parameters(), lr=0.1), steps=1)


def test_autocast_needs_a_device_that_has_it():
    model = net().to("meta")
    with pytest.raises(ValueError, match=r"bfloat16 on a device that has it \(not meta\)"):
        fit(model, Batches(), loss, torch.optim.SGD(model.parameters(), lr=0.1), steps=1, autocast=torch.bfloat16)


def test_autocast_leaves_the_making_of_batches_alone():
    def batches():
        while True:
            made.append(torch.ones(2, 2) @ torch.ones(2, 2))
            yield next(iter(Batches(dtype=torch.float32)))

    made, model = [], net(torch.float32)
    fit(model, batches(), loss, torch.optim.SGD(model.parameters(), lr=0.1), steps=1, autocast=torch.bfloat16)
    assert made[0].dtype == torch.float32


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_optimizer_that_looks_at_the_loss_is_told_it(accumulate):
    model, plain = net(), net()
    told = Told()
    fit(model, Batches(), loss, thalweg.MoMo(model.parameters()), steps=5, accumulate=accumulate, watchers=[told])
    optimizer, stream = thalweg.MoMo(plain.parameters()), iter(Batches())
    for seen in told.losses:
        optimizer.zero_grad()
        value = torch.stack([loss(plain, next(stream)) for _ in range(accumulate)]).mean()
        value.backward()
        assert value.item() == pytest.approx(seen, rel=1e-12)
        optimizer.step(loss=seen)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wrap", [thalweg.EMA, lambda inner: thalweg.EMA(thalweg.Lookahead(inner, k=100))])
def test_one_within_wrappers_is_told_it_too(wrap):
    model, plain = net(), net()
    fit(model, Batches(), loss, wrap(thalweg.MoMo(model.parameters())), steps=5)
    fit(plain, Batches(), loss, thalweg.MoMo(plain.parameters()), steps=5)
    assert same(model, plain)


class Told(Watcher):
    """Writes down the losses."""

    def __init__(self):
        self.losses = []

    def on_loss(self, event):
        self.losses.append(event.loss)


def test_a_loss_may_refresh_the_curvature_of_its_optimizer():
    model = net()
    optimizer = thalweg.SophiaH(model.parameters(), lr=0.01)
    calls = []

    def watched(model, batch):
        value = loss(model, batch)
        if len(calls) % 10 == 0:
            optimizer.update_hessian(value)
        calls.append(value.item())
        return value

    fit(model, Batches(), watched, optimizer, steps=30)
    assert len(calls) == 30
    assert calls[-1] < calls[0]


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_each_tenth_or_rewrites_its_line(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    model = net()
    fit(model, Batches(), loss, thalweg.SGD(model.parameters(), lr=0.1), linear(40), steps=40, progress=True)
    said = capsys.readouterr().err
    lines = said.split("\r")[1:] if terminal else said.splitlines()
    assert re.match(r"step 40 of 40  loss [\d.e-]+  lr 0.0025  [\d.e+]+ steps/s\s*$", lines[-1])
    assert said.endswith("\n")
    if not terminal:
        assert [line.split()[1] for line in lines] == ["4", "8", "12", "16", "20", "24", "28", "32", "36", "40"]


def test_no_progress_is_shown_unless_asked(capsys):
    model = net()
    fit(model, Batches(), loss, thalweg.SGD(model.parameters(), lr=0.1), steps=5)
    assert capsys.readouterr().err == ""


class Counting(Watcher):
    """Counts what it has seen, also before a resume."""

    def __init__(self):
        self.seen = 0

    def on_step(self, event):
        self.seen += 1

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_a_watcher_goes_on_with_what_it_knew_and_saves_go_by_the_clock(tmp_path):
    file, made = tmp_path / "run.pt", []
    for steps, every in ((3, 1e-9), (5, 1e9)):
        model, watcher = nn.Linear(2, 1), Counting()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batches = iter(lambda: torch.ones(1, 2), None)

        def lost(model, batch, counted=watcher):
            if counted.seen == 2 and not made:
                made.append(torch.load(file, weights_only=True)["step"])
                raise RuntimeError("lost")
            return model(batch).square().mean()

        arguments = {"steps": steps, "watchers": [watcher], "checkpoint": file, "save_seconds": every}
        if not made:
            with pytest.raises(RuntimeError, match="lost"):
                fit(model, batches, lost, optimizer, **arguments)
        else:
            fit(model, batches, lost, optimizer, **arguments)
    assert made == [2]
    assert watcher.seen == 5


def test_a_time_between_saves_is_above_zero():
    model = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="save_seconds=0: expected seconds above 0"):
        fit(model, [], lambda *_: None, torch.optim.SGD(model.parameters(), lr=0.1), steps=1, save_seconds=0)
