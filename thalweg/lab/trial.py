"""Try an optimizer class on a tiny model, before anything runs: does it build, does it step, what is it like?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from thalweg._base.errors import ThalwegError
from thalweg.lab.contestant import Contestant, Decay, Point, Traits
from thalweg.train import update
from thalweg.wrap.wrapper import layers

#: steps for which the ways of two weight decays are compared
STEPS = 3
#: at these the effect of a decay is far above the rounding of float32
LR, DECAY = 1e-2, 1.0


def traits(entered: Contestant, at: Point) -> Traits:
    """What a contestant's class is like, from a few steps on 30 numbers; torch's generators are left as they were.

    Args:
        entered: the contestant; its own traits are not looked at.
        at: learning rate and further settings to try it at.

    Raises:
        ThalwegError: if it cannot be built, or cannot step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _tiny()
        with _blaming(entered):
            entered, optimizer = _built(entered, model, at)
        closure = _asks_for_the_loss(entered, optimizer, model)
        found = replace(entered.traits, closure=closure)
        if "weight_decay" in layers(optimizer)[-1].defaults:
            bare = replace(entered, traits=replace(found, decay="its own way"), wraps=())
            found = replace(found, decay=_decay(bare, at))
        return found


def default_decay(entered: Contestant, at: Point) -> float:
    """The weight decay that its class has where none is given; 0 if it has none."""
    with torch.random.fork_rng(devices=[]), _blaming(entered):
        bare = replace(entered, tuned=False, traits=Traits(decay="none"))
        optimizer = bare.build_for(_tiny(), at, backend="eager" if entered.ours else "auto")
    return float(layers(optimizer)[-1].defaults.get("weight_decay", 0.0))


def normalises(entered: Contestant) -> bool:
    """Whether its first step is as long for gradients ten times as large: Adam's is, and that of SGD is not."""
    lengths = []
    for scale in (1.0, 10.0):
        with torch.random.fork_rng(devices=[]), _blaming(entered):
            torch.manual_seed(0)
            model = _tiny()
            optimizer = replace(entered, carried=None).build_for(model, Point(LR), backend="eager")
            before = [p.detach().clone() for p in model.parameters()]
            for p in model.parameters():
                p.grad = scale * torch.randn_like(p)
            if entered.traits.closure:
                optimizer.step(lambda: 1.0)
            else:
                update(optimizer, 1.0)
            moved = [(p - q).square().sum() for p, q in zip(model.parameters(), before, strict=True)]
            lengths.append(float(torch.stack(moved).sum().detach()) ** 0.5)
    return bool(lengths[1] < 3.0 * lengths[0])


def _tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))


def _built(entered: Contestant, model: nn.Module, at: Point) -> tuple[Contestant, torch.optim.Optimizer]:
    """The optimizer, with as many groups as it takes, and its decay as it is by default."""
    plain = replace(entered, traits=Traits(decay="none"))
    if plain.multiplies:
        with contextlib.suppress(Exception):
            return plain, plain.build_for(model, at, backend="eager")
    alone = replace(plain, traits=Traits(decay="none", one_group=True))
    return alone, alone.build_for(model, at, backend="eager")


def _asks_for_the_loss(entered: Contestant, optimizer: torch.optim.Optimizer, model: nn.Module) -> bool:
    """Whether it steps with a closure only."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(2, 3)).square().mean()
        loss.backward()
        return loss  # type: ignore[no-any-return]

    loss = float(closure().detach())
    try:
        update(optimizer, loss)
    except Exception:
        with _blaming(entered):
            optimizer.step(closure)  # type: ignore[arg-type]  # torch says float, and means a tensor
        return True
    return False


def _decay(entered: Contestant, at: Point) -> Decay:
    """How weights with and without decay part, under the same gradients.

    Where p ← p − lr·λ·p and then the same step is taken, whatever that is, they differ by (1 − lr·λ)·p' − p after
    it. Anything else is the class's own way, such as a decay that is added to the gradient.
    """
    at = replace(at, lr=LR)
    decayed, plain = (_way(entered, replace(at, weight_decay=decay)) for decay in (DECAY, 0.0))
    for t in range(STEPS):
        expected = (1 - LR * DECAY) * decayed[t] - plain[t]
        if not torch.allclose(decayed[t + 1] - plain[t + 1], expected, rtol=0.0, atol=1e-2 * LR * DECAY):
            return "its own way"
    return "decoupled"


def _way(entered: Contestant, at: Point) -> list[Tensor]:
    """A hidden matrix at each step of a few with fixed gradients."""
    torch.manual_seed(0)
    model = _tiny()
    with _blaming(entered):
        optimizer = entered.build_for(model, at, backend="eager")
    matrix = next(model.parameters())
    way = [matrix.detach().clone()]
    for _ in range(STEPS):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        if entered.traits.closure:
            optimizer.step(lambda: 1.0)  # the gradients stay as they are
        else:
            update(optimizer, 1.0)
        way.append(matrix.detach().clone())
    return way


@contextlib.contextmanager
def _blaming(entered: Contestant) -> Iterator[None]:
    try:
        yield
    except ThalwegError:
        raise
    except Exception as error:
        raise ThalwegError(f"--optimizers: {entered.label}: {type(error).__name__}: {error}") from error
