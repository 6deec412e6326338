import copy
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import thalweg
from thalweg._base.errors import ThalwegError
from thalweg.schedule import linear
from thalweg.train import NonFiniteLossError, Watcher, fit


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


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW", "Muon"])
@settings(deadline=None, max_examples=6)
@given(stop=st.integers(1, 11))
def test_resume_equals_no_interruption_bit_for_bit(tmp_path_factory, name, stop):
    path = tmp_path_factory.mktemp("c") / "run.pt"

    def run(steps, path=None, model=None):
        model = net(torch.float32, dropout=0.5)
        momentum = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
        target = model if name == "Muon" else model.parameters()
        optimizer = getattr(thalweg, name)(target, lr=0.01, **momentum)
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


def test_a_shuffling_loader_resumes_in_the_middle_of_its_epoch(tmp_path):
    data = torch.utils.data.TensorDataset(torch.randn(10, 4), torch.randn(10, 2))

    def run(steps, path=None):
        model = net(torch.float32, dropout=0.3)
        torch.manual_seed(3)
        loader = torch.utils.data.DataLoader(data, batch_size=3, shuffle=True)
        fit(model, loader, loss, torch.optim.SGD(model.parameters(), lr=0.1), steps=steps, checkpoint=path)
        return model

    whole = run(11)
    run(6, tmp_path / "c.pt")
    torch.manual_seed(77)
    assert same(whole, run(11, tmp_path / "c.pt"))


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


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, Batches(), loss, optimizer, steps=2, checkpoint=path)
    old = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ThalwegError, match="No space left"):
        fit(model, Batches(), loss, optimizer, steps=4, checkpoint=path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_foreign_file_is_named(tmp_path):
    path = tmp_path / "c.pt"
    path.write_text("hello")
    model = net()
    with pytest.raises(ThalwegError, match=r"c\.pt is no checkpoint"):
        fit(model, Batches(), loss, torch.optim.SGD(model.parameters(), lr=0.1), steps=1, checkpoint=path)


def test_a_loss_that_is_not_finite_updates_nothing():
    model = net()
    before = copy.deepcopy(model)
    with pytest.raises(NonFiniteLossError, match="nan at step 0"):
        fit(model, Batches(), lambda m, b: loss(m, b) * math.nan, torch.optim.SGD(model.parameters(), lr=0.1), steps=3)
    assert same(model, before)


def test_a_watcher_may_stop_before_the_update():
    class Stop(Watcher):
        def on_loss(self, event):
            if event.step == 2:
                event.stop()

    model, log = net(), Log()
    outcome = fit(model, Batches(), loss, torch.optim.SGD(model.parameters(), lr=0.1), steps=9, watchers=[Stop(), log])
    assert outcome.stopped
    assert outcome.steps == 2
    assert log.events[-2:] == [("on_loss", 2), ("on_end", 2)]


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
    ({"steps": 1, "clip": -1.0}, "clip=-1.0"),
    ({"steps": 1, "autocast": torch.int8}, "autocast=torch.int8"),
    ({"steps": 1, "save_every": -1}, "save_every=-1"),
])  # fmt: skip
def test_bad_arguments_are_named_before_anything_changes(argument, message):
    model = net()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        fit(model, Batches(), loss, torch.optim.SGD(model.parameters(), lr=0.1), **argument)
    assert same(model, before)


def test_an_empty_iterable_is_named():
    model = net()
    with pytest.raises(ThalwegError, match="batches has no batch"):
        fit(model, [], loss, torch.optim.SGD(model.parameters(), lr=0.1), steps=1)
