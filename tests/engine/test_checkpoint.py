"""State that is saved, loaded, copied, moved or replaced: training goes on as if nothing had happened, or says why."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

import thalweg
from tests.fixtures import give, on_backends, same, snapshot, tensors, walk, with_rules
from thalweg.runtime.formats import Format

#: optimizers of both libraries with the same arguments
TWINS = [
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.3}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "centered": True}),
]
#: every way to keep numbers, with the parameters that it is for
STORAGES = [
    (torch.float32, {}),
    (torch.float64, {}),
    (torch.float32, {"state_dtype": "bfloat16"}),
    (torch.float32, {"state_dtype": "int8"}),
    (torch.bfloat16, {}),
    (torch.bfloat16, {"rounding": "stochastic"}),
    (torch.bfloat16, {"rounding": "stochastic", "state_dtype": "int8"}),
    (torch.bfloat16, {"master": "split8"}),
    (torch.bfloat16, {"master": "split16", "state_dtype": "bfloat16"}),
    (torch.float16, {"rounding": "stochastic", "state_dtype": "float32"}),
]
with_storages = pytest.mark.parametrize(("dtype", "storage"), STORAGES, ids=str)
SHAPES = ((5, 3), (), (0, 4), (200,))


def through_a_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@with_storages
@on_backends
def test_resume_equals_no_interruption_bit_for_bit(backend, dtype, storage):
    through, again = tensors(*SHAPES, dtype=dtype), tensors(*SHAPES, dtype=dtype)
    walk(thalweg.AdamW(through, backend=backend, seed=3, **storage), through, range(6))
    first = thalweg.AdamW(again, backend=backend, seed=3, **storage)
    walk(first, again, range(3))
    second = thalweg.AdamW(again, lr=1.0, backend=backend, **storage)
    second.load_state_dict(through_a_file(first.state_dict()))
    walk(second, again, range(3, 6))
    assert same(through, again)


@with_storages
def test_resume_keeps_other_layouts_bit_for_bit(dtype, storage):
    def params():
        (p,) = tensors((6, 4, 3, 3), dtype=dtype)
        p.data = p.data.to(memory_format=torch.channels_last)
        return [p, nn.Parameter(tensors((7, 5), dtype=dtype)[0].detach().t())]

    through, again = params(), params()
    walk(thalweg.AdamW(through, **storage), through, range(4))
    first = thalweg.AdamW(again, **storage)
    walk(first, again, range(2))
    second = thalweg.AdamW(again, **storage)
    second.load_state_dict(through_a_file(first.state_dict()))
    walk(second, again, range(2, 4))
    assert same(through, again)


@pytest.mark.parametrize("saved", STORAGES, ids=str)
@pytest.mark.parametrize("loading", STORAGES, ids=str)
def test_every_format_loads_into_every_other(saved, loading):
    (was, theirs), (now, ours) = saved, loading
    old, new = tensors((40, 5), dtype=was), tensors((40, 5), dtype=now)
    first, second = thalweg.AdamW(old, lr=0.01, **theirs), thalweg.AdamW(new, lr=0.01, **ours)
    walk(first, old, range(5))
    second.load_state_dict(through_a_file(first.state_dict()))
    fresh = tensors((40, 5), dtype=now)
    expected = thalweg.AdamW(fresh, lr=0.01, **ours)
    walk(expected, fresh, range(1))
    mine, like = second.state[new[0]], expected.state[fresh[0]]
    assert {k: (v.dtype, v.shape) for k, v in mine.items() if k != "master_bits"} == {
        k: (v.dtype, v.shape) for k, v in like.items() if k != "master_bits"
    }
    assert float(mine["step"]) == 5
    new[0].data.copy_(old[0].data)
    walk(first, old, range(5, 8))
    walk(second, new, range(5, 8))
    assert torch.allclose(old[0].double(), new[0].double(), atol=0.03, rtol=0.02)


def test_the_bits_below_a_parameter_survive_a_change_of_their_number():
    (p,) = tensors((1000,), dtype=torch.bfloat16)
    optimizer = thalweg.SGD([p], lr=1e-3, master="split16")
    walk(optimizer, [p], range(3))
    fine = optimizer.state[p]["master_bits"].clone()
    for master in ("split8", "split16"):
        other = thalweg.SGD([p], lr=1e-3, master=master)
        other.load_state_dict(optimizer.state_dict())
        optimizer = other
    assert (optimizer.state[p]["master_bits"].int() - fine.int()).abs().max() <= 255


@pytest.mark.parametrize(("name", "flags"), TWINS, ids=[n for n, _ in TWINS])
@on_backends
def test_checkpoints_cross_to_torch_and_back_with_names_and_hooks(backend, name, flags):
    def named(params):
        return [(f"p{i}", p) for i, p in enumerate(params)]

    ours, theirs = tensors(*SHAPES, dtype=torch.float64), tensors(*SHAPES, dtype=torch.float64)
    a = getattr(thalweg, name)(named(ours), backend=backend, **flags)
    b = getattr(torch.optim, name)(named(theirs), **flags)
    walk(a, ours, range(3))
    walk(b, theirs, range(3))
    mine, torchs = through_a_file(a.state_dict()), through_a_file(b.state_dict())
    assert mine["param_groups"][0]["param_names"] == torchs["param_groups"][0]["param_names"]
    a = getattr(thalweg, name)(named(ours), backend=backend, **flags)
    b = getattr(torch.optim, name)(named(theirs), **flags)
    a.load_state_dict(torchs)
    b.load_state_dict(mine)
    walk(a, ours, range(3, 6))
    walk(b, theirs, range(3, 6))
    assert same(ours, theirs, within=1e-12)


@on_backends
def test_state_dict_hooks(backend):
    params = tensors((3, 2))
    optimizer = thalweg.AdamW(params, backend=backend)
    walk(optimizer, params, range(2))
    calls = []
    optimizer.register_state_dict_pre_hook(lambda opt: calls.append("before saving"))
    optimizer.register_state_dict_post_hook(lambda opt, d: {**d, "extra": 1})
    saved = optimizer.state_dict()
    assert saved["extra"] == 1

    def doubled(opt, state_dict):
        calls.append("before loading")
        state_dict = copy.deepcopy(state_dict)
        state_dict["state"][0]["exp_avg"] *= 2
        return state_dict

    other = thalweg.AdamW(params, backend=backend, state_dtype="int8")
    other.register_load_state_dict_pre_hook(doubled)
    other.register_load_state_dict_post_hook(lambda opt: calls.append("loaded"))
    other.load_state_dict(saved)
    assert calls == ["before saving", "before loading", "loaded"]
    mine = other.state[params[0]]
    assert mine["exp_avg"].dtype == torch.int8
    largest = mine["exp_avg_scale"]
    decoded = Format("int8").decode(mine["exp_avg"], largest)
    assert torch.allclose(decoded, 2 * saved["state"][0]["exp_avg"], atol=float(largest) / 60)


@with_rules
@on_backends
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("storage", [{}, {"rounding": "stochastic"}, {"master": "split16"}], ids=str)
def test_a_copy_goes_on_training_the_same(rule, backend, copier, storage):
    params = tensors(*SHAPES, dtype=torch.bfloat16)
    optimizer = rule(params, backend=backend, **storage)
    walk(optimizer, params, range(3))
    twin, theirs = copier((optimizer, params))
    walk(optimizer, params, range(3, 6))
    walk(twin, theirs, range(3, 6))
    assert same(params, theirs)
    assert repr(twin) == repr(optimizer)


def test_a_pickle_grows_with_the_number_of_parameters_and_not_with_its_square():
    def size(n):
        params = tensors(*[(2,)] * n)
        optimizer = thalweg.AdamW(params)
        walk(optimizer, params, range(1))
        return len(pickle.dumps(optimizer)), len(pickle.dumps(optimizer.state_dict()))

    small, large = size(50), size(200)
    assert all(b < 5 * a for a, b in zip(small, large, strict=True))


@on_backends
@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("storage", [{}, {"state_dtype": "int8"}, {"rounding": "stochastic"}], ids=str)
def test_distributed_checkpoint_state_dicts(backend, flat, storage):
    def build():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)).bfloat16()
        return net, thalweg.AdamW(net.parameters(), lr=0.01, backend=backend, **storage)

    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    net, optimizer = build()
    walk(optimizer, list(net.parameters()), range(3))
    saved = get_optimizer_state_dict(net, optimizer, options=options)
    again, other = build()
    again.load_state_dict(net.state_dict())
    set_optimizer_state_dict(again, other, copy.deepcopy(saved), options=options)
    walk(optimizer, list(net.parameters()), range(3, 6))
    walk(other, list(again.parameters()), range(3, 6))
    assert same(net.parameters(), again.parameters())


@on_backends
def test_distributed_checkpoint_of_an_optimizer_that_has_not_stepped(backend):
    net = nn.Linear(4, 3)
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = thalweg.AdamW(net.parameters(), backend=backend)
    saved = get_optimizer_state_dict(net, optimizer)
    assert same(net.parameters(), before)
    set_optimizer_state_dict(net, optimizer, saved)


def _looking(optimizer, net, step):
    """A step of what looks at more than gradients."""

    def closure():
        optimizer.zero_grad()
        torch.manual_seed(step)
        loss = net(torch.randn(8, 4)).square().mean()
        if isinstance(optimizer, thalweg.optim.SophiaG):
            optimizer.take_hessian([torch.ones_like(p) for p in net.parameters()])
        elif hasattr(optimizer, "update_hessian"):
            optimizer.update_hessian(loss)
        loss.backward()
        return loss

    if hasattr(optimizer, "take_hessian"):
        closure()
        optimizer.step()
    else:
        optimizer.step(closure)


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("name", ["MoMo", "MoMoAdam", "AdaHessian", "SophiaG", "SophiaH"])
def test_distributed_checkpoint_of_what_looks_at_more_than_gradients(name, flat):
    """Before it loads, it takes a step of zeros at a rate of 0, without a loss or a Hessian."""
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    ends = []
    for _ in range(2):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
        ends.append((net, getattr(thalweg, name)(net.parameters(), lr=0.1)))
    (net, optimizer), (again, other) = ends
    for step in range(3):
        _looking(optimizer, net, step)
    saved = copy.deepcopy(get_optimizer_state_dict(net, optimizer, options=options))
    set_optimizer_state_dict(again, other, saved, options=options)
    again.load_state_dict(net.state_dict())
    for model, one in ends:
        for step in range(3, 6):
            _looking(one, model, step)
    assert same(net.parameters(), again.parameters())


@pytest.mark.parametrize("unstepped", ["MoMo", "SophiaH"])
def test_a_step_at_a_rate_of_0_moves_nothing(unstepped):
    net = nn.Linear(4, 3)
    before = [p.detach().clone() for p in net.parameters()]
    get_optimizer_state_dict(net, getattr(thalweg, unstepped)(net.parameters(), lr=0.1))
    assert same(net.parameters(), before)


# -- a model that moves ---------------------------------------------------------------------------------------------


@with_rules
@on_backends
@pytest.mark.parametrize(
    ("was", "now"),
    [(torch.float32, torch.float64), (torch.float64, torch.float32), (torch.float32, torch.bfloat16)],
    ids=str,
)
@pytest.mark.parametrize("steps", [0, 3])
def test_states_follow_a_model_to_another_dtype(rule, backend, was, now, steps):
    net = nn.Linear(5, 3).to(was)
    optimizer = rule(net.parameters(), backend=backend)
    walk(optimizer, list(net.parameters()), range(steps))
    net.to(now)
    exact = copy.deepcopy(net).double()
    twin = rule(exact.parameters(), backend="eager")
    if steps:
        twin.load_state_dict(optimizer.state_dict())
    for step in range(3, 6):
        give(net.parameters(), step)
        for p, q in zip(net.parameters(), exact.parameters(), strict=True):
            q.grad = p.grad.double()
        optimizer.step()
        twin.step()
    eps = max(torch.finfo(was).eps, torch.finfo(now).eps)
    assert same([p.double() for p in net.parameters()], exact.parameters(), within=20 * eps)
    for p in net.parameters():
        assert {v.dtype for k, v in optimizer.state[p].items() if k != "step"} <= {now}
        assert float(optimizer.state[p].get("step", steps + 3)) == steps + 3


def test_the_bits_below_a_parameter_go_when_it_is_no_longer_bfloat16():
    (p,) = tensors((50,), dtype=torch.bfloat16)
    optimizer = thalweg.SGD([p], lr=0.1, momentum=0.9, master="split16")
    walk(optimizer, [p], range(2))
    p.data = p.data.float()
    p.grad = None
    walk(optimizer, [p], range(1))
    assert optimizer.state[p].keys() == {"momentum_buffer"}
    p.data = p.data.bfloat16()
    p.grad = None
    before = p.detach().clone()
    p.grad = torch.zeros_like(p)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert torch.equal(p, before)


@with_rules
@on_backends
@pytest.mark.parametrize(
    "move",
    [lambda x: x.to("cpu"), lambda x: x.clone(), lambda x: x.to("cpu", copy=True)],
    ids=["same", "clone", "copy"],
)
def test_the_popular_loop_over_the_state(rule, backend, move):
    params, others = tensors(*SHAPES), tensors(*SHAPES)
    optimizer, other = rule(params, backend=backend), rule(others, backend=backend)
    walk(other, others, range(4))
    walk(optimizer, params, range(2))
    for state in optimizer.state.values():
        for v in state.values():
            if isinstance(v, torch.Tensor):
                v.data = move(v.data)
    walk(optimizer, params, range(2, 4))
    assert same(params, others)
    assert all(
        torch.equal(v, other.state_dict()["state"][k][n])
        for k, s in optimizer.state_dict()["state"].items()
        for n, v in s.items()
    )
    for state in optimizer.state.values():
        for k, v in state.items():
            if isinstance(v, torch.Tensor):
                state[k] = move(v)
    walk(optimizer, params, range(4, 6))
    walk(other, others, range(4, 6))
    assert same(params, others)


# -- state changed by hand ------------------------------------------------------------------------------------------


@with_rules
@on_backends
@pytest.mark.parametrize("how", ["clear", "empty", "new dict", "pop"])
def test_a_cleared_state_begins_anew(rule, backend, how):
    params, others = tensors((4, 3), (5,)), tensors((4, 3), (5,))
    optimizer = rule(params, backend=backend)
    walk(optimizer, params, range(3))
    for p, q in zip(params, others, strict=True):
        q.data.copy_(p.data)
        if how == "empty":
            optimizer.state[p].clear()
        elif how == "new dict":
            optimizer.state[p] = {}
        elif how == "pop":
            optimizer.state.pop(p)
    if how == "clear":
        optimizer.state.clear()
    walk(optimizer, params, range(3, 6))
    walk(rule(others, backend=backend), others, range(3, 6))
    assert same(params, others)


@on_backends
@pytest.mark.parametrize("change", [
    lambda x: torch.zeros_like(x), lambda x: x.mul_(0), lambda x: torch.zeros(x.shape, dtype=torch.float64),
    lambda x: torch.zeros(x.shape[::-1]).t(),
    lambda x: torch.zeros(2 * x.shape[0], x.shape[1])[::2],
], ids=["another", "in place", "another dtype", "transposed", "with gaps"])  # fmt: skip
def test_a_state_tensor_replaced_by_hand_is_used(backend, change):
    params, others = tensors((4, 3)), tensors((4, 3))
    a, b = thalweg.AdamW(params, lr=0.01, backend=backend), torch.optim.AdamW(others, lr=0.01)
    for optimizer, ps in ((a, params), (b, others)):
        walk(optimizer, ps, range(3))
        state = optimizer.state[ps[0]]
        state["exp_avg"] = change(state["exp_avg"]) if optimizer is a else torch.zeros_like(state["exp_avg"])
        walk(optimizer, ps, range(3, 6))
    assert same(params, others, within=1e-5)
    assert a.state[params[0]]["exp_avg"].dtype == torch.float32


@on_backends
def test_a_state_of_the_wrong_shape_is_refused(backend):
    params = tensors((4, 3))
    optimizer = thalweg.AdamW(params, backend=backend)
    walk(optimizer, params, range(1))
    optimizer.state[params[0]]["exp_avg"] = torch.zeros(3)
    before = params[0].detach().clone()
    with pytest.raises(ValueError, match=r"state 'exp_avg'=\(3,\): expected the shape of the parameter, \(4, 3\)"):
        optimizer.step()
    assert torch.equal(params[0], before)


@on_backends
@pytest.mark.parametrize(
    "count", [10, 10.0, torch.tensor(10.0), torch.tensor(10)], ids=["int", "float", "tensor", "integer tensor"]
)
def test_the_count_may_be_set_by_hand(backend, count):
    params, others = tensors((4, 3), (2,)), tensors((4, 3), (2,))
    a, b = thalweg.AdamW(params, lr=0.01, backend=backend), torch.optim.AdamW(others, lr=0.01)
    for optimizer, ps in ((a, params), (b, others)):
        walk(optimizer, ps, range(2))
        optimizer.state[ps[0]]["step"] = copy.deepcopy(count) if optimizer is a else torch.tensor(10.0)
        optimizer.state[ps[1]]["step"] += 3
        walk(optimizer, ps, range(2, 4))
    assert same(params, others, within=1e-5)
    assert [float(a.state[p]["step"]) for p in params] == [12, 7]


@on_backends
@pytest.mark.parametrize("change", [
    lambda x: x.clone(), lambda x: x.t().contiguous().t(), lambda x: x.t(), lambda x: torch.zeros(2, 4),
    lambda x: x[:2].clone(), lambda x: x[:2], lambda x: torch.zeros(8, 8)[:4, :4], lambda x: x.reshape(-1),
], ids=["moved", "laid out anew", "transposed", "another shape", "cut", "cut in place", "gaps", "flat"])  # fmt: skip
def test_data_replaced_between_steps(backend, change):
    (p,) = tensors((4, 4))
    optimizer = thalweg.SGD([p], lr=0.1, backend=backend)
    walk(optimizer, [p], range(2))
    p.grad = None
    p.data = change(p.data)
    (q,) = [nn.Parameter(p.detach().clone())]
    if backend == "cpu" and not p.is_contiguous() and not p.t().is_contiguous():
        give([p], 2)
        with pytest.raises(ValueError, match="gaps"):
            optimizer.step()
        return
    walk(optimizer, [p], range(2, 4))
    walk(torch.optim.SGD([q], lr=0.1), [q], range(2, 4))
    assert same([p], [q], within=1e-6)


@on_backends
def test_data_replaced_in_place_of_the_same_memory_is_seen_by_rules_on_rows(backend):
    (p,) = tensors((4, 6), dtype=torch.float64)
    optimizer = thalweg.SGD([p], lr=0.1, clip_adaptive=0.01, backend=backend)
    walk(optimizer, [p], range(2))
    p.grad = None
    p.data = p.data.view(8, 3)
    (q,) = [nn.Parameter(p.detach().clone())]
    walk(optimizer, [p], range(2, 4))
    walk(thalweg.SGD([q], lr=0.1, clip_adaptive=0.01, backend="eager"), [q], range(2, 4))
    assert same([p], [q], within=1e-12)


@on_backends
def test_parameters_replaced_in_the_groups(backend):
    """As programs do that grow or prune their tensors: the group's list and the state's keys are theirs to change."""
    params = tensors((4, 3), (5,), dtype=torch.bfloat16)
    optimizer = thalweg.AdamW(params, lr=0.01, rounding="stochastic", backend=backend)
    walk(optimizer, params, range(2))
    grown = nn.Parameter(torch.cat([params[0].data, torch.ones(2, 3, dtype=torch.bfloat16)]))
    old = optimizer.state.pop(params[0])
    optimizer.state[grown] = {
        k: torch.cat([v, torch.zeros(2, 3, dtype=v.dtype)]) if v.ndim else v for k, v in old.items()
    }
    optimizer.param_groups[0]["params"][0] = grown
    walk(optimizer, [grown, params[1]], range(2, 4))
    assert float(optimizer.state[grown]["step"]) == 4
    optimizer.state.pop(optimizer.param_groups[0]["params"].pop())
    optimizer.param_groups[0]["params"].append(nn.Parameter(torch.ones(7)))
    walk(optimizer, optimizer.param_groups[0]["params"], range(4, 6))
    assert [int(s["step"]) for s in snapshot(optimizer).values()] == [6, 2]


@on_backends
@pytest.mark.parametrize("how", ["clear", "pop"])
def test_a_lost_state_of_bits_below_alone_begins_anew(backend, how):
    (p,), (q,) = tensors((40,), dtype=torch.bfloat16), tensors((40,), dtype=torch.bfloat16)
    optimizer = thalweg.SGD([p], lr=1e-3, master="split16", backend=backend)
    walk(optimizer, [p], range(3))
    q.data.copy_(p.data)
    optimizer.state.clear() if how == "clear" else optimizer.state.pop(p)
    walk(optimizer, [p], range(3, 6))
    walk(thalweg.SGD([q], lr=1e-3, master="split16", backend=backend), [q], range(3, 6))
    assert same([p], [q])
    assert "master_bits" in optimizer.state[p]


@on_backends
@pytest.mark.parametrize(
    "make",
    [
        lambda ps, **more: thalweg.AdamW(ps, lr=0.1, **more),
        lambda ps, **more: thalweg.NovoGrad(ps, lr=0.1, **more),
        lambda ps, **more: thalweg.Amos(ps, lr=0.1, **more),
    ],
    ids=["AdamW", "NovoGrad", "Amos"],
)
def test_a_checkpoint_may_be_loaded_in_place(make, backend):
    """As ``torch.distributed.checkpoint.load`` does with what ``state_dict`` gives."""
    params, again = tensors((5, 3), (4,)), tensors((5, 3), (4,))
    first, second = make(params, backend=backend), make(again, backend=backend)
    walk(first, params, range(3))
    walk(second, again, range(1))
    here, saved = second.state_dict()["state"], copy.deepcopy(first.state_dict())["state"]
    with torch.no_grad():
        for i, state in saved.items():
            for name, value in state.items():
                here[i][name].copy_(value)
        for p, q in zip(params, again, strict=True):
            q.copy_(p)
    walk(first, params, range(3, 5))
    walk(second, again, range(3, 5))
    assert same(params, again)


@on_backends
def test_neither_a_loaded_checkpoint_nor_the_state_before_it_is_written_to(backend):
    params = tensors(*SHAPES)
    optimizer = thalweg.AdamW(params, backend=backend)
    walk(optimizer, params, range(2))
    early = copy.deepcopy(optimizer.state_dict())
    walk(optimizer, params, range(2, 4))
    late = optimizer.state_dict()  # the tensors that the optimizer works with
    copies = copy.deepcopy(early), copy.deepcopy(late)
    for step in range(4, 6):
        optimizer.load_state_dict(early)
        walk(optimizer, params, [step])
    optimizer.load_state_dict(late)
    assert all(
        torch.equal(x, was["state"][k][name])
        for now, was in zip((early, late), copies, strict=True)
        for k, kept in now["state"].items()
        for name, x in kept.items()
    )
    assert [float(s["step"]) for s in optimizer.state.values()] == [4.0] * len(params)


@on_backends
def test_a_state_that_no_step_needs_now_stays_in_checkpoints(backend):
    def run(interrupted):
        params = tensors((4, 3))
        optimizer = thalweg.Adam(params, amsgrad=True, backend=backend)
        walk(optimizer, params, range(2))
        optimizer.param_groups[0]["amsgrad"] = False
        walk(optimizer, params, range(2, 4))
        if interrupted:
            saved = through_a_file(optimizer.state_dict())
            optimizer = thalweg.Adam(params, amsgrad=True, backend=backend)
            optimizer.load_state_dict(saved)
        optimizer.param_groups[0]["amsgrad"] = True
        walk(optimizer, params, range(4, 6))
        return params

    assert same(run(False), run(True))


@on_backends
def test_a_checkpoint_that_does_not_fit_changes_nothing(backend):
    params, others = tensors((5, 3)), tensors((5, 3))
    optimizer, twin = (thalweg.AdamW(ps, lr=0.1, backend=backend) for ps in (params, others))
    for each, ps in ((optimizer, params), (twin, others)):
        walk(each, ps, range(3))
    wrong = copy.deepcopy(optimizer.state_dict())
    wrong["state"][0]["exp_avg"] = torch.zeros(7)
    with pytest.raises(ValueError, match="exp_avg"):
        optimizer.load_state_dict(wrong)
    for each, ps in ((optimizer, params), (twin, others)):
        walk(each, ps, range(3, 5))
    assert same(params, others)


@on_backends
def test_scales_that_do_not_fit_their_codes_are_refused(backend):
    (p,) = tensors((300,))
    optimizer = thalweg.SGD([p], lr=0.1, momentum=0.9, state_dtype="int8", backend=backend)
    walk(optimizer, [p], range(1))
    optimizer.state[p]["momentum_buffer_scale"] = torch.ones(1)
    with pytest.raises(ValueError, match=r"state 'momentum_buffer_scale'=\(1,\): expected one number for each 128"):
        optimizer.step()
