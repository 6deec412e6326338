"""Whatever of a parameter or a state is moved, the next step sees it, of many small tensors too."""

import itertools
from types import SimpleNamespace

import pytest
import torch

import thalweg
from tests.fixtures import BACKENDS, give, needs_compiler, same
from thalweg.runtime import guards

NOISE = itertools.cycle([1, 0, 1])


def many(count=40):
    return [torch.nn.Parameter(torch.full((2,), float(i))) for i in range(count)]


def stepped(params, **arguments):
    optimizer = thalweg.AdamW(params, backend="cpu", **arguments)
    give(params, 0)
    optimizer.step()
    return optimizer


def test_all_states_moved_at_once_are_seen_at_the_next_step():
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


def test_a_new_dict_of_one_parameter_is_seen_at_the_next_step():
    params = many()
    optimizer = stepped(params)
    optimizer.state[params[17]] = {}
    give(params, 1)
    optimizer.step()
    assert optimizer.state[params[17]]["step"] == 1
    assert optimizer.state[params[16]]["step"] == 2


def _data(make):
    def change(state, name, x):
        x.data = make(x.data)

    return change


#: what may be done to one state of shape (2,) between two steps: torch's own optimizer goes on from the same numbers
CHANGES = {
    "replaced": lambda state, name, x: state.update({name: torch.tensor([3.0, -1.0])}),
    "data replaced": _data(lambda x: torch.tensor([3.0, -1.0])),
    "data moved": _data(torch.clone),
    "with gaps": _data(lambda x: torch.tensor([3.0, 0.0, -1.0, 0.0])[::2]),
    "turned around": _data(lambda x: torch.stack([x, x]).t()[:, 0]),
    "offset": _data(lambda x: torch.tensor([7.0, 3.0, -1.0])[1:]),
    "storage moved": lambda state, name, x: x.untyped_storage().resize_(1 << 16),
    "swapped": lambda state, name, x: torch.utils.swap_tensors(x, torch.tensor([3.0, -1.0])),
    "another object of the same memory": lambda state, name, x: state.update({name: x.detach()}),
    "in another order": lambda state, name, x: state.update({name: state.pop(name)}),
    "beside another entry": lambda state, name, x: state.update(mine=1),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_state_among_more_than_a_thousand_is_seen_at_the_next_step(backend):
    check(CHANGES["replaced"], backend, many(1100), many(1100), 500)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_is_done_to_one_state_is_seen_at_the_next_step(change, either_look):
    check(change, "cpu", many(), many(), 17)


def check(change, backend, ours, theirs, at):
    a, b = thalweg.AdamW(ours, lr=0.1, backend=backend), torch.optim.AdamW(theirs, lr=0.1)
    for step in range(5):
        for optimizer, params in ((a, ours), (b, theirs)):
            give(params, step)
            optimizer.step()
            if step == 2:
                state = optimizer.state[params[at]]
                change(state, "exp_avg", state["exp_avg"])
    assert same(ours[at - 2 : at + 2], theirs[at - 2 : at + 2], within=1e-5)


def test_what_has_moved_once_is_known_where_it_is_now():
    """Another object at the same place, or another order, is no reason to look closer at each further step."""
    params = many()
    optimizer = stepped(params)
    state = optimizer.state[params[17]]
    state["exp_avg"] = state["exp_avg"].detach()
    state["exp_avg_sq"] = state.pop("exp_avg_sq")
    give(params, 1)
    optimizer.step()
    (bound,) = optimizer._stepper.bindings[None].bounds
    give(params, 2)
    optimizer.step()
    assert optimizer._stepper.bindings[None].bounds == [bound]
    assert not bound.guards.moved


def test_the_fields_of_tensors_are_found_in_this_torch():
    found = guards._offsets()
    assert found is not None
    assert 0 < found.tensor_end <= guards.FieldOffsets.TENSOR


@pytest.mark.parametrize("matches", [lambda *_: 1, lambda *_: 0, lambda *_: next(NOISE)])
def test_without_fields_that_show_each_move_torch_is_asked(matches, monkeypatch):
    assert guards.FieldOffsets.found(SimpleNamespace(record=lambda *_: None, matches=matches)) is None
    monkeypatch.setattr(guards, "_offsets", lambda: None)
    params, others = many(), many()
    mine, theirs = stepped(params), torch.optim.AdamW(others)
    give(others, 0)
    theirs.step()
    for step in range(1, 4):
        for optimizer, ps in ((mine, params), (theirs, others)):
            give(ps, step)
            optimizer.step()
            optimizer.state[ps[17]]["exp_avg"].data = torch.ones(2)
    assert same(params, others, within=1e-5)


def test_tensors_of_many_dimensions_are_asked():
    shape = (2, 1, 3, 1, 2, 1, 5)
    params = [torch.nn.Parameter(torch.ones(shape)) for _ in range(3)]
    optimizer = thalweg.SGD(params, lr=0.1, momentum=0.9, backend="cpu")
    for step in range(3):
        give(params, step)
        optimizer.step()
    buffer = optimizer.state[params[1]]["momentum_buffer"]
    buffer.as_strided_(shape[::-1], buffer.stride()[::-1])
    give(params, 3)
    with pytest.raises(ValueError, match="momentum_buffer"):
        optimizer.step()


def test_a_parameter_moved_by_itself_is_seen_at_the_next_step():
    params = many()
    optimizer = stepped(params)
    params[17].data = params[17].data.clone()
    before = params[17].detach().clone()
    give(params, 1)
    optimizer.step()
    assert not torch.equal(params[17], before)


@pytest.mark.parametrize("missing", ["compiler", "table"])
def test_without_the_table_python_looks(missing, monkeypatch):
    monkeypatch.setattr(guards, "functions" if missing == "compiler" else "exchange_table", lambda: None)
    params, others = many(), many()
    mine = stepped(params)
    assert all(bound.guards.table is None for bound in mine._stepper.bindings[None].bounds)
    monkeypatch.undo()
    theirs = stepped(others)
    for step in range(1, 4):
        give(params, step)
        give(others, step)
        mine.step()
        theirs.step()
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


@needs_compiler
def test_each_of_several_groups_is_found_again_in_c():
    """The first is bound before the others have a state."""
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(4)]
    optimizer = thalweg.AdamW([{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.0}])
    seen = []
    for _ in range(3):
        for p in params:
            p.grad = torch.ones(3)
        optimizer.step()
        seen.append(optimizer._stepper.bindings[None].bounds)
    assert all(bound.guards.table for bound in seen[0])
    assert len(seen[0]) == 2
    assert seen[0] == seen[1] == seen[2]


@needs_compiler
@pytest.mark.parametrize("replace", ["object", "data"])
def test_a_gradient_that_moved_between_steps_is_read_where_it_is(replace):
    params, others = many(), many()
    mine, theirs = thalweg.AdamW(params), torch.optim.AdamW(others)
    for step in range(4):
        for p, q in zip(params, others, strict=True):
            g = torch.full_like(p, float(step - 1))
            if replace == "object" or p.grad is None:
                p.grad, q.grad = g, g.clone()
            else:  # the same object over other memory
                p.grad.data, q.grad = g, g.clone()
        mine.step()
        theirs.step()
    assert same(params, others, within=1e-5)


FREED = {
    "params": lambda p, s: p,
    "grad": lambda p, s: p.grad,
    "state 'exp_avg'": lambda p, s: s["exp_avg"],
}


@pytest.mark.parametrize("offset", [0, 6])
@pytest.mark.parametrize("what", FREED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tensor_whose_memory_was_freed_is_named_before_anything_moves(backend, what, offset, either_look):
    """To save memory a storage may be resized to 0 and back: to read it in between would end the process."""
    part = slice(offset, offset + 4)
    params, others = ([torch.nn.Parameter(torch.ones(10)[part]), torch.nn.Parameter(torch.ones(3))] for _ in range(2))
    optimizer, untouched = (thalweg.AdamW(ps, backend=b) for ps, b in ((params, backend), (others, "eager")))
    for step in range(2):
        for ps, o in ((params, optimizer), (others, untouched)):
            give(ps, step)
            ps[0].grad = torch.cat([torch.zeros(offset), ps[0].grad])[offset:]
            if step == 0:
                o.step()
                o.state[ps[0]]["exp_avg"] = torch.cat([torch.zeros(offset), o.state[ps[0]]["exp_avg"]])[offset:]
    x = FREED[what](params[0], optimizer.state[params[0]])
    kept = x.detach().clone()
    x.untyped_storage().resize_(0)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{what}='a tensor of shape .4,. without memory'"):
            optimizer.step()
    x.untyped_storage().resize_(4 * (offset + 4))
    x.data.copy_(kept)
    for o in (optimizer, untouched):
        o.step()
    assert same(params, others, within=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_freed_memory_of_a_parameter_without_a_gradient_is_nobodys_concern(backend):
    params = many(3)
    optimizer = thalweg.AdamW(params, backend=backend)
    give(params, 0)
    optimizer.step()
    params[1].grad = None
    params[1].untyped_storage().resize_(0)
    optimizer.step()
    assert optimizer.state[params[0]]["step"] == 2
    assert optimizer.state[params[1]]["step"] == 1
