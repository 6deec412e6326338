"""torch.compile around a training step that holds step(): a clean graph break, no warning, the same numbers."""

import pytest
import torch
import torch._dynamo.testing
from torch import nn

import thalweg
from tests.fixtures import BACKENDS, RULES, on_backends, same


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def run(net, optimizer, compiled):
    def train(x):
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        torch._dynamo.reset()
        train = torch.compile(train, backend="eager")
    return [train(torch.randn(8, 4, generator=torch.Generator().manual_seed(i))).item() for i in range(4)]


#: each rule and each backend once: nothing of either is compiled
@pytest.mark.parametrize(("rule", "backend"), [*zip(RULES.values(), BACKENDS, strict=True)], ids=[*RULES])
def test_a_compiled_training_step_is_the_training_step(rule, backend, recwarn):
    nets = model(), model()
    losses = [
        run(net, rule(net.parameters(), backend=backend), compiled)
        for net, compiled in zip(nets, (True, False), strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1])
    assert same(nets[0].parameters(), nets[1].parameters(), within=1e-6)
    assert not [w for w in recwarn if "thalweg" in str(w.message) or "dynamo" in str(w.message).lower()]


def test_a_compiled_step_recompiles_nothing_while_a_schedule_runs():
    net = model()
    optimizer = thalweg.AdamW(net.parameters(), lr=0.1)
    counter = torch._dynamo.testing.CompileCounter()
    torch._dynamo.reset()

    @torch.compile(backend=counter)
    def train(x):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    frames = []
    for i in range(6):
        optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
        train(torch.randn(8, 4))
        frames.append(counter.frame_count)
    assert frames[2] == frames[-1]


@on_backends
def test_compiled_step_alone(backend):
    net, other = model(), model()
    a, b = thalweg.AdamW(net.parameters(), backend=backend), thalweg.AdamW(other.parameters(), backend=backend)
    torch._dynamo.reset()
    step = torch.compile(a.step, backend="eager")
    for i in range(3):
        for n, s in ((net, step), (other, b.step)):
            n.zero_grad()
            n(torch.ones(2, 4) * (i + 1)).square().mean().backward()
            s()
    assert same(net.parameters(), other.parameters())


@on_backends
def test_a_compiled_model_is_trained(backend):
    net, other = model(), model()
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager")
    a, b = thalweg.AdamW(compiled.parameters(), backend=backend), thalweg.AdamW(other.parameters(), backend=backend)
    a.fuse_into_backward()
    for _ in range(3):
        for n, optimizer in ((compiled, a), (other, b)):
            optimizer.zero_grad()
            n(torch.ones(2, 4)).square().mean().backward()
            optimizer.step()
    assert same(net.parameters(), other.parameters(), within=1e-6)
