"""A race that fits into a time, and the power that it promises."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.lab.searches import MEASURED, Surface, tuned
from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline
from thalweg._base.errors import ThalwegError
from thalweg.cli import fitting
from thalweg.cli.app import app
from thalweg.lab import paces, stats, within, workers
from thalweg.lab.forecast import forecast
from thalweg.lab.plan import plan, resized
from thalweg.lab.pool import CallLostError
from thalweg.lab.protocol import BUDGETS
from thalweg.lab.run import Spec
from thalweg.lab.search import Setting
from thalweg.lab.within import Noise

NOISE = Noise(loss=2.0, sd=0.02)
#: what workers measure, one after the other
SPEEDS = {}


@pytest.fixture(scope="module")
def draft():
    made = plan("digits", optimizers=["adamw", "momentum"], steps=100, jobs=2)
    return replace(made, step_seconds={"adamw": 0.01, "momentum": 0.008}, evaluate_seconds=0.01)


@pytest.mark.parametrize(("text", "found"), [("8h", 28800.0), ("30m", 1800.0), ("1.5d", 129600.0), ("90 s", 90.0)])
def test_times(text, found):
    assert within.seconds(text) == found


@pytest.mark.parametrize("text", ["", "8", "h", "-1h", "0h", "8 hours", "nan h"])
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match=r"^--within='.*such as 30m, 8h"):
        within.seconds(text)


def test_more_time_settles_more_and_is_never_overrun(draft):
    before = None
    for limit in (300, 3600, 4 * 3600):
        found = within.chosen(draft, limit, NOISE)
        assert found.seconds <= limit
        if before:
            assert found.difference <= before.difference or found.steps > before.steps
        before = found
    assert before.budget == "thorough"


def test_everyone_keeps_his_share(draft):
    found = within.chosen(draft, 900, NOISE)
    assert found.seeds >= within.BUDGETS[found.budget].verdict_seeds
    assert found.steps in (draft.steps, draft.task.steps)


def test_a_time_that_is_too_short_for_any_is_refused_with_what_it_takes(draft):
    with pytest.raises(ThalwegError, match=r"--within: the smallest race takes about .* here \(quick, 100 steps"):
        within.chosen(draft, 1, NOISE)


def test_the_sentence_says_what_less_would_cost(draft):
    for limit, said in ((60, "would need"), (900, "no number of seeds settles much less, since searches differ too")):
        found = within.chosen(draft, limit, NOISE)
        text = within.sentence(draft, found, NOISE)
        assert f"settles differences of {found.difference:.1%} or more of the loss, with 80% power" in text
        assert said in text


def test_a_ladder_shares_the_time(draft):
    """The same budget and as many seeds at each place, with the horizons as they are."""
    alone, beside = within.chosen(draft, 900, NOISE), [replace(draft, steps=200), replace(draft, steps=400)]
    found = within.chosen(draft, 900, NOISE, beside)
    every = [replace(one, budget=BUDGETS[found.budget], seeds=found.seeds, steps=one.steps) for one in (draft, *beside)]
    assert found.seconds == pytest.approx(sum(forecast(one).whole for one in every))
    assert found.seconds <= 900
    assert found.steps == draft.steps
    assert found.difference > alone.difference
    assert "3 races, each " in within.sentence(draft, found, NOISE, beside)
    with pytest.raises(ThalwegError, match=r"the smallest ladder of 3 races takes about"):
        within.chosen(draft, 1, NOISE, beside)


def test_what_workers_take_counts_as_it_was_measured(draft, monkeypatch):
    asked = []
    monkeypatch.setattr(paces, "measured", lambda drafts: asked.append(drafts) or [slow] * len(drafts))
    monkeypatch.setattr(within, "noise", lambda _: NOISE)
    monkeypatch.setattr(fitting, "resized", lambda one, *_: one)
    console, slow = Console(quiet=True), replace(draft, start_seconds=30.0)
    assert forecast(slow).whole == pytest.approx(forecast(draft).whole + 23.0)
    assert fitting.fitted(console, [draft, draft], 900, False) == [slow, slow]
    assert asked == [[draft, draft]]
    assert fitting.fitted(console, [draft], 900, False, here=False) == [draft]


@pytest.mark.slow(reason="starts workers, which import torch, twice")
def test_the_times_of_workers_are_measured_by_workers(draft):
    began = time.perf_counter()
    [found] = paces.measured([replace(draft, jobs=1)])
    assert 1.0 < found.start_seconds <= time.perf_counter() - began
    assert found.step_seconds.keys() == draft.step_seconds.keys()
    assert all(0 < found.step_seconds[label] != seconds for label, seconds in draft.step_seconds.items())


def _speed(spec, step, evaluate):
    return next(SPEEDS[spec.contestant.label]), 0.5


def test_all_workers_are_at_work_while_a_step_is_measured_and_their_mean_counts(draft, monkeypatch):
    class Noted(Inline):
        def submit(self, function, *arguments):
            asked.append([one.contestant.label for one in arguments if isinstance(one, Spec)])
            return super().submit(function, *arguments)

    asked = []
    monkeypatch.setattr(workers, "Pool", Noted)
    monkeypatch.setattr(paces, "pace", _speed)
    SPEEDS.update(adamw=iter([0.1, 0.3]), momentum=iter([1.0, 2.0]))
    [found] = paces.measured([draft])
    assert found.step_seconds == {"adamw": pytest.approx(0.2), "momentum": 1.5}
    assert found.setup_seconds == {"adamw": 0.5, "momentum": 0.5}
    # two who say that they are ready, then different contestants side by side, then the newest
    assert asked == [[], [], ["adamw"], ["momentum"], ["adamw"], ["momentum"], []]


def test_a_worker_that_dies_while_it_is_measured_is_one_error(draft, monkeypatch):
    class Dying(Inline):
        def submit(self, function, *arguments):
            return super().submit(_die)

    monkeypatch.setattr(workers, "Pool", Dying)
    with pytest.raises(ThalwegError, match=r"a worker process died while its speed was measured .* --jobs 1"):
        paces.measured([draft])


def _die():
    raise CallLostError("gone")


def test_what_is_chosen_is_raced_by_the_contestants_of_the_draft(draft):
    made = resized(draft, "standard", 12, 300)
    assert (made.budget.name, made.seeds, made.steps) == ("standard", 12, 300)
    assert made.contestants == draft.contestants
    assert made.step_seconds == draft.step_seconds


def test_a_baseline_that_diverges_has_no_noise(draft, monkeypatch):
    monkeypatch.setattr(within, "execute", lambda spec, role: {"final_loss": 9.0, "status": "diverged"})
    with pytest.raises(ThalwegError, match=r"--within: adamw diverges at the centre .* name a range"):
        within.noise(draft)


def promised_and_found(surface, budget, seeds, random):
    """A promise from eight runs, and the interval of a race of two contestants that are in truth alike."""
    centre = Setting(surface.contestant.centre, BUDGETS[budget].start)
    measured = max(
        (
            within.of([surface.loss(replace(centre, lr=place * centre.lr), s) for s in surface.seeds(random, 4)])
            for place in within.PLACES
        ),
        key=lambda one: one.sd,
    )
    sd = measured.sd * (1.0 + seeds * within.SEARCHED) ** 0.5
    sides = [
        tuned(surface, BUDGETS[budget], surface.seeds(random, len(BUDGETS[budget].tune_seeds)), judging)
        for judging in (surface.seeds(random, seeds), surface.seeds(random, seeds))
    ]
    (a, luck_a, _), (b, luck_b, _) = sides
    return stats.detectable(sd, seeds, chance=within.POWER), stats.paired(b - a, tuning=luck_b.less(luck_a))


@pytest.mark.slow(reason="360 simulated races")
@pytest.mark.parametrize(("budget", "seeds"), [("quick", 7), ("quick", 20), ("standard", 8)])
def test_the_promised_power_is_kept_by_whole_simulated_races(budget, seeds):
    """With the losses and the noise of real searches, measured setting by setting.

    Of races that differ by what was promised, four of five are settled; and most promises are above what it takes.
    """
    random, races, kept = np.random.default_rng(5), 40, []
    for name in sorted(MEASURED):
        found = [promised_and_found(Surface(name), budget, seeds, random) for _ in range(races)]
        needed = np.array([interval.high for _, interval in found])  # a lead above this would have been settled
        promised = np.array([promise for promise, _ in found])
        assert np.mean(promised > needed) >= within.POWER - 2 * (0.8 * 0.2 / races) ** 0.5
        kept.append(np.mean(promised >= np.quantile(needed, within.POWER)))
    assert np.mean(kept) >= within.CONFIDENCE


@pytest.mark.parametrize(("baseline", "runs"), [("adamw", 8), ("adamw(lr=1e-3)", 4)])
def test_as_many_runs_are_named_as_measure_the_noise(tmp_path, baseline, runs, monkeypatch):
    made = plan(write_small(tmp_path), optimizers=[baseline, "momentum"], baseline=baseline, steps=100, jobs=1)
    made = replace(made, step_seconds={c.label: 0.01 for c in made.contestants}, evaluate_seconds=0.01)
    counted = []

    def ended(*asked):
        counted.append(asked)
        return {"status": "finished", "final_loss": float(len(counted))}

    monkeypatch.setattr(within, "execute", ended)
    measured = within.noise(made)
    assert len(counted) == runs
    assert f"from {runs} runs of" in within.sentence(made, within.chosen(made, 3600, measured), measured)


def test_the_noise_is_measured_with_runs_that_no_race_has(draft):
    measured = within.noise(draft)
    assert measured.sd > 0
    assert measured.loss > 0


@pytest.mark.parametrize(("sizes", "said"), [([], "power"), (["--sizes", "1,4"], "2 races, each")])
def test_the_command_shows_the_table(tmp_path, sizes, said, monkeypatch):
    losses = itertools.count(1.0, 0.01)
    monkeypatch.setattr(within, "execute", lambda *_: {"status": "finished", "final_loss": next(losses)})
    done = CliRunner().invoke(
        app,
        ["race", "digits", "--optimizers", "adamw,momentum", "--within", "2h", "--jobs", "1", "--dry-run", "--store",
         str(tmp_path / "runs.db"), "--out", str(tmp_path), *sizes],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for row in ("1 h", "8 h", "24 h", "2 h"):
        assert row in done.output
    shown = " ".join(done.output.split())  # a line may end anywhere
    assert "80% power" in shown
    assert said in shown
