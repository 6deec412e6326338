"""What only a GPU can show: the contract of torch.optim where parameters, gradients and states lie on one."""

import copy

import pytest
import torch

import thalweg
from thalweg._base.errors import ThalwegError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def model(device="cuda", dtype=torch.float32):
    torch.manual_seed(1)
    layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4, bias=False))
    return layers.to(device, dtype)


def backward(net, step=0, scale=lambda loss: loss):
    p = next(net.parameters())
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(step)).to(p.device, p.dtype)
    scale(net(x).square().mean()).backward()


def train(net, optimizer, steps=5, begin=0):
    for step in range(begin, begin + steps):
        optimizer.zero_grad()
        backward(net, step)
        optimizer.step()
    return [p.detach().cpu() for p in net.parameters()]


def runs_on(optimizer):
    return {part.backend for part in optimizer.plan().parts}


@pytest.mark.parametrize("name", ["SGD", "AdamW", "LAMB", "Lion", "Adafactor", "ScheduleFreeAdamW", "Muon"])
def test_a_training_is_that_of_the_cpu(name):
    ends = []
    for device in ("cpu", "cuda"):
        net = model(device, torch.float64)
        params = [p for p in net.parameters() if p.ndim == 2] if name == "Muon" else net.parameters()
        optimizer = getattr(thalweg, name)(params, lr=0.01)
        ends.append(train(net, optimizer))
        assert device == "cpu" or runs_on(optimizer) == {"triton"}
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "Adadelta", "Rprop", "ASGD"])
def test_as_torch(name):
    ends = []
    for library in (thalweg, torch.optim):
        net = model(dtype=torch.float64)
        ends.append(train(net, getattr(library, name)(net.parameters(), lr=0.01)))
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("fused", [True, False])
def test_checkpoints_cross_to_torch_and_back(fused):
    nets = [model(dtype=torch.float64) for _ in range(2)]
    ours, theirs = (
        thalweg.AdamW(nets[0].parameters(), lr=0.01),
        torch.optim.AdamW(nets[1].parameters(), lr=0.01, fused=fused),
    )
    train(nets[0], ours)
    train(nets[1], theirs)
    ours, states = thalweg.AdamW(nets[0].parameters(), lr=0.5), ours.state_dict()
    ours.load_state_dict(theirs.state_dict())
    theirs = torch.optim.AdamW(nets[1].parameters(), lr=0.5, fused=fused)
    theirs.load_state_dict(states)
    torch.testing.assert_close(train(nets[0], ours, begin=5), train(nets[1], theirs, begin=5), rtol=1e-9, atol=1e-10)


def test_a_checkpoint_of_the_cpu_goes_on_here():
    net = model("cpu", torch.float64)
    optimizer = thalweg.AdamW(net.parameters(), lr=0.01)
    train(net, optimizer)
    twin = copy.deepcopy(net).cuda()
    moved = thalweg.AdamW(twin.parameters())
    moved.load_state_dict(optimizer.state_dict())
    ends = train(net, optimizer, begin=5), train(twin, moved, begin=5)
    assert all(s["exp_avg"].is_cuda for s in moved.state.values())
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-10)


def test_a_model_moved_after_construction_and_back():
    net, twin = model("cpu", torch.float64), model("cpu", torch.float64)
    optimizer, still = (thalweg.AdamW(n.parameters(), lr=0.01) for n in (net, twin))
    net.cuda()
    train(net, optimizer)
    assert runs_on(optimizer) == {"triton"}
    torch.testing.assert_close(train(net, optimizer, begin=5), train(twin, still, steps=10), rtol=1e-7, atol=1e-9)


def test_parameters_on_both_devices_and_one_norm_over_them():
    ends = []
    for second in ("cpu", "cuda"):
        nets = [model(dtype=torch.float64), model(second, torch.float64)]
        params = [p for net in nets for p in net.parameters()]
        optimizer = thalweg.AdamW(params, lr=0.01, clip_global_norm=0.1)
        for step in range(3):
            optimizer.zero_grad()
            for net in nets:
                backward(net, step)
            optimizer.step()
        ends.append([p.detach().cpu() for p in params])
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-10)


def test_loss_scaling_undoes_and_skips():
    ends = []
    for scaling in (True, False):
        net = model(dtype=torch.float64)
        optimizer = thalweg.AdamW(net.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cuda", enabled=scaling, init_scale=2.0**10)
        for step in range(4):
            optimizer.zero_grad()
            backward(net, step, scaler.scale)
            if step == 2:  # overflows: skipped
                if not scaling:
                    continue
                next(net.parameters()).grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
        ends.append([p.detach() for p in net.parameters()])
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-10)


def test_updates_inside_backward():
    ends = []
    for fuse in (True, False):
        net = model(dtype=torch.float64)
        optimizer = thalweg.AdamW(net.parameters(), lr=0.01)
        if fuse:
            optimizer.fuse_into_backward()
        for step in range(3):
            backward(net, step)
            optimizer.step()
            optimizer.zero_grad()
        ends.append([p.detach() for p in net.parameters()])
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


def test_a_learning_rate_in_a_tensor_of_the_gpu():
    ends = []
    for lr in (0.01, torch.tensor(0.01, dtype=torch.float64, device="cuda")):
        net = model(dtype=torch.float64)
        ends.append(train(net, thalweg.AdamW(net.parameters(), lr=lr)))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


def test_a_stream_of_ones_own():
    net, twin = model(), model()
    optimizer, plain = (thalweg.AdamW(n.parameters(), lr=0.01) for n in (net, twin))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        ends = train(net, optimizer)
    torch.testing.assert_close(ends, train(twin, plain))


def test_a_graph_is_refused_before_anything_changes():
    net = model()
    optimizer = thalweg.AdamW(net.parameters(), lr=0.01)
    train(net, optimizer)
    before = [p.detach().clone() for p in net.parameters()]

    def capture():
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            torch.ones(1, device="cuda").add_(1)  # torch warns of an empty graph
            optimizer.step()

    with pytest.raises(ThalwegError, match="a CUDA graph would replay"):
        capture()
    torch.cuda.synchronize()
    torch.testing.assert_close([p.detach() for p in net.parameters()], before, rtol=0, atol=0)


def test_an_eighth_of_an_ulp_moves_a_bfloat16_parameter():
    p = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16, device="cuda"))
    optimizer = thalweg.SGD([p], lr=1.0, rounding="stochastic")
    for _ in range(200):
        p.grad = torch.full_like(p, -(2.0**-7) / 8)
        optimizer.step()
    moved = float(p.detach().float().mean()) - 1
    assert moved == pytest.approx(200 * 2.0**-7 / 8, rel=0.1)


@pytest.mark.parametrize("name", ["AdamW", "SGD", "LAMB"])
def test_half_a_million_elements_in_tensors_of_all_sizes(name):
    """Of float32, against float64 on the CPU."""
    generator, ends = torch.Generator().manual_seed(0), []
    shapes = [(), (1,), (700, 700), (3, 1025), (1 << 14,), (7, 11, 13)]
    values = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    grads = [[torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(3)]
    for device, dtype in (("cpu", torch.float64), ("cuda", torch.float32)):
        params = [torch.nn.Parameter(v.clone().to(device, dtype)) for v in values]
        optimizer = getattr(thalweg, name)(params, lr=0.01)
        for given in grads:
            for p, g in zip(params, given, strict=True):
                p.grad = g.to(device, dtype)
            optimizer.step()
        ends.append([p.detach().cpu().double() for p in params])
    torch.testing.assert_close(*ends, rtol=1e-5, atol=2e-6)
