"""Whatever changes between two steps, every backend takes the step that torch takes, and binds only what it must."""

import collections
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import thalweg
from tests.fixtures import give, needs_compiler, same, tensors
from thalweg.engine import backward
from thalweg.runtime import binding

SHAPES = [(3, 4), (5,), (), (2, 3), (40, 7), (0,)]
GROUPS, ONE_GROUP = [(0, 1), (2, 3), (4, 5)], [range(6)]
RULES = {
    "AdamW": (thalweg.AdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
    "NAdam": (thalweg.NAdam, torch.optim.NAdam, {"momentum_decay": 0.1}),
    "SGD": (thalweg.SGD, torch.optim.SGD, {"momentum": 0.9, "dampening": 0.3}),
    "RMSprop": (thalweg.RMSprop, torch.optim.RMSprop, {"momentum": 0.5}),
}
#: torch keeps mu_product in float32
WITHIN = {"NAdam": 1e-6}


class Twins:
    """The same parameters and the same changes for several optimizers."""

    def __init__(self, *makes, groups=GROUPS):
        self.params = [tensors(*SHAPES, dtype=torch.float64) for _ in makes]
        self.optimizers = [
            make([{"params": [ps[k] for k in at], "lr": 0.1 / (1 + i)} for i, at in enumerate(groups)])
            for make, ps in zip(makes, self.params, strict=True)
        ]

    def each(self, change, *given):
        for params, optimizer in zip(self.params, self.optimizers, strict=True):
            change(params, optimizer, *given)

    def steps(self, walk):
        """Take one step after another, each behind its changes."""
        for step, changes in enumerate(walk):
            for params in self.params:
                give([p for p in params if p.requires_grad], step)
            for change, k, factor in changes:
                self.each(change, k, factor)
            for optimizer in self.optimizers:
                optimizer.step()
            yield


def lr(params, optimizer, k, factor):
    optimizer.param_groups[k % len(optimizer.param_groups)]["lr"] *= factor


def lr_tensor(params, optimizer, k, factor):
    group = optimizer.param_groups[k % len(optimizer.param_groups)]
    group["lr"] = torch.tensor(float(group["lr"]) * factor, dtype=torch.float64)


def missing(params, optimizer, k, factor):
    params[k].grad = None


def only_one(params, optimizer, k, factor):
    for p in params:
        p.grad = p.grad if p is params[k] else None


def none_at_all(params, optimizer, k, factor):
    for p in params:
        p.grad = None


def moved(params, optimizer, k, factor):
    params[k].data = params[k].data.clone()


def state_moved(params, optimizer, k, factor):
    state = optimizer.state[params[k]]
    for name, x in state.items():
        if isinstance(x, torch.Tensor) and x.ndim:
            state[name] = x.clone()


def state_scaled(params, optimizer, k, factor):
    for x in optimizer.state[params[k]].values():
        if isinstance(x, torch.Tensor) and x.ndim:
            x.mul_(factor)


def gradient_strided(params, optimizer, k, factor):
    g = params[k].grad
    if g is not None and g.ndim == 2:
        params[k].grad = g.t().contiguous().t()


def gradient_with_gaps(params, optimizer, k, factor):
    g = params[k].grad
    if g is not None and g.ndim:
        params[k].grad = torch.stack([g, g], -1)[..., 0]


def turned(params, optimizer, k, factor):
    if params[k].ndim == 2:
        params[k].data = params[k].data.t().contiguous().t()


def reloaded(params, optimizer, k, factor):
    optimizer.load_state_dict(optimizer.state_dict())


def saved_or_restored(params, optimizer, k, factor):
    """Keep a checkpoint, or go back to the one that is kept."""
    if saved := optimizer.__dict__.pop("kept", None):
        optimizer.load_state_dict(saved)
    else:
        optimizer.kept = copy.deepcopy(optimizer.state_dict())


def count_moved(params, optimizer, k, factor):
    """Each count is another tensor's memory, as after a transfer of all that an optimizer keeps."""
    for state in optimizer.state.values():
        if "step" in state:
            state["step"].data = state["step"].data.clone()


def state_replaced(params, optimizer, k, factor):
    state = {p: {name: x.clone() for name, x in s.items()} for p, s in optimizer.state.items()}
    optimizer.state = collections.defaultdict(dict, state)


def state_lost(params, optimizer, k, factor):
    optimizer.state.pop(params[k], None)


def frozen_or_not(params, optimizer, k, factor):
    params[k].requires_grad_(not params[k].requires_grad)
    params[k].grad = params[k].grad if params[k].requires_grad else None


CHANGES = [
    *(lr, lr_tensor, missing, only_one, none_at_all, moved, state_moved, state_scaled),
    *(gradient_strided, gradient_with_gaps, turned, frozen_or_not),
    *(reloaded, saved_or_restored, count_moved, state_replaced, state_lost),
]
walks = st.lists(
    st.lists(
        st.tuples(st.sampled_from(CHANGES), st.integers(0, len(SHAPES) - 1), st.sampled_from([0.5, 2.0])), max_size=4
    ),
    min_size=2,
    max_size=7,
)


#: for tests of several rules or flags that take the same walks
FEWER = settings(max_examples=settings().max_examples * 3 // 5)


@pytest.mark.parametrize("rule", RULES)
@FEWER
@given(walk=walks, groups=st.sampled_from([GROUPS, ONE_GROUP]))
def test_all_that_changes_at_once_changes_as_in_torch(rule, walk, groups):
    ours, theirs, more = RULES[rule]
    twins = Twins(
        lambda groups: theirs(groups, **more),
        *(lambda groups, b=b: ours(groups, backend=b, **more) for b in ("eager", "auto")),
        groups=groups,
    )
    for _ in twins.steps(walk):
        for params in twins.params[1:]:
            assert same(twins.params[0], params, within=WITHIN.get(rule, 1e-9))
    numbers = [[float(s["step"]) for s in o.state_dict()["state"].values() if "step" in s] for o in twins.optimizers]
    assert all(mine == numbers[0] for mine in numbers)


@pytest.mark.parametrize(
    "more", [{"clip_global_norm": 0.1}, {"trust_ratio": True}, {"centralize": True}, {"cautious": True}], ids=str
)
@FEWER
@given(walk=walks)
def test_sums_over_tensors_and_over_all_count_those_that_have_a_gradient(more, walk):
    twins = Twins(*(lambda groups, b=b: thalweg.AdamW(groups, backend=b, **more) for b in ("eager", "auto")))
    for _ in twins.steps(walk):
        assert same(*twins.params, within=1e-9)


@pytest.mark.parametrize("more", [{"rounding": "stochastic"}, {"state_dtype": "int8"}, {"master": "split"}], ids=str)
def test_random_bits_depend_on_the_group_and_not_on_who_runs_beside(more):
    def run(backend):
        params = tensors((64, 3), (70,), (64,), dtype=torch.bfloat16)
        optimizer = thalweg.SGD(
            [{"params": params[:1]}, {"params": params[1:]}], lr=2**-5, momentum=0.5, backend=backend, **more
        )
        optimizer.param_groups[1]["seed"] = 5
        for step in range(5):
            for k, p in enumerate(params):
                p.grad = None if (step + k) % 3 == 0 else torch.full_like(p, 2.0 ** (step - 3))
            optimizer.step()
        return params

    assert same(run("eager"), run("auto"))


@pytest.mark.parametrize("fused", [False, True])
def test_random_bits_follow_a_parameter_to_its_new_place_as_in_a_checkpoint(fused, monkeypatch):
    monkeypatch.setattr(backward, "POOL", 1)

    def run(reloaded):
        params = tensors((64, 3), (64, 3), dtype=torch.bfloat16)
        optimizer = thalweg.SGD(params, lr=2**-5, rounding="stochastic", seed=3)
        for step in range(4):
            if step == 2:
                optimizer.param_groups[0]["params"].pop(0)
                if reloaded:
                    saved = optimizer.state_dict()
                    optimizer = thalweg.SGD(params[1:], lr=1.0, rounding="stochastic")
                    optimizer.load_state_dict(saved)
            if fused and (step == 0 or (step == 2 and reloaded)):
                optimizer.fuse_into_backward()
            sum((p.float() * (1 + step)).sum() for p in optimizer.param_groups[0]["params"]).backward()
            optimizer.step()
            optimizer.zero_grad()
        return params[1:]

    assert same(run(False), run(True))


def test_parameters_that_change_places_take_the_random_bits_of_their_new_places():
    def run(change):
        params = tensors((64, 3), (64, 3), dtype=torch.bfloat16)
        optimizer = thalweg.SGD(params, lr=2**-5, rounding="stochastic", seed=3)
        for step in range(3):
            if step == 2:
                optimizer = change(optimizer)
            give(params, step)
            optimizer.step()
        return params

    def turned(optimizer):
        optimizer.param_groups[0]["params"].reverse()
        return optimizer

    def made_again(optimizer):  # SGD keeps nothing for a parameter, and the count of updates is its group's
        group = optimizer.param_groups[0]
        return thalweg.SGD([{**group, "params": group["params"][::-1]}], rounding="stochastic")

    assert same(run(turned), run(made_again))


@needs_compiler
def test_a_further_step_binds_nothing_where_gradients_come_and_go(monkeypatch):
    params = tensors(*[(3,)] * 12)
    optimizer = thalweg.AdamW([{"params": [p]} for p in params])
    give(params, 0)
    optimizer.step()
    bound = []
    make = binding.BoundBatch
    monkeypatch.setattr(binding, "BoundBatch", lambda *given: bound.append(given) or make(*given))
    for step in range(1, 6):
        give(params, step)
        for k, p in enumerate(params):
            if (k * step) % 3 == 1:
                p.grad = None
            if (k + step) % 5 == 0:
                p.data = p.data.clone()
        optimizer.param_groups[step]["lr"] *= 0.5
        optimizer.step()
    assert not bound


@needs_compiler
def test_a_loaded_checkpoint_binds_nothing(monkeypatch):
    params = tensors(*[(3,)] * 5)
    optimizer = thalweg.AdamW([{"params": params[:2]}, {"params": params[2:], "lr": 0.1}])
    give(params, 0)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    monkeypatch.setattr(binding, "BoundBatch", lambda *given: pytest.fail("a batch was made again"))
    for step in range(1, 4):
        optimizer.load_state_dict(saved)
        give(params, step)
        optimizer.step()
        assert [float(s["step"]) for s in optimizer.state.values()] == [2.0] * 5


@pytest.mark.parametrize("more", [{}, {"amsgrad": True}, {"state_dtype": "int8"}, {"state_dtype": "bfloat16"}], ids=str)
def test_what_is_loaded_is_shared_with_nobody(more):
    """Neither with the dict that is loaded, nor with an optimizer that loads it too, nor with what was saved before."""
    both = [tensors((3, 4), (5,)) for _ in range(2)]
    a, b = (thalweg.AdamW(params, **more) for params in both)
    give(both[0], 0)
    a.step()
    saved = copy.deepcopy(a.state_dict())
    before = a.state_dict()
    kept = [copy.deepcopy(x["state"]) for x in (saved, before)]
    for optimizer in (a, b):
        optimizer.load_state_dict(saved)
    for step in range(1, 3):
        for params, optimizer in zip(both, (a, b), strict=True):
            give(params, step)
            optimizer.step()
            assert [float(s["step"]) for s in a.state.values()] == [step + 1.0] * 2
    for was, now in zip(kept, (saved["state"], before["state"]), strict=True):
        assert all(torch.equal(x, now[k][name]) for k, state in was.items() for name, x in state.items())


@needs_compiler
def test_counts_that_were_loaded_and_moved_go_on_where_they_are_now():
    params = tensors((3, 4), (5,))
    optimizer = thalweg.AdamW(params)
    give(params, 0)
    optimizer.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    loaded = [s["step"].detach() for s in optimizer.state.values()]
    count_moved(params, optimizer, 0, 1)
    moved = [s["step"] for s in optimizer.state.values()]
    for step in range(1, 3):
        give(params, step)
        optimizer.step()
        assert [float(s["step"]) for s in optimizer.state.values()] == [step + 1.0] * 2
    assert [float(x) for x in loaded + moved] == [1.0] * 4


@needs_compiler
def test_a_parameter_that_gets_its_first_gradient_joins_the_others():
    params = tensors(*[(3,)] * 6)
    optimizer = thalweg.AdamW(params)
    for step in range(6):
        give(params[: step + 1], step)
        params[(step + 3) % 6].grad = None
        optimizer.step()
    (bound,) = optimizer._stepper.bindings[None].bounds
    assert len(bound.owners) == 6 - sum(p not in optimizer.state for p in params)


def test_a_parameter_without_a_gradient_does_not_look_changed_to_autograd():
    params = tensors((3,), (3,))
    optimizer = thalweg.AdamW(params)
    give(params, 0)
    optimizer.step()
    loss = (params[1] ** 2).sum()  # keeps params[1] for backward
    params[1].grad = None
    give(params[:1], 1)
    optimizer.step()
    loss.backward()
    give(params, 2)
    loss = (params[1] ** 2).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("threads", [1, 2])
def test_only_the_chunks_of_those_that_have_a_gradient_run(threads):
    """Of large tensors the first half may be all that moves: both threads then share it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        params, others = ([nn.Parameter(torch.ones(50_000)) for _ in range(4)] for _ in range(2))
        a, b = thalweg.SGD(params, lr=0.1, momentum=0.9), torch.optim.SGD(others, lr=0.1, momentum=0.9)
        for step in range(4):
            for ps, optimizer in ((params, a), (others, b)):
                give(ps, step)
                for p in ps[2:] if step in (1, 2) else ps[:1]:
                    p.grad = None
                optimizer.step()
        assert same(params, others, within=1e-6)
    finally:
        torch.set_num_threads(before)
