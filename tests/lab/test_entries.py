"""Entries are split where a comma separates them, read without running anything, and refused with one clear error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg._base.errors import ThalwegError
from thalweg.lab.entries import Entry, Range, compact, read, split


def test_a_comma_within_brackets_separates_no_entries():
    text = "adamw, adamw(lr=3e-4,weight_decay=0.1),sam(adamw(betas=(0.9,0.99)), rho=0.1),my (1).py:Mine"
    assert split(text) == [
        "adamw",
        " adamw(lr=3e-4,weight_decay=0.1)",
        "sam(adamw(betas=(0.9,0.99)), rho=0.1)",
        "my (1).py:Mine",
    ]


@pytest.mark.parametrize("entry", ["it's.py:Mine,adamw", "a(b='x,y'),adamw", 'a(b=")"),adamw'])
def test_quotes_count_within_brackets_alone(entry):
    assert split(entry) == [entry.removesuffix(",adamw"), "adamw"]


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("adam-mini", Entry("adam-mini")),
        ("twin=adamw@50", Entry("adamw", label="twin", offset=50)),
        ("/a b/c.py:Mine", Entry("/a b/c.py:Mine")),
        ("torch.optim:NAdam", Entry("torch.optim:NAdam")),
        ("adamw()", Entry("adamw")),
        ("adamw( lr = 3e-4 )", Entry("adamw", {"lr": 3e-4}, ("lr=3e-4",))),
        ("adamw(lr=1e-4..1e-2)", Entry("adamw", {"lr": Range(1e-4, 1e-2)}, ("lr=1e-4..1e-2",))),
        ("x(a=(1, 2), b='u, v')@3", Entry("x", {"a": (1, 2), "b": "u, v"}, ("a=(1,2)", "b='u, v'"), offset=3)),
        ("sam(adamw, rho=0.1)", Entry("sam", {"rho": 0.1}, ("rho=0.1",), Entry("adamw"))),
        ("s=a(b(c.py:D))", Entry("a", inner=Entry("b", inner=Entry("c.py:D")), label="s")),
    ],
)
def test_reads(text, entry):
    assert read(text) == entry


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not NAME"),
        ("a b", "is not NAME"),
        ("adamw(lr=1", "never closed"),
        ("adamw)lr=1(", "closes nothing"),
        ("adamw(lr=1]", "closes nothing"),
        ("adamw(lr=one)", "lr=one: expected a number"),
        ("adamw(lr=__import__('os').getcwd())", "expected a number"),
        ("adamw(lr=1..)", "expected a number"),
        ("adamw(lr=1, lr=2)", "says lr twice"),
        ("adamw(1e-3)", "is not NAME"),
        ("adamw(lr=1, sgd)", "'sgd' is not SETTING=VALUE"),
        ("sam(adamw, sgd)", "'sgd' is not SETTING=VALUE"),
    ],
)
def test_says_what_is_wrong(text, message):
    with pytest.raises(ThalwegError, match=message) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_nothing_that_is_typed_is_run(tmp_path):
    there = tmp_path / "made"
    with pytest.raises(ThalwegError):
        read(f"adamw(lr=open({str(there)!r}, 'w'))")
    assert not there.exists()


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.one_of(st.integers(), st.booleans(), st.none(), NUMBERS, st.text("ab,().=' \"", max_size=6))


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), PLAIN | st.tuples(NUMBERS, NUMBERS)))
def test_whatever_python_prints_is_read_back(settings):
    text = f"adamw({', '.join(f'{key}={value!r}' for key, value in settings.items())})"
    assert split(f"{text},sgd") == [text, "sgd"]
    assert dict(read(text).settings) == settings


def test_blanks_within_quotes_stay():
    assert compact("a ( b = 'c d' )") == "a(b='c d')"
