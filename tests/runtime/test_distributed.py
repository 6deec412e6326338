"""DTensor parameters: each process steps its own shard by rules that look at elements alone; see tests/shards."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._functional_collectives import all_reduce
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import thalweg
from tests.fixtures import give, on_backends, same, tensors, with_rules

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def spread(params, mesh, placement):
    return [nn.Parameter(distribute_tensor(p.detach().clone(), mesh, [placement])) for p in params]


def give_spread(params, mesh, step, like):
    give(like, step)
    for p, q in zip(params, like, strict=True):
        p.grad = distribute_tensor(q.grad, mesh, list(p.placements))


@with_rules
@on_backends
@pytest.mark.parametrize("placement", [Shard(0), Replicate()], ids=str)
def test_one_process_steps_as_without_a_mesh(rule, backend, placement, mesh):
    plain = tensors((6, 4), (4,))
    params = spread(plain, mesh, placement)
    a, b = rule(params, backend=backend), rule(plain, backend=backend)
    for step in range(3):
        give_spread(params, mesh, step, plain)
        a.step()
        b.step()
    assert same([p.full_tensor() for p in params], plain)
    state = a.state[params[0]]
    assert all(isinstance(v, DTensor) for k, v in state.items() if k != "step")


@on_backends
def test_autograds_version_counter_sees_a_distributed_step(backend, mesh):
    (p,) = spread(tensors((6, 4)), mesh, Shard(0))
    optimizer = thalweg.SGD([p], lr=0.1, backend=backend)
    loss = (p * p).sum()
    p.grad = distribute_tensor(torch.ones(6, 4), mesh, [Shard(0)])
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@on_backends
def test_distributed_state_goes_through_checkpoints(backend, mesh):
    plain = tensors((6, 4), (4,))

    def build():
        net = nn.Module()
        net.a, net.b = spread(plain, mesh, Shard(0))
        return net, thalweg.AdamW(net.parameters(), lr=0.1, backend=backend)

    net, optimizer = build()
    params = list(net.parameters())
    like = tensors((6, 4), (4,))
    for step in range(2):
        give_spread(params, mesh, step, like)
        optimizer.step()
    again, other = build()
    again.load_state_dict(net.state_dict())
    set_optimizer_state_dict(again, other, get_optimizer_state_dict(net, optimizer))
    for step in range(2, 4):
        give_spread(params, mesh, step, like)
        give_spread(list(again.parameters()), mesh, step, like)
        optimizer.step()
        other.step()
    assert same([p.full_tensor() for p in params], [p.full_tensor() for p in again.parameters()])


@on_backends
def test_a_gradient_that_is_no_dtensor_is_refused(backend, mesh):
    (p,) = spread(tensors((6, 4)), mesh, Shard(0))
    p.grad = torch.ones(6, 4)
    with pytest.raises(ValueError, match="grad='Tensor'"):
        thalweg.SGD([p], lr=0.1, backend=backend).step()


@on_backends
def test_a_gradient_on_its_way_is_waited_for(backend, mesh):
    (p,), (q,) = tensors((4, 3)), tensors((4, 3))
    a, b = thalweg.SGD([p], lr=0.1, backend=backend), thalweg.SGD([q], lr=0.1, backend=backend)
    for step in range(3):
        give([q], step)
        p.grad = q.grad.clone() if step == 1 else all_reduce(q.grad.clone(), "sum", dist.group.WORLD)
        a.step()
        b.step()
    assert same([p], [q])


def test_a_parameter_that_is_the_terms_of_a_sum_is_refused(mesh):
    p = nn.Parameter(DTensor.from_local(torch.ones(2, 2), mesh, [Partial()]))
    with pytest.raises(ValueError, match=r"params=.*Partial.*: expected shards or copies.*redistribute"):
        thalweg.AdamW([p])


# -- what else cuts up, or averages later ----------------------------------------------------------------------------


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


@pytest.mark.parametrize("order", ["around before", "around after"])
def test_updates_inside_backward_are_refused_where_gradients_are_averaged_after_it(order, mesh):
    model, x = net(), torch.ones(2, 4)
    optimizer = thalweg.SGD(model.parameters(), lr=0.1)
    if order == "around before":
        parallel = nn.parallel.DistributedDataParallel(model)
        with pytest.raises(ValueError, match=r"DistributedDataParallel averages gradients .* drift apart"):
            optimizer.fuse_into_backward()
        assert not optimizer.fused_into_backward
        parallel(x).sum().backward()
        optimizer.step()
        return
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.fuse_into_backward()
    parallel = nn.parallel.DistributedDataParallel(model)
    with pytest.raises(ValueError, match="DistributedDataParallel"):
        parallel(x).sum().backward()
    assert same(model.parameters(), before)


def test_updates_inside_backward_of_another_model_than_the_parallel_one_are_fine(mesh):
    parallel, other = nn.parallel.DistributedDataParallel(net()), net()
    optimizer = thalweg.SGD(other.parameters(), lr=0.1)
    optimizer.fuse_into_backward()
    other(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    assert parallel is not None


@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.parametrize("originals", [False, True])
def test_flat_parameters_of_fsdp_are_no_tensors_to_look_at_whole(originals, mesh):
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(net(), use_orig_params=originals, device_id=torch.device("cpu"))
    for rule, given, said in (
        (thalweg.SGD, {"clip_norm": 1.0}, "clip_norm=1.0: expected it to be off for flat parameters of FSDP"),
        (thalweg.AdamW, {"trust_ratio": True}, "trust_ratio=True: expected it to be off for flat parameters of FSDP"),
        (thalweg.LAMB, {}, "expected whole tensors, since LAMB"),
        (thalweg.Prodigy, {}, "expected whole tensors, since Prodigy"),
    ):
        with pytest.raises(ValueError, match=said):
            rule(model.parameters(), **given)
    for rule in (thalweg.Muon, thalweg.NorMuon, thalweg.Dion2):
        for params in (model, model.parameters()):  # of a model AdamW would step all, as there are no matrices
            with pytest.raises(ValueError, match=r"flat parameters of FSDP1.*fully_shard"):
                rule(params)
    for rule in (thalweg.Scion, thalweg.SOAP, thalweg.SOAPMuon):
        with pytest.raises(ValueError, match="FSDP"):
            rule(model)
    optimizer = thalweg.AdamW(model.parameters())
    with pytest.raises(ValueError, match="FSDP"):
        optimizer.fuse_into_backward()


@pytest.mark.filterwarnings("ignore")  # torch's own
def test_a_share_of_the_parameters_gives_no_sum_over_all(mesh):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    def build(rule, **given):
        return ZeroRedundancyOptimizer(net().parameters(), optimizer_class=rule, **given)

    with pytest.raises(
        ValueError, match=r"clip_global_norm=1.0: .* a share of the parameters: it needs all.*clip_grad_norm_"
    ):
        build(thalweg.SGD, lr=0.1, clip_global_norm=1.0)
    with pytest.raises(ValueError, match="expected all parameters, since Prodigy"):
        build(thalweg.Prodigy)
    build(thalweg.LAMB, lr=0.1)  # its tensors are whole
    thalweg.SGD(net().parameters(), lr=0.1, clip_global_norm=1.0)
