"""What surrounds a direction, against the same done by hand around torch's optimizers, on every backend."""

import copy
import itertools

import pytest
import torch

import thalweg
from tests.cases import distance, parameters
from thalweg import transforms
from thalweg.ir import counter_rng
from thalweg.ir.transforms import STANDARD

BACKENDS = pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
SHAPES = [(7, 5), (5,), (3, 2, 2), (), (0, 4)]


def gradients(params, step, scale=3.0):
    generator = torch.Generator().manual_seed(step)
    return [scale * torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params]


def both(ours, theirs, change, steps=8, split=1):
    """Walk ours with the gradients as they are, and theirs with what ``change(params, grads)`` makes of them."""
    mine, others = parameters(SHAPES), parameters(SHAPES)
    groups = [{"params": mine[:split]}, {"params": mine[split:], "lr": 0.03}]
    their_groups = [{"params": others[:split]}, {"params": others[split:], "lr": 0.03}]
    a, b = ours(groups), theirs(their_groups)
    for step in range(steps):
        for p, g in zip(mine, gradients(mine, step), strict=True):
            p.grad = g
        for p, g in zip(others, gradients(others, step), strict=True):
            p.grad = g
        change(others)
        a.step()
        b.step()
    assert distance(mine, others) < 1e-12


def adamw(backend, **flags):
    return lambda groups: thalweg.AdamW(groups, lr=0.01, backend=backend, **flags)


def torchs(groups):
    return torch.optim.AdamW(groups, lr=0.01)


@BACKENDS
def test_clip_value(backend):
    both(adamw(backend, clip_value=0.5), torchs, lambda ps: torch.nn.utils.clip_grad_value_(ps, 0.5))


@BACKENDS
def test_clip_global_norm_is_torchs_over_all_groups(backend):
    both(adamw(backend, clip_global_norm=1.0), torchs, lambda ps: torch.nn.utils.clip_grad_norm_(ps, 1.0))


@BACKENDS
@pytest.mark.parametrize("clip", ["clip_value", "clip_norm", "clip_global_norm", "clip_adaptive"])
def test_what_is_within_a_bound_is_left_as_it_is(backend, clip):
    both(lambda groups: thalweg.SGD(groups, lr=0.01, backend=backend, **{clip: 1e4}),
         lambda groups: torch.optim.SGD(groups, lr=0.01), lambda ps: None)  # fmt: skip


@BACKENDS
def test_clip_norm_is_torchs_tensor_by_tensor(backend):
    both(adamw(backend, clip_norm=1.0), torchs, lambda ps: [torch.nn.utils.clip_grad_norm_([p], 1.0) for p in ps])


def centralize(params):
    for p in params:
        if p.ndim > 1 and p.numel():
            p.grad -= p.grad.mean(tuple(range(1, p.ndim)), keepdim=True)


def clip_adaptive(params):
    for p in params:
        if not p.numel():
            continue
        rows, weights = p.grad.reshape(p.shape[0], -1) if p.ndim > 1 else p.grad.reshape(1, -1), p.detach()
        weights = weights.reshape(p.shape[0], -1) if p.ndim > 1 else weights.reshape(1, -1)
        most = 0.1 * weights.norm(dim=1).clamp(min=1e-3)
        factor = (most / rows.norm(dim=1).clamp(min=1e-6)).clamp(max=1)
        p.grad = (rows * factor[:, None]).reshape(p.shape)


@BACKENDS
def test_centralize(backend):
    both(adamw(backend, centralize=True), torchs, centralize)


@BACKENDS
def test_clip_adaptive(backend):
    both(adamw(backend, clip_adaptive=0.1), torchs, clip_adaptive)


@BACKENDS
def test_the_mean_of_a_long_row_is_exact(backend):
    p = torch.nn.Parameter(torch.zeros(1, 1 << 20))
    p.grad = torch.full_like(p, 0.1)
    thalweg.SGD([p], lr=1.0, centralize=True, backend=backend).step()
    assert p.abs().max().item() < 1e-6


@pytest.mark.parametrize("flags", [{"centralize": True}, {"clip_adaptive": 0.1}, {"hyperball": True}], ids=str)
def test_what_looks_at_rows_refuses_complex_tensors(flags):
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.complex64))
    with pytest.raises(ValueError, match=f"{next(iter(flags))}=.*: expected off for complex tensors"):
        thalweg.SGD([p], lr=1.0, **flags)


@BACKENDS
def test_coupled_decay_sees_the_clipped_gradient(backend):
    both(
        lambda groups: thalweg.Adam(groups, lr=0.01, weight_decay=0.1, clip_global_norm=1.0, backend=backend),
        lambda groups: torch.optim.Adam(groups, lr=0.01, weight_decay=0.1),
        lambda ps: torch.nn.utils.clip_grad_norm_(ps, 1.0),
    )


def adam_direction(g, state, betas=(0.9, 0.999), eps=1e-8):
    """Adam by hand, in float64."""
    state["t"] = state.get("t", 0) + 1
    state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g * g
    mean, mean_sq = state["m"] / (1 - betas[0] ** state["t"]), state["v"] / (1 - betas[1] ** state["t"])
    return mean / (mean_sq.sqrt() + eps)


def by_hand(backend, after, **flags):
    """Walk AdamW with flags, and the same by hand."""
    mine, others = parameters(SHAPES), parameters(SHAPES)
    optimizer = thalweg.AdamW(mine, lr=0.01, weight_decay=0.1, backend=backend, **flags)
    states = [{} for _ in others]
    for step in range(8):
        for p, q, g, s in zip(mine, others, gradients(mine, step), states, strict=True):
            p.grad = g.clone()
            q.data = after(q.data, g, adam_direction(g, s))
        optimizer.step()
    assert distance(mine, others) < 1e-12


@BACKENDS
def test_cautious(backend):
    def after(p, g, u):
        agree = (u * g > 0).double()
        u = u * agree / agree.mean().clamp(min=1e-3) if p.numel() else u
        return p * (1 - 0.01 * 0.1) - 0.01 * u

    by_hand(backend, after, cautious=True)


@BACKENDS
def test_trust_ratio_is_lambs(backend):
    def after(p, g, u):
        u = u + 0.1 * p
        ratio = p.norm() / u.norm() if p.norm() > 0 and u.norm() > 0 else 1.0
        return p - 0.01 * ratio * u

    by_hand(backend, after, trust_ratio=True)


def by_hand_of_matrices(backend, step, listed, **flags):
    """As ``by_hand``, where ``step`` makes the whole step of a matrix from its direction."""
    by_hand(
        backend,
        lambda p, g, u: step(p, u) if p.ndim > 1 and p.numel() else p * 0.999 - 0.01 * u,
        transforms=listed,
        **flags,
    )


@BACKENDS
@pytest.mark.parametrize("shares", [(0.5, 1.0), (0.0, 0.3)])
def test_radial_brake(backend, shares):
    """The rescaling of its author's page, around AdamW, whose decay comes first."""

    def step(p, u):
        p = p * 0.999
        new = p - 0.01 * u
        share = shares[0] if new.norm() > p.norm() else shares[1]
        return new * (p.norm() + share * (new.norm() - p.norm())) / new.norm()

    by_hand_of_matrices(backend, step, [transforms.radial_brake(shares[0], radial_brake_inward=shares[1])])


@BACKENDS
def test_a_full_brake_keeps_the_norm(backend):
    (p,) = parameters([(6, 4)])
    optimizer = thalweg.SGD(
        [p], lr=0.3, transforms=[transforms.radial_brake(0.0, radial_brake_inward=0.0)], backend=backend
    )
    before = p.detach().norm().item()
    for step in range(3):
        (p.grad,) = gradients([p], step)
        optimizer.step()
    assert p.detach().norm().item() == pytest.approx(before, rel=1e-12)


@BACKENDS
@pytest.mark.parametrize("rows", [False, True])
def test_update_floor(backend, rows):
    """What is below the floor is raised to it; what is above is left."""

    def step(p, u):
        flat, weights = u.flatten(1), p.flatten(1)
        lengths = (flat.norm(dim=1, keepdim=True), weights.norm(dim=1, keepdim=True)) if rows else (u.norm(), p.norm())
        flat = flat * (0.9 * lengths[1] / lengths[0]).clamp(min=1)
        return p * 0.999 - 0.01 * flat.reshape(u.shape)

    by_hand_of_matrices(backend, step, [transforms.update_floor(0.9, update_floor_rows=rows)])


@BACKENDS
def test_nothing_is_raised_from_zero_or_at_zero(backend):
    params = [torch.nn.Parameter(torch.zeros(3, 2)), torch.nn.Parameter(torch.ones(3, 2))]
    optimizer = thalweg.SGD(
        params, lr=1.0, transforms=[transforms.update_floor(), transforms.radial_brake()], backend=backend
    )
    params[0].grad, params[1].grad = torch.ones(3, 2), torch.zeros(3, 2)
    optimizer.step()
    torch.testing.assert_close(params[0].detach(), torch.full((3, 2), -0.5))  # half as far: its norm was 0
    assert torch.equal(params[1].detach(), torch.ones(3, 2))


@BACKENDS
def test_gradient_noise(backend):
    steps = itertools.count(1)

    def change(params):
        t = next(steps)
        for i, p in enumerate(params):
            p.grad += (0.3 / t**0.55) ** 0.5 * counter_rng.normal(counter_rng.key(7, t), i, p.shape)

    both(adamw(backend, gradient_noise=0.3, seed=7), torchs, change)


@BACKENDS
def test_gradient_noise_is_normal_and_wanes_and_is_not_the_same_twice(backend):
    params = [torch.nn.Parameter(torch.zeros(100, 200, dtype=torch.float64)) for _ in range(2)]
    optimizer = thalweg.SGD(params, lr=1.0, gradient_noise=0.3, gradient_noise_decay=1.0, backend=backend)
    drawn = []
    for t in range(1, 4):
        before = [p.detach().clone() for p in params]
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        for p, b in zip(params, before, strict=True):
            drawn.append((b - p.detach()).flatten() / (0.3 / t) ** 0.5)
    correlations = torch.corrcoef(torch.stack(drawn))
    assert (correlations - torch.eye(6, dtype=torch.float64)).abs().max() < 0.03
    for z in drawn:
        assert z.mean().abs() < 0.03
        assert (z**2).mean() == pytest.approx(1, abs=0.04)
        assert (z**4).mean() == pytest.approx(3, abs=0.4)
        assert (z.abs() > 2).double().mean() == pytest.approx(0.0455, abs=0.006)


@BACKENDS
def test_gradient_noise_follows_the_seed_and_goes_on_in_a_checkpoint(backend):
    def run(seed, cut):
        params = parameters(SHAPES, torch.float32)
        optimizer = thalweg.SGD(params, lr=0.05, gradient_noise=0.3, seed=seed, backend=backend)
        for step in range(6):
            for p, g in zip(params, gradients(params, step), strict=True):
                p.grad = g
            optimizer.step()
            if step == cut:
                saved = copy.deepcopy(optimizer.state_dict())
                optimizer = thalweg.SGD(params, lr=1.0, backend=backend)
                optimizer.load_state_dict(saved)
        return params

    assert distance(run(1, None), run(1, 2)) == 0
    assert distance(run(1, None), run(2, None)) > 1e-3


@BACKENDS
def test_gradient_noise_is_the_same_for_any_strides(backend):
    ends = []
    for transposed in (False, True):
        p = torch.nn.Parameter(torch.zeros(3, 4).t() if transposed else torch.zeros(4, 3))
        p.grad = torch.zeros_like(p)
        thalweg.SGD([p], lr=1.0, gradient_noise=0.3, backend=backend).step()
        ends.append(p.detach().contiguous())
    assert torch.equal(*ends)


@BACKENDS
def test_grokfast(backend):
    slow = {}

    def change(params):
        for p in params:
            g = p.grad.clone()
            slow[p] = 0.9 * slow.get(p, g) + (1 - 0.9) * g
            p.grad += 2.0 * slow[p]

    both(adamw(backend, grokfast=2.0, grokfast_alpha=0.9), torchs, change)


def orthogonal(params):
    """What of a gradient is orthogonal to its tensor, at the length that it had; nothing where that is rounding."""
    for p in params:
        w, length = p.detach(), p.grad.norm()
        left = p.grad - (w * p.grad).sum() / w.square().sum() * w
        p.grad = left * length / left.norm() if p.numel() > 1 and left.norm() > 1e-6 * length else torch.zeros_like(p)


@BACKENDS
def test_orthograd(backend):
    both(adamw(backend, orthograd=True), torchs, orthogonal)  # the first gradient is along the weights


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_orthograd_makes_nothing_of_a_gradient_along_the_weights(backend, dtype):
    p = torch.nn.Parameter(torch.randn(50, 3, dtype=dtype))
    before = p.detach().clone()
    p.grad = -0.7 * before
    thalweg.SGD([p], lr=0.1, orthograd=True, backend=backend).step()
    assert torch.equal(p, before)


@BACKENDS
def test_orthograd_leaves_the_gradient_of_zeros(backend):
    p = torch.nn.Parameter(torch.zeros(4))
    p.grad = torch.ones(4)
    thalweg.SGD([p], lr=0.5, orthograd=True, backend=backend).step()
    assert torch.equal(p, torch.full((4,), -0.5))


@BACKENDS
def test_cautious_decay(backend):
    def after(p, g, u):
        return p - 0.01 * (u + 0.1 * (u * p >= 0).double() * p)

    by_hand(backend, after, cautious_decay=True)


@BACKENDS
def test_cautious_decay_within_the_trust_ratio(backend):
    def after(p, g, u):
        u = u + 0.1 * (u * p >= 0).double() * p
        ratio = p.norm() / u.norm() if p.norm() > 0 and u.norm() > 0 else 1.0
        return p - 0.01 * ratio * u

    by_hand(backend, after, cautious_decay=True, trust_ratio=True)


def test_cautious_decay_of_coupled_decay_is_refused():
    with pytest.raises(ValueError, match="cautious_decay=True: expected False, unless decay is decoupled"):
        thalweg.SGD(parameters(SHAPES), weight_decay=0.1, cautious_decay=True)
    thalweg.SGD([{"params": parameters(SHAPES), "weight_decay": 0.0}], cautious_decay=True)


def hyperball(chosen, decay=0.1):
    """The formula as it is written, with the norm of what is in its parentheses taken of that."""
    radius = {}

    def after(p, g, u):
        if not chosen(p) or not p.numel():
            return p * (1 - 0.01 * decay) - 0.01 * u
        r = radius.setdefault(p.shape, p.norm())
        p = p - 0.01 * r * u / u.norm()
        return r * p / p.norm()

    return after


@BACKENDS
def test_hyperball_keeps_the_norm_of_matrices(backend):
    by_hand(backend, hyperball(lambda p: p.ndim > 1), hyperball=True)


@BACKENDS
def test_hyperball_of_all_tensors(backend):
    by_hand(backend, hyperball(lambda p: True), hyperball="all")


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_hyperball_does_not_drift(backend, dtype):
    params = parameters([(20, 30), (7, 5)], dtype)
    before = [p.detach().double().norm() for p in params]
    rounding = "stochastic" if dtype == torch.bfloat16 else "nearest"
    optimizer = thalweg.AdamW(params, lr=0.05, hyperball=True, rounding=rounding, backend=backend)
    for step in range(100):
        for p, g in zip(params, gradients(params, step), strict=True):
            p.grad = g
        optimizer.step()
    for p, norm in zip(params, before, strict=True):
        assert p.detach().double().norm() / norm == pytest.approx(1, abs=8 * torch.finfo(dtype).eps)


@BACKENDS
@pytest.mark.parametrize("make", [thalweg.LAMB, thalweg.AdamW], ids=lambda make: make.__name__)
def test_hyperball_keeps_norms_where_a_trust_ratio_scales_the_direction_too(backend, make):
    """The step on the sphere is of the scaled direction: what its length comes to follows from that."""
    ends = []
    for flags in ({"weight_decay": 0.1}, {"weight_decay": 0.0}):
        params = parameters([(6, 4), (5,)])
        before = params[0].detach().norm()
        ratio = {} if make is thalweg.LAMB else {"trust_ratio": True}
        optimizer = make(params, lr=0.05, hyperball=True, backend=backend, eps=1e-6, **ratio, **flags)
        for step in range(5):
            for p, g in zip(params, gradients(params, step), strict=True):
                p.grad = g
            optimizer.step()
        assert params[0].detach().norm() / before == pytest.approx(1, abs=1e-14)
        ends.append(params)
    assert distance([ends[0][0]], [ends[1][0]]) < 1e-12  # what keeps its norm does not decay
    assert distance([ends[0][1]], [ends[1][1]]) > 1e-4


@BACKENDS
def test_hyperball_leaves_alone_what_has_no_direction_and_what_has_no_norm(backend):
    still, zero = (torch.nn.Parameter(x) for x in (torch.ones(2, 2), torch.zeros(2, 2)))
    still.grad, zero.grad = torch.zeros(2, 2), torch.ones(2, 2)
    optimizer = thalweg.SGD([still, zero], lr=0.5, hyperball=True, backend=backend)
    optimizer.step()
    optimizer.step()
    assert torch.equal(still, torch.ones(2, 2))
    assert torch.equal(zero, torch.full((2, 2), -1.0))


@BACKENDS
def test_hyperball_around_muon_is_muonh(backend):
    ours, theirs = parameters([(6, 4), (4, 4)]), parameters([(6, 4), (4, 4)])
    a = thalweg.Muon(ours, lr=0.02, weight_decay=0.1, hyperball=True, backend=backend)
    b = thalweg.Muon(theirs, lr=1.0, weight_decay=0.0, backend="eager")
    radius = [p.detach().norm() for p in theirs]
    for step in range(5):
        before = [p.detach().clone() for p in theirs]
        for params in (ours, theirs):
            for p, g in zip(params, gradients(params, step), strict=True):
                p.grad = g
        a.step()
        b.step()
        for p, old, r in zip(theirs, before, radius, strict=True):
            u = old - p.detach()
            moved = old - 0.02 * r * u / u.norm()
            p.data = r * moved / moved.norm()
    assert distance(ours, theirs) < 1e-10


@BACKENDS
@pytest.mark.parametrize("flags", [{"grokfast": 2.0}, {"hyperball": True}], ids=str)
def test_what_surrounds_a_rule_is_in_its_checkpoint(backend, flags):
    whole, parts = parameters(SHAPES), parameters(SHAPES)
    a = thalweg.SGD(whole, lr=0.05, backend=backend, **flags)
    b = thalweg.SGD(parts, lr=0.05, backend=backend, **flags)
    for step in range(6):
        for params in (whole, parts):
            for p, g in zip(params, gradients(params, step), strict=True):
                p.grad = g
        a.step()
        b.step()
        if step == 2:
            saved = copy.deepcopy(b.state_dict())
            b = thalweg.SGD(parts, lr=1.0, backend=backend)
            b.load_state_dict(saved)
    assert distance(whole, parts) == 0


def test_what_is_off_keeps_no_state_and_changes_no_pass():
    params = parameters([(4, 4)])
    optimizer = thalweg.AdamW(params)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert set(optimizer.state[params[0]]) == {"step", "exp_avg", "exp_avg_sq"}
    assert len(optimizer.plan().parts[0].passes) == 1


@pytest.mark.parametrize(
    ("flags", "passes"), [({"cautious_decay": True}, 1), ({"grokfast": 2.0}, 1), ({"hyperball": True}, 2)]
)
def test_how_many_passes_it_takes(flags, passes):
    optimizer = thalweg.AdamW(parameters([(4, 4)]), backend="foreach", **flags)
    assert len(optimizer.plan().parts[0].passes) == passes


@BACKENDS
def test_a_tensor_of_zeros_has_trust_ratio_one(backend):
    p = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    p.grad = torch.ones_like(p)
    thalweg.AdamW([p], lr=0.1, trust_ratio=True, backend=backend).step()
    torch.testing.assert_close(p.detach(), torch.full_like(p, -0.1), rtol=1e-6, atol=0)


@BACKENDS
def test_independent_decay_follows_the_schedule_but_not_the_learning_rate(backend):
    ends = []
    for lr in (0.01, 0.1):
        p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = thalweg.AdamW([p], lr=lr, weight_decay=0.1, independent_weight_decay=True, backend=backend)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=4)
        for _ in range(4):
            p.grad = torch.zeros_like(p)
            optimizer.step()
            scheduler.step()
        ends.append(p.detach().clone())
    expected = 1.0
    for share in (1.0, 0.75, 0.5, 0.25):
        expected *= 1 - 0.1 * share
    for end in ends:
        torch.testing.assert_close(end, torch.full_like(end, expected))


#: THE table of built-in transforms: a row each, with values at which a few steps show what it does
ROWS = [
    transforms.maximize(), transforms.clip_value(0.5), transforms.clip_norm(0.5), transforms.clip_global_norm(0.5),
    transforms.clip_adaptive(0.1), transforms.centralize(), transforms.gradient_noise(0.3), transforms.grokfast(2.0),
    transforms.orthograd(), transforms.cautious(), transforms.cautious_decay(), transforms.hyperball(),
    transforms.trust_ratio(), transforms.radial_brake(0.3, radial_brake_inward=0.6), transforms.update_floor(9.0),
]  # fmt: skip


def test_each_built_in_transform_has_a_row():
    known = [t for t in vars(transforms).values() if isinstance(t, type) and issubclass(t, transforms.Transform)]
    assert {type(row) for row in ROWS} == {t for t in known if t is not transforms.Transform}
    assert set(STANDARD) <= set(known)


#: their directions have the sign of the gradient, so there is nothing to be cautious about
ALWAYS_AGREE = {(thalweg.SGD, transforms.cautious), (thalweg.RMSprop, transforms.cautious)}
CHANGING = [
    (make, row)
    for make in (thalweg.AdamW, thalweg.SGD, thalweg.RMSprop, thalweg.Lion)
    for row in ROWS
    if (make, type(row)) not in ALWAYS_AGREE
]


def decayed(make):
    """What makes an optimizer decay the weights themselves."""
    free = make.hypers["decoupled_weight_decay"].init
    return {"weight_decay": 0.1, **({"decoupled_weight_decay": True} if free else {})}


@pytest.mark.parametrize(("make", "row"), CHANGING, ids=lambda x: getattr(x, "__name__", repr(x)))
def test_every_transform_changes_the_trajectory(make, row):
    ends = []
    flags = decayed(make) if isinstance(row, transforms.cautious_decay) else {}
    for listed in ([], [row]):
        params = parameters(SHAPES)
        optimizer = make(params, lr=0.01, transforms=listed, **flags)
        for step in range(6):
            for p, g in zip(params, gradients(params, step, scale=1.0 + 3 * step), strict=True):
                p.grad = g
            optimizer.step()
        ends.append(params)
    assert distance(*ends) > 1e-6


#: each makes the step itself, so that they do not go together
STEPS = (transforms.hyperball, transforms.radial_brake)
PAIRS = [pair for pair in itertools.combinations(ROWS, 2) if not all(isinstance(one, STEPS) for one in pair)]


def test_two_that_make_the_step_are_refused():
    listed = [transforms.hyperball(), transforms.radial_brake()]
    with pytest.raises(ValueError, match="hyperball and radial_brake: expected one of them"):
        thalweg.AdamW(parameters([(3, 3)]), transforms=listed)


@pytest.mark.parametrize(("one", "two"), PAIRS, ids=repr)
def test_two_transforms_together_agree_over_backends(one, two):
    ends = []
    for backend in ("eager", "foreach", "cpu"):
        params = parameters(SHAPES)
        optimizer = thalweg.AdamW(params, lr=0.01, backend=backend, transforms=[one, two])
        for step in range(3):
            for p, g in zip(params, gradients(params, step), strict=True):
                p.grad = g
            optimizer.step()
        ends.append(params)
    assert distance(ends[0], ends[1]) < 1e-12
    assert distance(ends[0], ends[2]) < 1e-12


@BACKENDS
@pytest.mark.parametrize("row", [row for row in ROWS if type(row) in STANDARD], ids=repr)
def test_one_in_the_list_is_the_keyword_to_the_bit(backend, row):
    ends = []
    for given in ({"transforms": [row]}, row.given):
        params = parameters(SHAPES, torch.float32)
        optimizer = thalweg.AdamW(params, lr=0.01, backend=backend, seed=3, **given)
        for step in range(3):
            for p, g in zip(params, gradients(params, step), strict=True):
                p.grad = g
            optimizer.step()
        ends.append((params, [optimizer.state[p] for p in params], optimizer.param_groups[0]))
    (ours, states, group), (theirs, others, other) = ends
    assert all(map(torch.equal, ours, theirs))
    for mine, its in zip(states, others, strict=True):
        assert mine.keys() == its.keys()
        assert all(torch.equal(mine[name], its[name]) for name in mine)
    assert {k: v for k, v in group.items() if k != "params"} == {k: v for k, v in other.items() if k != "params"}


@pytest.mark.parametrize(("flags", "message"), [
    ({"clip_value": 0.0}, r"clip_value=0.0: expected a number in \(0, ∞\)"),
    ({"clip_global_norm": -1}, "clip_global_norm=-1"),
    ({"clip_adaptive": "some"}, "clip_adaptive='some'"),
    ({"cautious": 2.5}, "cautious=2.5: expected True or False"),
    ({"gradient_noise": -1.0}, r"gradient_noise=-1.0: expected a number in \[0, ∞\)"),
    ({"grokfast": -1.0}, r"grokfast=-1.0: expected a number in \[0, ∞\)"),
    ({"grokfast_alpha": 1.0}, "grokfast_alpha=1.0"),
    ({"hyperball": "some"}, "hyperball='some': expected one of False, True, 'all'"),
    ({"state_dtype": "int4"}, "state_dtype='int4': expected one of"),
    ({"rounding": "up"}, "rounding='up': expected one of 'nearest', 'stochastic'"),
    ({"master": "split4"}, "master='split4'"),
    ({"master": "split", "rounding": "stochastic"}, "rounding='stochastic'"),
    ({"independent_weight_decay": True, "lr": 0.0}, "independent_weight_decay"),
])  # fmt: skip
def test_bad_modifiers_are_named(flags, message):
    with pytest.raises(ValueError, match=message):
        thalweg.AdamW(parameters(SHAPES), **flags)
