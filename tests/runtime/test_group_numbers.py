"""Numbers of groups: what changes is taken over, what is out of range is refused, and nothing is read twice."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import thalweg
from tests.fixtures import tensors
from thalweg.ir import fields
from thalweg.ir.trace import specialize
from thalweg.runtime import guards
from thalweg.runtime.group_numbers import GroupNumbers, GroupReader

values = {
    "lr": st.sampled_from([0.0, 0.1, 0.2, 1, torch.tensor(0.3, dtype=torch.float64)]),
    "betas": st.sampled_from([(0.9, 0.99), [0.8, 0.9], (torch.tensor(0.5, dtype=torch.float64), 0.9)]),
    "weight_decay": st.sampled_from([0.0, 0.1, 0.2]),
    "amsgrad": st.booleans(),
    "maximize": st.booleans(),
    "initial_lr": st.sampled_from([0.5, 0.7]),
    "clip_global_norm": st.sampled_from([None, 1.0, 2.0]),
}
changes = st.lists(
    st.one_of(*(st.tuples(st.just(name), value) for name, value in values.items())), min_size=1, max_size=4
)


def reader_and_group():
    optimizer = thalweg.AdamW(tensors((2,)))
    return optimizer.rule, GroupReader(optimizer.rule), optimizer.param_groups[0]


@given(steps=st.lists(st.tuples(changes, st.sampled_from([None, 0.5, 0.25])), min_size=1, max_size=6))
def test_it_reads_what_reading_afresh_gives(steps):
    rule, reader, group = reader_and_group()
    for changed, scale in steps:
        group.update(changed)
        found = reader.read(0, group, scale)
        fresh = vars(fields.read(rule.hypers, group))
        assert {name: found.numbers[name] for name in fresh} == fresh
        assert found.key == specialize(rule, group, scale is not None)
        assert found.numbers["inverse_scale"] == scale
        assert found.numbers["initial_lr"] == group.get("initial_lr", fresh["lr"])


def put_last(groups, i):
    groups[i]["lr"] = groups[i].pop("lr")


def copy(groups, i):
    groups[i] = dict(groups[i])


def begin_counting(groups, i):
    groups[i]["updates"] = groups[i].get("updates", 0) + 1


@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 2), changes), max_size=3),
            st.lists(st.tuples(st.sampled_from([put_last, copy, begin_counting]), st.integers(0, 2)), max_size=1),
            st.sampled_from([None, None, 0.5]),
            st.none() | st.integers(0, 2),
        ),
        min_size=2,
        max_size=8,
    ),
)
def test_all_groups_are_read_as_each_alone_would_be(steps):
    optimizer = thalweg.AdamW([{"params": [p]} for p in tensors((2,), (3,), (4,))])
    rule, groups, reader = optimizer.rule, optimizer.param_groups, GroupReader(optimizer.rule)
    for changed, rearranged, scale, alone in steps:
        for i, change in changed:
            groups[i].update(change)
        for rearrange, i in rearranged:
            rearrange(groups, i)
        if alone is not None:
            reader.read(alone, groups[alone], scale)
        for found, group in zip(reader.read_all(groups, scale), groups, strict=True):
            fresh = vars(fields.read(rule.hypers, group))
            assert {name: found.numbers[name] for name in fresh} == fresh
            assert found.key == specialize(rule, group, scale is not None)
            assert found.numbers["inverse_scale"] == scale
            assert found.numbers["initial_lr"] == group.get("initial_lr", fresh["lr"])


def test_what_is_read_of_one_group_alone_does_not_hide_a_later_return():
    groups = thalweg.AdamW([{"params": [p]} for p in tensors((2,), (3,))]).param_groups
    reader = GroupReader(thalweg.AdamW)
    for lr in (0.1, 0.2):
        groups[1]["lr"] = lr
        reader.read_all(groups, None)
    groups[1]["lr"] = 0.3
    assert reader.read(1, groups[1], None).numbers["lr"] == 0.3
    groups[1]["lr"] = 0.2
    assert reader.read_all(groups, None)[1].numbers["lr"] == 0.2


#: what may be done to groups between two steps, other than changing a number that has changed before
OTHERWISE = {
    "another parameter": lambda groups: groups[1]["params"].__setitem__(0, tensors((3,))[0]),
    "one more": lambda groups: groups[1]["params"].append(tensors((3,))[0]),
    "one less": lambda groups: groups[1]["params"].clear(),
    "another list": lambda groups: groups[1].update(params=tensors((3,))),
    "no list": lambda groups: groups[1].update(params=tuple(groups[1]["params"])),
    "another group": lambda groups: copy(groups, 1),
    "one group more": lambda groups: groups.append(dict(groups[1])),
    "one group less": lambda groups: groups.pop(),
    "a switch": lambda groups: groups[0].update(maximize=True),
    "a number that has not changed before": lambda groups: groups[0].update(weight_decay=0.3),
    "a number that is off": lambda groups: groups[0].update(gradient_noise=0.1),
}


@pytest.mark.parametrize("change", OTHERWISE.values(), ids=OTHERWISE.keys())
@pytest.mark.parametrize("after", [0, 3])
def test_the_same_list_says_that_nothing_but_numbers_has_changed(change, after):
    groups = thalweg.AdamW([{"params": [p]} for p in tensors((2,), (3,))]).param_groups
    reader = GroupReader(thalweg.AdamW)
    for lr in (0.1, 0.2):
        groups[0]["lr"] = groups[1]["lr"] = lr
        before = reader.read_all(groups, None)
    for step in range(after):
        groups[1]["lr"] = 0.3 + step
        assert reader.read_all(groups, None) is before or guards.functions() is None
    change(groups)
    assert reader.read_all(groups, None) is not before


#: what may be done to a tensor that is a learning rate, and what it then is
TENSORS = {
    "filled": lambda x: x.fill_(0.5),
    "other memory": lambda x: x.set_(torch.tensor([7.0, 0.5], dtype=torch.float64), 1, (), ()),
    "another dtype": lambda x: setattr(x, "data", torch.tensor(0.5)),
    "another shape": lambda x: setattr(x, "data", torch.tensor([[0.5]], dtype=torch.float64)),
    "half": lambda x: setattr(x, "data", torch.tensor(0.5, dtype=torch.float16)),
    "a whole number": lambda x: setattr(x, "data", torch.tensor(2)),
    "off": lambda x: x.zero_(),
}


@pytest.mark.parametrize("change", TENSORS.values(), ids=TENSORS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whatever_is_done_to_a_learning_rate_in_a_tensor_is_seen(change, dtype):
    lr = torch.tensor(0.25, dtype=dtype)
    groups = thalweg.AdamW([{"params": [p]} for p in tensors((2,), (3,))]).param_groups
    groups[1]["lr"] = lr
    reader = GroupReader(thalweg.AdamW)
    before = reader.read_all(groups, None)
    for value in (0.5, 0.75, 0.25):
        lr.fill_(value)
        assert reader.read_all(groups, None) is before or guards.functions() is None
        assert before[1].numbers["lr"] == value or guards.functions() is None
    change(lr)
    assert reader.read_all(groups, None)[1].numbers["lr"] == lr.item()
    assert reader.found[0].numbers["lr"] == groups[0]["lr"]


def with_a_sign_yet_to_be_applied(x):
    x.data = torch.tensor([0.5j], dtype=torch.complex64).conj().imag
    assert x.is_neg()


@pytest.mark.parametrize(
    "wrong",
    [lambda x: x.fill_(-1.0), lambda x: x.fill_(math.nan), lambda x: x.fill_(math.inf), with_a_sign_yet_to_be_applied],
    ids=["negative", "nan", "infinite", "imaginary"],
)
def test_a_tensor_out_of_range_is_refused_until_it_is_right(wrong):
    groups = thalweg.AdamW([{"params": [p]} for p in tensors((2,), (3,))]).param_groups
    groups[1]["lr"] = lr = torch.tensor(0.25)
    reader = GroupReader(thalweg.AdamW)
    for value in (0.5, 0.75):
        lr.fill_(value)
        reader.read_all(groups, None)
    wrong(lr)
    for _ in range(2):
        with pytest.raises(ValueError, match="lr="):
            reader.read_all(groups, None)
    lr.data = torch.tensor(0.5)
    assert reader.read_all(groups, None)[1].numbers["lr"] == 0.5


def test_a_rate_out_of_range_is_refused_at_every_step_and_taken_when_it_is_mended(either_look):
    groups = thalweg.AdamW([{"params": [p]} for p in tensors((2,), (3,))]).param_groups
    reader = GroupReader(thalweg.AdamW)
    for lr in (0.1, 0.2, 0.3):
        groups[0]["lr"] = groups[1]["lr"] = lr
        reader.read_all(groups, None)
    groups[0]["lr"], groups[1]["lr"] = 0.4, -1.0
    for _ in range(2):
        with pytest.raises(ValueError, match=r"lr=-1\.0"):
            reader.read_all(groups, None)
    groups[1]["lr"] = 0.5
    assert [found.numbers["lr"] for found in reader.read_all(groups, None)] == [0.4, 0.5]


def test_a_look_that_was_interrupted_is_not_believed(monkeypatch):
    groups = thalweg.AdamW([{"params": [p]} for p in tensors((2,), (3,))]).param_groups
    reader = GroupReader(thalweg.AdamW)
    for lr in (0.1, 0.2, 0.3):
        groups[1]["lr"] = lr
        reader.read_all(groups, None)
    groups[1]["lr"] = 0.4
    with monkeypatch.context() as patch:
        patch.setattr(GroupNumbers, "take", raiser(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            reader.read_all(groups, None)
    assert reader.read_all(groups, None)[1].numbers["lr"] == 0.4


def raiser(error):
    def raises(*_):
        raise error

    return raises


@pytest.mark.parametrize("value", [torch.tensor(0.3, dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)])
def test_a_tensor_that_changes_in_place_is_read_each_time(value):
    _, reader, group = reader_and_group()
    group["lr"] = value
    assert reader.read(0, group, None).numbers["lr"] == 0.3
    value.fill_(0.5)
    assert reader.read(0, group, None).numbers["lr"] == 0.5


def test_a_list_that_changes_in_place_is_read_each_time():
    _, reader, group = reader_and_group()
    group["betas"] = betas = [0.9, 0.99]
    reader.read(0, group, None)
    betas[0] = 0.5
    assert reader.read(0, group, None).numbers["betas"] == (0.5, 0.99)


def test_a_number_that_changed_before_is_not_checked_with_all_others(monkeypatch):
    rule, reader, group = reader_and_group()
    for lr in (0.1, 0.2):
        group["lr"] = lr
        reader.read(0, group, None)
    monkeypatch.setattr(rule, "check_hypers", lambda group: pytest.fail("it checks all"))
    for lr in (0.3, 0.4):
        group["lr"] = lr
        assert reader.read(0, group, None).numbers["lr"] == lr


def test_another_number_of_the_same_specialization_is_the_same_key():
    _, reader, group = reader_and_group()
    key = reader.read(0, group, None).key
    group["lr"] = 0.5
    assert reader.read(0, group, None).key is key
    group["weight_decay"] = 0.0
    assert reader.read(0, group, None).key is not key


@pytest.mark.parametrize("before", [[], [0.1, 0.2]], ids=["first change", "after others"])
@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), "much", torch.tensor([1.0, 2.0]), None], ids=str)
def test_a_value_out_of_range_is_refused_again_and_again_until_it_is_right(before, wrong):
    _, reader, group = reader_and_group()
    for lr in before:
        group["lr"] = lr
        reader.read(0, group, None)
    group.update(lr=wrong, eps=1e-3)
    for _ in range(2):
        with pytest.raises(ValueError, match="lr="):
            reader.read(0, group, None)
    group["lr"] = 0.5
    numbers = reader.read(0, group, None).numbers
    assert (numbers["lr"], numbers["eps"]) == (0.5, 1e-3)
