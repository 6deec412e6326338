"""Schedules at random, optimizers to schedule, and torch's own schedulers to compare with."""

import torch
from hypothesis import strategies as st

from thalweg import schedule
from thalweg.schedule import (
    Between,
    ByEpoch,
    ByFraction,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Product,
    Rex,
    Step,
    Then,
    UntunedWarmup,
    Warmup,
    Wsd,
)

lengths = st.integers(1, 200)
fractions = st.floats(0, 1)
factors = st.floats(1e-3, 1)
milestones = st.lists(st.integers(1, 200), min_size=1, max_size=5, unique=True).map(sorted)


def parabola(x):
    return (1 - x) ** 2


plain = {
    Constant: st.builds(Constant, fractions),
    Linear: st.builds(Linear, lengths, fractions, fractions),
    Cosine: st.builds(Cosine, lengths, fractions),
    Polynomial: st.builds(Polynomial, lengths, fractions, st.floats(0.1, 5)),
    Rex: st.builds(Rex, lengths, fractions),
    Wsd: st.builds(Wsd, lengths, fractions, factors, st.sampled_from(["linear", "cosine", "1-sqrt"])),
    InverseSqrt: st.builds(InverseSqrt, lengths, st.booleans()),
    Exponential: st.builds(Exponential, factors),
    Step: st.builds(Step, lengths, factors),
    MultiStep: st.builds(MultiStep, milestones, factors),
    CosineRestarts: st.builds(
        CosineRestarts, lengths, st.integers(1, 3), fractions, factors, st.none() | st.integers(1, 4)
    ),
    Cyclic: st.builds(
        Cyclic,
        lengths,
        st.none() | lengths,
        fractions,
        st.sampled_from(["triangular", "triangular2", "exp_range"]),
        factors,
    ),
    OneCycle: st.builds(
        OneCycle, lengths, st.floats(0, 0.5), fractions, fractions, st.sampled_from(["cos", "linear"]), st.booleans()
    ),
    UntunedWarmup: st.builds(UntunedWarmup, st.floats(0, 0.99), st.sampled_from(["exponential", "linear"])),
    ByFraction: st.builds(ByFraction, st.just(parabola), lengths),
}
shapes = st.one_of(*plain.values())
around = {
    Warmup: st.builds(
        Warmup, lengths, shapes, st.sampled_from(["linear", "cosine", "exponential"]), st.floats(0.01, 0.9)
    ),
    Then: st.builds(Then, shapes, lengths, shapes),
    Product: st.builds(Product, shapes, shapes),
    ByEpoch: st.builds(ByEpoch, shapes, lengths, st.booleans()),
    Between: st.builds(Between, st.floats(-2, 2), st.floats(-2, 2), shapes),
}
plateaus = st.builds(
    Plateau,
    st.sampled_from(["min", "max"]),
    st.floats(0.05, 0.95),
    st.integers(0, 3),
    st.floats(0, 0.3),
    st.sampled_from(["rel", "abs"]),
    st.integers(0, 3),
    st.floats(0, 0.2),
    st.sampled_from([0.0, 1e-8, 0.05, 0.3]),
)
every = {**plain, **around, Plateau: plateaus}
#: every function of the step that gives factors
schedules = st.one_of(shapes, *(around[c] for c in (Warmup, Then, Product, ByEpoch)))

NAMES = {**vars(schedule), "parabola": parabola}


def example_of(cls):
    """The schedule of the docstring's last line."""
    line = cls.__doc__.rstrip().splitlines()[-1]
    assert line.strip().startswith("Example: "), line
    return eval(line.strip().removeprefix("Example: "), dict(NAMES))


def sgd(lr=1.0, **kwargs):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, **kwargs)


def two_groups(tensor_lr=False, optimizer=torch.optim.SGD, **kwargs):
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 1.0, "name": "body"},
        {"params": [torch.nn.Parameter(torch.zeros(2))], "name": "head"},
    ]
    return optimizer(groups, lr=torch.tensor(0.5) if tensor_lr else 0.5, **kwargs)


def values(optimizer, key="lr"):
    """A number of each group, as plain as it goes."""
    return [float(v) if isinstance(v, torch.Tensor) else v for v in (g[key] for g in optimizer.param_groups)]


def trajectory(optimizer, scheduler, steps, key="lr"):
    """The first group's number at each of some updates."""
    seen = []
    optimizer.step()  # there are no gradients: once is enough for torch to see that it is called
    for _ in range(steps):
        seen.append(values(optimizer, key)[0])
        scheduler.step()
    return seen


def torchs(make, steps, lr=1.0):
    """The learning rates that a torch scheduler gives."""
    optimizer = sgd(lr)
    return trajectory(optimizer, make(optimizer), steps)


def closed_form(make, steps):
    """The same by its closed form, where the recursive one adds up rounding."""
    scheduler, seen = make(sgd()), []
    for step in range(steps):
        scheduler.last_epoch = step
        seen += scheduler._get_closed_form_lr()
    return seen


def called(f, steps):
    return [f(t) for t in range(steps)]
