"""Many tiny tensors: what moves is seen at once, or said."""

import pytest
import torch

import thalweg
from tests.engine.fixtures import give
from thalweg.engine import places


def many(count=40):
    return [torch.nn.Parameter(torch.full((2,), float(i))) for i in range(count)]


@pytest.fixture
def tiny(monkeypatch):
    """Forty tensors count as very many."""
    monkeypatch.setattr(places, "MANY", 10)
    monkeypatch.setattr(places, "TURNS", 8)


def stepped(params, **arguments):
    optimizer = thalweg.AdamW(params, backend="cpu", **arguments)
    give(params, 0)
    optimizer.step()
    return optimizer


def test_all_states_moved_at_once_are_seen_at_the_next_step(tiny):
    params, others = many(), many()
    mine, theirs = stepped(params), stepped(others)
    for state in mine.state.values():
        for value in state.values():
            value.data = value.data.clone()
    for step in range(1, 4):
        give(params, step)
        give(others, step)
        mine.step()
        theirs.step()
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    assert all(
        torch.equal(mine.state[p]["exp_avg"], theirs.state[q]["exp_avg"]) for p, q in zip(params, others, strict=True)
    )


def test_a_new_dict_of_one_parameter_is_seen_at_the_next_step(tiny):
    params = many()
    optimizer = stepped(params)
    optimizer.state[params[17]] = {}
    give(params, 1)
    optimizer.step()
    assert optimizer.state[params[17]]["step"] == 1
    assert optimizer.state[params[16]]["step"] == 2


def test_one_state_moved_by_itself_is_found_within_its_turn_and_said(tiny):
    params = many()
    optimizer = stepped(params)
    optimizer.state[params[17]]["exp_avg"].data = torch.zeros(2)

    def go_on():
        for step in range(1, 10):
            give(params, step)
            optimizer.step()

    with pytest.warns(UserWarning, match="moved or replaced by hand"):
        go_on()


def test_a_parameter_moved_by_itself_is_seen_at_the_next_step(tiny):
    params = many()
    optimizer = stepped(params)
    params[17].data = params[17].data.clone()
    before = params[17].detach().clone()
    give(params, 1)
    optimizer.step()
    assert not torch.equal(params[17], before)


@pytest.mark.parametrize("missing", ["compiler", "table"])
def test_without_the_lookout_python_looks(missing, monkeypatch):
    monkeypatch.setattr(places, "_functions" if missing == "compiler" else "_exchange", lambda: None)
    params, others = many(), many()
    mine = stepped(params)
    assert mine._steps.bound[0][0].places.lookout is None
    monkeypatch.undo()
    theirs = stepped(others)
    for step in range(1, 4):
        give(params, step)
        give(others, step)
        mine.step()
        theirs.step()
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def test_each_of_several_groups_is_found_again_in_c():
    """The first is bound before the others have a state."""
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(4)]
    optimizer = thalweg.AdamW([{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.0}])
    for _ in range(3):
        for p in params:
            p.grad = torch.ones(3)
        optimizer.step()
    bounds = [bound for found in optimizer._steps.bound.values() for bound in found]
    assert [bound.places.counted for bound in bounds if bound.places.lookout] == [True] * 2
