"""What is true of every schedule."""

import copy
import dataclasses
import inspect
import pickle
import re
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.schedule.samples import NAMES, every, example_of, schedules, shapes
from thalweg import schedule
from thalweg.schedule import Constant, Plateau, Shape

CLASSES = schedule.schedules()
LABELS = ("Strength", "Weakness", "Source", "Example")


def test_every_class_is_in_the_list_by_its_name():
    ours = {c for c in vars(schedule).values() if dataclasses.is_dataclass(c) and c.__name__ != "PlateauState"}
    assert set(CLASSES.values()) == ours == set(every)
    assert all(name.replace("_", "") == cls.__name__.lower() for name, cls in CLASSES.items())
    assert "one_cycle" in CLASSES


def test_the_public_names_are_sorted_and_there():
    assert schedule.__all__ == sorted(schedule.__all__, key=lambda n: (n[0].islower(), n))
    assert all(hasattr(schedule, name) for name in schedule.__all__)


@pytest.mark.parametrize("cls", CLASSES.values())
def test_says_what_a_page_about_it_needs(cls):
    text = inspect.cleandoc(cls.__doc__)
    assert text.split("\n\n")[0].endswith(".")
    assert text.count("$$") >= 2
    ends = [f"\n{label}: " for label in LABELS]
    places = [text.index(end) for end in ends]
    assert places == sorted(places)
    assert all(text.count(end) == 1 for end in ends)
    assert re.search(r"\nSource: [^\n]*(\n[^\n]*)?https://\S+", text)
    told = re.search(r"\nArgs:\n(.*?)\n\n", text, re.DOTALL).group(1)
    names = ",".join(re.findall(r"^ {4}(\w[\w, ]*):", told, re.MULTILINE)).replace(" ", "").split(",")
    assert names == [f.name for f in dataclasses.fields(cls)]


@pytest.mark.parametrize("cls", CLASSES.values())
def test_the_page_gives_the_ranges_that_are_checked(cls):
    told = re.search(r"\nArgs:\n(.*?)\n\n", inspect.cleandoc(cls.__doc__), re.DOTALL).group(1)
    said = dict(re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w|\Z)", told, re.MULTILINE | re.DOTALL))
    for name, hint in get_type_hints(cls, include_extras=True).items():
        for kind, within in [get_args(hint)] if get_origin(hint) is Annotated else []:
            if kind is float and within != "(-∞, ∞)" and name in said:
                assert within in said[name], f"{name}: {within}"


@pytest.mark.parametrize("cls", CLASSES.values())
def test_the_example_runs(cls):
    f = example_of(cls)
    assert isinstance(f, cls)
    if cls is not Plateau:
        assert all(isinstance(f(t), float) for t in range(200))


@pytest.mark.parametrize("cls", CLASSES.values())
@given(st.data())
def test_compares_hashes_copies_pickles_and_reads_back(cls, data):
    f = data.draw(every[cls])
    again = [pickle.loads(pickle.dumps(f)), copy.deepcopy(f), dataclasses.replace(f)]
    if "<function" not in repr(f):
        again.append(eval(repr(f), dict(NAMES)))
        if cls is not Plateau:
            again.append(eval(str(f).splitlines()[0], dict(NAMES)))
    assert all(g == f and hash(g) == hash(f) for g in again)
    assert f != Constant(0.125)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(f, dataclasses.fields(f)[0].name, 1)


@given(schedules, st.integers(0, 2000))
def test_factors_lie_in_the_unit_interval_and_are_a_function_of_the_step(f, step):
    value = f(step)
    assert isinstance(value, float)
    assert 0 <= value <= 1 + 1e-12
    assert f(step) == value == pickle.loads(pickle.dumps(f))(step)


@given(schedules)
def test_rests_from_its_length_on(f):
    if f.length is not None:
        assert len({f(f.length + t) for t in range(40)} | {f(f.length + 10**6)}) == 1


@pytest.mark.parametrize("cls", CLASSES.values())
def test_numbers_of_numpy_become_plain_ones(cls):
    np = pytest.importorskip("numpy")
    f = example_of(cls)
    given = {name: getattr(f, name) for name in (field.name for field in dataclasses.fields(f))}
    odd = {n: np.int64(v) if type(v) is int else np.float64(v) if type(v) is float else v for n, v in given.items()}
    assert repr(cls(**odd)) == repr(f)


@given(shapes, st.floats(0, 300))
def test_take_fractions_of_a_step(f, time):
    assert 0 <= f(time) <= 1 + 1e-12


def test_one_of_your_own_composes():
    @dataclasses.dataclass(frozen=True)
    class Halves(Shape):
        every: int

        def __call__(self, step):
            return 0.5 ** (step // self.every)

    f = Halves(2)
    assert [(0.5 * f)(t) for t in range(4)] == [0.5, 0.5, 0.25, 0.25]
    assert f.then(f, after=3)(3) == 1
    assert str(f) == "Halves(2)"


@dataclasses.dataclass(frozen=True)
class Thirds(Shape):
    every: Annotated[int, "[3, ∞)"]
    factor: Annotated[float, "(0, 1)"] | None = None

    def __call__(self, step):
        return (self.factor or 1 / 3) ** (step // self.every)


def test_the_ranges_of_one_of_your_own_are_checked():
    assert Thirds(3, 0.5)(3) == 0.5
    assert Thirds(3)(2) == 1
    with pytest.raises(ValueError, match="every=2: expected an integer of at least 3"):
        Thirds(2)
    with pytest.raises(ValueError, match=r"factor=1.0: expected a number in \(0, 1\)"):
        Thirds(3, 1.0)


def test_annotations_that_cannot_be_resolved_check_nothing():
    @dataclasses.dataclass(frozen=True)
    class Own(Shape):
        kind: "Somewhere"  # noqa: F821

        def __call__(self, step):
            return 1.0

    assert Own("x")(0) == 1.0


def test_shape_itself_is_no_schedule():
    with pytest.raises(TypeError, match="abstract"):
        Shape()
