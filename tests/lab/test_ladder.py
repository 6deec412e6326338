"""A ladder from races to its sentences; simulated ones with a known truth, and a small real one."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline
from thalweg._base.errors import ThalwegError
from thalweg.cli.app import app
from thalweg.lab import climb, stats, workers
from thalweg.lab.contestants import parse
from thalweg.lab.ladder import Rung, ladder
from thalweg.lab.plan import plan
from thalweg.lab.report.ladder import picture
from thalweg.lab.run import set_up
from thalweg.lab.search import Setting, search
from thalweg.lab.tasks import TaskScale

PLACES = (100_000, 200_000, 400_000, 800_000, 1_600_000)
RULE = "At each place the same."


def stated(value, half=0.05):
    return {"value": value, "low": value * math.exp(-half), "high": value * math.exp(half), "text": ""}


NONE = {"value": None, "low": None, "high": None, "text": "> 1.0 (not reached in 8 of 8)"}


def raced(ratios):
    """A race in which each challenger takes so many times the baseline's steps; None is more than can be said."""
    common = {"verdict": "better", "difference": -0.1, "low": -0.2, "high": -0.05, "sd": 0.02, "seeds": 8,
              "look": 1}  # fmt: skip
    comparisons = [
        {"baseline": "adamw", "challenger": label, **common, "steps_ratio": stated(r) if r else NONE,
         "inverse_steps_ratio": NONE}
        for label, r in ratios.items()
    ]  # fmt: skip
    contestants = [
        {"label": one, "optimizer": one, "settings": {}, "diverged": 0, "tuned": True} for one in ("adamw", *ratios)
    ]
    return {
        "task": {"name": "bytes-gpt", "steps": 400}, "comparisons": comparisons, "contestants": contestants,
        "protocol": {"horizons": [100, 200, 300], "horizon_seeds": 8, "seeds": {"verdict": list(range(8))},
                     "alpha": 0.05}, "runs": [],
    }  # fmt: skip


def climbed(curves, places=PLACES, at=None):
    rungs = [Rung(place, raced({label: curve[i] for label, curve in curves.items()})) for i, place in enumerate(places)]
    return ladder("bytes-gpt", "size", rungs, RULE, at)


def test_a_lead_that_shrinks_is_followed_predicted_and_checked():
    curve = [
        0.5 * (place / PLACES[0]) ** 0.1 * factor
        for place, factor in zip(PLACES, (1, 1.01, 0.99, 1.01, 1), strict=True)
    ]
    found = climbed({"muon": curve}, at=124_000_000)
    [muon] = found["challengers"]
    line = muon["ratio"]
    assert line["slope"] == pytest.approx(2**0.1, rel=0.02)
    assert line["low"] < 0.5 * 1240**0.1 < line["high"]
    assert line["beyond"] == pytest.approx(77.5)
    assert line["left_out"]["place"] == PLACES[-1]
    assert line["left_out"]["held"]
    assert found["held"] == [2, 2]
    assert "muon falls behind as it grows" in found["headline"]
    text = " ".join(found["sentences"])
    assert "this extrapolates 77.5-fold" in text
    assert "2 of 2 such intervals from the others held" in text
    json.dumps(found, allow_nan=False)
    assert picture(found).startswith("<svg")


def test_a_lead_that_holds_has_no_trend_and_one_that_grows_gains():
    wobble = (1.0, 1.02, 0.99, 1.01, 0.98)
    found = climbed({
        "a": [0.6 * w for w in wobble],
        "b": [0.9 * (p / PLACES[0]) ** -0.2 * w for p, w in zip(PLACES, wobble, strict=True)],
    })  # fmt: skip
    assert found["headline"].endswith("a has no trend that these places show; b gains as it grows")


def test_challengers_that_are_alike_have_names_and_predictions_beside_each_other():
    falls = [0.7, 0.6, 0.55, 0.5, 0.45]
    drawn = picture(climbed({"muon": falls, "normuon": falls}, at=1_000_000))
    heights = [float(y) for y in re.findall(r'class="name s\dt" x="[\d.]+" y="([\d.]+)"', drawn)]
    places = re.findall(r'<polyline class="bar s\d" points="([\d.]+),', drawn)
    assert len(heights) == 2
    assert abs(heights[0] - heights[1]) >= 14
    assert len(set(places)) == 2
    assert ">1,000,000<" in drawn
    assert ">predicted<" in drawn


def test_an_interval_of_any_length_leaves_what_was_measured_to_be_seen():
    """Of three places and a place far away, it has many powers of ten."""
    found = climbed({"muon": [0.5, 0.9, 0.45]}, PLACES[:3], at=100_000_000)
    line = found["challengers"][0]["ratio"]
    assert line["high"] / line["low"] > 1e6
    drawn = picture(found)
    measured = [float(y) for y in re.findall(r'<circle class="fill s1" cx="[\d.]+" cy="([\d.]+)" r="4"', drawn)]
    [low, high] = map(
        float, re.search(r'<polyline class="bar s1" points="[\d.]+,([\d.]+) [\d.]+,([\d.]+)"', drawn).groups()
    )
    assert max(measured) - min(measured) > 25
    assert 18 <= high < min(measured)
    assert max(measured) < low <= 380 - 48


def test_a_later_look_at_a_task_says_as_much_of_its_ratio():
    """Its interval is wider, since it was asked for again; what it was computed from is not."""
    rungs = [Rung(place, raced({"muon": 0.5})) for place in PLACES]
    looked = [Rung(place, raced({"muon": 0.5})) for place in PLACES]
    for rung in looked:
        [c] = rung.result["comparisons"]
        wider = stats.t_quantile(7, 1, stats.alpha_at_look(3)) / stats.t_quantile(7, 1)
        c["steps_ratio"], c["look"] = stated(0.5, 0.05 * wider), 3
    lines = [ladder("bytes-gpt", "horizon", them, RULE, 10**7)["challengers"][0]["ratio"] for them in (rungs, looked)]
    assert lines[0]["high"] == pytest.approx(lines[1]["high"])
    assert ladder("bytes-gpt", "horizon", rungs, RULE)["headline"].startswith("bytes-gpt at 5 horizons: ")


def test_where_only_a_bound_is_known_the_difference_of_the_losses_is_followed():
    found = climbed({"muon": [0.5, None, 0.6, 0.6, 0.7]})
    [muon] = found["challengers"]
    assert muon["ratio"] is None
    assert muon["gap"]["slope"] == pytest.approx(0.0)
    assert "only a bound of the ratio is known" in muon["sentence"]
    assert picture(found)


@pytest.mark.parametrize(("places", "lines", "left"), [(2, False, False), (3, True, False), (4, True, True)])
def test_few_places_say_little_and_it_is_said(places, lines, left):
    found = climbed({"muon": [0.5] * places}, PLACES[:places], at=10**7)
    [muon] = found["challengers"]
    assert (muon["ratio"] is not None) is lines
    assert (found["held"][1] > 0) is left
    assert ("no place can be left out" in " ".join(found["sentences"])) is not left


def test_of_simulated_ladders_the_largest_place_is_predicted_95_in_100_times():
    draw, held, count = np.random.default_rng(1), [0, 0], 400
    for _ in range(count):
        slope, noise = draw.uniform(-0.2, 0.2), draw.uniform(0.005, 0.02)
        curve = [0.5 * math.exp(slope * math.log(p / PLACES[0]) + noise * draw.standard_normal()) for p in PLACES]
        left = climbed({"muon": curve})["challengers"][0]["ratio"]["left_out"]
        held[0] += left["held"]
    assert held[0] / count >= 0.93


@pytest.mark.parametrize(("text", "found"), [("124M", 124_000_000), ("1.5B", 1_500_000_000), ("64", 64), ("3k", 3000)])
def test_a_place_to_predict(text, found):
    assert climb.amount(text) == found


@pytest.mark.parametrize("text", ["", "M", "-3", "nan", "infB", "0", "1e400"])
def test_a_place_that_is_none(text):
    with pytest.raises(ValueError, match=r"^--predict='"):
        climb.amount(text)


@pytest.mark.parametrize("text", ["", "1", "1,1", "0,2", "2,x", "1,inf", "nan,1"])
def test_multiples_that_are_none(text):
    with pytest.raises(ValueError, match=r"^--sizes='.*two or more different multiples"):
        climb.multiples("--sizes", text)


def test_horizons_grow_with_the_parameters_or_stay():
    def of(along, factors, steps=None, per_parameter=False):
        return climb.places("digits", along, factors, steps, 2, per_parameter)

    grown = of("size", [1, 4], 100, per_parameter=True)
    assert grown[0].steps == 100
    assert grown[1].steps == pytest.approx(400, rel=0.05)
    assert [place.steps for place in of("size", [1, 4], 100)] == [100, 100]
    assert [place.place for place in of("batch", [0.5, 2])] == [32, 128]
    assert [place.steps for place in of("horizon", [1, 2])] == [250, 500]


def test_a_size_for_which_there_is_no_memory_is_refused_before_the_first_run():
    found = climb.places("digits", "size", [1, 3000], 20, 2, per_parameter=False)
    with pytest.raises(ThalwegError, match=r"take 1.17 GiB .* GiB for each of 4000: .*, or lower --jobs"):
        climb.refuse_without_memory(found, 4000)
    climb.refuse_without_memory(found, 1)


def test_on_a_cluster_it_is_the_memory_of_a_node_that_counts():
    found = climb.places("digits", "size", [1, 3000], 20, 2, per_parameter=False)
    climb.refuse_without_memory(found, 4000, each=8 * 2**30)
    with pytest.raises(ThalwegError, match=r"a node has 0.5 GiB for each run: .*, or raise --cpus"):
        climb.refuse_without_memory(found, 1, each=2**29)
    climb.refuse_without_memory(found, 1, each=math.inf)


def told(*arguments):
    done = CliRunner().invoke(app, ["race", *map(str, arguments)])
    return done.exit_code, done.output


SIZED = "def model(self, seed, size=1):\n        h = round(8 * size)"


@pytest.mark.slow(reason="five races, one for each size and one to look")
def test_the_command_climbs(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "Pool", Inline)
    path = sized(tmp_path)
    common = (path, "--optimizers", "adamw(lr=1e-2),momentum(lr=0.1)", "--baseline", "adamw(lr=1e-2)", "--seeds", 2,
              "--steps", 20, "--jobs", 1, "--store", tmp_path / "runs.db", "--out", tmp_path / "out")  # fmt: skip
    code, shown = told(*common, "--sizes", "1,2,4,8", "--fixed-horizon", "--predict", "10K")
    assert code == 0, shown
    found = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert found["places"] == [105, 193, 369, 721]
    assert all((tmp_path / "out" / f"size-{place}" / "report.html").exists() for place in found["places"])
    assert (tmp_path / "out" / "ladder.svg").read_text().startswith("<svg")
    assert "10,000 parameters" in " ".join(found["sentences"])
    assert found["headline"] in shown


def sized(folder):
    """The small task with a width that grows with the size."""
    path = folder / "small.py"
    write_small(folder)
    text = path.read_text().replace("def model(self, seed):", SIZED)
    path.write_text(text.replace("nn.Linear(2, 8)", "nn.Linear(2, h)").replace("nn.Linear(8, 8)", "nn.Linear(h, 8)"))
    return path


@pytest.fixture(scope="module")
def two_sizes(tmp_path_factory):
    """Plans of one race at width 8 and at width 32, and what the first one found."""
    path = str(sized(tmp_path_factory.mktemp("sized")))
    both = [
        plan(path, optimizers=("adamw", "momentum", "sgd(lr=0.1)"), seeds=2, steps=20, jobs=1, scale=TaskScale(size))
        for size in (1, 4)
    ]
    chosen = {"lr": 0.02, "multiplier": 3.0, "weight_decay": 0.05}
    found = [{"label": c.label, "chosen": chosen, "settings": {**c.given}} for c in both[0].contestants]
    found[0]["settings"]["betas"] = [0.9, 0.999]
    return both, {"contestants": found}


def rates(made, contestant):
    """Learning rates by the shape of a parameter, of the one run of a verdict seed."""
    with pytest.raises(StopIteration) as stop:
        next(search(contestant, made.budget))
    [setting] = stop.value.value.finalists
    _, optimizer = set_up(made.spec(contestant, setting, 1000, 20), made.task)
    return {tuple(p.shape): group["lr"] for group in optimizer.param_groups for p in group["params"]}


def test_transferred_rates_stay_as_they_are_or_follow_the_width(two_sizes):
    (small, large), found = two_sizes
    same, mup = (climb.carrying(large, small, how, found) for how in ("match-rms", "mup"))
    adamw, momentum, recipe = same.contestants
    assert rates(same, adamw) == rates(same, momentum)
    assert rates(same, adamw)[8, 32] == pytest.approx(0.02)
    assert rates(same, adamw)[1, 8] == pytest.approx(0.06)
    assert set(rates(same, recipe).values()) == {0.1}
    by_width = {
        c.label: {k: v / rates(same, c)[k] for k, v in rates(mup, m).items()}
        for c, m in zip(same.contestants, mup.contestants, strict=True)
    }
    assert by_width["adamw"] == pytest.approx({(32, 2): 1, (32,): 1, (8, 32): 1 / 4, (8,): 1, (1, 8): 1, (1,): 1})
    for like_sgd in ("momentum", "sgd(lr=0.1)"):  # r_out / r_in
        assert by_width[like_sgd] == pytest.approx({(32, 2): 4, (32,): 4, (8, 32): 1 / 4, (8,): 1, (1, 8): 1, (1,): 1})


def test_what_is_transferred_is_not_searched_for_and_says_where_it_comes_from(two_sizes):
    (small, large), found = two_sizes
    for how in climb.TRANSFERS:
        made = climb.carrying(large, small, how, found)
        assert [made.runs(c)["tune"] for c in made.contestants] == [0, 0, 0]
        assert made.contestants[0].carried.extra == (("betas", (0.9, 0.999)),)
        assert made.contestants[0].decay(made.contestants[0].carried.decay) == pytest.approx(0.05)
        assert made.contestants[0].transferred.startswith(f"tuned with {small.probe.parameters:,} parameters")
        assert not made.contestants[2].transferred
        assert climb.carrying(large, small, how).contestants[0].carried.lr == large.contestants[0].centre
    keys = {
        climb.carrying(large, small, how, found).spec(c, Setting(0.02), 0, 20).key
        for how in climb.TRANSFERS
        for c in climb.carrying(large, small, how, found).contestants[:1]
    }
    assert len(keys) == 2


def test_rates_of_a_matrix_method_transfer_where_its_updates_match_adamws(two_sizes):
    (small, large), _ = two_sizes
    muon = replace(large, contestants=[parse("muon(adjust_lr_fn='original')")])
    with pytest.raises(ThalwegError, match=r"--transfer mup: the updates of muon.* race muon\(adjust_lr_fn="):
        climb.carrying(muon, small, "mup")
    climb.carrying(replace(large, contestants=[parse("muon")]), small, "mup")


@pytest.mark.slow(reason="two races, one of them with a search")
@pytest.mark.usefixtures("few_trials")
def test_a_ladder_with_transferred_rates_searches_once(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "Pool", Inline)
    code, shown = told(
        *(sized(tmp_path), "--sizes", "1,4", "--fixed-horizon", "--transfer", "mup", "--optimizers", "adamw,momentum"),
        *("--seeds", 2, "--steps", 20, "--jobs", 1, "--store", tmp_path / "runs.db", "--out", tmp_path / "out"),
    )
    assert code == 0, shown
    ladder = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert "follow the width from there by muP" in ladder["rule"]
    assert "adamw (transferred)" in shown
    assert "tuned with 105 parameters and transferred by muP" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ravine", "--sizes", "1,2"), "ravine cannot be scaled"),
        (("digits", "--transfer", "mup"), "--transfer: expected --sizes, --batches or --horizons beside it"),
        (("digits", "--batches", "1,2", "--transfer", "mup"), "--transfer mup: expected --sizes beside it"),
        (("digits", "--sizes", "1,2", "--transfer", "best"), "--transfer='best': expected mup or match-rms"),
        (("digits", "--predict", "1M"), "--predict: expected --sizes, --batches or --horizons beside it"),
        (("digits", "--sizes", "1,2", "--batches", "1,2"), "a ladder goes one way"),
        (("digits", "photo", "--sizes", "1,2"), "a ladder goes one way"),
        (("digits", "--sizes", "2"), "two or more different multiples"),
        (("digits", "--slurm", "time=3"), "expected --cluster slurm beside it"),
        (("digits", "--cluster", "nowhere"), "--cluster='nowhere': expected auto"),
        (("digits", "--cluster", "local:2", "--cpus", "0"), "--cpus=0.0: expected cores"),
    ],
)
def test_what_does_not_go_together_is_one_line(arguments, said, tmp_path):
    code, shown = told(*arguments, "--out", tmp_path / "out")
    assert code == 1
    assert said in shown
    assert len(shown.strip().splitlines()) == 1
