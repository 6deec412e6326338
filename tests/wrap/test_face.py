"""A wrapper is a `torch.optim.Optimizer`: groups, checkpoints, copies, hooks, schedulers, scaler; around any other."""

import copy
import inspect
import io
import pickle
import re

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import thalweg
from tests.wrap.fixtures import closure, far, loss, start, walk
from thalweg.wrap.wrapper import layers

WRAPPERS = {
    "Lookahead": lambda inner: thalweg.Lookahead(inner, k=3),
    "SAM": lambda inner: thalweg.SAM(inner, rho=0.2),
    "ASAM": lambda inner: thalweg.ASAM(inner),
    "EMA": lambda inner: thalweg.EMA(inner, decay=0.7),
    "Mechanic": lambda inner: thalweg.Mechanic(inner, s_init=1e-2),
    "GPA": lambda inner: thalweg.GPA(inner, mu_x=0.7),
    "EMANesterov": lambda inner: thalweg.EMANesterov(inner, beta=0.5, decay=0.5),
    "SNOO": lambda inner: thalweg.SNOO(inner, k=2),
    "nested": lambda inner: thalweg.EMA(thalweg.Lookahead(thalweg.SAM(inner), k=2), decay=0.7),
}
INNER = {
    "thalweg AdamW": lambda ps: thalweg.AdamW(ps, lr=0.1),
    "thalweg SGD": lambda ps: thalweg.SGD(ps, lr=0.1),
    "thalweg AdamW int8": lambda ps: thalweg.AdamW(ps, lr=0.1, state_dtype="int8"),
    "torch AdamW": lambda ps: torch.optim.AdamW(ps, lr=0.1),
    "torch SGD": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
}
each = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
around = pytest.mark.parametrize("make", INNER.values(), ids=INNER.keys())


@each
@around
def test_it_is_an_optimizer_with_the_groups_and_the_state_of_the_inner_one(wrap, make):
    params = start()
    inner = make(params)
    optimizer = wrap(inner)
    walk(optimizer, params, range(2))
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups is inner.param_groups
    assert all(inner.state[p].items() <= optimizer.state[p].items() for p in params if p in inner.state)
    assert inner.defaults.items() <= optimizer.defaults.items()
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)
    assert repr(inner) in repr(optimizer)


@each
@around
def test_it_changes_the_trajectory_or_keeps_something(wrap, make):
    plain, wrapped = start(), start()
    walk(make(plain), plain, range(6))
    optimizer = wrap(make(wrapped))
    walk(optimizer, wrapped, range(6))
    if isinstance(optimizer, thalweg.EMA) and not isinstance(optimizer.optimizer, thalweg.Lookahead):
        assert far(plain, wrapped) == 0
        with optimizer.swap():
            assert far(plain, wrapped) > 1e-3
    else:
        assert far(plain, wrapped) > 1e-3


@each
@around
def test_resume_equals_no_interruption(wrap, make):
    params, again = start(), start()
    walk(wrap(make(params)), params, range(11))
    first = wrap(make(again))
    walk(first, again, range(5))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = wrap(make(again))
    second.load_state_dict(torch.load(file, weights_only=True))
    walk(second, again, range(5, 11))
    assert far(params, again) == 0
    one, two = (opt.state_dict() for opt in (first, second))
    assert [sorted(s) for s in one["state"].values()] == [sorted(s) for s in two["state"].values()]


@each
@around
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_training_the_same(wrap, make, copier):
    params = start()
    optimizer = wrap(make(params))
    walk(optimizer, params, range(5))
    twin, their_params = copier((optimizer, params))
    assert twin.param_groups is not optimizer.param_groups
    assert repr(twin) == repr(optimizer)
    walk(optimizer, params, range(5, 9))
    walk(twin, their_params, range(5, 9))
    assert far(params, their_params) == 0


@each
@around
def test_checkpoints_load_without_the_wrapper_and_into_it(wrap, make):
    params = start()
    optimizer = wrap(make(params))
    walk(optimizer, params, range(5))
    saved = copy.deepcopy(optimizer.state_dict())
    bare = make(params)
    bare.load_state_dict(saved)
    walk(bare, params, range(5, 7))
    again = wrap(make(params))
    again.load_state_dict(copy.deepcopy(bare.state_dict()))
    again.load_state_dict(make(start()).state_dict())  # nothing was saved: everything begins
    assert not again.kept
    walk(again, params, range(7, 9))


@each
@around
def test_schedulers_move_the_inner_learning_rate(wrap, make):
    params = start()
    inner = make(params)
    optimizer = wrap(inner)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.3, total_steps=6)
    rates = []
    for t in range(5):
        walk(optimizer, params, [t])
        rates.append(inner.param_groups[0]["lr"])
        scheduler.step()
    assert len(set(rates)) == 5
    assert scheduler.get_last_lr()[0] == inner.param_groups[0]["lr"]


@each
@around
def test_hooks_are_called_around_the_step_and_checkpoints(wrap, make):
    params = start()
    optimizer = wrap(make(params))
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.register_state_dict_pre_hook(lambda _: calls.append("saving"))
    optimizer.register_state_dict_post_hook(lambda _, saved: {**saved, "note": "mine"})
    optimizer.register_load_state_dict_pre_hook(lambda _, saved: calls.append(saved["note"]))
    optimizer.register_load_state_dict_post_hook(lambda _: calls.append("loaded"))
    walk(optimizer, params, [0])
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls == ["before", "after", "saving", "mine", "loaded"]


@each
@around
def test_a_closure_gives_its_loss_and_has_gradients_on(wrap, make):
    params = start()
    optimizer = wrap(make(params))
    with torch.no_grad():
        before = loss(params, 0).item()
        value = optimizer.step(closure(optimizer, params, 0))
    assert value.item() == pytest.approx(before)


@pytest.mark.parametrize("name", ["Lookahead", "EMA", "Mechanic", "GPA", "EMANesterov", "SNOO"])
@around
def test_without_a_closure_it_uses_the_gradients_that_are_there(name, make):
    called, given = start(), start()
    walk(WRAPPERS[name](make(called)), called, range(5))
    optimizer = WRAPPERS[name](make(given))
    for t in range(5):
        optimizer.zero_grad()
        loss(given, t).backward()
        assert optimizer.step() is None
    assert far(called, given) == 0


@each
@around
def test_groups_can_be_added_and_are_all_or_nothing(wrap, make):
    params = start()
    optimizer = wrap(make(params[:1]))
    outer = type(optimizer)
    bad = {"EMA": {"ema_decay": 1.5}, "Lookahead": {"lookahead_k": 0}, "SAM": {"sam_rho": -1}, "ASAM": {"asam_eta": -1}}
    if wrong := bad.get(outer.__name__):
        key, value = next(iter(wrong.items()))
        with pytest.raises(ValueError, match=re.escape(f"{key}={value}")):
            optimizer.add_param_group({"params": params[1:], **wrong})
        assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": params[1:], "lr": 0.05})
    before = [p.detach().clone() for p in params]
    walk(optimizer, params, range(3))
    assert all(not torch.equal(p, b) for p, b in zip(params, before, strict=True))
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.05]


def test_groups_have_their_own_values():
    params = start()
    optimizer = thalweg.Lookahead(thalweg.SGD([{"params": [p]} for p in params], lr=0.1), k=2)
    optimizer.param_groups[1]["lookahead_k"] = 100
    optimizer.param_groups[2]["lookahead_alpha"] = 1.0
    plain = start()
    bare = thalweg.SGD(plain, lr=0.1)
    grads = [torch.ones_like(p) for p in params]
    for optimizer_, ps in ((optimizer, params), (bare, plain)):
        for _ in range(2):
            for p, g in zip(ps, grads, strict=True):
                p.grad = g.clone()
            optimizer_.step()
    assert far(params[:1], plain[:1]) > 1e-3
    assert far(params[1:], plain[1:]) == 0


@pytest.mark.parametrize("name", ["Lookahead", "EMA", "Mechanic", "GPA", "EMANesterov", "SNOO"])
def test_a_scaled_step_is_the_step_and_one_that_is_not_finite_is_skipped(name):
    scaled, plain = start(), start()
    a, b = (WRAPPERS[name](thalweg.AdamW(ps, lr=0.1)) for ps in (scaled, plain))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for t, factor in enumerate([1.0, 1.0, float("inf"), 1.0, 1.0]):
        a.zero_grad()
        scaler.scale(loss(scaled, t) * factor).backward()
        scaler.step(a)
        scaler.update()
        if factor == 1.0:
            b.zero_grad()
            loss(plain, t).backward()
            b.step()
    assert far(scaled, plain) < 1e-12


def test_the_scaler_undoes_an_ascent_whose_gradient_is_not_finite():
    params, plain = start(), start()
    optimizer, other = (thalweg.SAM(thalweg.AdamW(ps, lr=0.1)) for ps in (params, plain))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for t, (first, second) in enumerate([(1.0, 1.0), (float("inf"), 1.0), (1.0, float("nan")), (1.0, 1.0)]):
        optimizer.zero_grad()
        scaler.scale(loss(params, t) * first).backward()
        optimizer.first_step(zero_grad=True)
        scaler.scale(loss(params, t) * second).backward()
        scaler.step(optimizer)
        scaler.update()
        if first == second:
            walk(other, plain, [t])
        assert far(params, plain) < 1e-12
    assert scaler.get_scale() == 2.0


def test_an_ascent_that_no_step_followed_is_taken_back_by_the_next():
    params, plain = start(), start()
    optimizer, other = (thalweg.SAM(thalweg.AdamW(ps, lr=0.1)) for ps in (params, plain))
    loss(params, 0).backward()
    optimizer.first_step(zero_grad=True)
    assert far(params, plain) > 1e-3
    loss(plain, 0).backward()
    for p, q in zip(params, plain, strict=True):
        p.grad = q.grad.clone()
    optimizer.first_step()
    other.first_step()
    assert far(params, plain) == 0


@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_narrow_parameters_are_averaged_in_float32(wrap, dtype):
    params = start(dtype)
    optimizer = wrap(thalweg.AdamW(params, lr=0.1))
    walk(optimizer, params, range(6))
    kept = [x for mine in optimizer.kept.values() for x in mine.values()]
    assert all(x.dtype == torch.float32 for x in kept)
    assert all(p.dtype == dtype and p.isfinite().all() for p in params)
    again = wrap(thalweg.AdamW(params, lr=0.1))
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert all(torch.equal(x, y) for p in params for x, y in zip(
        optimizer.kept[p].values(), again.kept[p].values(), strict=True
    ))  # fmt: skip


def test_a_mean_in_bfloat16_does_not_stand_still():
    p = torch.nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = thalweg.EMA(thalweg.SGD([p], lr=0.0), decay=0.999)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    p.data.fill_(2.0)
    for _ in range(1000):
        optimizer.step()
    assert optimizer.kept[p]["mean"][0].item() == pytest.approx(2 - 0.999**1000, rel=1e-3)


def test_bits_below_a_parameter_do_not_outlive_what_they_belong_to():
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = thalweg.Lookahead(thalweg.SGD([p], lr=1e-3, master="split16"), k=3, alpha=0.5)
    for _ in range(3):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert not optimizer.state[p]["master_bits"].any()


@around
def test_parameters_without_gradients_are_left_alone(make):
    for wrap in (WRAPPERS[name] for name in ("Lookahead", "EMA", "Mechanic", "GPA", "EMANesterov", "SNOO")):
        params = start()
        optimizer = wrap(make(params))
        before = params[1].detach().clone()
        for t in range(4):
            optimizer.zero_grad()
            loss(params, t).backward()
            params[1].grad = None
            optimizer.step()
        assert torch.equal(params[1], before)
        assert params[1] not in optimizer.kept
        walk(optimizer, params, range(4, 8))
        assert not torch.equal(params[1], before)


@each
def test_complex_parameters(wrap):
    z = torch.nn.Parameter(torch.randn(3, dtype=torch.complex128))
    optimizer = wrap(thalweg.AdamW([z], lr=0.1))

    def call():
        optimizer.zero_grad()
        value = (z * z.conj()).real.sum()
        value.backward()
        return value

    losses = [optimizer.step(call).item() for _ in range(8)]
    assert losses[-1] < losses[0]


def test_lbfgs_serves_with_its_closure():
    params = start()
    optimizer = thalweg.Lookahead(torch.optim.LBFGS(params, lr=0.5, line_search_fn="strong_wolfe"), k=2)
    losses = [optimizer.step(closure(optimizer, params, 0)).item() for _ in range(5)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["Lookahead", "EMA", "Mechanic", "EMA of Lookahead"])
@pytest.mark.parametrize("make", [thalweg.MoMo, thalweg.MoMoAdam])
def test_one_that_looks_at_the_loss_is_told_it(name, make):
    wrap = WRAPPERS.get(name, lambda inner: thalweg.EMA(thalweg.Lookahead(inner, k=3)))
    called, given, before = start(), start(), start()
    walk(wrap(make(called, lr=0.1)), called, range(5))
    optimizer = wrap(make(given, lr=0.1))
    for t in range(5):
        optimizer.zero_grad()
        value = loss(given, t)
        value.backward()
        optimizer.step(loss=value)
        assert optimizer.param_groups[0]["loss"] == value.item()
    assert far(called, given) == 0
    assert far(called, before) > 0


@pytest.mark.parametrize("name", ["SAM", "ASAM"])
@pytest.mark.parametrize("between", [lambda inner: inner, thalweg.EMA], ids=["", "EMA"])
def test_within_sam_the_loss_is_that_of_the_point_whose_gradient_is_taken(name, between):
    called, given, before = start(), start(), start()
    optimizer = WRAPPERS[name](between(thalweg.MoMo(called)))
    walk(optimizer, called, [0])
    other = WRAPPERS[name](between(thalweg.MoMo(given)))
    loss(given, 0).backward()
    other.first_step(zero_grad=True)
    above = loss(given, 0)
    above.backward()
    other.step(loss=above)
    assert optimizer.param_groups[0]["loss"] == above.item() != loss(before, 0).item()
    assert far(called, given) == 0


@pytest.mark.parametrize("name", ["Lookahead", "EMA", "Mechanic", "GPA", "EMANesterov", "SNOO"])
def test_what_the_inner_step_does_not_take_is_refused(name):
    params = start()
    optimizer = WRAPPERS[name](torch.optim.SGD(params, lr=0.1))
    loss(params, 0).backward()
    with pytest.raises(TypeError, match="loss"):
        optimizer.step(loss=1.0)


def test_swap_gives_back_what_was_there_also_after_an_error():
    params = start(torch.float32)
    optimizer = thalweg.EMA(thalweg.AdamW(params, lr=0.1), decay=0.5)
    walk(optimizer, params, range(4))
    before = [p.detach().clone() for p in params]
    means = [optimizer.kept[p]["mean"].clone() for p in params]

    def fails():
        with optimizer.swap():
            assert all(torch.equal(p, m) for p, m in zip(params, means, strict=True))
            assert all(torch.equal(optimizer.kept[p]["mean"], m) for p, m in zip(params, means, strict=True))
            with pytest.raises(RuntimeError, match="within swap"), optimizer.swap():
                pass
            with pytest.raises(RuntimeError, match="within swap"):
                optimizer.step()
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    walk(optimizer, params, [4])


def test_swap_before_the_first_step_changes_nothing():
    params = start()
    before = [p.detach().clone() for p in params]
    with thalweg.EMA(thalweg.SGD(params)).swap():
        assert far(params, before) == 0


def test_signatures_can_be_read():
    parameters = inspect.signature(thalweg.Lookahead).parameters
    assert {name: p.default for name, p in parameters.items()} == {"optimizer": inspect._empty, "k": 5, "alpha": 0.5}
    assert list(inspect.signature(thalweg.ASAM).parameters) == ["optimizer", "rho", "eta"]


def test_a_constructor_of_its_own_shows_its_own_signature():
    class Slow(thalweg.Lookahead):
        def __init__(self, optimizer, k=20):
            super().__init__(optimizer, k=k, alpha=0.25)

    assert list(inspect.signature(Slow).parameters) == ["optimizer", "k"]
    assert Slow(thalweg.SGD(start())).given == {"k": 20, "alpha": 0.25}


WRONG = [
    (thalweg.Lookahead, {"k": 0}, r"k=0: expected a number in \[1, ∞\)"),
    (thalweg.Lookahead, {"k": 2.5}, "k=2.5: expected an integer"),
    (thalweg.Lookahead, {"alpha": 0.0}, r"alpha=0.0: expected a number in \(0, 1\]"),
    (thalweg.SAM, {"rho": -0.1}, "rho=-0.1"),
    (thalweg.ASAM, {"eta": -0.1}, "eta=-0.1"),
    (thalweg.EMA, {"decay": 1.0}, r"decay=1.0: expected a number in \[0, 1\)"),
    (thalweg.EMA, {"bias_correction": "yes"}, "bias_correction='yes': expected True or False"),
    (thalweg.Mechanic, {"s_init": 0.0}, "s_init=0.0"),
    (thalweg.Mechanic, {"num_betas": 0}, "num_betas=0"),
    (thalweg.Mechanic, {"s_decay": float("nan")}, "s_decay=nan"),
]


@pytest.mark.parametrize(("make", "flags", "message"), WRONG)
def test_bad_values_are_named_before_anything_changes(make, flags, message):
    inner = thalweg.SGD(start())
    before = dict(inner.param_groups[0])
    with pytest.raises(ValueError, match=message):
        make(inner, **flags)
    assert inner.param_groups[0] == before


@pytest.mark.parametrize("make", [thalweg.Lookahead, thalweg.SAM, thalweg.ASAM, thalweg.EMA, thalweg.Mechanic])
def test_what_cannot_be_wrapped_is_said(make):
    with pytest.raises(ValueError, match="optimizer='AdamW': expected an instance of"):
        make(torch.optim.AdamW)
    with pytest.raises(ValueError, match=f"expected one without {make.__name__} in it"):
        make(thalweg.EMA(make(thalweg.SGD(start())))) if make is not thalweg.EMA else make(make(thalweg.SGD(start())))
    fused = thalweg.SGD(start())
    fused.fuse_into_backward()
    with pytest.raises(ValueError, match="inside backward"):
        make(fused)
    with pytest.raises(TypeError, match="kk"):
        make(thalweg.SGD(start()), kk=3)


@each
def test_updates_that_are_fused_into_backward_after_wrapping_are_said(wrap):
    params = start()
    inner = thalweg.AdamW(params, lr=0.1)
    optimizer = wrap(inner)
    inner.fuse_into_backward()
    with pytest.raises(ValueError, match="optimizer='AdamW': expected one that updates in step"):
        optimizer.step(closure(optimizer, params, 0))
    assert not optimizer.kept
    with pytest.raises(ValueError, match="expected one that updates in step"):
        thalweg.Mechanic(optimizer) if not isinstance(optimizer, thalweg.Mechanic) else thalweg.EMA(optimizer)


def test_sam_without_a_closure_or_an_ascent_is_told_what_to_do():
    with pytest.raises(ValueError, match="closure=None"):
        thalweg.SAM(thalweg.SGD(start())).step()


def test_a_group_changed_to_a_bad_value_is_refused_before_anything_moves():
    params = start()
    optimizer = thalweg.Lookahead(thalweg.SGD(params))
    before = [p.detach().clone() for p in params]
    optimizer.param_groups[0]["lookahead_alpha"] = 2.0
    loss(params, 0).backward()
    with pytest.raises(ValueError, match="lookahead_alpha=2"):
        optimizer.step()
    assert far(params, before) == 0


def net_and(make, wrap):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    return net, wrap(make(net.parameters()))


@each
@pytest.mark.parametrize("make", [INNER["thalweg AdamW"], INNER["torch AdamW"]], ids=["ours", "torch's"])
@pytest.mark.parametrize("unused", [False, True])
def test_a_flattened_state_dict_loses_nothing(wrap, make, unused):
    """What `torch.distributed.checkpoint` flattens, it reads back by the names in ``optimizer.state``."""
    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    (net, optimizer), (again, other) = net_and(make, wrap), net_and(make, wrap)
    net[0].bias.requires_grad_(not unused)
    walk(optimizer, list(net.parameters()), range(3))
    net[0].bias.requires_grad_(True)
    saved = copy.deepcopy(get_optimizer_state_dict(net, optimizer, options=flat))
    set_optimizer_state_dict(again, other, saved, options=flat)
    again.load_state_dict(net.state_dict())
    for one, done in ((net, optimizer), (again, other)):
        walk(done, list(one.parameters()), range(3, 7))
    assert far(net.parameters(), again.parameters()) == 0


def test_a_checkpoint_that_lost_the_wrappers_tensors_is_said():
    params = start()
    optimizer = thalweg.Lookahead(thalweg.AdamW(params))
    walk(optimizer, params, range(2))
    saved = optimizer.state_dict()
    for kept in saved["state"].values():
        del kept["lookahead_slow"]
    with pytest.warns(match="has none of its tensors"):
        thalweg.Lookahead(thalweg.AdamW(start())).load_state_dict(saved)


@each
@around
def test_what_is_written_into_the_state_goes_where_it_belongs(wrap, make):
    """Lightning moves states to a device so: key by key."""
    params = start()
    optimizer = wrap(make(params))
    walk(optimizer, params, range(3))
    saved = copy.deepcopy(optimizer.state_dict())
    for p, state in optimizer.state.items():
        assert isinstance(state, dict)
        for key, x in state.items():
            if isinstance(x, torch.Tensor):
                state[key] = x.clone()
                assert optimizer.state[p][key] is state[key]
    assert same_saved(saved, optimizer.state_dict())
    number = len(optimizer.state)
    for p in list(optimizer.state):
        optimizer.state[p] = dict(optimizer.state[p])
    assert same_saved(saved, optimizer.state_dict())
    optimizer.state = copy.copy(dict(optimizer.state))
    assert same_saved(saved, optimizer.state_dict())
    assert len(optimizer.state) == number
    optimizer.state.clear()
    assert not any(len(one.state) or getattr(one, "kept", None) for one in layers(optimizer))


def same_saved(a, b):
    return all(
        torch.equal(x, y) if isinstance(x := kept[key], torch.Tensor) else x == y
        for number, kept in a["state"].items()
        for key, y in b["state"][number].items()
    ) and list(a["state"]) == list(b["state"])


def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_changes():
    params = start()
    optimizer = thalweg.Lookahead(thalweg.AdamW(params))
    walk(optimizer, params, range(2))
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["lookahead_slow"] = torch.zeros(7)
    kept, state = optimizer.kept, optimizer.optimizer.state
    with pytest.raises(ValueError, match="lookahead_slow"):
        optimizer.load_state_dict(saved)
    assert optimizer.kept is kept
    assert optimizer.optimizer.state is state
    mechanic = thalweg.Mechanic(thalweg.AdamW(params), num_betas=3)
    walk(mechanic, params, range(2))
    with pytest.raises(ValueError, match="num_betas=6: expected 3"):
        thalweg.Mechanic(thalweg.AdamW(start())).load_state_dict(mechanic.state_dict())


@pytest.mark.parametrize("outer", [lambda ema: ema, lambda ema: thalweg.Lookahead(ema)], ids=["", "within Lookahead"])
def test_weights_that_are_swapped_out_do_not_get_lost_in_a_checkpoint_or_a_copy(outer):
    params = start()
    ema = thalweg.EMA(thalweg.AdamW(params, lr=0.1), decay=0.5)
    optimizer = outer(ema)
    walk(optimizer, params, range(3))
    saved = optimizer.state_dict()
    with ema.swap():
        for lose in (optimizer.state_dict, lambda: copy.deepcopy(optimizer), lambda: optimizer.load_state_dict(saved)):
            with pytest.raises(RuntimeError, match=r"within swap\(\): the parameters hold their means now"):
                lose()
    optimizer.load_state_dict(saved)


def test_weights_from_which_sam_has_climbed_do_not_get_lost_in_a_checkpoint():
    params = start()
    optimizer = thalweg.SAM(thalweg.SGD(params, lr=0.1))
    loss(params, 0).backward()
    optimizer.first_step()
    with pytest.raises(RuntimeError, match=r"between first_step\(\) and step\(\)"):
        optimizer.state_dict()
    optimizer.step()
    optimizer.state_dict()


@pytest.mark.parametrize("fused", [None, True])
def test_gradients_may_be_clipped_within_sams_closure(fused):
    """Lightning refuses where this is set; GradScaler needs it between the two steps."""
    params = start()
    optimizer = thalweg.SAM(thalweg.AdamW(params, lr=0.1, fused=fused))
    found = []

    def both():
        found.append(optimizer._step_supports_amp_scaling)
        return closure(optimizer, params, 0)()

    optimizer.step(both)
    assert found == [False, False]
    optimizer.first_step()
    assert optimizer._step_supports_amp_scaling


@pytest.mark.parametrize("name", ["Lookahead", "EMA", "Mechanic", "GPA", "EMANesterov", "SNOO"])
@pytest.mark.parametrize("after", ["step", "state_dict", "copy"])
def test_tensors_of_parameters_that_have_left_are_let_go(name, after):
    params = start()
    optimizer = WRAPPERS[name](thalweg.SGD([{"params": [p]} for p in params], lr=0.1))
    walk(optimizer, params, range(2))
    gone = optimizer.param_groups.pop()["params"][0]
    optimizer.param_groups[0]["params"] = [torch.nn.Parameter(torch.ones(3))]
    if after == "step":
        for p in (q for group in optimizer.param_groups for q in group["params"]):
            p.grad = torch.ones_like(p)
        optimizer.step()
    else:
        optimizer.state_dict() if after == "state_dict" else copy.deepcopy(optimizer)
    assert gone not in optimizer.kept
    assert params[0] not in optimizer.kept
    assert params[1] in optimizer.kept
