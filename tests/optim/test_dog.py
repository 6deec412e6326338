"""A learning rate from the distance gone: DoG, LDoG, DoWG."""

import pytest
import torch

import thalweg
from tests.cases import MIXED, distance, parameters
from tests.optim.test_d_adaptation import descend, rule
from tests.references import dog

ON_BACKENDS = pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
NAMES = pytest.mark.parametrize("name", ["DoG", "LDoG", "DoWG"])
SHAPES = [s for s in MIXED if 0 not in s]


@NAMES
@ON_BACKENDS
def test_equals_the_papers_steps_on_the_way_to_a_minimum(name, backend):
    ours, theirs = parameters(SHAPES), parameters(SHAPES)
    descend(rule(name)(ours, backend=backend), ours, 100)
    descend(getattr(dog, name)(theirs), theirs, 100)
    assert distance(ours, theirs) < 1e-10
    assert distance(ours, parameters(SHAPES)) > 1


@NAMES
@pytest.mark.parametrize("far", [1e-2, 1.0, 1e3])
def test_the_minimum_is_found_however_far_it_is(name, far):
    params = [torch.nn.Parameter(torch.zeros(4, 5, dtype=torch.float64)) for _ in range(2)]
    optimizer = rule(name)(params)
    for _ in range(300):
        for p in params:
            p.grad = p.detach() - far
        optimizer.step()
    assert max((p - far).abs().max().item() for p in params) < far / 10


def test_dog_of_one_tensor_is_ldog():
    a, b = parameters([(4, 5)]), parameters([(4, 5)])
    descend(thalweg.DoG(a), a, 50)
    descend(thalweg.LDoG(b), b, 50)
    assert distance(a, b) < 1e-12


@ON_BACKENDS
def test_ldog_is_dog_for_each_tensor(backend):
    together, apart = parameters(SHAPES), parameters(SHAPES)
    descend(thalweg.LDoG(together, backend=backend), together, 50)
    for optimizer, p in [(thalweg.DoG([p], backend=backend), p) for p in apart]:
        for step in range(50):
            generator = torch.Generator().manual_seed(step)
            noise = [torch.randn(q.shape, generator=generator, dtype=q.dtype) for q in apart]
            p.grad = p.detach() - 3 + 0.1 * next(n for q, n in zip(apart, noise, strict=True) if q is p)
            optimizer.step()
    assert distance(together, apart) < 1e-12


@pytest.mark.parametrize("name", ["DoG", "DoWG"])
@ON_BACKENDS
def test_several_groups_are_as_one(name, backend):
    together, apart = parameters(SHAPES), parameters(SHAPES)
    descend(rule(name)(together, backend=backend), together, 50)
    optimizer = rule(name)([{"params": apart[:2]}, {"params": apart[2:]}], backend=backend)
    descend(optimizer, apart, 50)
    assert distance(together, apart) < 1e-12


@NAMES
def test_the_scale_of_the_loss_plays_no_part(name):
    small, large = parameters(SHAPES), parameters(SHAPES)
    no_eps = {} if name == "DoWG" else {"eps": 1e-40}
    descend(rule(name)(small, **no_eps), small, 50)
    descend(rule(name)(large, **no_eps), large, 50, scale=1024.0)
    assert distance(small, large) < 1e-9


@NAMES
@ON_BACKENDS
def test_a_parameter_that_comes_late_starts_where_it_is(name, backend):
    early, late = parameters([(4, 3), (5,)])
    optimizer = rule(name)([early, late], backend=backend)
    descend(optimizer, [early], 40)
    with torch.no_grad():
        late.fill_(100.0)
    descend(optimizer, [early, late], 1, start=40)
    far = optimizer.state[late]["rbar"] if name == "LDoG" else optimizer.param_groups[0].get("rbar", 0.0)
    assert far < 50  # 100 is where it begins, not a way that it has come
    assert torch.equal(optimizer.state[late]["x0"], torch.full_like(late, 100.0))


@NAMES
@pytest.mark.parametrize("state_dtype", ["int8", "bfloat16"])
def test_the_start_is_not_rounded_away(name, state_dtype):
    """The first distance is far below the rounding of a start in 8 or 16 bits."""
    narrow, wide = parameters(SHAPES, torch.float32), parameters(SHAPES, torch.float32)
    descend(rule(name)(narrow, state_dtype=state_dtype), narrow, 50)
    descend(rule(name)(wide), wide, 50)
    assert distance(narrow, wide) == 0


@NAMES
@ON_BACKENDS
def test_gradients_that_are_all_zero_move_nothing(name, backend):
    params = parameters(SHAPES)
    before = [p.detach().clone() for p in params]
    optimizer = rule(name)(params, backend=backend)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert distance(params, before) == 0


@pytest.mark.parametrize(
    ("name", "flags"), [("DoG", {"reps_rel": 1e-4}), ("DoG", {"eps": 1.0}), ("DoWG", {"eps": 1.0})]
)
def test_groups_that_would_measure_otherwise_are_refused(name, flags):
    first, second = parameters([(3,), (3,)])
    optimizer = rule(name)([first])
    with pytest.raises(ValueError, match="as in the first group"):
        optimizer.add_param_group({"params": [second], **flags})
    thalweg.LDoG([first]).add_param_group({"params": [second], "reps_rel": 1e-4})
