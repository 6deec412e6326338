"""A race that fits into a time, and the power that it promises."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from thalweg._base.errors import ThalwegError
from thalweg.cli.app import app
from thalweg.lab import stats, within
from thalweg.lab.plan import plan
from thalweg.lab.within import Noise

NOISE = Noise(loss=2.0, sd=0.02)


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
    with pytest.raises(ThalwegError, match=r"--within: the smallest race takes about .* h here \(quick, 100 steps"):
        within.chosen(draft, 1, NOISE)


def test_the_sentence_says_what_less_would_cost(draft):
    found = within.chosen(draft, 900, NOISE)
    text = within.sentence(draft, found, NOISE)
    assert f"settles differences of {found.difference:.1%} or more of the loss, with 80% power" in text
    assert "would need" in text


def test_the_promised_power_is_kept_in_most_simulated_races():
    """Noise from a few seeds, a promise, and the true power at the difference that was promised."""
    draw, kept, count, seeds = np.random.default_rng(5), 0, 1000, 8
    true_sd = 0.01 * 2**0.5
    needed = stats.detectable(true_sd, seeds, chance=within.POWER)
    for _ in range(count):
        measured = within.of((2.0 + 0.01 * draw.standard_normal(within.SEEDS)).tolist())
        kept += needed <= needed * measured.sd / true_sd  # what is detectable is proportional to the noise
    assert kept / count == pytest.approx(within.CONFIDENCE, abs=0.04)


def test_the_noise_is_measured_with_runs_that_no_race_has(draft):
    measured = within.noise(draft)
    assert measured.sd > 0
    assert measured.loss > 0


def test_the_command_shows_the_table(tmp_path):
    done = CliRunner().invoke(
        app,
        ["race", "digits", "--optimizers", "adamw,momentum", "--within", "2h", "--jobs", "1", "--dry-run", "--store",
         str(tmp_path / "runs.db"), "--out", str(tmp_path)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for row in ("1 h", "8 h", "24 h", "2 h"):
        assert row in done.output
    assert "80% power" in done.output
