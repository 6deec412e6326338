import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.report.samples import race
from thalweg._base.errors import ThalwegError
from thalweg.lab.report import picture, render, write_report
from thalweg.lab.report.svg import Scale, linear_ticks, log_ticks, number, padded

RACES = {
    "three": race(),
    "one diverged": race(diverged="momentum"),
    "baseline diverged": race(diverged="adamw"),
    "alone": race(("adamw",)),
    "six": race(("adamw", "sgd", "momentum", "rmsprop", "adam", "muon"), seeds=8),
    "untimed": race(timed=False),
    "one seed": race(seeds=1),
    "long names": race(("adamw", "my-very-long-optimizer-name-with-settings")),
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
    for wanted in [*result["sentences"], result["headline"], *(f["text"] for f in result["flags"])]:
        assert wanted in text
    for contestant in result["contestants"]:
        assert contestant["label"] in text
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
    assert not [name for name, value in parser.attributes if name in ("src", "href") and value]


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
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in picture(evil)


def test_is_written_whole_or_not_at_all(tmp_path):
    page = write_report(RACES["three"], tmp_path / "deep")
    assert page.read_text(encoding="utf-8") == render(RACES["three"])
    assert sorted(p.name for p in page.parent.iterdir()) == ["race.svg", "report.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ThalwegError, match=r"cannot write .*kept in the store"):
        write_report(RACES["three"], tmp_path / "file" / "deep")


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
