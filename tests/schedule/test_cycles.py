import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from tests.schedule.samples import called, factors, fractions, lengths, sgd, torchs, trajectory, values
from thalweg.schedule import CosineRestarts, Cyclic, OneCycle, Scheduler


def near(expected):
    return pytest.approx(expected, rel=1e-12, abs=1e-12)


def adam():
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0, betas=(0.5, 0.9))


# -- restarts ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 3), fractions)
def test_restarts_are_torchs(first, mult, final):
    f = CosineRestarts(first, mult, final)
    assert called(f, 120) == near(
        torchs(lambda o: theirs.CosineAnnealingWarmRestarts(o, first, mult, eta_min=final), 120)
    )


@given(st.integers(1, 8), st.floats(0, 50))
def test_restarts_at_fractions_of_an_epoch_are_torchs(first, time):
    optimizer = sgd()
    scheduler = theirs.CosineAnnealingWarmRestarts(optimizer, first)
    scheduler.step(time)
    assert CosineRestarts(first)(time) == near(values(optimizer)[0])


@given(st.integers(1, 20), st.integers(1, 3), st.floats(0, 0.5), st.floats(0.5, 1), st.integers(1, 4))
def test_each_cycle_begins_at_a_lower_peak_and_the_last_one_ends(first, mult, final, decay, cycles):
    f = CosineRestarts(first, mult, final, decay, cycles)
    starts = [sum(first * mult**j for j in range(i)) for i in range(cycles + 1)]
    for i, start in enumerate(starts[:-1]):
        assert f(start) == near(max(final, decay**i))
        assert f(start) >= f(starts[i + 1] - 1) - 1e-12
    assert f.length == starts[-1]
    assert [f(starts[-1]), f(starts[-1] + 5)] == [final, final]


# -- triangles --------------------------------------------------------------------------------------------------------

modes = st.sampled_from(["triangular", "triangular2", "exp_range"])


@pytest.mark.parametrize("make", [lambda: sgd(momentum=0.9), adam])
@given(st.integers(1, 20), st.none() | st.integers(1, 20), fractions, modes, st.floats(0.9, 1))
def test_triangles_are_torchs_and_so_is_the_momentum(make, up, down, base, mode, gamma):
    ours, other = make(), make()
    f = Cyclic(up, down, base, mode, gamma)
    b = theirs.CyclicLR(other, base, 1.0, up, down, mode, gamma, base_momentum=0.7, max_momentum=0.93)
    a = Scheduler(ours, f, momentum=f.momentum(0.7, 0.93))
    for _ in steps_of(70, ours, other, a, b):
        assert values(ours) == near(values(other))
        assert momentum(ours) == near(momentum(other))


def steps_of(n, ours, other, *schedulers):
    """As many steps, the optimizers' once, which torch wants to see."""
    ours.step()
    other.step()
    for step in range(n):
        yield step
        if step < n - 1:
            for scheduler in schedulers:
                scheduler.step()


def momentum(optimizer):
    group = optimizer.param_groups[0]
    return group["momentum"] if "momentum" in group else group["betas"][0]


# -- one cycle --------------------------------------------------------------------------------------------------------

strategies = st.sampled_from(["cos", "linear"])


@pytest.mark.parametrize("make", [lambda: sgd(momentum=0.9), adam])
@given(
    st.integers(2, 80),
    st.floats(0, 1),
    strategies,
    st.floats(1, 100),
    st.floats(1, 1e5),
    st.booleans(),
    st.floats(1e-4, 10),
)
def test_one_cycle_is_torchs_and_so_is_the_momentum(make, steps, pct, anneal, div, final_div, three, peak):
    pct = pct / 2 if three else pct
    rise = pct * steps - 1
    assume(abs(rise) > 1e-6 and abs(rise - (steps - 1)) > 1e-6)  # torch divides by the length of a phase
    assume(not three or abs(2 * pct * steps - 2 - (steps - 1)) > 1e-6)
    ours, other = make(), make()
    ours.param_groups[0]["lr"] = peak
    b = theirs.OneCycleLR(
        other,
        peak,
        total_steps=steps,
        pct_start=pct,
        anneal_strategy=anneal,
        div_factor=div,
        final_div_factor=final_div,
        three_phase=three,
        base_momentum=0.8,
        max_momentum=0.97,
    )
    f = OneCycle(steps, pct, 1 / div, 1 / div / final_div, anneal, three)
    a = Scheduler(ours, f, momentum=f.momentum(0.8, 0.97))
    for _ in steps_of(steps, ours, other, a, b):
        assert values(ours) == pytest.approx(values(other), rel=1e-12, abs=1e-12 * peak)
        assert momentum(ours) == near(momentum(other))


def test_one_cycle_is_torchs_by_default():
    ours = trajectory(o := sgd(0.3, momentum=0.9), Scheduler(o, OneCycle(50)), 50)
    other = sgd(0.1, momentum=0.9)
    assert ours == near(trajectory(other, theirs.OneCycleLR(other, 0.3, 50), 50))


@given(lengths, fractions, factors, fractions, strategies)
def test_one_cycle_ends_exactly_at_its_final_factor(steps, pct, start, final, anneal):
    f = OneCycle(steps, pct, start, final, anneal)
    assert [f(steps), f(steps + 7)] == [final, final]
    assert f(steps - 1) == near(1.0 if pct * steps == steps > 1 else final)


def test_a_rise_of_no_length_begins_at_the_peak():
    assert OneCycle(10, pct_start=0.1)(0) == 1  # where torch divides by zero
