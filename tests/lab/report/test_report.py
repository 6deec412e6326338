import base64
import csv
import json
import math
import re
from html.parser import HTMLParser
from importlib import resources
from statistics import fmean
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.report.samples import race
from thalweg._base.errors import ThalwegError
from thalweg.lab.overview import overview
from thalweg.lab.report import picture, render, render_overview, write_overview, write_report
from thalweg.lab.report.figures import common, verdicts
from thalweg.lab.report.svg import Scale, linear_ticks, log_ticks, number, padded
from thalweg.lab.report.tables import finalists, leaderboard, why

RACES = {
    "three": race(),
    "one diverged": race(diverged="momentum"),
    "baseline diverged": race(diverged="adamw"),
    "alone": race(("adamw",)),
    "six": race(("adamw", "sgd", "momentum", "rmsprop", "adam", "muon"), seeds=8),
    "untimed": race(timed=False),
    "one seed": race(seeds=1),
    "long names": race(("adamw", "my-very-long-optimizer-name-with-settings")),
    "never trained": race(diverged="momentum", lost=5),
    "nobody trained": race(("adamw",), diverged="adamw", lost=5),
    "busy and over-fitted": race(quiet=False, rises=5.0),
}
EACH = pytest.mark.parametrize("result", RACES.values(), ids=RACES)
VOID = {"meta", "br", "link", "img", "hr", "input", "line", "circle", "rect", "path", "polyline"}


class Balance(HTMLParser):
    """Collects what does not nest, and every attribute."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID or (self.get_starttag_text()[-2:] != "/>" and tag in {"polyline", "circle", "rect", "path"}):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)


@EACH
def test_the_page_is_whole(result):
    page = render(result)
    parser = Balance()
    parser.feed(page)
    assert parser.wrong == []
    assert parser.open == []
    text = " ".join(parser.text)
    assert result["protocol"]["command"] in text
    for wanted in [
        *result["sentences"],
        result["headline"],
        *result["warnings"],
        *(f["text"] for f in result["flags"]),
    ]:
        assert wanted in text
    for contestant in result["contestants"]:
        assert contestant["label"] in text
        assert contestant["optimizer"] in text
        assert contestant["script"] in text
    for statement in result["protocol"]["statements"]:
        assert statement in text
    assert text.count("verdict") >= 1
    assert all(run["key"][:10] in text for run in result["runs"])


@EACH
def test_nothing_is_loaded_from_anywhere(result):
    page = render(result)
    assert "@import" not in page
    assert "url(" not in page
    parser = Balance()
    parser.feed(page)
    addresses = [value for name, value in parser.attributes if name in ("src", "href")]
    assert [address.partition(",")[0] for address in addresses] == [
        "data:application/json;charset=utf-8;base64",
        "data:text/csv;charset=utf-8;base64",
    ]


@EACH
def test_the_page_holds_its_data(result):
    files = {name: base64.b64decode(data).decode() for data, name in re.findall(
        r'href="data:[^"]*?base64,([^"]*)" download="([^"]*)"', render(result))}  # fmt: skip
    assert json.loads(files["race.json"]) == json.loads(json.dumps(result))
    rows = list(csv.DictReader(files["runs.csv"].splitlines()))
    assert [float(row["final_loss"]) for row in rows] == [run["final_loss"] for run in result["runs"]]
    assert not {"curve", "train_curve"} & rows[0].keys()


@EACH
def test_drawings_hold_finite_numbers_alone(result):
    for svg in [*re.findall(r"<svg.*?</svg>", render(result), re.DOTALL), picture(result)]:
        root = ElementTree.fromstring(svg)
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
        for node in root.iter():
            for name, value in node.attrib.items():
                if name in ("points", "d", "x", "y", "cx", "cy", "r", "width", "height", "transform"):
                    assert not re.search(r"nan|inf|None", value), (name, value)


@EACH
def test_rendering_is_deterministic(result):
    assert render(result) == render(result)
    assert picture(result) == picture(result)


def test_names_are_escaped():
    evil = race(("adamw", "<script>alert(1)</script>&"))
    page = render(evil)
    assert page.count("<script") == render(RACES["three"]).count("<script") == 1
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in picture(evil)


def test_is_written_whole_or_not_at_all(tmp_path):
    page = write_report(RACES["three"], tmp_path / "deep")
    assert page.read_text(encoding="utf-8") == render(RACES["three"])
    assert sorted(p.name for p in page.parent.iterdir()) == ["race.json", "race.svg", "report.html", "runs.csv"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ThalwegError, match=r"cannot write .*kept in the store"):
        write_report(RACES["three"], tmp_path / "file" / "deep")


def titles(drawing):
    return [node.text for node in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}title")]


def by_seed(result, label):
    """Final losses of the verdict runs."""
    return {r["seed"]: r["final_loss"] for r in result["runs"] if (r["optimizer"], r["role"]) == (label, "verdict")}


def test_every_seed_of_every_comparison_can_be_pointed_at():
    result = RACES["three"]
    shown = titles(verdicts(result))
    for c in result["comparisons"]:
        ours, theirs = by_seed(result, c["challenger"]), by_seed(result, c["baseline"])
        for seed in result["protocol"]["seeds"]["verdict"]:
            (title,) = [t for t in shown if t.startswith(f"seed {seed}: ") and f"({c['challenger']} " in t]
            told = float(title.split()[2].replace("−", "-"))
            assert told == pytest.approx(ours[seed] - theirs[seed], abs=6e-3)


def test_a_seed_that_diverged_is_a_cross_and_sets_no_axis():
    result = RACES["one diverged"]
    assert "seed 100: momentum diverged" in titles(verdicts(result))
    assert "momentum (AdamW): worse, no interval" in verdicts(RACES["never trained"])


def span(drawing, css):
    """Pixels that the first line of a class covers from left to right."""
    places = re.search(rf'class="{css}" points="([^"]*)"', drawing)[1].split()
    left, right = (float(place.partition(",")[0]) for place in (places[0], places[-1]))
    return right - left


def test_the_share_of_the_tuning_is_drawn_and_told():
    result = race()
    assert "core" not in verdicts(result)
    for c in result["comparisons"]:
        c["tuning_share"] = 0.36
    drawing = verdicts(result)
    assert span(drawing, "core s2") == pytest.approx(0.8 * span(drawing, "bar s2"), abs=0.2)
    assert "36 % for muon, 36 % for momentum" in render(result)


def test_values_on_the_way_can_be_pointed_at():
    result = RACES["three"]
    page = render(result)
    (run, *_) = [r for r in result["runs"] if (r["optimizer"], r["role"]) == ("muon", "verdict")]
    for step, _ in run["curve"][1:]:
        assert f"<title>muon at {step} steps: " in page
    assert "Training loss against steps" in page


def test_a_colour_is_never_on_another_line_than_what_it_means():
    page = render(RACES["three"])
    assert page.count('<span class="key"') == page.count('<span class="entry"><span class="key"') > 3
    assert ".entry { white-space: nowrap; }" in page


def test_a_picture_of_held_out_losses_is_not_squeezed_by_training_losses_that_it_does_not_show():
    result = race()
    drawn = picture(result)
    for run in result["runs"]:
        run["train_curve"] = [(step, loss / 1000) for step, loss in run["train_curve"]]
    assert picture(result) == drawn
    assert "0.001" in render(result)


def test_a_mean_of_runs_that_trained_says_of_how_many():
    page = render(RACES["one diverged"])
    assert ">momentum, 4 of 5</text>" in page
    assert ">muon</text>" in page
    assert ">momentum</text>" not in picture(RACES["one diverged"])


def test_complete_runs_have_a_mean_where_some_seeds_have_no_shorter_ones():
    result = race()
    drawn = render(result).count('class="thick')
    result["runs"] = [run for run in result["runs"] if (run["role"], run["seed"]) != ("horizon", 104)]
    assert render(result).count('class="thick') == drawn


def test_seconds_of_a_busy_machine_are_not_drawn():
    assert "loss against seconds" in render(RACES["three"])
    page = render(RACES["busy and over-fitted"])
    assert "loss against seconds" not in page
    assert "The timing pass had 16% of a core to itself" in page


def test_warnings_stand_right_under_the_headline():
    result = RACES["busy and over-fitted"]
    assert len(result["warnings"]) >= 2
    page = render(result)
    places = [
        page.index("</h1>"),
        *(page.index(text) for text in result["warnings"]),
        page.index(result["sentences"][0][:60]),
    ]
    assert places == sorted(places)


def test_an_optimizer_that_diverges_everywhere_on_an_over_fitted_task_is_worse():
    """It had counted with the loss before training, below what the others end with: not settled, steps < 0.25."""
    result = race(diverged="momentum", lost=5, rises=5.0)
    (c,) = [c for c in result["comparisons"] if c["challenger"] == "momentum"]
    assert (c["verdict"], c["low"], c["steps_ratio"]["value"]) == ("worse", None, None)
    assert "momentum (AdamW; did not train) is worse than adamw" in result["headline"]
    ours, theirs = by_seed(result, "momentum"), by_seed(result, "adamw")
    assert c["difference"] == pytest.approx(fmean(ours[seed] - theirs[seed] for seed in theirs))
    trained = [r["final_loss"] for r in result["runs"] if r["status"] == "finished" and r["role"] != "tune"]
    assert min(ours.values()) > max(trained)
    assert c["warnings"] == result["warnings"]


def test_what_was_chosen_stands_before_what_it_cost():
    heads = leaderboard(RACES["three"]).heads
    assert heads.index("lr") < heads.index("× rest") < heads.index("decay") < heads.index("ms a step")


def test_losses_of_a_column_are_rounded_alike():
    column = [row[1].text for row in leaderboard(RACES["six"]).rows]
    assert len({len(text.split(" ± ")[0].partition(".")[2]) for text in column}) == 1
    assert all(float(text.split(" ± ")[1]) > 0 for text in column)


def test_of_one_that_did_not_train_no_loss_is_made_up():
    (row,) = [row for row in leaderboard(RACES["never trained"]).rows if row[0].text == "momentum"]
    assert [cell.text for cell in row[1:5]] == ["did not train", "no interval", "worse", "not stated"]


def test_finalists_are_listed_with_how_many_seeds_each_scores():
    rows = finalists(RACES["three"]).rows
    assert [[cell.text for cell in row] for row in rows if row[0].text == "muon"] == [
        ["muon", "0.01", "1", "0", "", "2.0000", "4"],
        ["muon", "0.03", "3", "0.1", "", "2.1000", "1"],
    ]
    assert "Each seed is scored by the one that the" in render(RACES["three"])
    assert finalists(RACES["alone"]) is None
    assert "Each seed is scored" not in render(RACES["alone"])


def test_earlier_looks_are_listed():
    result = race()
    assert "Earlier looks" not in render(result)
    outcome = {"verdict": "not settled", "difference": 0.01, "low": -0.05, "high": 0.07}
    look = {"when": "2026-11-29T10:20:30", "labels": ["adamw", "muon"], "steps": 100, "seeds": 5, "margin": 0.02}
    result["protocol"]["looks"] = [{**look, "outcome": outcome}]
    page = render(result)
    assert "Earlier looks" in page
    row = "2026-11-29 10:20</th><td>adamw and muon</td><td>100</td><td>5</td><td>0.02</td><td>not settled"
    assert f"{row}<small>0.01 [−0.05, 0.07]</small></td>" in page


SEVERAL = [race(name="one"), race(name="two <b>", seeds=6), race(name="three", diverged="momentum", lost=5)]
PAGES = ["one/report.html", "two%20%3Cb%3E/report.html", "three/report.html"]


def test_the_overview_is_whole_and_leads_to_every_report(tmp_path):
    page = write_overview(SEVERAL, tmp_path, PAGES).read_text(encoding="utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.html", "races.json", "runs.csv"]
    parser = Balance()
    parser.feed(page)
    assert parser.wrong == parser.open == []
    text = " ".join(parser.text)
    seen = json.loads((tmp_path / "races.json").read_text())["overview"]
    assert seen == json.loads(json.dumps(overview(SEVERAL)))
    for wanted in [seen["headline"], *seen["sentences"], *(r["headline"] for r in SEVERAL)]:
        assert wanted in text
    linked = [value for name, value in parser.attributes if name == "href" and not value.startswith("data:")]
    assert linked == PAGES * 2
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)


def test_the_overview_of_one_contestant_has_nothing_to_compare():
    page = render_overview([race(("adamw",), name="one"), race(("adamw",), name="two")], PAGES[:2])
    assert "nothing was compared" in page


spans = st.tuples(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6)).map(lambda t: (t[0], t[0] + max(t[1], abs(t[0]) * 1e-6)))
positive = st.tuples(st.floats(1e-9, 1e6), st.floats(1.01, 1e6)).map(lambda t: (t[0], t[0] * t[1]))


@given(spans)
def test_linear_ticks_lie_inside_and_are_few(span):
    ticks = linear_ticks(*span)
    slack = (span[1] - span[0]) * 1e-6
    assert 1 <= len(ticks) <= 8
    assert all(span[0] - slack <= t <= span[1] + slack for t in ticks)


@given(positive)
def test_log_ticks_lie_inside_and_are_few(span):
    ticks = log_ticks(*span)
    assert 1 <= len(ticks) <= 9
    assert all(span[0] * (1 - 1e-6) <= t <= span[1] * (1 + 1e-6) for t in ticks)


@given(positive, st.booleans(), st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_scales_rise_from_end_to_end_and_hold_what_is_outside(span, log, shares):
    scale = Scale(*span, 10, 110, log)
    assert scale(span[0]) == pytest.approx(10)
    assert scale(span[1]) == pytest.approx(110)
    assert scale(span[1] * 2) == pytest.approx(110)
    places = [scale(span[0] + s * (span[1] - span[0])) for s in sorted(shares)]
    assert places == sorted(places)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5), st.booleans())
def test_padding_leaves_room_on_both_sides(values, log):
    low, high = padded(values, log)
    assert low < min(values) <= max(values) < high


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_numbers_read_back_to_three_digits(value):
    assert math.isclose(float(number(value).replace("−", "-").replace(",", "")), value, rel_tol=6e-3, abs_tol=1e-300)


def test_eight_contestants_have_colours_of_their_own():
    numbers = common.series({"contestants": [{"label": str(i)} for i in range(8)]})
    assert sorted(numbers.values()) == [*range(8)]
    chart, page = (
        resources.files("thalweg.lab.report").joinpath(name).read_text("utf-8") for name in ("chart.css", "page.css")
    )
    for sheet in (chart, page):  # by day and by night
        colours = re.findall(r"--s(\d): (#[0-9a-f]{6})", sheet)
        assert [int(i) for i, _ in colours] == [*range(8)]
        assert len({colour for _, colour in colours}) == 8
    for i in range(8):
        for rule in (f".s{i} {{ stroke", f".fill.s{i},", f".s{i}t {{ fill"):
            assert rule in chart


def test_why_stands_in_a_table_with_what_tuned_runs_have_and_its_share_of_the_time():
    table = why(RACES["three"])
    assert [[cell.text for cell in row][:3] for row in table.rows] == [
        ["adamw", "0.04", "0.003 to 0.29"],
        ["momentum", "0.9", "0.003 to 0.29"],
    ]
    assert [row[3].text for row in table.rows] == ["–", "25 %"]
    page = render(RACES["three"])
    assert "1.2 % of the time of all other runs" in page
    assert "lr_too_high" in page


def test_a_result_from_before_there_was_a_why_has_none_in_its_report():
    result = json.loads(json.dumps(RACES["three"]))
    for c in result["contestants"]:
        del c["why"]
    del result["protocol"]["watched"]
    assert why(result) is None
    assert "<h2>Why</h2>" not in render(result)
