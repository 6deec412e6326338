"""Several tasks together: ratios to the same loss, their mean, and the performance profile."""

import math

import pytest

from tests.lab.report.samples import race
from thalweg.lab import stats
from thalweg.lab.overview import overview, same_loss, within

HORIZONS = {"protocol": {"horizons": [50, 100]}, "task": {"name": "t", "steps": 200},
            "contestants": [{"label": "adamw", "optimizer": "AdamW", "tuned": True, "diverged": 0},
                            {"label": "muon", "optimizer": "Muon", "tuned": True, "diverged": 0}]}  # fmt: skip


def ratio(value, text="> 1.0 (not reached in 5 of 5)"):
    return {"value": value, "low": None, "high": None, "text": text}


def compared(steps, inverse, difference=-0.1, verdict="better"):
    return {"baseline": "adamw", "challenger": "muon", "seeds": 5, "difference": difference, "verdict": verdict,
            "steps_ratio": ratio(steps), "inverse_steps_ratio": ratio(inverse)}  # fmt: skip


def raced(name, *comparisons, **changes):
    task = {"name": name, "steps": 200}
    return {**HORIZONS, "task": task, "comparisons": list(comparisons), "warnings": [], **changes}


@pytest.mark.parametrize(
    ("steps", "inverse", "difference", "found"),
    [
        (0.5, None, -0.1, ("=", 0.5)),
        (None, 0.8, 0.1, ("=", 1.25)),  # the baseline takes 0.8 of its own steps to the challenger's loss
        (0.98, 0.99, -0.001, ("=", 0.98)),
        (None, None, -1.0, ("<", 0.25)),  # by the shortest run already
        (None, None, 1.0, (">", 4.0)),
    ],
)
def test_steps_to_the_higher_of_the_two_final_losses(steps, inverse, difference, found):
    assert same_loss(HORIZONS, compared(steps, inverse, difference)) == found


def test_without_shorter_runs_who_ends_lower_takes_at_most_as_many():
    bare = {**HORIZONS, "protocol": {}}
    assert same_loss(bare, compared(None, None, -1.0)) == ("<", 1.0)
    assert same_loss(bare, compared(None, None, 1.0)) == (">", 1.0)


def test_beside_one_that_did_not_train_there_is_no_bound():
    lost = {**HORIZONS, "contestants": [{"label": "adamw", "diverged": 0}, {"label": "muon", "diverged": 5}]}
    assert same_loss(lost, compared(None, None, 9.0)) == (">", None)


def test_the_mean_over_tasks_is_geometric_with_an_interval_over_them():
    values = [0.5, 0.8, 1.25]
    seen = overview([raced(str(v), compared(v, None)) for v in values])
    (muon,) = seen["challengers"]
    expected = stats.log_ratio(values, [1.0] * 3)
    assert muon["steps_ratio"]["value"] == pytest.approx(math.prod(values) ** (1 / 3))
    assert (muon["steps_ratio"]["low"], muon["steps_ratio"]["high"]) == (
        pytest.approx(expected.low),
        pytest.approx(expected.high),
    )
    assert "a geometric mean over 3 tasks" in muon["sentence"]


def test_where_a_bound_alone_is_known_nothing_is_imputed():
    bounds = stats.across([("=", 0.5), (">", 4.0), ("=", 0.7)])
    assert bounds == {"value": 0.7, "low": None, "high": None,
                      "text": "median 0.70 (only a bound on 1 of 3 tasks)"}  # fmt: skip
    assert stats.across([("<", 0.25), (">", None)])["value"] is None
    with pytest.raises(ValueError, match="ratios"):
        stats.across([])


def test_the_profile_counts_tasks_within_a_factor_of_the_fewest_steps():
    seen = overview(
        [
            raced("a", compared(0.5, None)),
            raced("b", compared(None, 0.8, 0.1, "worse")),
            raced("c", compared(None, None, 1.0, "worse")),
        ]
    )
    assert seen["profile"]["adamw"] == [2.0, 1.0, 1.0]
    assert seen["profile"]["muon"] == [1.0, pytest.approx(1.25), None]
    shares = [within(seen["profile"]["muon"], tau) for tau in (1.0, 1.25, 100.0)]
    assert shares == [pytest.approx(1 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3)]


def test_who_did_not_train_is_within_no_factor():
    results = [race(name="one", diverged="adamw", lost=5), race(name="two")]
    profile = overview(results)["profile"]
    assert profile["adamw"][0] is None
    assert profile["muon"][0] == profile["momentum"][0] == 1.0
    profile = overview([race(name="one", diverged="muon", lost=5)])["profile"]
    assert profile["muon"] == [None]


def test_the_headline_counts_the_words():
    results = [race(name="one"), race(name="two")]
    seen = overview(results)
    assert seen["headline"] == "2 tasks against adamw: muon (AdamW) better on 2; momentum (AdamW) worse on 2"
    assert seen["sentences"][0].startswith("muon (AdamW) against adamw: better on one and two. Steps to the same loss")
    assert "for 2 challengers together" in seen["sentences"][0]


def test_tasks_whose_verdicts_have_warnings_are_named():
    results = [race(name="one"), race(name="two", quiet=False), race(name="three", quiet=False)]
    assert overview(results)["sentences"][-1].endswith(" headline: two and three.")
    assert "warnings" not in overview(results[:1])["sentences"][-1]
