"""What goes wrong with shards: it works all the same, or every rank is told at once, and nothing hangs."""

import functools
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import thalweg
from tests.shards.counted import counted
from tests.shards.layouts import LAYOUTS, cut, differing, spread, train, values, whole
from tests.shards.models import fsdp, net, optimizer_of, repeat, words
from tests.shards.test_bits import RULES
from thalweg.runtime import guards, ownership, stepper
from thalweg.shards.exchange import Exchange, ExchangeError

CHOSEN = ("LAMB", "Muon", "Adafactor", "Prodigy")


def equal(one, many):
    return [k for k, (p, q) in enumerate(zip(one, many, strict=True)) if not torch.equal(whole(p), whole(q))]


def run_missing(rule):
    """A gradient that no rank has at some steps."""
    return differing(rule, RULES[rule], "Shard(0)", missing=lambda step, k: (step + k) % 3 == 0)


@pytest.mark.parametrize("rule", ["LAMB", "Muon"])
def test_gradients_that_no_rank_has(two, rule):
    assert two.run(run_missing, rule) == [[], []]


def run_missing_here(rule):
    """A gradient that only the first rank has: that of the others is 0."""
    wrap = spread("Shard(0)")
    shapes = [(8, 6), (12, 5)]
    many = [nn.Parameter(wrap(v)) for v in values(0, shapes)]
    one = [nn.Parameter(v) for v in values(0, shapes)]
    a, b = getattr(thalweg, rule)(many, **RULES[rule]), getattr(thalweg, rule)(one, **RULES[rule])
    for step in range(1, 5):
        for k, (p, q, g) in enumerate(zip(many, one, values(step, shapes), strict=True)):
            alone = (step + k) % 2 == 0
            if alone:
                g[len(g) // dist.get_world_size() :] = 0
            p.grad = None if alone and dist.get_rank() else wrap(g) if not alone else _local(g, p)
            q.grad = g
        a.step()
        b.step()
        if [p.grad is None for p in many] != [(step + k) % 2 == 0 and dist.get_rank() > 0 for k in range(2)]:
            return "a gradient was left behind"
    return equal(one, many)


def _local(g, p):
    return DTensor.from_local(g[: p.to_local().shape[0]], p.device_mesh, p.placements, run_check=False)


@pytest.mark.parametrize("rule", ["LAMB", "Muon"])
def test_gradients_that_one_rank_has(two, rule):
    assert two.run(run_missing_here, rule) == [[], []]


def run_other_order():
    wrap = spread("Shard(0)")
    params = [nn.Parameter(wrap(v)) for v in values(0, [(8, 6), (12, 5)])]
    named = list(zip(["first", "second"], params, strict=True))
    optimizer = thalweg.LAMB(named if dist.get_rank() else named[::-1])
    before = [p.to_local().clone() for p in params]
    for p in params:
        p.grad = torch.ones_like(p.detach())
    try:
        optimizer.step()
    except ValueError as error:
        return str(error), all(map(torch.equal, before, (p.to_local() for p in params))), len(optimizer.state)
    return None


def test_another_order_on_another_rank_is_told_by_name(two):
    for said, unchanged, kept in two.run(run_other_order):
        assert "first" in said
        assert "second" in said
        assert "rank" in said
        assert unchanged
        assert kept == 0


def _other_rate(optimizer):
    optimizer.param_groups[0]["lr"] *= 2


def _more_parameters(optimizer):
    p = optimizer.param_groups[0]["params"][0]
    optimizer.add_param_group({"params": [nn.Parameter(p.detach().clone())]})


def _freed_gradient(optimizer):
    optimizer.param_groups[0]["params"][0].grad._local_tensor.untyped_storage().resize_(0)


def _freed_gradient_of_a_plain_tensor(optimizer):
    optimizer.param_groups[0]["params"][-1].grad.untyped_storage().resize_(0)


def _no_rate(optimizer):
    optimizer.param_groups[0]["lr"] = -0.5


def _no_memory(optimizer):
    optimizer._stepper.forget()
    optimizer._stepper.binder.bind = mock.Mock(side_effect=MemoryError("no room for states"))


def _no_compiler(optimizer):
    optimizer._stepper.forget()
    optimizer._stepper.failed["cpu"] = "it crashed"


def _narrow_gradient(optimizer):
    p = optimizer.param_groups[0]["params"][0]
    p.grad_dtype = None
    p.grad = p.grad.bfloat16()


#: by what differs on the last rank: how it comes to be, and what the error says
UNLIKE = {
    "rate": (_other_rate, "lr of group 0='0.01 on rank 0, 0.02 on rank 1'"),
    "no rate": (_no_rate, "lr=-0.5"),
    "memory": (_no_memory, "no room for states"),
    "compiler": (_no_compiler, "compiler failed='none on rank 0, cpu on rank 1'"),
    "freed elsewhere": (_freed_gradient_of_a_plain_tensor, "without memory"),
    "groups": (_more_parameters, "group 1"),
    "freed": (_freed_gradient, "without memory"),
    "dtype": (_narrow_gradient, "torch.bfloat16"),
}


def run_unlike(what):
    """The error of a second step, and what it has changed."""
    wrap = spread("Shard(0)")
    *laid, plain = [nn.Parameter(v) for v in values(0, [(8, 6), (12, 5), (3,)])]
    params = [*(nn.Parameter(wrap(p.detach())) for p in laid), plain]
    optimizer = thalweg.LAMB(params, lr=0.01)
    for step in (1, 2):
        for p, g in zip(params, values(step, [p.shape for p in params]), strict=True):
            p.grad = g if p is plain else wrap(g)
        if step == 2 and dist.get_rank():
            UNLIKE[what][0](optimizer)
        before = [_here(p).clone() for p in params]
        try:
            optimizer.step()
        except (ValueError, MemoryError) as error:
            return step, str(error), all(map(torch.equal, before, map(_here, params)))
    return None


def _here(p):
    return p.to_local() if isinstance(p, DTensor) else p.detach()


@pytest.mark.parametrize("what", UNLIKE)
def test_what_differs_between_ranks_is_told_on_all_before_anything_changes(two, what):
    if what == "compiler" and not guards.available():
        pytest.skip("no compiler that could fail")
    for rank, (step, said, unchanged) in enumerate(two.run(run_unlike, what)):
        assert step == 2
        assert UNLIKE[what][1] in said
        assert unchanged
        assert "rank 1" in said or rank == 1


def run_first_step(rule, given, name, value):
    """The error of a first step where the last rank has set this, and whether the next step works."""
    wrap = spread("Shard(0)")
    params = [nn.Parameter(wrap(v)) for v in values(0, [(8, 6), (12, 5)])]
    for p in params:
        p.grad = torch.ones_like(p.detach())
    optimizer = getattr(thalweg, rule)(params, **given)
    before = optimizer.param_groups[0][name]
    if dist.get_rank():
        optimizer.param_groups[0][name] = value
    try:
        optimizer.step()
        return None
    except ValueError as error:
        said = str(error), len(optimizer.state)
    optimizer.param_groups[0][name] = before
    optimizer.step()
    return said


@pytest.mark.parametrize(
    ("rule", "given", "name", "value"),
    [
        ("LAMB", {}, "lr", -1.0), ("AdamW", {}, "lr", -1.0), ("AdamW", {}, "lr", 0.5),
        ("AdamW", {"clip_global_norm": 1.0}, "clip_global_norm", -1.0),
        ("AdamW", {"clip_global_norm": 1.0}, "clip_global_norm", None),
    ],
)  # fmt: skip
def test_a_first_step_with_another_setting_is_told(two, rule, given, name, value):
    for rank, (said, kept) in enumerate(two.run(run_first_step, rule, given, name, value)):
        assert name in said
        assert str(value) in said
        assert "rank 1" in said or rank == 1
        assert kept == 0


def run_other_rate_later():
    """The step at which AdamW, whose ranks exchange nothing, finds that the last rank has another rate."""
    p = nn.Parameter(spread("Shard(0)")(torch.ones(8, 6)))
    optimizer = thalweg.AdamW([p], lr=0.01)
    for step in range(1, 12):
        p.grad = torch.ones_like(p.detach())
        if step == 3 and dist.get_rank():
            optimizer.param_groups[0]["lr"] = 0.02
        try:
            with mock.patch.object(stepper, "EVERY", 5), counted() as found:
                optimizer.step()
        except ValueError as error:
            return step, str(error)
        assert bool(found) == (step == 1)
    return None


def test_rules_that_exchange_nothing_compare_their_settings_now_and_then(two):
    for step, said in two.run(run_other_rate_later):
        assert step == 6
        assert "lr of group 0='0.01 on rank 0, 0.02 on rank 1'" in said


def run_other_rule():
    params = [nn.Parameter(spread("Shard(0)")(v)) for v in values(0, [(8, 6)])]
    optimizer = (thalweg.LAMB if dist.get_rank() else thalweg.Adafactor)(params)
    params[0].grad = torch.ones_like(params[0].detach())
    with pytest.raises(ValueError, match=r"optimizer=.*the same on all ranks"):
        optimizer.step()
    return len(optimizer.state)


def test_another_optimizer_on_another_rank_is_told(two):
    assert two.run(run_other_rule) == [0, 0]


def _victims(optimizer):
    """What computes something of a batch, here."""
    bounds = optimizer._stepper.bindings[None].bounds
    found = [getattr(bound.executor, name, None) for bound in bounds for name in ("here", "inner")]
    return [one for one in found if one is not None]


def _fail(optimizer, name):
    """Let whatever has this method fail on the last rank."""
    if dist.get_rank() == dist.get_world_size() - 1:
        for one in _victims(optimizer):
            setattr(one, name, mock.Mock(side_effect=MemoryError("no room for a product")))


def run_failing(rule, given, name, bucket):
    """What a second step says, within which something fails on the last rank; and a sum over the ranks behind it."""
    wrap = spread("Shard(0)")
    shapes = [(12, 8)] * 6
    params = [nn.Parameter(wrap(v)) for v in values(0, shapes)]
    with mock.patch.object(ownership, "BUCKET", bucket):
        optimizer = getattr(thalweg, rule)(params, **given)
        for step in (1, 2):
            for p, g in zip(params, values(step, shapes), strict=True):
                p.grad = wrap(g)
            if step == 2:
                _fail(optimizer, name)
            try:
                optimizer.step()
            except (MemoryError, ExchangeError) as error:
                x = torch.ones(3)
                dist.all_reduce(x)
                return step, type(error).__name__, str(error), x.tolist()
    return None


@pytest.mark.parametrize(
    ("rule", "given", "name", "bucket"),
    [
        ("Muon", {}, "run_leaves", 1 << 30), ("Muon", {}, "run_leaves", 1), ("Muon", {}, "run_pass", 1),
        ("LAMB", {}, "run_pass", 1), ("AdamW", {"clip_global_norm": 1.0}, "run_pass", 1),
        ("NorMuon", {}, "run_pass", 1 << 30), ("NorMuon", {}, "run_leaves", 1),
    ],
)  # fmt: skip
def test_what_fails_on_one_rank_within_a_step_is_told_on_all(two, rule, given, name, bucket):
    if not guards.available():
        pytest.skip("no compiler: nothing runs pass by pass")
    (step, kind, said, after), (also, own, words, _) = two.run(run_failing, rule, given, name, bucket)
    assert (step, also) == (2, 2)
    assert (kind, own) == ("ExchangeError", "MemoryError")
    assert "rank 1 has failed within a step: MemoryError: no room for a product" in said
    assert words == "no room for a product"
    assert after == [2.0] * 3  # the ranks are at the same collective still


def run_told_late():
    """On a GPU the flags of messages are looked at before the next step."""
    p = nn.Parameter(spread("Shard(0)")(values(0, [(12, 8)])[0]))
    optimizer = thalweg.Muon([p])
    said = []
    with mock.patch.object(Exchange, "hear", lambda self, flags: self.unheard.append(flags)):
        for step in (1, 2, 3):
            p.grad = spread("Shard(0)")(values(step, [(12, 8)])[0])
            if step == 2:
                _fail(optimizer, "run_pass")
            try:
                optimizer.step()
                said.append("")
            except (MemoryError, ExchangeError) as error:
                said.append(f"{type(error).__name__}: {error}")
    return said


def test_where_a_look_would_wait_for_the_device_it_is_told_at_the_next_step(two):
    if not guards.available():
        pytest.skip("no compiler: nothing runs pass by pass")
    first, last = two.run(run_told_late)
    assert first[:2] == ["", ""]
    assert last[:2] == ["", "MemoryError: no room for a product"]
    assert all(one[2].startswith("ExchangeError: step(): rank 1 has failed") for one in (first, last))


def run_two_meshes():
    """Parameters on the mesh of all ranks, on a mesh of one's own, whole ones and replicated ones in one group."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    alone = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("each", "one"))["one"]
    ways = [
        lambda x: distribute_tensor(x.clone(), mesh, [Shard(0)]),
        torch.clone,
        lambda x: distribute_tensor(x.clone(), alone, [Shard(0)]),
        lambda x: distribute_tensor(x.clone(), mesh, [Replicate()]),
        lambda x: distribute_tensor(x.clone(), mesh, [Shard(1)]),
    ]
    shapes = [(7, 5)] * len(ways)
    found = {}
    for rule, given in (("LAMB", {}), ("Prodigy", {}), ("AdamW", {"clip_global_norm": 0.5}), ("Muon", {})):
        one = [nn.Parameter(v) for v in values(0, shapes)]
        many = [nn.Parameter(wrap(v)) for wrap, v in zip(ways, values(0, shapes), strict=True)]
        groups = [[{"params": ps[:3], "lr": 0.02}, {"params": ps[3:], "lr": 0.05}] for ps in (one, many)]
        a, b = (getattr(thalweg, rule)(g, **given) for g in groups)
        for step in range(1, 4):
            for p, q, wrap, g in zip(one, many, ways, values(step, shapes), strict=True):
                p.grad, q.grad = g.clone(), wrap(g)
            a.step()
            b.step()
        if bad := equal(one, many):
            found[rule] = bad
    return found


def test_two_meshes_and_plain_tensors_in_groups_of_their_own_rates(two):
    assert two.run(run_two_meshes) == [{}, {}]


def run_hypers():
    """Rates, clipping and decay that change between steps; clip_grad_norm_ before; a closure; accumulation."""
    model = fsdp(net())
    optimizer = optimizer_of("Muon", model, {"lr": 0.02})
    alone = net()
    other = optimizer_of("Muon", alone, {"lr": 0.02})
    for step in range(1, 6):
        for one in (optimizer, other):
            one.param_groups[0]["lr"] = 0.02 / step
            one.param_groups[0]["weight_decay"] = 0.1 * (step % 2)
            for group in one.param_groups:
                group["clip_global_norm"] = 1.0 if step > 2 else None
        gradients = []

        def closure(step=step, gradients=gradients):
            for half in (0, 1):
                x = words(10 * step + half)
                loss = nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())
                loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.3)
            gradients.append([whole(p.grad) for p in model.parameters()])
            return loss

        optimizer.step(closure)
        optimizer.zero_grad()
        repeat(alone, other, gradients)
    return equal(alone.parameters(), model.parameters())


def test_hyperparameters_that_change_and_gradients_that_are_clipped_and_accumulated(two):
    assert two.run(run_hypers) == [[], []]


def run_scaler(fused, bad):
    """GradScaler, with a gradient that is not finite on one rank at the second step."""
    model = fsdp(net())
    optimizer = thalweg.LAMB(model.parameters(), lr=0.01, fused=fused or None)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    alone = net()
    other = thalweg.LAMB(alone.parameters(), lr=0.01)
    for step in range(1, 4):
        x = words(step)
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())
        scaler.scale(loss).backward()
        gradients = [whole(p.grad) / scaler.get_scale() for p in model.parameters()]
        if step == 2 and bad and dist.get_rank() == 0:
            next(model.parameters()).grad._local_tensor[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if not (step == 2 and bad):
            repeat(alone, other, [gradients])
    return equal(alone.parameters(), model.parameters())


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_the_scaler_of_gradients(two, fused, bad):
    assert two.run(run_scaler, fused, bad) == [[], []]


def run_refused():
    said = []
    model = fsdp(net())
    for make in (
        lambda: thalweg.LAMB(model.parameters(), state_dtype="int8"),
        lambda: thalweg.AdamW(model.parameters(), state_dtype="int8"),
        lambda: thalweg.LAMB(model.parameters()).fuse_into_backward(),
    ):
        try:
            make()
            said.append("")
        except ValueError as error:
            said.append(str(error))
    return said


def test_what_is_refused(two):
    for int8, again, inside in two.run(run_refused):
        assert "state_dtype='int8'" in int8
        assert "bfloat16" in int8
        assert int8 == again
        assert "LAMB" in inside


def run_formats(rule, given, dtype):
    bad = differing(rule, {**RULES[rule], **given}, "Shard(0)", dtype=getattr(torch, dtype))
    return [one for one in bad if one]


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("rule", "given", "dtype"),
    [
        ("LAMB", {"master": "split16"}, "bfloat16"),
        ("LAMB", {}, "bfloat16"),
        ("Adafactor", {}, "float64"),
        ("Muon", {}, "float64"),
        ("LAMB", {"state_dtype": "bfloat16"}, "float32"),
        ("LAMB", {"rounding": "stochastic"}, "bfloat16"),
        ("AdamW", {"rounding": "stochastic"}, "bfloat16"),
        ("ScheduleFreeAdamW", {"state_dtype": "bfloat16"}, "float32"),
    ],
)
def test_formats(two, rule, given, dtype):
    assert two.run(run_formats, rule, given, dtype) == [[], []]


def run_rounding(layout):
    """Of a rule whose ranks exchange nothing else."""
    given = {"lr": 0.01, "state_dtype": "bfloat16"}
    return differing("AdamW", given, layout, shapes=((16, 24), (7, 5), (6, 2, 3, 3)), steps=(1, 2))


def test_random_bits_follow_the_place_in_the_whole(two):
    assert two.run(run_rounding, "Shard(1)") == [[], []]


@pytest.mark.ranks
@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_bits_on_every_layout(four, layout):
    assert four.run(run_rounding, layout) == [[]] * 4


def run_backends(backend):
    bad = {}
    for rule in CHOSEN:
        if found := differing(rule, {**RULES[rule], "backend": backend}, "Shard(0)"):
            bad[rule] = found
    return bad


@pytest.mark.ranks
@pytest.mark.parametrize("backend", ["eager", "foreach"])
def test_backends(two, backend):
    assert two.run(run_backends, backend) == [{}, {}]


def run_transforms():
    bad = {}
    for name, value in (
        ("clip_norm", 0.5), ("clip_adaptive", 0.01), ("centralize", True), ("gradient_noise", 0.1), ("orthograd", True),
        ("trust_ratio", True), ("cautious", True), ("hyperball", True), ("grokfast", 2.0),
    ):  # fmt: skip
        if found := differing("AdamW", {"lr": 0.01, name: value}, "Shard(0)"):
            bad[name] = found
    return bad


@pytest.mark.ranks
def test_what_surrounds_a_rule(two):
    assert two.run(run_transforms) == [{}, {}]


@pytest.mark.ranks
def test_training_is_not_trivial(two):
    assert all(len(found) == 7 for found in two.run(run_moves))


def run_moves():
    shapes = [(8, 6)] * 7
    params, _ = train("Muon", {}, spread("Shard(0)"), shapes=shapes, vectors=[])
    return equal(values(0, shapes), params)


def run_resumed_on_one(rule):
    """What a step says where the first rank alone has loaded a checkpoint, and how far the other's states are then."""
    wrap = spread("Shard(0)")
    shapes = [(8, 6), (12, 5)]
    params = [nn.Parameter(wrap(v)) for v in values(0, shapes)]
    optimizer, after = (getattr(thalweg, rule)(params) for _ in range(2))
    for one in (optimizer, after):
        if one is after and not dist.get_rank():
            after.load_state_dict(optimizer.state_dict())
        for p, g in zip(params, values(1, shapes), strict=True):
            p.grad = wrap(g)
        try:
            one.step()
        except ValueError as error:
            return one is after, str(error), len(after.state)
    return None


@pytest.mark.parametrize("rule", ["AdamW", "LAMB", "Muon"])
def test_a_checkpoint_that_one_rank_has_loaded_is_told(two, rule):
    for second, said, kept in two.run(run_resumed_on_one, rule):
        assert second
        assert "steps taken of group 0='1.0 on rank 0, 0.0 on rank 1'" in said
        assert "Load the same checkpoint on all ranks" in said
        assert kept in (0, 2)


def run_elsewhere(rule):
    """Parameters on a mesh of the first rank alone, and one of all ranks beside them."""
    of_one, of_all = DeviceMesh("cpu", [0]), init_device_mesh("cpu", (dist.get_world_size(),))
    shapes = [(8, 6), (12, 5)]
    wraps = [functools.partial(cut, mesh=mesh, placements=[Shard(0)]) for mesh in (of_one, of_all)]
    many = [nn.Parameter(wrap(v)) for wrap, v in zip(wraps, values(0, shapes), strict=True)]
    one = [nn.Parameter(v) for v in values(0, shapes)]
    a, b = getattr(thalweg, rule)(many), getattr(thalweg, rule)(one)
    for step in (1, 2, 3):
        for p, q, wrap, g in zip(many, one, wraps, values(step, shapes), strict=True):
            p.grad, q.grad = wrap(g.clone()), g
        a.step()
        b.step()
    first = many[0].to_local()
    return torch.equal(whole(many[1]), one[1]), len(a.state), not first.numel() or torch.equal(first, one[0])


@pytest.mark.parametrize("rule", ["AdamW", "Adafactor", "Muon"])
def test_parameters_of_which_this_rank_has_nothing_stay_as_they_are(two, rule):
    (same, kept, first), (also, fewer, _) = two.run(run_elsewhere, rule)
    assert (same, also, first) == (True, True, True)
    assert (kept, fewer) == (2, 1)


def run_turned(rule):
    """On a mesh of which the ranks stand in another order than in torch's process group."""
    mesh = DeviceMesh("cpu", torch.arange(dist.get_world_size()).view(2, -1).T)
    wrap = functools.partial(cut, mesh=mesh, placements=[Shard(0), Shard(1)])
    shapes = [(16, 24), (7, 5), (9, 4)]
    one, many = ([nn.Parameter(way(v)) for v in values(0, shapes)] for way in (torch.clone, wrap))
    a, b = getattr(thalweg, rule)(one), getattr(thalweg, rule)(many)
    for step in (1, 2, 3):
        for p, q, g in zip(one, many, values(step, shapes), strict=True):
            p.grad, q.grad = g.clone(), wrap(g.clone())
        a.step()
        b.step()
    return [k for k, (p, q) in enumerate(zip(one, many, strict=True)) if not torch.equal(p, q.detach().full_tensor())]


@pytest.mark.ranks
@pytest.mark.parametrize("rule", ["LAMB", "Muon", "Adafactor"])
def test_a_mesh_in_another_order(four, rule):
    assert four.run(run_turned, rule) == [[]] * 4


def run_swapped():
    """Two optimizers of equal tensors, which the first rank steps in another order at the second step."""
    wrap = spread("Shard(0)")
    params = [nn.Parameter(wrap(v)) for v in values(0, [(8, 6), (8, 6)])]
    optimizers = [thalweg.LAMB([p]) for p in params]
    said = []
    for step in (1, 2):
        for p in params:
            p.grad = torch.ones_like(p.detach())
        for one in optimizers if step == 1 or dist.get_rank() else optimizers[::-1]:
            try:
                one.step()
                said.append("")
            except ValueError as error:
                said.append(str(error))
    return said


def test_two_optimizers_in_another_order_on_one_rank_are_told(two):
    for first, second, *later in two.run(run_swapped):
        assert (first, second) == ("", "")
        assert all("step()='of optimizer " in said for said in later)
        assert all("the same order on all ranks" in said for said in later)


def run_closure_fails(around):
    """What a rank is told that waits in vain for one whose closure has failed, and the error there."""
    p = nn.Parameter(spread("Shard(0)")(values(0, [(8, 6)])[0]))
    inner = thalweg.LAMB([p])
    optimizer = getattr(thalweg, around)(inner) if around else inner
    said = ""

    def closure():
        raise KeyError(f"no such batch for {around}")

    if dist.get_rank():
        with pytest.raises(KeyError) as caught:
            optimizer.step(closure)
        said = str(caught.value)
    dist.barrier()
    if not dist.get_rank():
        with pytest.raises(ExchangeError) as caught:
            inner._stepper.agreement.exchange(p).attempt(mock.Mock(side_effect=RuntimeError("timed out")), "a number")
        said = str(caught.value)
    return said


@pytest.mark.parametrize("around", ["", "SAM", "Lookahead"])
def test_a_closure_that_fails_on_one_rank_is_named_on_the_others(two, around):
    waited, own = two.run(run_closure_fails, around)
    assert own == repr(f"no such batch for {around}")
    assert f"The last error of a closure on rank 1 was KeyError: 'no such batch for {around}'. " in waited
    assert "timed out" in waited
