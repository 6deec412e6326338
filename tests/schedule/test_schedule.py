import copy
import itertools
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.schedule import Constant, Cosine, Linear, Scheduler, Warmup, Wsd, constant, cosine, linear, wsd

lengths = st.integers(2, 200)
fractions = st.floats(0, 1)


@st.composite
def schedules(draw):
    """A schedule, its length and its warmup."""
    steps = draw(lengths)
    warmup = draw(st.integers(0, steps - 1))
    final = draw(fractions)
    make = draw(st.sampled_from([linear, cosine, wsd]))
    return make(steps, final=final, warmup=warmup), steps, warmup, final


@given(schedules())
def test_factors_lie_in_the_unit_interval_peak_after_warmup_and_end_at_final(drawn):
    f, steps, warmup, final = drawn
    factors = [f(t) for t in range(steps + 3)]
    assert all(0 <= x <= 1 for x in factors)
    assert f(warmup) == 1
    assert factors[-3:] == [final] * 3


@given(schedules())
def test_rises_then_falls_without_a_jump(drawn):
    f, steps, warmup, _ = drawn
    factors = [f(t) for t in range(steps + 1)]
    assert all(a < b for a, b in itertools.pairwise(factors[:warmup]))
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(factors[warmup:]))
    if warmup:
        assert factors[warmup - 1] == pytest.approx(1)
        assert factors[0] == pytest.approx(1 / warmup)


@given(lengths, st.integers(0, 1))
def test_no_update_is_wasted_by_a_decay_to_zero(steps, kind):
    f = (linear, cosine)[kind](steps)
    assert f(0) == 1
    assert f(steps - 1) > 0
    assert f(steps) == 0


@given(lengths, fractions)
def test_are_torchs_where_torch_has_the_shape(steps, final):
    def theirs(make):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = make(optimizer)
        lrs = []
        for _ in range(steps):
            lrs.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return lrs

    schedulers = torch.optim.lr_scheduler
    straight = theirs(lambda o: schedulers.LinearLR(o, start_factor=1.0, end_factor=final, total_iters=steps))
    assert [linear(steps, final)(t) for t in range(steps)] == pytest.approx(straight, abs=1e-9)
    curved = theirs(lambda o: schedulers.CosineAnnealingLR(o, steps, eta_min=final))
    assert [cosine(steps, final)(t) for t in range(steps)] == pytest.approx(curved, abs=1e-9)


@pytest.mark.parametrize("tensor_lr", [False, True])
@given(schedules())
def test_the_scheduler_is_torchs_lambda_bit_for_bit(tensor_lr, drawn):
    f, steps, *_ = drawn
    ours, theirs = _optimizer(tensor_lr), _optimizer(tensor_lr)
    a, b = Scheduler(ours, f), torch.optim.lr_scheduler.LambdaLR(theirs, [f, f])
    for _ in range(min(steps, 20) + 2):
        assert _lrs(ours) == _lrs(theirs)
        assert a.get_last_lr() == b.get_last_lr()
        for stepped in (ours, theirs, a, b):
            stepped.step()


@given(st.integers(1, 20))
def test_a_warmup_goes_before_any_function(n):
    f = Warmup(n, lambda t: 0.5**t)
    assert [f(t) for t in range(n)] == [(t + 1) / n for t in range(n)]
    assert [f(n + t) for t in range(3)] == [1, 0.5, 0.25]


def test_wsd_is_flat_then_decays_over_its_fraction():
    f = wsd(100, decay=0.2)
    assert [f(t) for t in (0, 50, 80)] == [1, 1, 1]
    assert f(90) == pytest.approx(0.5)
    assert wsd(100, decay=0.2, shape="1-sqrt")(85) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "schedule", [Constant(), Linear(5), Cosine(5, 0.1), Wsd(9, shape="1-sqrt"), Warmup(2, Linear(3))]
)
def test_read_back_from_repr_compare_and_pickle(schedule):
    names = {c.__name__: c for c in (Constant, Linear, Cosine, Wsd, Warmup)}
    assert eval(repr(schedule), names) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule


@pytest.mark.parametrize(("make", "message"), [
    (lambda: linear(0), "steps=0: expected an integer of at least 1"),
    (lambda: linear(2.5), "steps=2.5"),
    (lambda: linear(10, warmup=10), r"warmup=10: expected an integer in \[0, 10\)"),
    (lambda: cosine(10, warmup=-1), "warmup=-1"),
    (lambda: cosine(10, final=1.5), "final=1.5"),
    (lambda: wsd(10, decay=0), "decay=0"),
    (lambda: wsd(10, decay="0.2"), "decay='0.2'"),
    (lambda: linear(10, final=float("nan")), "final=nan"),
    (lambda: linear(True), "steps=True"),
    (lambda: Warmup(0, Constant()), "steps=0"),
    (lambda: Warmup(2, 0.5), "then=0.5"),
    (lambda: wsd(10, shape="cubic"), "shape='cubic'"),
    (lambda: Scheduler(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), 5), "schedule=5"),
])  # fmt: skip
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def _optimizer(tensor_lr=False):
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 1.0},
        {"params": [torch.nn.Parameter(torch.zeros(2))]},
    ]
    return torch.optim.SGD(groups, lr=torch.tensor(0.5) if tensor_lr else 0.5)


def _lrs(optimizer):
    return [float(g["lr"]) for g in optimizer.param_groups]


@pytest.mark.parametrize("tensor_lr", [False, True])
def test_the_scheduler_scales_each_groups_own_peak(tensor_lr):
    optimizer = _optimizer(tensor_lr)
    f = linear(10, warmup=3)
    scheduler = Scheduler(optimizer, f)
    for t in range(12):
        assert _lrs(optimizer) == pytest.approx([f(t), 0.5 * f(t)], rel=1e-6)
        optimizer.step()
        scheduler.step()


@given(st.integers(0, 14))
def test_resumes_exactly_at_any_step(stop):
    whole, half = _optimizer(), _optimizer()
    f = cosine(12, warmup=2)
    a, b = Scheduler(whole, f), Scheduler(half, f)
    for _ in range(stop):
        whole.step()
        half.step()
        a.step()
        b.step()
    again = _optimizer()
    c = Scheduler(again, f)
    c.load_state_dict(copy.deepcopy(b.state_dict()))
    again.load_state_dict(half.state_dict())
    for _ in range(3):
        assert _lrs(whole) == _lrs(again)
        whole.step()
        again.step()
        a.step()
        c.step()


def test_state_dict_can_be_loaded_safely(tmp_path):
    scheduler = Scheduler(_optimizer(), linear(5))
    torch.save(scheduler.state_dict(), tmp_path / "s.pt")
    assert torch.load(tmp_path / "s.pt", weights_only=True)["last_epoch"] == 0


def test_takes_its_place_in_torchs_sequential():
    optimizer = _optimizer()
    parts = [Scheduler(optimizer, constant()), Scheduler(optimizer, linear(4))]
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[2])
    seen = []
    for _ in range(6):
        seen.append(_lrs(optimizer)[0])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx([1, 1, 1, 0.75, 0.5, 0.25])


def _sequential():
    optimizer = _optimizer()
    parts = [Scheduler(optimizer, linear(4)), Scheduler(optimizer, linear(40, warmup=4))]
    return optimizer, torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])


@pytest.mark.parametrize("optimizer_first", [True, False])
@pytest.mark.parametrize("stop", range(6))
def test_resumes_within_torchs_sequential_in_either_order_of_loading(stop, optimizer_first):
    whole, again = _sequential(), _sequential()
    for _ in range(stop):
        for part in whole:
            part.step()
    pairs = list(zip(again, whole, strict=True))
    for new, old in pairs if optimizer_first else pairs[::-1]:
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    for _ in range(4):
        assert _lrs(again[0]) == _lrs(whole[0])
        for part in (*whole, *again):
            part.step()


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copied_pair_goes_on_the_same(twin):
    optimizer = _optimizer()
    pair = (optimizer, Scheduler(optimizer, cosine(9, warmup=2)))
    for _ in range(3):
        for part in pair:
            part.step()
    other = twin(pair)
    for _ in range(3):
        for part in (*pair, *other):
            part.step()
        assert _lrs(pair[0]) == _lrs(other[0])


@pytest.mark.parametrize("wrong", [{}, {"base_lrs": [1.0], "last_epoch": 3, "_step_count": 4, "_last_lr": [0.1]}])
def test_a_state_of_other_groups_is_refused_and_changes_nothing(wrong):
    scheduler = Scheduler(_optimizer(), linear(5))
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match="a Scheduler over 2 groups"):
        scheduler.load_state_dict(wrong)
    assert scheduler.state_dict() == before


def test_begins_in_the_middle_where_the_peaks_are_known():
    optimizer = _optimizer()
    Scheduler(optimizer, linear(10))
    Scheduler(optimizer, linear(10), last_epoch=3)
    assert _lrs(optimizer) == pytest.approx([0.6, 0.3])
