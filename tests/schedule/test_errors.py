import pytest
import torch

from tests.schedule.samples import sgd, two_groups
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
    Scheduler,
    Step,
    Then,
    UntunedWarmup,
    Warmup,
    Wsd,
    constant,
    cosine,
    epochs,
    linear,
    share,
    wsd,
)

value = Between(0.8, 0.9, Linear(3))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: linear(0), "steps=0: expected an integer of at least 1"),
    (lambda: linear(2.5), "steps=2.5"),
    (lambda: linear(10, warmup=10), r"warmup=10: expected an integer in \[0, 10\)"),
    (lambda: linear(10, warmup=1.0), r"warmup=1.0: .* a float in \[0, 1\)"),
    (lambda: linear(10, warmup=-0.1), "warmup=-0.1"),
    (lambda: linear(10, warmup="3"), "warmup='3'"),
    (lambda: cosine(10, warmup=-1), "warmup=-1"),
    (lambda: constant(warmup=0.5), "warmup=0.5"),
    (lambda: cosine(10, final=1.5), r"final=1.5: expected a number in \[0, 1\]"),
    (lambda: wsd(10, decay=0), "decay=0"),
    (lambda: wsd(10, decay="0.2"), "decay='0.2'"),
    (lambda: wsd(10, shape="cubic"), "shape='cubic': expected one of 'linear', 'cosine', '1-sqrt'"),
    (lambda: linear(10, final=float("nan")), "final=nan"),
    (lambda: linear(10, final=True), "final=True"),
    (lambda: linear(True), "steps=True"),
    (lambda: Linear(10, start=-0.1), "start=-0.1"),
    (lambda: Cosine(0), "steps=0"),
    (lambda: Wsd(10, decay=1.5), r"decay=1.5: expected a number in \(0, 1\]"),
    (lambda: Constant(-1), "factor=-1"),
    (lambda: Constant(float("inf")), "factor=inf"),
    (lambda: Polynomial(10, power=0), r"power=0: expected a number in \(0, ∞\)"),
    (lambda: Exponential(0), r"gamma=0: expected a number in \(0, 1\]"),
    (lambda: Exponential(1.1), "gamma=1.1"),
    (lambda: Exponential.reaching(0, 10), "final=0"),
    (lambda: Step(0), "step_size=0"),
    (lambda: MultiStep([]), r"milestones=\[\]"),
    (lambda: MultiStep([3, 3]), r"milestones=\[3, 3\]: expected increasing"),
    (lambda: MultiStep([0, 3]), r"milestones\[0\]=0"),
    (lambda: MultiStep(30), "milestones=30"),
    (lambda: InverseSqrt(0), "warmup=0"),
    (lambda: InverseSqrt(5, rise=2), "rise=2"),
    (lambda: CosineRestarts(0), "t_0=0"),
    (lambda: CosineRestarts(5, t_mult=1.5), "t_mult=1.5"),
    (lambda: CosineRestarts(5, decay=0), "decay=0"),
    (lambda: CosineRestarts(5, cycles=0), "cycles=0"),
    (lambda: Cyclic(0), "step_size_up=0"),
    (lambda: Cyclic(5, 0), "step_size_down=0"),
    (lambda: Cyclic(5, mode="square"), "mode='square'"),
    (lambda: Cyclic(5, gamma=2), "gamma=2"),
    (lambda: OneCycle(10, pct_start=1.2), "pct_start=1.2"),
    (lambda: OneCycle(10, pct_start=0.6, three_phase=True), r"pct_start=0.6: expected a number in \[0, 0.5\]"),
    (lambda: OneCycle(10, anneal_strategy="cosine"), "anneal_strategy='cosine': expected one of 'cos', 'linear'"),
    (lambda: OneCycle(10, start=25), "start=25"),
    (lambda: OneCycle(10, three_phase=1), "three_phase=1"),
    (lambda: OneCycle(10).momentum(max=float("nan")), "zero=nan"),
    (lambda: Warmup(0, Constant()), "steps=0"),
    (lambda: Warmup(2, 0.5), "schedule=0.5: expected a schedule: a function of the step"),
    (lambda: Warmup(2, Linear), "schedule=<class"),
    (lambda: Warmup(2, Constant(), "square"), "shape='square'"),
    (lambda: Warmup(2, Constant(), "exponential"), r"start=0.0: expected a number in \(0, 1\). .* say start=0.01"),
    (lambda: Warmup(2, Constant(), start=1), r"start=1: expected a number in \[0, 1\)"),
    (lambda: UntunedWarmup(1), "beta2=1"),
    (lambda: UntunedWarmup(shape="cosine"), "shape='cosine'"),
    (lambda: Constant().then(Linear(3)), "after=None: expected a number of updates, since this schedule does not end"),
    (lambda: Exponential(0.9).then(Linear(3)), "after=None"),
    (lambda: Linear(3).then(0.5), "second=0.5"),
    (lambda: Then(1, 2, 3), "first=1"),
    (lambda: Linear(3).then(Linear(3), after=0), "after=0"),
    (lambda: Product(Linear(3), 2), "right=2"),
    (lambda: -1 * Linear(3), "factor=-1"),
    (lambda: ByEpoch(Linear(3), 0), "per_epoch=0"),
    (lambda: ByEpoch(Linear(3), 5, smooth="yes"), "smooth='yes'"),
    (lambda: ByFraction(0.5, 5), "function=0.5"),
    (lambda: ByFraction(abs, 0), "steps=0"),
    (lambda: Between(0, float("inf"), Linear(3)), "one=inf"),
    (lambda: Between(0, 1, 2), "schedule=2"),
    (lambda: epochs(0, 10), "count=0"),
    (lambda: epochs(3, 1.5), "per_epoch=1.5"),
    (lambda: share(1.5, of=10), "fraction=1.5"),
    (lambda: share(0.5, of=0), "of=0"),
    (lambda: Plateau("least"), "mode='least'"),
    (lambda: Plateau(factor=1), r"factor=1: expected a number in \(0, 1\)"),
    (lambda: Plateau(patience=-1), "patience=-1: expected an integer of at least 0"),
    (lambda: Plateau(cooldown=0.5), "cooldown=0.5"),
    (lambda: Plateau(threshold=-1), "threshold=-1"),
    (lambda: Plateau(threshold_mode="log"), "threshold_mode='log'"),
    (lambda: Plateau(final=2), "final=2"),
    (lambda: Plateau(eps=-1), "eps=-1"),
])  # fmt: skip
def test_a_schedules_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("around", [
    lambda v: Warmup(3, v), lambda v: Linear(3).then(v), lambda v: Linear(3) * v, lambda v: Between(0, 1, v),
    lambda v: ByEpoch(v, 3), lambda v: ByFraction(v, 3),
])  # fmt: skip
def test_what_gives_values_is_no_factor(around):
    with pytest.raises(ValueError, match=r"expected a schedule of factors. Put Between around the whole"):
        around(value)


@pytest.mark.parametrize(("asked", "message"), [
    ({"schedule": 5}, "schedule=5: expected a schedule: a function of the step"),
    ({"schedule": Linear}, "schedule=<class"),
    ({}, "schedule=None"),
    ({"schedule": Linear(3), "lr": Linear(3)}, "lr=.*: expected the only schedule of the learning rate"),
    ({"schedule": (Linear(3), Linear(3))}, r"schedule=\(Linear.*a function of the step"),
    ({"schedule": [Linear(3)]}, "schedule=.*: expected a list of 2 schedules"),
    ({"schedule": [Linear(3), 4]}, "schedule=4"),
    ({"schedule": {2: Linear(3)}}, r"schedule=\[2\]: expected parameter groups that there are \(indices below 2"),
    ({"schedule": {"tail": Linear(3)}}, r"schedule=\['tail'\]: .* names \['body', 'head'\], None for the others"),
    ({"schedule": {0: Linear(3), "body": Linear(3)}}, "each parameter group once; 'body' is there by name"),
    ({"weight_decay": 0.1}, "weight_decay=0.1"),
    ({"momentum": Linear(3), "betas": (Linear(3), None)}, "betas=.*: expected the only schedule of betas in"),
    ({"betas": Linear(3)}, r"betas=Linear\(.*: expected a tuple of 2, a schedule for each number or None"),
    ({"betas": (Linear(3),)}, "expected a tuple of 2"),
    ({"betas": (0.5, None)}, "betas=0.5"),
    ({"moments": Linear(3)}, "moments=.*: expected a schedule of what parameter group 0 has: lr, betas, eps"),
    ({"amsgrad": Linear(3)}, "amsgrad=.*: expected a schedule of a number; in parameter group 0 it is False"),
    ({"weight_decay": Linear(3), "last_epoch": 3}, "last_epoch=3: expected -1: .* no 'initial_weight_decay'"),
])  # fmt: skip
def test_a_schedulers_bad_values_are_named_and_change_nothing(asked, message):
    optimizer = two_groups(optimizer=torch.optim.AdamW)
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=message):
        Scheduler(optimizer, **asked)
    assert optimizer.state_dict() == before


def test_an_optimizer_without_momentum_has_none_to_schedule():
    optimizer = torch.optim.Adagrad([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match=r"momentum=.*: expected a schedule of what parameter group 0 has: lr, "):
        Scheduler(optimizer, momentum=OneCycle(5).momentum())
    assert Scheduler(sgd(momentum=0.9), momentum=OneCycle(5).momentum())
