"""Watched runs: broken ones are named, healthy ones are left alone, and training goes on whatever a watch meets."""

import cProfile
import json
import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

import thalweg
from tests.diagnosis.inflight.runs import batches, loss_of, net, watched
from thalweg.diagnosis import FitWatch, WatchWarning, limits
from thalweg.diagnosis.bands import tuned_runs
from thalweg.diagnosis.inflight.detectors import updates
from thalweg.diagnosis.inflight.record import FIRST, KEPT, History, Sample, WatchedParameter
from thalweg.train import fit


def causes(w):
    return [found.cause for found in w.findings]


def adamw(model, **arguments):
    return torch.optim.AdamW(model.parameters(), **{"lr": 3e-3, **arguments})


def test_a_healthy_run_is_left_alone_and_its_numbers_are_right():
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    w = watched(model, optimizer, steps=1)
    (sample,) = w.history.recent
    assert not w.findings
    assert list(w.history.losses) == [0]
    for i, (p, old) in enumerate(zip(model.parameters(), before, strict=True)):
        moved = (p.detach() - old).norm()
        assert sample.weight[i] == pytest.approx(float(old.norm()), rel=1e-4)
        assert sample.gradient[i] == pytest.approx(float(moved) / 0.1, rel=1e-3)  # of all elements
        assert sample.update[i] == pytest.approx(float(moved / old.norm()), rel=0.3)  # of some
        assert sample.cosine[i] == pytest.approx(1, abs=1e-3)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize(
    "make",
    [
        lambda m: adamw(m),
        lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9),
        lambda m: torch.optim.RMSprop(m.parameters(), lr=1e-3),
        lambda m: torch.optim.Adagrad(m.parameters(), lr=0.02),
        lambda m: thalweg.AdamW(m.parameters(), lr=3e-3),
        lambda m: thalweg.Lion(m.parameters(), lr=3e-4),
        lambda m: thalweg.Muon(m, lr=0.02),
        lambda m: thalweg.Prodigy(m.parameters(), lr=1.0),
        lambda m: thalweg.AdamW(m.parameters(), lr=3e-3, state_dtype="int8"),
    ],
)
def test_no_healthy_run_has_a_finding(make):
    model = net()
    optimizer = make(model)
    w = watched(model, optimizer, OneCycleLR(optimizer, rates(optimizer), total_steps=151, cycle_momentum=False))
    assert not w.findings
    assert "0 findings" in str(w)


def clipped(norm):
    def step(optimizer):
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], norm)
        optimizer.step()

    return step


def poisoned(at):
    calls = iter(range(10_000))

    def step(optimizer):
        if next(calls) == at:
            optimizer.param_groups[0]["params"][2].grad[3, 3] = math.nan
        optimizer.step()

    return step


def new_head():
    model = net()
    optimizer = adamw(model)
    model[4] = nn.Linear(64, 4)
    return watched(model, optimizer)


def frozen_decays():
    model = net()
    model[0].requires_grad_(False)
    optimizer = adamw(model)
    for p in model[0].parameters():
        p.grad = torch.zeros_like(p)

    def step(optimizer):
        for p in model[0].parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()

    return watched(model, optimizer, step=step)


def stepped_twice():
    model = net()
    optimizer = adamw(model)
    scheduler = CosineAnnealingLR(optimizer, 400)

    def step(optimizer):
        optimizer.step()
        scheduler.step()

    return watched(model, optimizer, scheduler, step=step)


def of(change=None, **arguments):
    def run():
        model = net()
        if change is not None:
            model = change(model)
        return watched(model, adamw(model, **arguments))

    return run


def dying_layer():
    model = net()
    calls = iter(range(10_000))

    def step(optimizer):
        if next(calls) >= 30:
            model[2].weight.grad.zero_()
            model[2].bias.grad.zero_()
        optimizer.step()

    return watched(model, adamw(model), step=step)


#: by the cause that is to be found
FAULTS = {
    "not_in_optimizer": new_head,
    "frozen_moves": frozen_decays,
    "scheduler_out_of_step": stepped_twice,
    "lr_too_high": of(lr=3.0),
    "lr_too_low": of(lr=1e-6),
    "eps_dominates": of(lr=1e-2, eps=1.0),
    "update_uphill": of(maximize=True),
    "mode_eval": of(lambda m: m.eval()),
    "update_swallowed": of(lambda m: m.bfloat16(), lr=1e-5),
    "lr_zero": of(lr=0.0),
    "gradient_became_nonfinite": lambda: watched(m := net(), adamw(m), step=poisoned(40)),
    "loss_became_nonfinite": lambda: watched(m := net(), adamw(m), step=poisoned(41)),
    "clip_always": lambda: watched(m := net(), torch.optim.SGD(m.parameters(), lr=0.1), step=clipped(0.01)),
    "never_steps": lambda: watched(m := net(), adamw(m), step=lambda _: None),
    "gradient_vanished": dying_layer,
}


@pytest.mark.parametrize("cause", FAULTS)
def test_a_broken_run_is_named(cause):
    w = FAULTS[cause]()
    assert cause in causes(w)
    found = next(one for one in w.findings if one.cause == cause)
    assert found.step is not None
    assert found.evidence
    assert found.remedy


def test_layers_are_named():
    assert next(one for one in new_head().findings).layer == "4"
    assert "2" in next(one for one in dying_layer().findings).layer
    poisoned_run = FAULTS["gradient_became_nonfinite"]()
    assert next(one for one in poisoned_run.findings if one.cause == "gradient_became_nonfinite").layer == "2.weight"


def test_accumulation_counts_passes_and_means_losses():
    w = watched(m := net(), adamw(m), steps=20, accumulate=4)
    assert not w.findings
    assert w.history.updates == len(w.history.losses) == 20
    assert {sample.backwards for sample in w.history.recent} == {4}


def test_a_scaler_that_skips_is_not_an_update_and_one_that_skips_for_ever_is_named():
    model = net()
    optimizer = adamw(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with thalweg.watch(model, optimizer) as w:
            for batch in batches(60):
                loss = loss_of(model, batch) * float("inf")
                scaler.scale(w.loss(loss)).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    assert w.history.updates == 0
    assert "never_steps" in causes(w)


@pytest.mark.parametrize("make", [lambda p: torch.optim.AdamW(p, fused=True), thalweg.AdamW])
def test_steps_that_an_optimizer_itself_leaves_out_are_no_updates(make):
    model = net()
    optimizer = make(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with thalweg.watch(model, optimizer) as w:
            for i, batch in enumerate(batches(20)):
                loss = loss_of(model, batch) * (float("inf") if i % 4 == 3 else 1.0)
                scaler.scale(w.loss(loss)).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    assert w.history.updates == 15
    assert [sample.step for sample in w.history.recent] == [*range(12)]


@pytest.mark.parametrize("make", [lambda p: torch.optim.AdamW(p, fused=True), thalweg.AdamW])
def test_gradients_are_seen_unscaled(make):
    norms = []
    for scale in (1.0, 1024.0):
        model = net()
        optimizer = make(model.parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        with thalweg.watch(model, optimizer) as w:
            scaler.scale(loss_of(model, next(batches(1)))).backward()
            scaler.step(optimizer)
        norms.append(w.history.last.norm)
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_compiled_model_is_compiled_once():
    model = net()
    frames = []

    def backend(graph, _):
        frames.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=backend, fullgraph=True)
    w = watched(compiled, adamw(model), steps=30)
    assert len(frames) == 1
    assert w.history.watched[0].name == "0.weight"
    assert not w.findings


def watched_five_steps(**arguments):
    model = net()
    with thalweg.watch(model, optimizer := adamw(model), **arguments) as w:
        for batch in batches(5):
            loss_of(model, batch).backward()
            optimizer.step()
    return w


def test_training_goes_on_when_a_sink_fails():
    def sink(step, numbers):
        raise RuntimeError("no network")

    with pytest.warns(WatchWarning, match="no network"):
        w = watched_five_steps(sinks=[sink])
    assert w.history.updates == 5
    assert w.sinks == []


@pytest.mark.posix
def test_a_full_disk_ends_the_record_alone():
    with pytest.warns(WatchWarning, match="record ends here"):
        w = watched_five_steps(log="/dev/full")
    assert w.history.updates == 5


def test_the_record_has_a_header_and_a_line_for_each_look(tmp_path):
    path = tmp_path / "run.jsonl"
    seen = []
    w = watched(m := net(), adamw(m), steps=40, log=path, sinks=[lambda step, numbers: seen.append((step, numbers))])
    header, *lines, end = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert end == {"updates": 40}
    assert header["names"] == [name for name, _ in m.named_parameters()]
    assert (
        [line["step"] for line in lines] == [sample.step for sample in w.history.recent] == [step for step, _ in seen]
    )
    assert lines[3]["update"][0] == pytest.approx(w.history.recent[3].update[0], rel=1e-4)
    assert seen[0][1]["update/0.weight"] == w.history.recent[0].update[0]


def test_the_batch_of_a_loss_that_is_a_spike_is_noted_and_can_be_saved(tmp_path):
    model, calls = net(), iter(range(10_000))

    def loss(model, batch):
        return loss_of(model, batch) * (100 if next(calls) in (60, 70, 80) else 1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with thalweg.watch(model, o := adamw(model)) as w:
            for step, batch in enumerate(w.batches(batches(100))):
                w.loss(loss(model, batch))
                loss_of(model, batch).backward()
                o.step()
                o.zero_grad()
                if step == 60:
                    w.save_batch(tmp_path / "batch.pt")
                    kept = batch
    (found,) = [one for one in w.findings if one.cause == "loss_spikes"]
    assert "batch 60, hash " in found.evidence
    assert found.step == 60
    assert torch.equal(torch.load(tmp_path / "batch.pt")[0], kept[0])


def test_a_layer_that_is_unfrozen_or_replaced_is_followed():
    model = net()
    model[0].requires_grad_(False)
    optimizer = adamw(model[2:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with thalweg.watch(model, optimizer) as w:
            for i, batch in enumerate(batches(40)):
                if i == 15:
                    optimizer.add_param_group({"params": model[0].requires_grad_(True).parameters()})
                if i == 25:
                    model[4] = nn.Linear(64, 4)
                    optimizer.add_param_group({"params": model[4].parameters()})
                w.loss(loss_of(model, batch)).backward()
                optimizer.step()
                optimizer.zero_grad()
    assert not w.findings
    assert w.history.updates == 40


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"every": 0}, "every=0"),
        ({"every": True}, "every=True"),
        ({"steps": -1}, "steps=-1"),
        ({"model": 3}, "model=3"),
        ({"optimizer": "adam"}, "optimizer='adam'"),
        ({"scheduler": 4}, "scheduler=4"),
        ({"model": nn.Linear(2, 2, device="meta")}, "device meta"),
        ({"model": nn.Linear(2, 2)}, "none of them of the model"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, said):
    model = net()
    given = {"model": model, "optimizer": adamw(model), **arguments}
    with pytest.raises(ValueError, match=said):
        thalweg.watch(**given)


def test_one_watch_a_model_at_a_time():
    model = net()
    with thalweg.watch(model, adamw(model)), pytest.raises(ValueError, match="no other watch"):
        thalweg.watch(model, adamw(model))
    thalweg.watch(model, adamw(model)).close()


def test_a_closed_watch_leaves_nothing_behind():
    model = net()
    optimizer = adamw(model)
    thalweg.watch(model, optimizer).close()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_fit_is_watched():
    model = net()
    seen = FitWatch(every=5)
    fit(model, batches(40), loss_of, adamw(model), steps=40, watchers=[seen])
    assert seen.watch.closed
    assert seen.watch.history.updates == len(seen.watch.history.losses) == 40
    assert not seen.watch.findings


@pytest.mark.parametrize("move", [lambda m: m.double(), lambda m: m.to(memory_format=torch.channels_last)])
def test_a_model_that_is_converted_after_the_watch_began_is_followed(move):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))
    optimizer = adamw(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with thalweg.watch(model, optimizer) as w:
            for step in range(21):
                if step in (0, 15):
                    move(model)
                x = torch.randn(16, 3, 6, 6, dtype=model[0].weight.dtype)
                w.loss(nn.functional.cross_entropy(model(x), x.mean((2, 3)).argmax(1))).backward()
                optimizer.step()
                optimizer.zero_grad()
    assert w.looks == 13
    assert w.history.last.weight[0] == pytest.approx(float(model[0].weight.detach().norm()), rel=0.2)


def test_two_watches_on_two_models_do_not_meet():
    models = [net(), net()]
    optimizers = [adamw(model) for model in models]
    with thalweg.watch(models[0], optimizers[0]) as one, thalweg.watch(models[1], optimizers[1]) as other:
        for batch in batches(5):
            one.loss(loss_of(models[0], batch)).backward()
            optimizers[0].step()
            optimizers[0].zero_grad()
    assert (one.history.updates, other.history.updates) == (5, 0)


def test_what_is_no_loss_is_said_once_and_training_goes_on():
    model = net()
    with pytest.warns(WatchWarning, match="the loss could not be looked at") as told:
        w = watched_with(model, "not a loss")
    assert len(told) == 1
    assert w.history.updates == 5


def watched_with(model, loss):
    with thalweg.watch(model, optimizer := adamw(model)) as w:
        for batch in batches(5):
            w.loss(loss)
            loss_of(model, batch).backward()
            optimizer.step()
    return w


def test_a_sparse_gradient_is_measured():
    table = nn.Embedding(50, 4, sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    with thalweg.watch(table, optimizer) as w:
        table(torch.tensor([3, 3, 7])).sum().backward()
        optimizer.step()
    assert w.history.last.gradient[0] == pytest.approx(math.sqrt(4 * (2**2 + 1)))


def test_what_is_seen_of_many_losses_does_not_grow_with_their_number():
    from thalweg.diagnosis.inflight import losses

    seen = losses.Losses()
    refreshed = []
    seen._refresh = lambda: refreshed.append(len(seen))
    seen.middle = 1.0
    for step in range(losses.KEPT + 200):
        seen.tell(step, 1.0)
    assert len(seen) <= losses.KEPT + 1
    assert len(refreshed) == pytest.approx((losses.KEPT + 200) / losses.REFRESHED, abs=2)


@pytest.mark.parametrize(("falls", "named"), [(0.01, False), (-0.01, True), (math.nan, True)])
def test_updates_that_swing_across_a_valley_go_uphill_only_where_the_loss_does_not_fall(falls, named):
    one = SimpleNamespace(name="0.weight", hidden=True, trainable=True, optimizer=0)
    samples = [SimpleNamespace(step=k, cosine=[-0.3]) for k in range(limits.UPHILL_FOR)]
    history = SimpleNamespace(
        watched=[one],
        latest=lambda count: samples[-count:],
        losses=SimpleNamespace(falls=falls),
        trainable=lambda: iter([(0, one)]),
    )
    assert [found.cause for found in updates.uphill(history)] == ["update_uphill"] * named


@pytest.mark.parametrize(("begun", "large", "named"), [(30, 1, False), (30, 2, True), (0, 1, True)])
def test_one_update_that_is_too_large_is_a_wrong_rate_only_at_the_beginning(begun, large, named):
    """SGD at its tuned rate may bounce once in a run."""
    tuned = tuned_runs()["sgd"]
    one = WatchedParameter("0.weight", True, 0, 0, None, (2, 2))
    history = History([one], steps=100)
    for step in range(begun + large):
        moved = 10 * tuned.updates("early").high if step >= begun else 0.01
        history.add(Sample(step, 0.0, [[0.1]], [False], 1, [], True, update=[moved], weight=[2.0], gradient=[1.0]))
    found = updates._too_large(history, [(0, one)], tuned)
    assert [one.cause for one in found] == ["lr_too_high"] * named


def test_numbers_that_are_taken_at_the_next_look_are_those_that_are_taken_at_once(monkeypatch):
    runs = []
    for on_host in (True, False):  # on a GPU they are moved when the next update is looked at
        monkeypatch.setattr(thalweg.diagnosis.inflight.watching.Watch, "_on_host", lambda self, so=on_host: so)
        model = net()
        runs.append(watched(model, adamw(model), steps=60))
    once, late = runs
    assert not once.voice.said
    assert not late.voice.said
    assert not late.findings
    seen = [[(one.step, one.gradient, one.update) for one in w.history.recent] for w in runs]
    assert seen[0] == seen[1]


def test_the_peak_of_a_rate_outlives_the_samples_that_are_kept():
    one = WatchedParameter("w", True, 0, 0, None, (2, 2))
    history = History([one])
    for step in range(FIRST + KEPT + 100):
        history.add(Sample(step, 0.0, [[1.0 if step == FIRST else 0.1]], [False], 1, [], True, gradient=[1.0]))
    assert len(history.recent) == KEPT
    assert history.peak(one) == 1.0


def test_a_look_makes_as_many_calls_late_in_a_run_as_early():
    """Calls are counted, since seconds depend on what else runs."""
    model = nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, looks = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), {}
    with thalweg.watch(model, optimizer, every=1) as w:
        for step in range(KEPT + 50):
            w.loss(model(x).square().mean()).backward()
            counted = cProfile.Profile()
            counted.runcall(optimizer.step)
            looks[step] = sum(entry.callcount for entry in counted.getstats())
            optimizer.zero_grad()
    early, late = (max(looks[step] for step in range(begin, begin + 16)) for begin in (120, KEPT + 20))
    assert late < 1.15 * early
