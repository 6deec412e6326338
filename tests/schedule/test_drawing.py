import importlib.util
import io

import pytest
from hypothesis import given, settings

from tests.schedule.samples import example_of, schedules
from thalweg import schedule
from thalweg._base.errors import ThalwegError
from thalweg.schedule import (
    Between,
    ByFraction,
    Constant,
    Cosine,
    CosineRestarts,
    Linear,
    Plateau,
    Warmup,
    Wsd,
    linear,
    plot,
)
from thalweg.schedule.sparkline import ASCII, WIDTH, curve, spelt

DRAWN = [cls for cls in schedule.schedules().values() if cls not in (Plateau, Constant)]

# -- text -------------------------------------------------------------------------------------------------------------


def test_printed_with_its_curve_and_numbers():
    assert str(linear(1000, warmup=100)).splitlines() == [
        "Warmup(100, Linear(900))",
        "▁▃▄▆▇███▇▇▇▇▇▇▆▆▆▆▆▆▅▅▅▅▅▅▅▄▄▄▄▄▃▃▃▃▃▃▂▂▂▂▂▂▂▁▁▁  0.01 at first, up to 1, 0 from step 1,000 on",
    ]


def test_a_curve_has_the_levels_of_its_values():
    assert curve([0, 0.5, 1]) == "▁▅█"
    assert curve([0.9, 1.0], low=0.9) == "▁█"
    assert curve([0.0, 0.0]) == "▁▁"
    assert curve([0.0, 1e-308, 2e-308]) == "▁▅█"


def test_the_foot_of_values_is_their_least():
    lines = str(Between(0.85, 0.95, Linear(60))).splitlines()
    assert (lines[1][0], lines[1][WIDTH - 1]) == ("█", "▁")
    assert lines[1].endswith("0.95 at first, 0.85 from step 60 on")


@pytest.mark.parametrize("cls", DRAWN)
def test_every_curve_is_of_one_width_and_not_flat(cls):
    _, line = str(example_of(cls)).splitlines()
    marks = line.split("  ")[0]
    assert len(marks) == WIDTH
    assert len(set(marks)) > 1


@pytest.mark.parametrize("f", [Constant(), Linear(5, 1.0), Constant() * Constant(0.5), Wsd(4, 1.0)])
def test_no_curve_where_there_is_nothing_to_see(f):
    assert str(f) == spelt(f)
    assert "\n" not in str(f)


@settings(max_examples=200)
@given(schedules)
def test_printing_never_fails(f):
    assert str(f).startswith(type(f).__name__)


def test_a_function_in_a_schedule_is_shown_as_python_shows_it():
    assert spelt(Warmup(3, abs, start=0.5)) == "Warmup(3, <built-in function abs>, start=0.5)"


def test_a_terminal_without_blocks_gets_plain_characters(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    line = str(Cosine(100)).splitlines()[1].split("  ")[0]
    assert set(line) <= set(ASCII)
    assert line[0] == "#"
    print(Cosine(100))


# -- pictures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pyplot(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@pytest.mark.parametrize("cls", [c for c in schedule.schedules().values() if c is not Plateau])
def test_every_schedule_is_drawn_as_it_is(cls, pyplot):
    f = example_of(cls)
    ax = f.plot(300)
    (line,) = ax.lines
    steps, drawn = line.get_xdata(), line.get_ydata()
    assert list(steps) == list(range(301))
    assert list(drawn[:-1]) == [f(t) for t in range(300)]
    assert ax.get_ylabel() == ("value" if cls is Between else "factor of the peak")
    ax.figure.savefig(io.BytesIO(), format="png")


def test_by_itself_it_shows_its_span(pyplot):
    ax = linear(1000, warmup=10).plot()
    assert ax.get_xlim() == (0, 1000)
    assert ax.lines[0].get_ydata()[-1] == 0
    restarts = CosineRestarts(20).plot().lines[0]
    assert restarts.get_ydata()[-1] == restarts.get_ydata()[-2] < 0.01  # not the beginning of a fourth cycle


def test_a_long_run_is_drawn_at_some_of_its_steps(pyplot):
    line = Linear(1_000_000).plot().lines[0]
    assert len(line.get_xdata()) <= 4001
    assert (line.get_xdata()[-1], line.get_ydata()[0]) == (1_000_000, 1)


def test_several_are_drawn_with_their_names_on_axes_of_yours(pyplot):
    mine = pyplot.figure().subplots()
    ax = plot({"straight": Linear(10), "curved": Cosine(40), "mine": lambda t: 0.5}, ax=mine)
    assert ax is mine
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["straight", "curved", "mine"]
    assert len({line.get_color() for line in ax.lines}) == 3
    assert ax.get_xlim() == (0, 40)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: plot(lambda t: 1.0), "steps=None: expected how many updates to show"),
    (lambda: Constant().plot(), "steps=None"),
    (lambda: Linear(5).plot(0), "steps=0: expected an integer of at least 1"),
    (lambda: plot(0.5), "schedules=0.5: expected a function of the step"),
    (lambda: plot({"a": 3}), r"schedules\['a'\]=3"),
])  # fmt: skip
def test_bad_values_are_named(call, message, pyplot):
    with pytest.raises(ValueError, match=message):
        call()
    assert not pyplot.get_fignums()


def test_without_matplotlib_the_install_command_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "matplotlib" else find(name, *a))
    with pytest.raises(
        ThalwegError,
        match=r"plot\(\) needs matplotlib of thalweg\[plot\], which is not installed: pip install matplotlib",
    ):
        ByFraction(abs, 5).plot()
