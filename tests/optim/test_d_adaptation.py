"""A learning rate from the distance to the solution: D-Adaptation and Prodigy."""

import math
from typing import Any

import pytest
import torch

import thalweg
from tests.cases import MIXED, distance, parameters
from tests.references import d_adaptation
from thalweg.rule import Optimizer

BACKENDS = ("eager", "foreach", "cpu")
RULES = ("DAdaptSGD", "DAdaptAdam", "Prodigy")
NAMES = pytest.mark.parametrize("name", RULES)
#: each on the last backend and on one of the others
ON_BACKENDS = pytest.mark.parametrize(
    ("name", "backend"), [(name, b) for i, name in enumerate(RULES) for b in (BACKENDS[i % 2], BACKENDS[-1])]
)
SHAPES = [s for s in MIXED if 0 not in s]


def rule(name: str) -> type[Optimizer]:
    return getattr(thalweg, name)


def descend(
    optimizer: Any,
    params: list[torch.nn.Parameter],
    steps: int,
    target: float = 3.0,
    scale: float = 1.0,
    start: int = 0,
) -> None:
    """Noisy gradients of ‖x − target‖²/2, times a scale."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        for p in params:
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            p.grad = scale * (p.detach() - 3 + 0.1 * noise)
        optimizer.step()


@NAMES
@pytest.mark.parametrize("far", [1e-2, 1.0, 1e3])
def test_d_grows_to_the_order_of_the_distance(name, far):
    params = [torch.nn.Parameter(torch.zeros(4, 5, dtype=torch.float64))]
    optimizer = rule(name)(params)
    for _ in range(300):
        params[0].grad = params[0].detach() - far
        optimizer.step()
    whole = far * (math.sqrt(20) if name == "DAdaptSGD" else 1.0)  # Adam's steps are lengths of single weights
    assert whole / 20 < optimizer.param_groups[0]["d"] < 5 * whole
    assert (params[0] - far).abs().max() < far / 2


SCHEDULES = [lambda t: 1.0, lambda t: min(1.0, (t + 1) / 20) * (1 - t / 100)]


WITH = [
    ("DAdaptSGD", {}),
    ("DAdaptSGD", {"momentum": 0.9, "weight_decay": 0.1}),
    ("DAdaptAdam", {}),
    ("DAdaptAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "growth_rate": 1.5}),
    ("Prodigy", {}),
    ("Prodigy", {"weight_decay": 0.1, "safeguard_warmup": True, "use_bias_correction": True}),
    ("Prodigy", {"growth_rate": 1.1, "beta3": 0.9}),
]
#: each with the schedule that moves, on one backend; all of them are compared in the suite
IN_TURN = [(*which, k, BACKENDS[(i + k) % 3]) for i, which in enumerate(WITH) for k in range(bool(which[1]), 2)]


@pytest.mark.parametrize(("name", "flags", "schedule", "backend"), IN_TURN)
def test_equals_the_papers_steps_while_d_grows(name, flags, schedule, backend):
    ours, theirs = parameters(SHAPES), parameters(SHAPES)
    # far from the rounding of x₀ − x by which the smallest d begin
    a = rule(name)(ours, backend=backend, d0=1e-4, **flags)
    b = getattr(d_adaptation, name)(theirs, d0=1e-4, **flags)
    for step in range(100):
        for optimizer, params in ((a, ours), (b, theirs)):
            optimizer.param_groups[0]["lr"] = SCHEDULES[schedule](step)
            descend(optimizer, params, 1, start=step)
    assert a.param_groups[0]["d"] > 2e-4
    assert distance(ours, theirs) < 1e-10


@ON_BACKENDS
def test_several_groups_are_as_one(name, backend):
    together, apart = parameters(SHAPES), parameters(SHAPES)
    one = rule(name)(together, backend=backend)
    two = rule(name)([{"params": apart[:2]}, {"params": apart[2:]}], backend=backend)
    descend(one, together, 60)
    descend(two, apart, 60)
    assert distance(together, apart) < 1e-9
    assert two.param_groups[0]["d"] == two.param_groups[1]["d"] == pytest.approx(one.param_groups[0]["d"], rel=1e-9)
    assert one.param_groups[0]["d"] > 1e-3


@ON_BACKENDS
def test_slower_groups_are_as_parameters_in_other_units(name, backend):
    """x = r y: the gradient of y is r that of x; steps of y are r times as large in x (SGD: r² times)."""
    r, no_eps = 0.25, {} if name == "DAdaptSGD" else {"eps": 1e-40}
    first, slow = parameters([(4, 3), (5,)])
    same, y = parameters([(4, 3), (5,)])
    with torch.no_grad():
        y /= r
    lr = r * r if name == "DAdaptSGD" else r
    ours = rule(name)([{"params": [first]}, {"params": [slow], "lr": lr}], lr=1.0, d0=1e-3, backend=backend, **no_eps)
    units = rule(name)([same, y], lr=1.0, d0=1e-3, backend=backend, **no_eps)
    for _ in range(60):
        first.grad, slow.grad = first.detach() - 2, slow.detach() - 2
        same.grad, y.grad = same.detach() - 2, r * (r * y.detach() - 2)
        ours.step()
        units.step()
    assert distance([first, slow], [same, y * r]) < 1e-9
    assert ours.param_groups[1]["d"] == pytest.approx(units.param_groups[0]["d"], rel=1e-9)
    assert units.param_groups[0]["d"] > 1e-2


@ON_BACKENDS
def test_a_group_whose_learning_rate_is_zero_is_as_if_it_were_not_there(name, backend):
    (alone,) = parameters([(4, 3)])
    moving, frozen = parameters([(4, 3), (50,)])
    before = frozen.detach().clone()
    one = rule(name)([alone], backend=backend)
    two = rule(name)([{"params": [moving]}, {"params": [frozen], "lr": 0.0}], backend=backend)
    descend(one, [alone], 60)
    descend(two, [moving, frozen], 60)
    assert torch.equal(frozen, before)
    assert distance([alone], [moving]) < 1e-9
    assert two.param_groups[0]["d"] == pytest.approx(one.param_groups[0]["d"], rel=1e-9)


@pytest.mark.parametrize(("name", "backend"), [*zip(RULES, BACKENDS, strict=True)])
def test_a_warmup_that_begins_at_zero_moves_nothing_and_spoils_nothing(name, backend):
    params = parameters(SHAPES)
    before = [p.detach().clone() for p in params]
    optimizer = rule(name)(params, lr=0.0, backend=backend)
    descend(optimizer, params, 3)
    assert distance(params, before) == 0
    assert optimizer.param_groups[0]["d"] == 1e-6
    optimizer.param_groups[0]["lr"] = 1.0
    descend(optimizer, params, 200, start=3)
    assert max((p - 3).abs().max().item() for p in params) < 1.5


@ON_BACKENDS
def test_gradients_that_are_all_zero_tell_nothing(name, backend):
    params = parameters(SHAPES)
    before = [p.detach().clone() for p in params]
    optimizer = rule(name)(params, backend=backend)
    for _ in range(3):
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    assert distance(params, before) == 0
    assert optimizer.param_groups[0]["d"] == 1e-6


@NAMES
def test_the_scale_of_the_loss_plays_no_part(name):
    small, large = parameters(SHAPES), parameters(SHAPES)
    no_eps = {} if name == "DAdaptSGD" else {"eps": 1e-40}
    a, b = rule(name)(small, d0=1e-3, **no_eps), rule(name)(large, d0=1e-3, **no_eps)
    descend(a, small, 60)
    descend(b, large, 60, scale=1024.0)
    assert distance(small, large) < 1e-9
    assert a.param_groups[0]["d"] > 1e-2


@ON_BACKENDS
def test_a_group_and_a_parameter_that_come_late_share_the_d_of_all(name, backend):
    first, sleeping, second = parameters([(4, 3), (2,), (5,)])
    optimizer = rule(name)([first, sleeping], backend=backend)
    descend(optimizer, [first], 60)
    d = optimizer.param_groups[0]["d"]
    assert d > 1e-3
    optimizer.add_param_group({"params": [second]})
    assert optimizer.param_groups[1]["d"] == d
    descend(optimizer, [first, sleeping, second], 150, start=60)
    assert optimizer.param_groups[1]["d"] == optimizer.param_groups[0]["d"] >= d
    assert max((p - 3).abs().max().item() for p in (first, sleeping, second)) < 1.5


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("DAdaptSGD", {"d0": 1e-3}, r"d0=0\.001: expected 1e-06, as in the first group"),
        ("DAdaptAdam", {"betas": (0.5, 0.9)}, r"betas=\(0\.5, 0\.9\)"),
        ("Prodigy", {"d_coef": 2.0}, r"d_coef=2\.0: expected 1\.0"),
        ("Prodigy", {"beta3": 0.9}, r"beta3=0\.9: expected None"),
    ],
)
def test_groups_that_would_find_another_d_are_refused(name, flags, message):
    first, second = parameters([(3,), (3,)])
    optimizer = rule(name)([first])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [second], **flags})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"d0": 0.0}, r"d0=0\.0: expected a number in \(0, ∞\)"),
        ({"growth_rate": 0.9}, r"growth_rate=0\.9: expected a number in \[1, ∞\]"),
        ({"d_coef": -1.0}, "d_coef"),
        ({"beta3": 1.0}, "beta3"),
    ],
)
def test_bad_values_are_named(flags, message):
    with pytest.raises(ValueError, match=message):
        thalweg.Prodigy(parameters([(3,)]), **flags)


def test_the_inf_of_an_unlimited_growth_goes_through_a_checkpoint(tmp_path):
    params, others = parameters(SHAPES), parameters(SHAPES)
    first, second = thalweg.Prodigy(params), thalweg.Prodigy(others, d0=1.0)
    descend(first, params, 30)
    torch.save({"optimizer": first.state_dict(), "params": [p.detach() for p in params]}, tmp_path / "saved.pt")
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    second.load_state_dict(saved["optimizer"])
    with torch.no_grad():
        for p, x in zip(others, saved["params"], strict=True):
            p.copy_(x)
    assert second.param_groups[0]["growth_rate"] == math.inf
    assert second.param_groups[0]["d"] == first.param_groups[0]["d"] > 1e-5
    descend(first, params, 30, start=30)
    descend(second, others, 30, start=30)
    assert distance(params, others) == 0
