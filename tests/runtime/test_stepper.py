"""What happens around a step: closures, hooks, groups, hyperparameters that change, and what autograd asks."""

import gc
import warnings
import weakref
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import thalweg
from tests.fixtures import RULES, give, on_backends, same, snapshot, tensors, walk, with_rules
from thalweg.ir import trace
from thalweg.rule import Optimizer, hyper, ops, state
from thalweg.runtime.backends import select

pytestmark = pytest.mark.usefixtures("either_look")


@with_rules
@on_backends
def test_a_closure_is_called_once_with_grad_enabled_and_its_loss_returned(rule, backend):
    params = tensors((3, 2), ())
    optimizer = rule(params, backend=backend)
    seen = []

    def closure():
        seen.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert seen == [True]
    assert loss.requires_grad
    assert not same(params, tensors((3, 2), ()))


@on_backends
def test_what_a_removed_group_held_is_let_go_at_the_next_step(backend):
    params = tensors((3,), (4,))
    optimizer = thalweg.AdamW([{"params": params[:1]}, {"params": params[1:]}], backend=backend)
    walk(optimizer, params, range(2))
    gone = weakref.ref(params.pop())
    del optimizer.param_groups[1]
    for p in [p for p in optimizer.state if p is gone()]:
        del optimizer.state[p]
    del p
    walk(optimizer, params, range(2, 3))
    if gone() is not None:  # in a circle
        gc.collect()
    assert gone() is None


@on_backends
def test_step_hooks_of_the_optimizer_and_of_all_optimizers(backend):
    params = tensors((3,))
    optimizer = thalweg.AdamW(params, backend=backend)
    calls = []
    handles = [
        register_optimizer_step_pre_hook(lambda opt, args, kwargs: calls.append("all before")),
        register_optimizer_step_post_hook(lambda opt, args, kwargs: calls.append("all after")),
        optimizer.register_step_pre_hook(lambda opt, args, kwargs: calls.append("before")),
        optimizer.register_step_post_hook(lambda opt, args, kwargs: calls.append("after")),
    ]
    try:
        walk(optimizer, params, range(1))
        assert calls == ["all before", "before", "after", "all after"] or calls == [
            "before",
            "all before",
            "after",
            "all after",
        ]
    finally:
        for handle in handles:
            handle.remove()
    walk(optimizer, params, range(1))
    assert len(calls) == 4


@on_backends
def test_a_pre_hook_may_change_the_closure(backend):
    params = tensors((3,))
    optimizer = thalweg.AdamW(params, backend=backend)
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: (args, {"closure": lambda: 7.0}))
    assert optimizer.step() == 7.0


@with_rules
@on_backends
def test_a_group_may_be_added_after_steps(rule, backend):
    params, apart = tensors((3, 2), (4,)), tensors((3, 2), (4,))
    optimizer = rule(params[:1], backend=backend)
    first, second = rule(apart[:1], backend=backend), rule(apart[1:], backend=backend, lr=0.5)
    for step in range(4):
        if step == 2:
            optimizer.add_param_group({"params": params[1:], "lr": 0.5})
        give(params, step)
        give(apart, step)
        optimizer.step()
        first.step()
        if step >= 2:
            second.step()
    assert same(params, apart)


@on_backends
@pytest.mark.parametrize("size", [(), (1,)], ids=["0-dim", "one element"])
def test_a_learning_rate_tensor_may_change_in_place(backend, size):
    params, others = tensors((3, 2), dtype=torch.float64), tensors((3, 2), dtype=torch.float64)
    lr = torch.full(size, 0.1, dtype=torch.float64)
    a, b = thalweg.AdamW(params, lr=lr, backend=backend), thalweg.AdamW(others, lr=0.1, backend=backend)
    for step in range(4):
        lr.fill_(0.1 / (1 + step))
        b.param_groups[0]["lr"] = 0.1 / (1 + step)
        walk(a, params, [step])
        walk(b, others, [step])
    assert same(params, others)
    assert a.param_groups[0]["lr"] is lr


@on_backends
def test_a_scheduler_fills_a_learning_rate_tensor(backend):
    params, others = tensors((3, 2), dtype=torch.float64), tensors((3, 2), dtype=torch.float64)
    a = thalweg.AdamW(params, lr=torch.tensor(0.1, dtype=torch.float64), backend=backend)
    b = torch.optim.AdamW(others, lr=0.1)
    for optimizer, ps in ((a, params), (b, others)):
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for step in range(4):
            walk(optimizer, ps, [step])
            scheduler.step()
    assert same(params, others, within=1e-12)


@on_backends
def test_other_hyperparameters_may_be_tensors_or_lists_that_change_in_place(backend):
    params, others = tensors((3, 2), dtype=torch.float64), tensors((3, 2), dtype=torch.float64)
    a, b = thalweg.AdamW(params, backend=backend), thalweg.AdamW(others, backend=backend)
    betas = [0.9, 0.99]
    decay = torch.tensor(0.1, dtype=torch.float64)
    a.param_groups[0].update(betas=betas, weight_decay=decay)
    for step in range(3):
        betas[0] = 0.9 / (1 + step)
        decay.fill_(0.1 * (1 + step))
        b.param_groups[0].update(betas=(betas[0], 0.99), weight_decay=decay.item())
        walk(a, params, [step])
        walk(b, others, [step])
    assert same(params, others)


@on_backends
def test_a_changed_number_traces_and_compiles_nothing_anew(backend, monkeypatch):
    params = tensors((3, 2))
    optimizer = thalweg.AdamW(params, lr=0.1, backend=backend)
    walk(optimizer, params, range(2))
    traced, prepared = trace.trace.cache_info().misses, []
    monkeypatch.setattr(select, "prepare", lambda *args: prepared.append(args))
    for step in range(2, 6):
        optimizer.param_groups[0].update(
            lr=0.1 / step, betas=(0.9 - 0.01 * step, 0.99), eps=1e-8 * step, weight_decay=0.1 * step
        )
        walk(optimizer, params, [step])
    assert trace.trace.cache_info().misses == traced
    assert not prepared


@on_backends
@pytest.mark.parametrize(
    ("key", "value"), [("lr", -1.0), ("betas", (0.9, 1.5)), ("eps", float("nan")), ("weight_decay", "much")], ids=str
)
def test_a_number_out_of_range_is_refused_in_any_group_before_anything_moves(backend, key, value):
    params = tensors((3, 2), (4,))
    optimizer = thalweg.AdamW([{"params": params[:1]}, {"params": params[1:]}], backend=backend)
    walk(optimizer, params, range(2))
    before, state = [p.detach().clone() for p in params], snapshot(optimizer)
    old = optimizer.param_groups[1][key]
    optimizer.param_groups[1][key] = value
    give(params, 2)
    with pytest.raises(ValueError, match=key):
        optimizer.step()
    assert same(params, before)
    optimizer.param_groups[1][key] = old
    now = snapshot(optimizer)
    assert all(torch.equal(now[k][n], v) for k, s in state.items() for n, v in s.items())
    walk(optimizer, params, range(2, 4))


refusing = pytest.mark.parametrize("rule", [RULES["AdamW"], RULES["Lion"]], ids=["AdamW", "Lion"])


@refusing
@on_backends
def test_a_refused_first_step_leaves_no_trace(rule, backend):
    """A state that is begun and not used would make the next step not the first."""
    params, others = tensors((3, 2), (4,)), tensors((3, 2), (4,))
    optimizer = rule([{"params": params[:1]}, {"params": params[1:]}], backend=backend)
    give(params, 0)
    params[1].grad = torch.ones(4).to_sparse()
    with pytest.raises(ValueError, match=r"grad=torch.sparse_coo.*SparseAdam"):
        optimizer.step()
    assert not optimizer.state
    assert same(params, others)
    walk(optimizer, params, range(2))
    walk(rule([{"params": others[:1]}, {"params": others[1:]}], backend=backend), others, range(2))
    assert same(params, others)


@refusing
@on_backends
def test_a_sparse_gradient_between_steps_changes_nothing(rule, backend):
    params, others = tensors((3, 2), (4, 2)), tensors((3, 2), (4, 2))
    optimizer = rule(params, backend=backend)
    walk(optimizer, params, range(2))
    give(params, 5)
    params[1].grad = torch.ones(4, 2).to_sparse()
    with pytest.raises(ValueError, match="SparseAdam"):
        optimizer.step()
    walk(optimizer, params, range(2, 4))
    walk(rule(others, backend=backend), others, range(4))
    assert same(params, others)


@on_backends
@pytest.mark.parametrize(("name", "flags"), [
    ("SGD", {}), ("SGD", {"momentum": 0.9}), ("SGD", {"momentum": 0.9, "nesterov": True, "maximize": True}),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_gradients_lead_where_they_lead_in_torch(backend, name, flags):
    torch.manual_seed(0)
    tables = [torch.nn.Embedding(10, 4, sparse=True, dtype=torch.float64) for _ in range(2)]
    tables[1].load_state_dict(tables[0].state_dict())
    theirs = getattr(torch.optim, name)(tables[0].parameters(), lr=0.1, **flags)
    ours = getattr(thalweg, name)(tables[1].parameters(), lr=0.1, backend=backend, **flags)
    told = []
    for _ in range(5):
        rows, pull = torch.randint(0, 10, (6,)), torch.randn(6, 4, dtype=torch.float64)  # a row may come twice
        for table, optimizer in zip(tables, (theirs, ours), strict=True):
            optimizer.zero_grad()
            (table(rows) * pull).sum().backward()
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                optimizer.step()
            told += [str(one.message) for one in heard if "made dense" in str(one.message)]
    assert len(told) == 1
    assert same([tables[0].weight], [tables[1].weight], within=1e-12)
    assert tables[1].weight.grad.is_sparse


@on_backends
@pytest.mark.filterwarnings("ignore:a sparse gradient")
def test_sparse_and_dense_gradients_may_take_turns(backend):
    params, others = tensors((4, 2), (3,)), tensors((4, 2), (3,))
    a, b = (RULES["SGD"](ps, backend=backend) for ps in (params, others))
    for step in range(6):
        give(params, step)
        give(others, step)
        if step % 3:
            params[0].grad = params[0].grad.to_sparse()
        a.step()
        b.step()
    assert same(params, others)


@on_backends
def test_flags_may_change_between_steps(backend):
    params, others = tensors((3, 2), dtype=torch.float64), tensors((3, 2), dtype=torch.float64)
    a, b = thalweg.SGD(params, lr=0.1, backend=backend), torch.optim.SGD(others, lr=0.1)
    for step in range(6):
        for optimizer in (a, b):
            optimizer.param_groups[0].update(momentum=0.9 if step > 1 else 0.0, nesterov=step > 3, maximize=step == 5)
        walk(a, params, [step])
        walk(b, others, [step])
    assert same(params, others, within=1e-12)


# -- autograd -------------------------------------------------------------------------------------------------------


@with_rules
@on_backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
def test_a_step_between_forward_and_backward_trips_autograds_error(rule, backend, dtype):
    params = tensors((3, 2), (2, 2), dtype=dtype)
    params[1].data = params[1].data.t()
    optimizer = rule(params, backend=backend)
    for _ in range(2):
        losses = [(p * p).abs().sum() for p in params]
        give(params, 0)
        optimizer.step()
        for loss in losses:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()


@with_rules
@on_backends
def test_all_that_is_kept_may_be_replaced_at_once(rule, backend):
    params, fresh = tensors((3, 2), ()), tensors((3, 2), ())
    optimizer = rule(params, backend=backend)
    walk(optimizer, params, range(3))
    optimizer.state = defaultdict(dict)
    other = rule(fresh, backend=backend)
    with torch.no_grad():
        for p, q in zip(params, fresh, strict=True):
            q.copy_(p)
    walk(optimizer, params, range(3, 6))
    walk(other, fresh, range(3, 6))
    assert same(params, fresh)
    assert len(optimizer.state_dict()["state"]) == len(other.state_dict()["state"]) == 2


@on_backends
@pytest.mark.parametrize("name", ["Adan", "ADOPT", "NovoGrad", "SGD"])
@pytest.mark.parametrize("flag", [{"grokfast": 1e-30}, {"gradient_noise": 1e-30}, {"hyperball": True}], ids=str)
def test_what_surrounds_a_rule_begins_by_itself(name, flag, backend):
    """Turned on between steps it begins a state of its own, and is not the first step of the rule."""
    cls = getattr(thalweg, name)
    given = {"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {}
    params = tensors((), dtype=torch.float64)  # of no matrix does hyperball keep the norm
    others = tensors((), dtype=torch.float64)
    late, never = cls(params, lr=0.01, backend=backend, **given), cls(others, lr=0.01, backend=backend, **given)
    for optimizer, ps in ((late, params), (never, others)):
        walk(optimizer, ps, range(4))
    late.param_groups[0].update(flag)
    for optimizer, ps in ((late, params), (never, others)):
        walk(optimizer, ps, range(4, 7))
    assert same(params, others, within=1e-12)


@on_backends
def test_numbers_may_be_numpys(backend):
    params, others = tensors((3,)), tensors((3,))
    theirs = thalweg.AdamW(
        params, lr=np.float32(0.125), betas=(np.float64(0.5), np.float32(0.75)), weight_decay=np.int64(1),
        amsgrad=np.bool_(True), backend=backend,
    )  # fmt: skip
    ours = thalweg.AdamW(others, lr=0.125, betas=(0.5, 0.75), weight_decay=1, amsgrad=True, backend=backend)
    halved = torch.optim.lr_scheduler.LambdaLR(theirs, lambda epoch: np.float32(0.5) ** epoch)
    for step in range(3):
        ours.param_groups[0]["lr"] = 0.125 * 0.5**step
        walk(theirs, params, [step])
        walk(ours, others, [step])
        halved.step()
    assert same(params, others)
    with pytest.raises(ValueError, match="lr="):
        thalweg.AdamW(params, lr=np.float32(-1))
    with pytest.raises(ValueError, match="lr="):
        thalweg.AdamW(params, lr=np.ones(2))


@on_backends
def test_a_schedule_may_end_a_rounding_below_zero(backend):
    params, others = tensors((3,)), tensors((3,))
    ours, theirs = thalweg.AdamW(params, lr=0.1, backend=backend), torch.optim.AdamW(others, lr=0.1)
    linear = [torch.optim.lr_scheduler.LinearLR(o, 1 / 3, 0.0, 4) for o in (ours, theirs)]
    for step in range(6):
        walk(ours, params, [step])
        walk(theirs, others, [step])
        for scheduler in linear:
            scheduler.step()
    assert ours.param_groups[0]["lr"] < 0
    assert same(params, others, within=1e-6)
    ours.param_groups[0]["lr"] = -1e-3
    with pytest.raises(ValueError, match=r"lr=-0\.001"):
        walk(ours, params, [6])


@on_backends
def test_a_mean_of_which_nothing_is_kept_is_the_gradient(backend):
    """However much larger the last one was."""
    (p,) = tensors((1,))
    optimizer = thalweg.Adam([p], betas=(0.0, 0.999), backend=backend)
    for g in (1e4, 1e-5):
        p.grad = torch.full_like(p, g)
        optimizer.step()
    assert optimizer.state[p]["exp_avg"].item() == pytest.approx(1e-5, rel=1e-6)


class _Late(Optimizer):
    """A number of the host that there may not be."""

    lr: float = hyper(default=0.1, within="[0, ∞)")
    x: float = hyper(default=0.5, within="(-∞, ∞)")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", off=0)
    m: torch.Tensor = state()

    @staticmethod
    def direction(p, g, s, h):
        s.m = s.m + g
        return s.m * ops.sqrt(1 - h.x)


@on_backends
def test_a_number_that_cannot_be_computed_stops_a_step_before_anything_moves(backend):
    a, b = tensors((2,), (2,))
    before = a.detach().clone()
    optimizer = _Late([{"params": [a]}, {"params": [b], "x": 2.0}], backend=backend)
    give([a, b], 0)
    with pytest.raises(ValueError, match="math domain error"):
        optimizer.step()
    assert torch.equal(a, before)
    assert not optimizer.state


@on_backends
def test_a_parameter_without_gradient_keeps_its_version(backend):
    params = tensors((3, 2), (2,))
    optimizer = thalweg.AdamW(params, backend=backend)
    loss = (params[1] ** 2).sum()
    give(params[:1], 0)
    optimizer.step()
    loss.backward()


@on_backends
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_step_inside_any_grad_mode(backend, mode):
    params, others = tensors((3, 2), dtype=torch.bfloat16), tensors((3, 2), dtype=torch.bfloat16)
    optimizer = thalweg.AdamW(params, backend=backend, state_dtype="int8")
    for step in range(4):
        give(params, step)
        if step % 2:
            optimizer.step()
        else:
            with mode():
                optimizer.step()
    walk(thalweg.AdamW(others, backend=backend, state_dtype="int8"), others, range(4))
    assert same(params, others)
    (params[0] * 2).sum().backward()


@on_backends
def test_a_default_device_moves_no_state(backend):
    params = tensors((3, 2))
    with torch.device("meta"):
        optimizer = thalweg.AdamW(params, backend=backend)
        for p in params:
            p.grad = torch.ones(3, 2, device="cpu")
        optimizer.step()
        optimizer.step()
    assert {v.device.type for v in optimizer.state[params[0]].values()} == {"cpu"}
    assert float(optimizer.state[params[0]]["step"]) == 2


@with_rules
def test_backends_agree(rule):
    """Within the last bit of float32: each may contract a product and a sum, or not."""
    walked = []
    for backend in ("eager", "foreach", "cpu"):
        params = tensors((30, 7), (5,), ())
        walk(rule(params, backend=backend), params, range(5))
        walked.append(params)
    assert same(walked[0], walked[1], within=1e-5)
    assert same(walked[0], walked[2], within=1e-5)


def test_a_module_on_meta_is_answered_when_it_steps():
    net = nn.Linear(3, 2, device="meta")
    optimizer = thalweg.AdamW(net.parameters())
    net.to_empty(device="cpu")
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(1.0)
    params = list(net.parameters())
    assert params[0].device.type == "cpu"
    del optimizer
    optimizer = thalweg.AdamW(net.parameters())
    walk(optimizer, params, range(2))


@on_backends
def test_a_dropped_optimizer_frees_its_state_at_once(backend):
    params = tensors((3, 2))
    optimizer = thalweg.AdamW(params, backend=backend)
    walk(optimizer, params, range(2))
    repr(optimizer)
    kept = weakref.ref(optimizer.state[params[0]]["exp_avg"])
    del optimizer
    assert kept() is None


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["lr", "eps", "weight_decay", "betas", "clip_norm", "maximize", "initial_lr", "grokfast"]),
        st.sampled_from([0.0, 1e-3, 0.5, 1, None]),
    ),
    max_size=6,
)


@given(CHANGES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_that_changed_are_what_they_are_when_all_is_read_anew(changes):
    """Plain floats are taken over by themselves; whatever else changes, the whole group is read again."""

    def ends(forget):
        params, error = tensors((3,), (2, 2)), ""
        optimizer = thalweg.AdamW(params, lr=0.1)
        for name, value in [("lr", 0.1), *changes]:
            optimizer.param_groups[0][name] = (value, 0.9) if name == "betas" else value
            if forget:
                optimizer._stepper.forget()
            give(params, 1)
            try:
                optimizer.step()
            except (TypeError, ValueError) as refused:
                error = str(refused)
                break
        return error, [p.tolist() for p in params]

    assert ends(forget=False) == ends(forget=True)


def test_a_float_out_of_range_is_refused_when_it_alone_has_changed():
    params = tensors((3,))
    optimizer = thalweg.AdamW(params, lr=0.1)
    give(params, 0)
    optimizer.step()
    before = params[0].tolist()
    for bad in (-1.0, float("nan"), float("inf")):
        optimizer.param_groups[0]["lr"] = bad
        with pytest.raises(ValueError, match="lr="):
            optimizer.step()
    assert params[0].tolist() == before


@on_backends
@pytest.mark.parametrize("start", [np.array(0.1), torch.tensor(0.1)], ids=["numpy", "torch"])
@pytest.mark.parametrize("name", ["lr", "initial_lr", "betas"])
def test_whatever_may_change_in_place_is_read_at_each_step(name, start, backend):
    def run(make):
        params = tensors((3,), dtype=torch.float64)
        optimizer = thalweg.AdamW(params, lr=0.1, weight_decay=0.5, independent_weight_decay=True, backend=backend)
        given = start.copy() if isinstance(start, np.ndarray) else start.clone()
        for step in range(3):
            given[...] = 0.1 * (1 + step)
            if step == 0 or make is not None:
                value = given if make is None else make(given)
                optimizer.param_groups[0][name] = (value, 0.9) if name == "betas" else value
            walk(optimizer, params, [step])
        return params

    assert same(run(None), run(float), within=1e-6)


@on_backends
@pytest.mark.parametrize("count", [-1.0, -5.0, float("nan"), float("inf")])
def test_a_count_that_is_none_is_refused_before_anything_moves(count, backend):
    params = tensors((3,), (4,))
    optimizer = thalweg.AdamW([{"params": [p]} for p in params], backend=backend)
    walk(optimizer, params, [0])
    before = [p.detach().clone() for p in params]
    optimizer.state[params[1]]["step"].fill_(count)
    with pytest.raises(ValueError, match="state 'step'="):
        walk(optimizer, params, [1])
    assert same(params, before)
    optimizer.state[params[1]]["step"].fill_(1)
    walk(optimizer, params, [1])
    assert {float(s["step"]) for s in optimizer.state.values()} == {2.0}


@on_backends
def test_numbers_of_both_zeros_and_nan_make_no_batch_that_cannot_be(backend):
    params = tensors(*[(3,)] * 4)
    optimizer = thalweg.NAdam(params, backend=backend)
    walk(optimizer, params, [0])
    for p, x in zip(params, (0.0, -0.0, float("nan"), float("nan")), strict=True):
        optimizer.state[p]["mu_product"] = torch.tensor(x)
    walk(optimizer, params, [1])
    assert {float(s["step"]) for s in optimizer.state.values()} == {2.0}


@pytest.mark.parametrize(("owner", "name"), [(gc, "disable"), (torch._C, "_set_grad_enabled")])
def test_an_interrupt_leaves_on_what_was_on(owner, name, monkeypatch):
    """The signal of Ctrl-C is handled as soon as the call of a builtin function has returned."""
    params = tensors((3,))
    optimizer = thalweg.AdamW(params)
    give(params, 0)
    switch = getattr(owner, name)

    def interrupted(*given):
        monkeypatch.undo()
        switch(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    try:
        assert gc.isenabled()
        assert torch.is_grad_enabled()
    finally:
        gc.enable()
        torch.set_grad_enabled(True)
    optimizer.step()
    assert optimizer.state[params[0]]["step"] == 1
