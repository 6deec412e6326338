"""A misspelt state or hyperparameter in a rule of one's own is an error where the rule is traced, and on `eager`."""

import pytest
import torch

from tests.fixtures import tensors
from thalweg.ir.names import Hypers, State
from thalweg.rule import Optimizer, hyper, number, shared, state


def rule(body):
    class Mine(Optimizer):
        """One line."""

        lr: float = hyper(default=0.1)
        momentum: float = hyper(default=0.9, off=0)
        buffer: torch.Tensor = state(when=lambda h: h.momentum)
        weight: float = number()
        common: float = shared()
        direction = staticmethod(body)

    return Mine


def misspelt_state(p, g, s, h):
    s.bufer = h.momentum * s.buffer + g
    return s.buffer


def misspelt_number(p, g, s, h):
    s.wieght = s.weight + 1
    return g


def misspelt_read(p, g, s, h):
    return g + s.bufer


def misspelt_hyper(p, g, s, h):
    return h.momentun * g


def written_hyper(p, g, s, h):
    h.lr = 0.0
    return g


WRONG = [
    (misspelt_state, "s.bufer is no state that it declares; did you mean buffer"),
    (misspelt_number, "s.wieght is no state that it declares; did you mean weight"),
    (misspelt_read, "s.bufer is no state that it declares; did you mean buffer"),
    (misspelt_hyper, "h.momentun is no hyperparameter that it declares; did you mean momentum"),
    (written_hyper, "h.lr cannot be assigned to"),
]


@pytest.mark.parametrize(("body", "said"), WRONG, ids=[body.__name__ for body, _ in WRONG])
def test_it_is_said_by_the_constructor(body, said):
    with pytest.raises(AttributeError, match=f"Mine: {said}"):
        rule(body)(tensors((3,)))


@pytest.mark.parametrize(("body", "said"), WRONG, ids=[body.__name__ for body, _ in WRONG])
def test_it_is_said_where_the_rule_runs_on_tensors(body, said):
    cls, x = rule(body), torch.ones(3)
    s = State(cls, {"buffer": x.clone(), "weight": 0.0, "common": 0.0})
    with pytest.raises(AttributeError, match=f"Mine: {said}"):
        body(x, x, s, Hypers(cls, {"lr": 0.1, "momentum": 0.9}))


def test_a_state_that_is_not_kept_now_is_not_there():
    def direction(p, g, s, h):
        return g + s.buffer

    with pytest.raises(AttributeError, match=r"s\.buffer is not kept with these hyperparameters"):
        rule(direction)(tensors((3,)), momentum=0.0)
