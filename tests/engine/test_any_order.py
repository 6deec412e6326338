"""Whatever happens between steps, and in whatever order, training goes on as with torch's of the same name."""

import copy
import io
import pickle

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import thalweg
from tests.fixtures import BACKENDS, give, same, tensors

SHAPES = ((4, 3), (5,), (), (0, 2), (2, 3, 2))
RULES = {
    "AdamW": {"lr": 0.01, "weight_decay": 0.1},
    "SGD": {"lr": 0.01, "momentum": 0.9, "dampening": 0.5},
    "RMSprop": {"lr": 0.01, "momentum": 0.9},
}
EVENTS = {
    "step": st.tuples(st.integers(0, 99), st.sets(st.integers(0, 4))),
    "lr": st.sampled_from([0.0, 0.005, 0.02]),
    "weight_decay": st.sampled_from([0.0, 0.3]),
    "momentum": st.sampled_from([0.0, 0.5]),
    "maximize": st.booleans(),
    "lose state": st.integers(0, 4),
    "move": st.tuples(st.integers(0, 4), st.sampled_from(["clone", "reverse", "state"])),
    "checkpoint": st.booleans(),
    "copy": st.sampled_from(["deepcopy", "pickle"]),
    "sparse": st.integers(0, 4),
    "fuse": st.none(),
}
events = st.lists(
    st.sampled_from(sorted(EVENTS)).flatmap(lambda name: st.tuples(st.just(name), EVENTS[name])), max_size=12
)


class Trainee:
    """Parameters and their optimizer, to which things happen."""

    def __init__(self, make):
        self.make = make
        self.params = tensors(*SHAPES, dtype=torch.float64)
        self.optimizer = self.new()

    @property
    def ours(self):
        return isinstance(self.optimizer, thalweg.engine.optimizer.Optimizer)

    def new(self):
        return self.make([{"params": self.params[:2]}, {"params": self.params[2:], "lr": 0.03}])

    def happen(self, name, value):
        getattr(self, name.replace(" ", "_"), lambda v: self.set(name, v))(value)

    def set(self, name, value):
        if name == "momentum" and "alpha" in self.optimizer.defaults:
            value = value or 0.25  # torch's RMSprop cannot switch momentum on after a step without it
        for group in self.optimizer.param_groups:
            if name in group:
                group[name] = value

    def step(self, value):
        seed, without = value
        self.optimizer.zero_grad()
        if self.ours and self.optimizer._in_backward:
            generator = torch.Generator().manual_seed(100 + seed)
            grads = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in self.params]
            used = [(p, g) for i, (p, g) in enumerate(zip(self.params, grads, strict=True)) if i not in without]
            if used:
                sum((p * g).sum() for p, g in used).backward()
        else:
            give(self.params, seed)
            for i in without:
                self.params[i].grad = None
        self.optimizer.step()

    def lose_state(self, i):
        self.optimizer.state.pop(self.params[i], None)

    def move(self, value):
        i, how = value
        p = self.params[i]
        p.grad = None
        if how == "clone":
            p.data = p.data.clone()
        elif how == "reverse":
            back = tuple(reversed(range(p.ndim)))
            p.data = p.data.permute(back).contiguous().permute(back)
        else:
            for v in self.optimizer.state.get(p, {}).values():
                if isinstance(v, torch.Tensor):
                    v.data = v.data.clone()

    def checkpoint(self, through_a_file):
        saved = copy.deepcopy(self.optimizer.state_dict())
        if through_a_file:
            file = io.BytesIO()
            torch.save(saved, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
        self.optimizer.zero_grad()
        self.optimizer = self.new()
        self.optimizer.load_state_dict(saved)

    def copy(self, how):
        self.optimizer.zero_grad()
        pair = self.params, self.optimizer
        self.params, self.optimizer = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))

    def sparse(self, i):
        refuses = self.ours and not self.optimizer.takes_sparse
        if refuses and self.params[i].ndim and self.params[i].numel():
            self.optimizer.zero_grad()
            give(self.params, 0)
            self.params[i].grad = self.params[i].grad.to_sparse()
            with pytest.raises(ValueError, match="sparse"):
                self.optimizer.step()
            self.optimizer.zero_grad()

    def fuse(self, _):
        self.optimizer.zero_grad()
        if self.ours:
            self.optimizer.fuse_into_backward()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=16)
@given(happened=events)
def test_as_torch_whatever_happens(rule, backend, happened):
    ours = Trainee(lambda groups: getattr(thalweg, rule)(groups, backend=backend, **RULES[rule]))
    theirs = Trainee(lambda groups: getattr(torch.optim, rule)(groups, **RULES[rule]))
    for name, value in [*happened, ("step", (7, set())), ("step", (8, set()))]:
        ours.happen(name, value)
        theirs.happen(name, value)
        assert same([p.detach() for p in ours.params], [p.detach() for p in theirs.params], within=1e-9), name
