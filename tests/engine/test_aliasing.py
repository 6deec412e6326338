"""Which memory parameters may share: none; and several optimizers over one model."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import thalweg
from tests.fixtures import give, on_backends, same, tensors, walk

REMEDY = "Give each weight once"


def test_two_parameters_over_one_tensor_are_refused_by_name():
    x = torch.zeros(4, 3)
    with pytest.raises(ValueError, match=f"params='a and b': expected parameters that do not share memory.*{REMEDY}"):
        thalweg.AdamW([("a", nn.Parameter(x)), ("b", nn.Parameter(x))])


def test_sharing_is_found_across_groups_and_when_a_group_is_added():
    x = torch.zeros(8)
    groups = [{"params": [nn.Parameter(x[:5])]}, {"params": [nn.Parameter(x[4:])]}]
    with pytest.raises(ValueError, match="parameter 0 of group 0 and parameter 0 of group 1"):
        thalweg.AdamW(groups)
    optimizer = thalweg.AdamW(groups[:1])
    with pytest.raises(ValueError, match="share memory"):
        optimizer.add_param_group(groups[1])
    assert len(optimizer.param_groups) == 1


def test_sharing_is_found_behind_a_neighbour_that_reaches_further():
    x = torch.zeros(10, 10)
    column, inside, overlapping = x[:, 0], x.view(-1)[11:15], x.view(-1)[14:16]
    with pytest.raises(ValueError, match="b and c"):
        thalweg.AdamW([("a", nn.Parameter(column)), ("b", nn.Parameter(inside)), ("c", nn.Parameter(overlapping))])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), min_size=1, max_size=8))
def test_pieces_of_a_buffer_are_refused_where_two_share_an_element_and_only_there(pieces):
    flat = torch.zeros(40)
    params = [nn.Parameter(flat[at : at + size]) for at, size in pieces]
    elements = [k for at, size in pieces for k in range(at, at + size)]
    if len(set(elements)) == len(elements):
        thalweg.SGD(params, lr=1.0)
    else:
        with pytest.raises(ValueError, match="share memory"):
            thalweg.SGD(params, lr=1.0)


def test_a_number_whose_sign_is_yet_to_be_applied_is_refused():
    lazy = torch.tensor([1 + 2j]).conj().imag
    assert lazy.is_neg()
    with pytest.raises(ValueError, match="resolve_neg"):
        thalweg.SGD([nn.Parameter(torch.zeros(3)), nn.Parameter(lazy)], lr=1.0)


def test_an_expanded_parameter_is_refused():
    with pytest.raises(ValueError, match=r"strides \(1, 0\).*clone what was expanded"):
        thalweg.AdamW([nn.Parameter(torch.zeros(3, 1).expand(3, 4))])


@on_backends
def test_views_of_one_flat_buffer_move_as_tensors_of_their_own(backend):
    flat = torch.cat([p.detach().flatten() for p in tensors((4, 3), (5,), (2, 2))])
    ours = [nn.Parameter(flat[:12].view(4, 3)), nn.Parameter(flat[12:17]), nn.Parameter(flat[17:].view(2, 2))]
    theirs = tensors((4, 3), (5,), (2, 2))
    walk(thalweg.AdamW(ours, backend=backend), ours, range(3))
    walk(thalweg.AdamW(theirs, backend=backend), theirs, range(3))
    assert same(ours, theirs)
    assert torch.equal(flat[:12], theirs[0].detach().flatten())


def test_interleaved_columns_share_nothing():
    x = torch.zeros(6, 4)
    columns = [nn.Parameter(x[:, 0]), nn.Parameter(x[:, 1])]
    optimizer = thalweg.SGD(columns, lr=1.0)
    give(columns, 0)
    optimizer.step()
    assert torch.equal(x[:, 1], columns[1].detach())
    assert not x[:, 2:].any()


@on_backends
def test_tied_modules_step_their_weight_once(backend):
    def model():
        torch.manual_seed(0)
        first, last = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        last.weight = first.weight
        return nn.Sequential(first, last)

    ours, theirs = model(), model()
    a, b = thalweg.AdamW(ours.parameters(), backend=backend), torch.optim.AdamW(theirs.parameters())
    for net, optimizer in ((ours, a), (theirs, b)):
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.tensor([0, 3])).logsumexp(-1).sum().backward()
            optimizer.step()
    assert len(a.state) == 1
    assert same(ours.parameters(), theirs.parameters(), within=1e-6)


def test_one_parameter_given_twice_is_answered_as_by_torch():
    p = nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match="more than one parameter group"):
        thalweg.AdamW([{"params": [p]}, {"params": [p]}])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        torch.optim.AdamW([p, p])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        thalweg.AdamW([p, p])


@on_backends
@pytest.mark.parametrize("given", [lambda p, q: [p, q, p], lambda p, q: iter([("p", p), ("q", q), ("p", p)])])
def test_a_parameter_that_a_group_lists_twice_is_stepped_once(backend, given):
    ours, once = tensors((4, 3), (5,)), tensors((4, 3), (5,))
    with pytest.warns(UserWarning, match=r"duplicate parameters \(3 in the list, 2 different ones\)"):
        a = thalweg.AdamW([{"params": given(*ours)}], backend=backend)
    b = thalweg.AdamW(once, backend=backend)
    for step in range(3):
        give(ours, step)
        give(once, step)
        a.step()
        b.step()
    assert [p is q for p, q in zip(a.param_groups[0]["params"], ours, strict=True)] == [True, True]
    assert same(ours, once)


@pytest.mark.parametrize("make", [thalweg.AdamW, lambda p: thalweg.SGD(p, lr=0.1)])
def test_a_parameter_put_twice_into_a_list_of_the_groups_is_refused_before_anything_moves(make):
    params = tensors((4, 3), (5,))
    optimizer = make(params)
    give(params, 0)
    optimizer.step()
    before = [p.detach().clone() for p in params]
    optimizer.param_groups[0]["params"].append(params[0])
    with pytest.raises(ValueError, match="params='parameter 2 of the optimizer, 2 times in a group'"):
        optimizer.step()
    assert same(params, before)


@on_backends
def test_several_optimizers_over_one_model(backend):
    def run(make_a, make_b):
        params = tensors((4, 3), (5,))
        a, b = make_a(params[:1]), make_b(params[1:])
        for step in range(3):
            give(params, step)
            a.step()
            b.step()
        return params

    ours = run(lambda p: thalweg.AdamW(p, backend=backend), lambda p: thalweg.SGD(p, lr=0.1, backend=backend))
    theirs = run(torch.optim.AdamW, lambda p: torch.optim.SGD(p, lr=0.1))
    assert same(ours, theirs, within=1e-6)


@on_backends
def test_two_optimizers_may_take_turns_on_the_same_parameters(backend):
    ours, theirs = tensors((4, 3)), tensors((4, 3))
    a, b = thalweg.AdamW(ours, backend=backend), thalweg.SGD(ours, lr=0.1, momentum=0.9, backend=backend)
    c, d = torch.optim.AdamW(theirs), torch.optim.SGD(theirs, lr=0.1, momentum=0.9)
    for step in range(4):
        give(ours, step)
        give(theirs, step)
        (a, b)[step % 2].step()
        (c, d)[step % 2].step()
    assert same(ours, theirs, within=1e-6)


def test_many_groups_are_checked_in_a_time_that_grows_with_their_number(monkeypatch):
    looked = []
    check = thalweg.engine.aliasing.check
    monkeypatch.setattr(thalweg.engine.aliasing, "check", lambda groups: (looked.append(len(groups)), check(groups)))
    thalweg.SGD([{"params": [p]} for p in tensors(*[(2,)] * 20)], lr=0.1)
    assert looked == [20]
