"""The clock: who steps when, how often, and what a failure costs. A clock of our own, so that nothing is timed."""

import itertools

import pytest

from thalweg.bench.turns import Times, ratio, reason, take_turns


class Fake:
    """Takes ``cost`` seconds of the fake clock a step, and writes down that it stepped."""

    def __init__(self, name, cost, world, fails_at=None):
        self.name, self.cost, self.world, self.fails_at = name, cost, world, fails_at
        self.steps = 0

    def prepare(self):
        self.world.now += 100.0  # is not counted

    def step(self):
        self.steps += 1
        self.world.log += self.name
        if self.steps == self.fails_at:
            raise RuntimeError("broke\nand more")
        self.world.now += self.cost


class World:
    def __init__(self):
        self.now, self.log = 0.0, ""


def run(costs, seconds, least, most, fails_at=None):
    world = World()
    steppers = {n: Fake(n, c, world, (fails_at or {}).get(n)) for n, c in costs.items()}
    return world.log, take_turns(steppers, seconds, least, most, clock=lambda: world.now), world


def test_they_alternate_and_each_has_its_time_within_the_bounds():
    _, times, world = run({"a": 1.0, "b": 5.0, "c": 0.1}, seconds=4.0, least=2, most=10)
    assert world.log.startswith("abcabc")
    assert {name: len(t.seconds) for name, t in times.items()} == {"a": 4, "b": 2, "c": 10}
    assert times["b"].ms == pytest.approx(5000)


def test_one_that_fails_is_left_out_and_the_others_go_on():
    _, times, world = run({"a": 1.0, "b": 1.0}, seconds=3.0, least=1, most=9, fails_at={"a": 2})
    assert world.log == "ababbb"[: len(world.log)]
    assert times["a"].error == "RuntimeError: broke"
    assert (times["a"].ms, times["a"].spread) == (None, None)
    assert times["b"].ms is not None


def test_median_and_interquartile_range_in_milliseconds():
    times = Times([0.001, 0.002, 0.003, 0.004, 1.0])
    assert times.ms == pytest.approx(3)
    assert times.spread == pytest.approx(2)
    assert Times([0.001, 0.002, 0.003]).spread is None
    assert Times().ms is None


def test_a_ratio_is_of_turns_that_lie_side_by_side():
    mine = Times([1.0, 1.0, 5.0, 5.0, 5.0, 1.0, 1.0, 1.0, 1.0])  # slow for three turns; it goes on alone
    theirs = Times([2.0, 2.0, 10.0, 10.0, 10.0])
    assert ratio(theirs, mine) == 2
    assert ratio(mine, theirs) == 0.5
    assert ratio(Times([3.0]), mine) == 3  # one turn is no pair to speak of
    assert ratio(Times([2.0], error="broke"), mine) is None
    assert ratio(Times(), mine) is None
    on_gpu = [Times([1.0] * 4, device=[0.5] * 4), Times([1.0] * 4, device=[0.25] * 4)]
    assert ratio(*on_gpu) == 1
    assert ratio(*on_gpu, on_device=True) == 2


def test_an_error_is_one_short_line():
    assert reason(ValueError("\n first \nsecond")) == "ValueError: first"
    assert reason(KeyError()) == "KeyError"
    assert len(reason(ValueError("x" * 1000))) == 160
    assert not any("\n" in reason(ValueError(text)) for text in itertools.chain(["a\nb", "\n", ""]))
