"""What is true of every optimizer, over the table of cases."""

import copy
import functools
import inspect
import io
import pickle

import pytest
import torch

import thalweg
from tests.cases import CASES, distance, every, feed, name, parameters, walk

BACKENDS = ("eager", "foreach", "cpu")
ROWS = pytest.mark.parametrize(("case", "flags"), every(), ids=name)
# a checkpoint is compared with torch's where torch has the optimizer
IN_TORCH = pytest.mark.parametrize(("case", "flags"), [(c, f) for c, f in every() if c.in_torch], ids=name)
DEFAULTS = pytest.mark.parametrize("case", CASES, ids=name)
ON_BACKENDS = pytest.mark.parametrize("backend", BACKENDS)


@ROWS
@ON_BACKENDS
def test_equals_its_reference_for_100_steps(case, flags, backend):
    ours, theirs = parameters(case.shapes), parameters(case.shapes)
    walk(case.ours(ours, lr=case.lr, backend=backend, **flags), ours, 100)
    walk(case.reference(theirs, lr=case.lr, **flags), theirs, 100)
    assert distance(ours, theirs) < 1e-10


@IN_TORCH
@ON_BACKENDS
def test_checkpoints_cross_to_torch_and_back(case, flags, backend):
    ours, theirs = parameters(case.shapes), parameters(case.shapes)
    a = case.ours(ours, lr=case.lr, backend=backend, **flags)
    b = case.reference(theirs, lr=case.lr, **flags)
    walk(a, ours, 50)
    walk(b, theirs, 50)
    mine, torchs = copy.deepcopy(a.state_dict()), copy.deepcopy(b.state_dict())
    a = case.ours(ours, lr=1.0, backend=backend)
    b = case.reference(theirs, lr=1.0)
    a.load_state_dict(torchs)
    b.load_state_dict(mine)
    walk(a, ours, 50, start=50)
    walk(b, theirs, 50, start=50)
    assert distance(ours, theirs) < 1e-10


@pytest.mark.parametrize(("case", "flags"), [(c, f) for c, f in every() if f], ids=name)
def test_every_flag_changes_the_trajectory(case, flags):
    plain, flagged = parameters(case.shapes), parameters(case.shapes)
    walk(case.ours(plain, lr=case.lr, **case.base), plain, 8)
    walk(case.ours(flagged, lr=case.lr, **flags), flagged, 8)
    assert distance(plain, flagged) > 1e-6


@IN_TORCH
@ON_BACKENDS
def test_state_dict_looks_like_torchs(case, flags, backend):
    ours, theirs = parameters(case.shapes), parameters(case.shapes)
    a = case.ours(ours, lr=case.lr, backend=backend, **flags)
    b = case.reference(theirs, lr=case.lr, **flags)
    walk(a, ours, 3)
    walk(b, theirs, 3)
    mine, torchs = a.state_dict()["state"], b.state_dict()["state"]
    assert mine.keys() == torchs.keys()
    for key in torchs:
        assert mine[key].keys() == torchs[key].keys()
        for part in torchs[key]:
            assert mine[key][part].dtype == torchs[key][part].dtype
            torch.testing.assert_close(mine[key][part], torchs[key][part], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c.in_torch], ids=name)
def test_arguments_have_the_order_and_defaults_of_torchs(case):
    ours, theirs = (inspect.signature(o).parameters for o in (case.ours, case.reference))
    by_keyword_here = ("foreach", "maximize", "capturable", "differentiable", "fused")
    positional = [n for n, p in theirs.items() if p.kind is p.POSITIONAL_OR_KEYWORD and n not in by_keyword_here]
    assert [n for n, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD][: len(positional)] == positional
    assert {n: ours[n].default for n in theirs} == {n: p.default for n, p in theirs.items()}


@DEFAULTS
@ON_BACKENDS
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_training_the_same(case, backend, copier):
    params = parameters(case.shapes)
    optimizer = case.ours(params, lr=case.lr, backend=backend)
    walk(optimizer, params, 5)
    twin, their_params = copier((optimizer, params))
    assert repr(twin) == repr(optimizer)
    walk(optimizer, params, 5, start=5)
    walk(twin, their_params, 5, start=5)
    assert distance(params, their_params) == 0


@DEFAULTS
@ON_BACKENDS
def test_resume_equals_no_interruption(case, backend):
    params, again = parameters(case.shapes), parameters(case.shapes)
    walk(case.ours(params, lr=case.lr, backend=backend), params, 10)
    first = case.ours(again, lr=case.lr, backend=backend)
    walk(first, again, 5)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = case.ours(again, lr=1.0, backend=backend)
    second.load_state_dict(torch.load(file, weights_only=True))
    walk(second, again, 5, start=5)
    assert distance(params, again) == 0


@ROWS
@ON_BACKENDS
def test_gradients_are_left_as_they_were(case, flags, backend):
    params = parameters(case.shapes)
    optimizer = case.ours(params, lr=case.lr, backend=backend, **flags)
    grads = [torch.randn_like(p) for p in params]
    before = [g.clone() for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = g
    versions = [g._version for g in grads]
    optimizer.step(**feed(optimizer, 0))
    optimizer.step(**feed(optimizer, 1))
    assert all(p.grad is g for p, g in zip(params, grads, strict=True))
    assert all(torch.equal(g, b) for g, b in zip(grads, before, strict=True))
    assert versions == [g._version for g in grads]


@ROWS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_foreach_equals_eager_within_the_rounding_of_the_dtype(case, flags, dtype):
    shapes = sorted(set(case.shapes))  # a batch of equal matrices rounds otherwise; linalg's tests bound that
    a, b = parameters(shapes, dtype), parameters(shapes, dtype)
    scale = {"eps": 1e-3} if dtype == torch.float16 and "eps" not in flags and "eps" in case.ours.hypers else {}
    walk(case.ours(a, lr=case.lr, backend="eager", **flags, **scale), a, 5)
    walk(case.ours(b, lr=case.lr, backend="foreach", **flags, **scale), b, 5)
    assert distance(a, b) <= 64 * torch.finfo(dtype).eps


@DEFAULTS
def test_serves_with_torchs_schedulers(case):
    ours, theirs = parameters(case.shapes), parameters(case.shapes)
    a, b = case.ours(ours, lr=case.lr), case.reference(theirs, lr=case.lr)
    for optimizer, params in ((a, ours), (b, theirs)):
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=0.1,
            total_steps=20,
            cycle_momentum=case.name != "RMSprop" and "betas" in optimizer.defaults,
        )
        for step in range(20):
            walk(optimizer, params, 1, start=step)
            scheduler.step()
    assert distance(ours, theirs) < 1e-10


@DEFAULTS
@ON_BACKENDS
def test_a_learning_rate_may_be_a_tensor(case, backend):
    a, b = parameters(case.shapes), parameters(case.shapes)
    walk(case.ours(a, lr=torch.tensor(case.lr, dtype=torch.float64), backend=backend), a, 5)
    walk(case.ours(b, lr=case.lr, backend=backend), b, 5)
    assert distance(a, b) == 0


@pytest.mark.parametrize("case", [c for c in CASES if c.alone], ids=name)
@ON_BACKENDS
def test_groups_have_their_own_hyperparameters(case, backend):
    together, apart = parameters(case.shapes), parameters(case.shapes)
    groups = [{"params": together[:2], "lr": 0.1}, {"params": together[2:], "weight_decay": 0.5}]
    optimizer = case.ours(groups, lr=case.lr, backend=backend)
    first = case.ours(apart[:2], lr=0.1, backend=backend)
    second = case.ours(apart[2:], lr=case.lr, weight_decay=0.5, backend=backend)
    for step in range(5):
        for params in (together, apart):
            generator = torch.Generator().manual_seed(step)
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for each in (optimizer, first, second):
            each.step(**feed(each, step))
    assert distance(together, apart) == 0


@DEFAULTS
@ON_BACKENDS
def test_a_parameter_without_gradient_is_left_alone_and_counts_its_own_steps(case, backend):
    ours, theirs = parameters(case.shapes), parameters(case.shapes)
    a, b = case.ours(ours, lr=case.lr, backend=backend), case.reference(theirs, lr=case.lr)
    for step in range(6):
        for params in (ours, theirs):
            generator = torch.Generator().manual_seed(step)
            for i, p in enumerate(params):
                p.grad = None if (i + step) % 3 == 0 else torch.randn(p.shape, generator=generator, dtype=p.dtype)
        a.step(**feed(a, step))
        b.step(**feed(b, step))
    assert distance(ours, theirs) < 1e-12


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "Muon"], ids=name)
@ON_BACKENDS
def test_complex_parameters_move_as_pairs_of_real_ones(case, backend):
    ours, theirs = parameters([(4, 3)], torch.complex128), parameters([(4, 3)], torch.complex128)
    walk(case.ours(ours, lr=case.lr, backend=backend), ours, 5)
    walk(case.reference(theirs, lr=case.lr), theirs, 5)
    assert distance(ours, theirs) < 1e-12


@DEFAULTS
@ON_BACKENDS
def test_closures_and_hooks_are_called(case, backend):
    params = parameters(case.shapes)
    optimizer = case.ours(params, lr=case.lr, backend=backend)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def closure():
        optimizer.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        calls.append("closure")
        return loss

    before = closure().item()
    feed(optimizer, 0)
    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses[0] == pytest.approx(before)
    assert losses[2] < before
    assert calls == ["closure", *["before", "closure", "after"] * 3]


@DEFAULTS
def test_non_contiguous_and_channels_last_parameters(case):
    ours, theirs = parameters([(6, 4, 3, 3)]), parameters([(6, 4, 3, 3)])
    for params in (ours, theirs):
        params[0].data = params[0].data.to(memory_format=torch.channels_last)
        params.append(torch.nn.Parameter(torch.arange(12.0, dtype=torch.float64).view(3, 4).t()))
    reference = functools.partial(case.ours, backend="eager") if case.name == "Muon" else case.reference
    walk(case.ours(ours, lr=case.lr, backend="foreach"), ours, 5)  # torch's Muon takes no kernels
    walk(reference(theirs, lr=case.lr), theirs, 5)
    assert distance(ours, theirs) < 1e-12
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


@DEFAULTS
def test_named_parameters_keep_their_names(case):
    params = parameters(case.shapes)
    optimizer = case.ours([(f"p{i}", p) for i, p in enumerate(params)], lr=case.lr)
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == [f"p{i}" for i in range(len(params))]


@DEFAULTS
def test_add_param_group_is_all_or_nothing(case):
    params = parameters(case.shapes)
    optimizer = case.ours(params[:1], lr=case.lr)
    with pytest.raises(ValueError, match="lr=-1"):
        optimizer.add_param_group({"params": params[1:], "lr": -1})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": params[1:], "lr": 0.5})
    walk(optimizer, params, 1)


@DEFAULTS
@ON_BACKENDS
def test_nothing_over_nothing_is_no_nan(case, backend):
    params = parameters(case.shapes)
    with torch.no_grad():
        params[0].zero_()
    optimizer = case.ours(params, lr=case.lr, backend=backend)
    for step in range(3):
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step(**feed(optimizer, step))
    assert all(p.isfinite().all() for p in params)


@DEFAULTS
def test_descends_a_quadratic(case):
    params = [torch.nn.Parameter(torch.full((4, 4), 2.0))]
    optimizer = case.ours(params, lr=case.downhill)
    for step in range(200):
        optimizer.zero_grad()
        loss = (params[0] ** 2).sum()
        loss.backward()
        optimizer.step(**dict.fromkeys(feed(optimizer, step), loss))  # all that a step is given here is the loss
    assert (params[0] ** 2).sum() < 1


WRONG = [
    ("SGD", {"lr": -1}, r"lr=-1: expected a number in \[0, ∞\)"),
    ("SGD", {"lr": float("nan")}, "lr=nan"),
    ("SGD", {"lr": "fast"}, "lr='fast'"),
    ("SGD", {"momentum": -0.1}, "momentum=-0.1"),
    ("SGD", {"nesterov": True}, "nesterov=.*momentum > 0"),
    ("SGD", {"momentum": 0.9, "dampening": 0.1, "nesterov": True}, "nesterov=.*dampening = 0"),
    ("RMSprop", {"alpha": -1.0}, "alpha=-1.0"),
    ("RMSprop", {"centered": "yes"}, "centered='yes': expected True or False"),
    ("Adam", {"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\): expected 2 numbers in \[0, 1\)"),
    ("Adam", {"betas": 0.9}, "betas=0.9: expected 2 numbers"),
    ("Adam", {"betas": (0.9,)}, "expected 2 numbers"),
    ("Adam", {"eps": -1e-8}, "eps=-1e-08"),
    ("Rprop", {"etas": (0.5, 0.9)}, r"etas=\(0.5, 0.9\): expected η⁻ < 1 < η⁺"),
    ("AdaBound", {"final_lr": 0.0}, r"final_lr=0.0: expected a number in \(0, ∞\)"),
    ("ADOPT", {"eps": 0.0}, "eps=0.0"),
    ("Lion", {"betas": (0.9, 1.0)}, "betas"),
    ("QHAdam", {"nus": (0.7, 1.5)}, "nus"),
    ("Adan", {"betas": (0.9, 0.9)}, "expected 3 numbers"),
    ("AdEMAMix", {"betas": (0.0, 0.9, 0.99), "beta3_warmup": 10.0}, "β₁ and β₃ above 0 where beta3_warmup is on"),
    ("SimplifiedAdEMAMix", {"betas": (0.0, 0.9), "beta1_warmup": 10.0}, "β₁ above 0 where beta1_warmup is on"),
    ("AccSGD", {"xi": 40.0}, "xi=40.0: expected a number of at most √kappa"),
    ("Adai", {"eps": 0.0}, "eps=0.0"),
    ("AdamC", {"max_lr": 0.0}, "max_lr=0.0"),
    ("SGDP", {"momentum": 1.0}, "momentum=1.0"),
    ("AdamW", {"weight_decay": -0.1}, "weight_decay=-0.1"),
    ("AdamW", {"backend": "cuda"}, "backend='cuda': expected one of 'auto', 'triton', 'cpu', 'foreach', 'eager'"),
    ("AdamW", {"foreach": True, "fused": True}, "fused=True"),
    ("AdamW", {"backend": "eager", "foreach": True}, "backend='eager'"),
    ("AdamW", {"capturable": True}, "capturable=True"),
    ("AdamW", {"differentiable": True}, "differentiable=True"),
    ("Muon", {"adjust_lr_fn": "other"}, "adjust_lr_fn='other': expected one of None, 'original', 'match_rms_adamw'"),
    ("Muon", {"ns_steps": 2.5}, "ns_steps=2.5"),
    ("Muon", {"ns_steps": 100}, "ns_steps=100"),
]


@pytest.mark.parametrize(("optimizer", "flags", "message"), WRONG)
def test_bad_values_get_one_error_that_names_them(optimizer, flags, message):
    params = parameters([(3, 3)])
    with pytest.raises(ValueError, match=message):
        getattr(thalweg, optimizer)(params, **{"lr": 0.1, **flags})


def test_an_argument_that_does_not_exist_is_named():
    with pytest.raises(TypeError, match="lrr"):
        thalweg.AdamW(parameters([(3,)]), lrr=0.1)


def test_a_module_is_answered_with_what_to_pass():
    with pytest.raises(ValueError, match=r"model\.parameters\(\)"):
        thalweg.AdamW(torch.nn.Linear(2, 2))


def test_a_sparse_gradient_is_answered_with_what_to_use():
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    optimizer = thalweg.AdamW(table.parameters())
    with pytest.raises(ValueError, match="SparseAdam"):
        optimizer.step()
    assert not optimizer.state


def test_a_group_changed_to_a_bad_value_is_refused_before_anything_moves():
    params = parameters([(3,)])
    before = params[0].detach().clone()
    optimizer = thalweg.AdamW(params)
    optimizer.param_groups[0]["betas"] = (0.9, 2.0)
    params[0].grad = torch.ones_like(params[0])
    with pytest.raises(ValueError, match="betas"):
        optimizer.step()
    assert torch.equal(params[0], before)
    assert not optimizer.state


def test_adamw_stays_adamw_when_it_loads_adams_checkpoint():
    params, others = parameters([(3,)]), parameters([(3,)])
    adam = thalweg.Adam(params, lr=0.1, weight_decay=0.1)
    walk(adam, params, 2)
    adamw = thalweg.AdamW(others, lr=0.1)
    adamw.load_state_dict(adam.state_dict())
    assert adamw.param_groups[0]["decoupled_weight_decay"] is True


def test_torchs_spellings_of_the_backend():
    params = parameters([(3,)])
    assert "backend: foreach, as asked" in repr(thalweg.AdamW(params, foreach=True))
    assert "backend: eager, as asked" in repr(thalweg.AdamW(params, foreach=False))
    assert "backend: cpu, the fastest" in repr(thalweg.AdamW(params, fused=True))
