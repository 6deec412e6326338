"""Schedule-Free: weights that are y in training and their mean x in evaluation."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch

from tests.cases import MIXED, distance, parameters, walk
from thalweg.optim import schedule_free
from thalweg.rule import Optimizer

ON_BACKENDS = pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
NAMES = ["ScheduleFreeSGD", "ScheduleFreeAdamW", "ScheduleFreeRAdam"]
ALL = pytest.mark.parametrize("name", NAMES)
FORMATS = [
    (torch.float64, {}),
    (torch.float32, {}),
    (torch.float32, {"state_dtype": "int8"}),
    (torch.bfloat16, {}),
    (torch.bfloat16, {"rounding": "stochastic", "state_dtype": "float32"}),
    (torch.bfloat16, {"master": "split16"}),
    (torch.bfloat16, {"master": "split8", "state_dtype": "bfloat16"}),
    (torch.float16, {}),
    (torch.complex128, {}),
]


def rule(name: str) -> type[Any]:
    return getattr(schedule_free, name)


def make(name: str, params: list[Any], **more: Any) -> Any:
    """One that soon moves."""
    betas = {} if name == "ScheduleFreeSGD" else {"betas": (0.9, 0.95)}
    return rule(name)(params, **{"lr": 0.1, **betas, **more})


def bits(optimizer: Optimizer, params: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    """All that is there of the parameters and their states."""
    kept = [optimizer.state[p] for p in params]
    return [p.detach().clone() for p in params] + [v.clone() for s in kept for _, v in sorted(s.items())]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


#: each rule in each format, on one backend after the other
IN_TURN = [
    (name, ("eager", "foreach", "auto")[(i + k) % 3], *one)
    for i, name in enumerate(NAMES)
    for k, one in enumerate(FORMATS)
]


@pytest.mark.parametrize(("name", "backend", "dtype", "flags"), IN_TURN, ids=str)
def test_to_x_and_back_changes_no_bit(name, backend, dtype, flags):
    params, others = parameters([*MIXED, (3, 130)], dtype), parameters([*MIXED, (3, 130)], dtype)
    for ps in (params, others):
        ps.append(torch.nn.Parameter(torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1).to(dtype)))
        ps.append(torch.nn.Parameter(torch.ones(6, 4, dtype=dtype)[:, ::2]))
    optimizer, twin = (make(name, ps, backend=backend, **flags) for ps in (params, others))
    walk(optimizer, params, 8)
    walk(twin, others, 8)
    before = bits(optimizer, params)
    for _ in range(2):
        optimizer.eval()
        assert distance(params, others) > 1e-3
        optimizer.eval()
        optimizer.train()
        optimizer.train()
        assert equal(bits(optimizer, params), before)
    walk(optimizer, params, 4, start=8)
    walk(twin, others, 4, start=8)
    assert equal(bits(optimizer, params), bits(twin, others))


@ALL
@ON_BACKENDS
def test_x_is_the_mean_of_z(name, backend):
    params = parameters(MIXED)
    optimizer = make(name, params, backend=backend)
    sums, steps, weights = [torch.zeros_like(p) for p in params], 0, 0.0
    for step in range(20):
        walk(optimizer, params, 1, start=step)
        group = optimizer.param_groups[0]
        weight, weights = group["weight_sum"] - weights, group["weight_sum"]
        steps += weight > 0
        for total, p in zip(sums, params, strict=True):
            total += weight * optimizer.state[p]["z"]
    optimizer.eval()
    assert steps == (16 if name == "ScheduleFreeRAdam" else 20)
    assert distance(params, [total / weights for total in sums]) < 1e-12


@pytest.mark.parametrize("name", ["ScheduleFreeSGD", "ScheduleFreeAdamW"])
def test_decay_is_at_y_and_weights_go_by_the_largest_rate_so_far(name):
    params = parameters([(4, 3)])
    optimizer = make(name, params, weight_decay=0.5)
    walk(optimizer, params, 4)
    y, z = params[0].detach().clone(), optimizer.state[params[0]]["z"].clone()
    optimizer.param_groups[0]["lr"] = 0.05
    params[0].grad = torch.zeros_like(y)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[params[0]]["z"], z - 0.05 * 0.5 * y, rtol=1e-14, atol=1e-14)
    assert optimizer.param_groups[0]["weight_sum"] == pytest.approx(5 * 0.1**2, rel=1e-14)


@ALL
def test_weights_written_in_eval_mode_are_where_training_goes_on(name):
    params = parameters([(4, 3)])
    optimizer = make(name, params)
    walk(optimizer, params, 8)
    z, y = optimizer.state[params[0]]["z"].clone(), params[0].detach().clone()
    optimizer.eval()
    with torch.no_grad():
        params[0][0] += 1.0
    x = params[0].detach().clone()
    optimizer.train()
    assert torch.equal(params[0][1:], y[1:])
    torch.testing.assert_close(params[0][0].detach(), 0.9 * x[0] + 0.1 * z[0], rtol=1e-14, atol=1e-14)


@ALL
@ON_BACKENDS
def test_a_step_in_eval_mode_is_one_error_and_changes_nothing(name, backend):
    params = parameters(MIXED)
    optimizer = make(name, params, backend=backend)
    walk(optimizer, params, 3)
    optimizer.eval()
    before, calls = bits(optimizer, params), []
    with pytest.raises(ValueError, match=r"train_mode=False: expected True for a step.*optimizer\.train\(\)"):
        optimizer.step(lambda: calls.append(1))
    assert not calls
    assert equal(bits(optimizer, params), before)
    optimizer.train()
    walk(optimizer, params, 1, start=3)


def saved_and_loaded(optimizer: Any, params: list[torch.nn.Parameter]) -> tuple[Any, list[torch.nn.Parameter]]:
    """Through a file, into an optimizer made with other numbers."""
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "weights": [p.detach() for p in params]}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    others = [torch.nn.Parameter(x) for x in saved["weights"]]
    second = type(optimizer)(others, lr=7.0, backend=optimizer.backend)
    second.load_state_dict(saved["optimizer"])
    return second, others


COPIES = {
    "deepcopy": lambda o, ps: copy.deepcopy((o, ps)),
    "pickle": lambda o, ps: pickle.loads(pickle.dumps((o, ps))),
    "checkpoint": saved_and_loaded,
}


@ALL
@ON_BACKENDS
@pytest.mark.parametrize("copier", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_copies_and_checkpoints_keep_the_mode(name, backend, copier, mode):
    params = parameters(MIXED, torch.float32)
    optimizer = make(name, params, backend=backend)
    walk(optimizer, params, 8)
    getattr(optimizer, mode)()
    twin, others = copier(optimizer, params)
    assert twin.param_groups[0]["train_mode"] == (mode == "train")
    assert equal(bits(twin, others), bits(optimizer, params))
    for o, ps in ((optimizer, params), (twin, others)):
        o.train()
        walk(o, ps, 4, start=8)
        o.eval()
    assert equal(bits(twin, others), bits(optimizer, params))


@pytest.mark.parametrize("name", ["ScheduleFreeAdamW", "ScheduleFreeRAdam"])
def test_a_checkpoint_of_the_authors_code_goes_on(name):
    """It counts a group's steps alone, is made in eval mode and keeps no y; its lr_max begins at −1."""
    params, others = parameters(MIXED), parameters(MIXED)
    optimizer, second = (make(name, ps) for ps in (params, others))
    walk(optimizer, params, 8)
    optimizer.eval()
    saved = copy.deepcopy(optimizer.state_dict())
    for mine in saved["state"].values():
        del mine["step"], mine["y"]
    saved["param_groups"][0].update(k=8, scheduled_lr=0.1)
    with torch.no_grad():
        for q, p in zip(others, params, strict=True):
            q.copy_(p)
    second.load_state_dict(saved)
    for o, ps in ((optimizer, params), (second, others)):
        o.train()
        walk(o, ps, 8, start=8)
    assert distance(params, others) < 1e-13


@ALL
@ON_BACKENDS
def test_modes_before_the_first_step_are_free(name, backend):
    params, others = parameters(MIXED), parameters(MIXED)
    optimizer, twin = (make(name, ps, backend=backend) for ps in (params, others))
    optimizer.eval()
    assert distance(params, others) == 0
    optimizer.train()
    walk(optimizer, params, 8)
    walk(twin, others, 8)
    assert distance(params, others) == 0


@ALL
@ON_BACKENDS
def test_a_parameter_that_comes_late_starts_where_it_is_and_weighs_little(name, backend):
    early, late = parameters([(4, 3), (5,)])
    optimizer = make(name, [early, late], backend=backend)
    walk(optimizer, [early], 50)
    start = late.detach().clone()
    walk(optimizer, [early, late], 6, start=50)
    z = optimizer.state[late]["z"].clone()
    optimizer.eval()
    # in the mean it has stood at its start while the others moved
    assert 0 < (late - start).abs().max() < 0.2 * (z - start).abs().max()
    assert (z - start).abs().max() < 6 * 0.1 * 5  # steps are of the order of lr, not of what 50 steps would correct
    if name != "ScheduleFreeSGD":
        assert optimizer.state[late]["step"] == 6


@ALL
@ON_BACKENDS
def test_groups_have_their_own_means_and_modes_follow_all(name, backend):
    first, second, third = parameters([(4, 3), (5,), (2,)])
    optimizer = make(name, [{"params": [first]}, {"params": [second], "lr": 0.2}], backend=backend)
    walk(optimizer, [first, second], 10)
    a, b = optimizer.param_groups
    assert b["weight_sum"] == pytest.approx(4 * a["weight_sum"], rel=1e-12)
    assert b["lr_max"] == 2 * a["lr_max"]
    optimizer.eval()
    optimizer.add_param_group({"params": [third]})
    with pytest.raises(ValueError, match="train_mode"):
        optimizer.step()
    optimizer.train()
    walk(optimizer, [first, second, third], 3, start=10)
    optimizer.eval()
    assert not any(group["train_mode"] for group in optimizer.param_groups)


@ALL
def test_the_mean_is_nearer_than_the_last_step_where_gradients_are_noisy(name):
    p = torch.nn.Parameter(torch.full((1000,), 5.0, dtype=torch.float64))
    optimizer = make(name, [p], lr=0.3)
    for step in range(300):
        noise = torch.randn(1000, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        p.grad = p.detach() + noise
        optimizer.step()
    z = optimizer.state[p]["z"].norm()
    optimizer.eval()
    assert p.norm() < z / 2


@pytest.mark.parametrize("flag", ["cautious", "cautious_decay", "trust_ratio", "hyperball", "independent_weight_decay"])
@ALL
def test_what_would_part_y_from_z_and_x_is_refused(name, flag):
    first, second = parameters([(3,), (3,)])
    with pytest.raises(TypeError, match=flag):
        rule(name)([first], **{flag: True})
    optimizer = rule(name)([first])
    with pytest.raises(ValueError, match=f"{flag}=True: expected one of False"):
        optimizer.add_param_group({"params": [second], flag: True})


@ALL
def test_updates_inside_backward_are_refused(name):
    with pytest.raises(ValueError, match=name):
        rule(name)(parameters([(3,)])).fuse_into_backward()


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("ScheduleFreeSGD", {"momentum": 0.0}, r"momentum=0\.0: expected a number in \(0, 1\)"),
        ("ScheduleFreeAdamW", {"betas": (0.0, 0.9)}, r"betas=\(0\.0, 0\.9\): expected 2 numbers in \(0, 1\)"),
        ("ScheduleFreeAdamW", {"warmup_steps": -1}, "warmup_steps=-1"),
        ("ScheduleFreeRAdam", {"r": -1.0}, r"r=-1\.0"),
    ],
)
def test_bad_values_are_named(name, flags, message):
    with pytest.raises(ValueError, match=message):
        rule(name)(parameters([(3,)]), **flags)
