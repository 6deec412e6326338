"""A fingerprint changes with whatever a run depends on, and with nothing else."""

import sys
from array import array
from collections import namedtuple
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import spec_from_file_location

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.tasks.test_user import GOOD
from thalweg.lab.tasks import check, get_task
from thalweg.lab.tasks.fingerprint import digest, sources
from thalweg.lab.tasks.imports import code


def _mark(path, text):
    path.write_text(text)
    return check(get_task(str(path))).fingerprint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return value", "return 0 + value"),
        ('name = "mine"', 'name = "other"'),
        ("steps = 40", "steps = 41"),
        ("batch_size = 4", "batch_size = 4; unit = 'nats'"),
        ("torch.randn(4, 3", "torch.rand(4, 3"),
    ],
)
def test_it_changes_with_the_file(tmp_path, old, new):
    assert old in GOOD
    assert _mark(tmp_path / "mine.py", GOOD) != _mark(tmp_path / "mine.py", GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return value", "return value  # a comment"),
        ("A line.", "Another line."),
        ("        model.eval()\n", '        """What it is."""\n\n        model.eval()\n'),
        ("import torch\n", '"""What is here."""\n\nimport torch\n'),
    ],
)
def test_it_stays_with_comments_docstrings_and_layout(tmp_path, old, new):
    assert old in GOOD
    assert _mark(tmp_path / "mine.py", GOOD) == _mark(tmp_path / "mine.py", GOOD.replace(old, new, 1))
    (tmp_path / "copy.py").write_text(GOOD)
    assert code(str(tmp_path / "mine.py")) == code(str(tmp_path / "copy.py"))


def test_it_stays_where_the_file_is_copied_to(tmp_path):
    (tmp_path / "there").mkdir()
    assert _mark(tmp_path / "mine.py", GOOD) == _mark(tmp_path / "there" / "copy.py", GOOD)


def test_it_changes_with_data_that_the_file_reads(tmp_path):
    data = tmp_path / "data.txt"
    text = GOOD.replace("torch.randn(4, 3, generator=generator)", "x * float(Path('DATA').read_text())")
    text = text.replace(
        "            yield", "            x = torch.randn(4, 3, generator=generator)\n            yield"
    )
    text = text.replace("import torch\n", "import torch\nfrom pathlib import Path\n", 1).replace("DATA", str(data))
    data.write_text("1")
    first = _mark(tmp_path / "mine.py", text)
    data.write_text("2")
    assert _mark(tmp_path / "mine.py", text) != first


def test_it_changes_with_what_data_says(tmp_path, monkeypatch):
    text = GOOD + '\n    def data(self):\n        import os\n        return {"version": os.environ["MY_DATA"]}\n'
    monkeypatch.setenv("MY_DATA", "1")
    first = _mark(tmp_path / "mine.py", text)
    monkeypatch.setenv("MY_DATA", "2")
    assert _mark(tmp_path / "mine.py", text) != first


def test_it_changes_with_a_neighbour_that_the_file_names(tmp_path, monkeypatch):
    def load(folder, comment):
        (tmp_path / folder).mkdir()
        net = f"from torch import nn\nclass Net(nn.Linear):\n    {comment}\n    ...\n"
        (tmp_path / folder / "thalweg_test_net.py").write_text(net)
        text = GOOD.replace("import torch\n", "import torch\nfrom thalweg_test_net import Net\n", 1)
        text = text.replace("nn.Linear(3", "Net(3")
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        monkeypatch.delitem(sys.modules, "thalweg_test_net", raising=False)
        return _mark(tmp_path / folder / "mine.py", text)

    assert load("a", "width = 1") != load("b", "width = 2")
    monkeypatch.delitem(sys.modules, "thalweg_test_net")


@pytest.mark.parametrize(
    "statement",
    [
        "from NEAR.settings import WIDTH",
        "from NEAR import settings",
        "import NEAR.settings as settings",
        "from NEAR.outer import WIDTH",
        "def late():\n    from NEAR.outer import WIDTH",
        "try:\n    import nothing_of_that_name, NEAR.settings\nexcept ImportError:\n    pass",
    ],
)
def test_it_changes_with_a_neighbour_that_only_a_plain_value_comes_from(tmp_path, statement):
    package = tmp_path / f"near_{tmp_path.name}"  # no other test has imported one of that name
    package.mkdir()
    (package / "__init__.py").write_text("")
    beyond = "from ... import above_the_top\n" if "late" in statement else ""
    (package / "outer.py").write_text(f"from .settings import WIDTH\n{beyond}")
    (package / "settings.py").write_text("WIDTH = 1\n")
    text = GOOD.replace("import torch\n", f"import torch\n{statement.replace('NEAR', package.name)}\n", 1)
    first = _mark(tmp_path / "mine.py", text)
    assert _mark(tmp_path / "mine.py", text) == first
    (package / "settings.py").write_text("WIDTH = 2\n")
    assert _mark(tmp_path / "mine.py", text) != first


def test_an_installed_package_is_no_part_of_the_code_behind_a_file(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages"
    installed.mkdir()
    monkeypatch.syspath_prepend(str(installed))
    file, neighbour = tmp_path / "mine.py", installed / "installed_near_a_fingerprint.py"
    file.write_text("import torch, installed_near_a_fingerprint\n")
    neighbour.write_text("WIDTH = 1\n")
    before = code(str(file))
    neighbour.write_text("WIDTH = 2\n")
    assert code(str(file)) == before


def test_the_code_behind_a_file_is_the_same_before_and_after_its_neighbours_are_imported(tmp_path, monkeypatch):
    """A package that is installed in place may be found by a hook alone."""
    name = f"hooked_{tmp_path.name}"
    package = tmp_path / "source" / "of_another_name"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text("WIDTH = 1\n")

    class Hook:
        @staticmethod
        def find_spec(wanted, path=None, target=None):
            return spec_from_file_location(name, package / "__init__.py") if wanted == name else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Hook])
    file = tmp_path / "mine.py"
    file.write_text(f"from {name}.settings import WIDTH\n")
    before = code(str(file))
    import_module(f"{name}.settings")
    assert code(str(file)) == before
    (package / "settings.py").write_text("WIDTH = 2\n")
    assert code(str(file)) != before


@pytest.mark.parametrize("text", ["def half(", "\0", "x = '\\d'\n"])
def test_the_code_behind_what_is_no_python_is_its_text(tmp_path, text):
    file = tmp_path / "mine.py"
    file.write_text("")
    empty = code(str(file))
    file.write_text(text)
    assert code(str(file)) != empty
    file.unlink()
    assert code(str(file)) == empty


def test_the_sources_of_a_built_in_task_are_those_it_is_made_of():
    text = b"\n".join(sources(get_task("bytes-gpt")))
    for part in (b"class BytesGpt", b"class NextByte", b"def fresh", b"class Task"):
        assert part in text
    for part in (b"class BytesLstm", b"class Muon", b"class RavineAligned"):
        assert part not in text


Pair = namedtuple("Pair", "x y")


@dataclass
class Sample:
    x: torch.Tensor
    y: object = field(default=None)


@pytest.mark.parametrize(
    "make",
    [
        lambda v: torch.tensor([v]),
        lambda v: torch.tensor(v),
        lambda v: torch.tensor([v], dtype=torch.bfloat16),
        lambda v: torch.tensor([v], dtype=torch.complex64),
        lambda v: torch.tensor([v > 1]),
        lambda v: np.array([v]),
        lambda v: (v, "a"),
        lambda v: {"x": torch.tensor(v)},
        lambda v: Pair(torch.tensor(v), None),
        lambda v: Sample(torch.tensor(v)),
        lambda v: [Sample(torch.tensor(0), [v])],
    ],
)
def test_a_digest_sees_equal_values_as_equal_and_others_as_others(make):
    assert digest(make(1)) == digest(make(1))
    assert digest(make(1)) != digest(make(2))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([[1], [2]], [[1, 2]]),
        (["ab", "c"], ["a", "bc"]),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        ({"a": 1}, {"b": 1}),
        (1, "1"),
    ],
)
def test_a_digest_sees_how_values_are_arranged(a, b):
    assert digest(a) != digest(b)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(plain, plain)
def test_two_digests_are_equal_only_for_equal_values(a, b):
    assert (digest(a) == digest(b)) == (repr(a) == repr(b))


@dataclass(slots=True)
class Slotted:
    x: object


@pytest.mark.parametrize(
    "make",
    [
        Slotted,
        lambda n: {n},
        lambda n: bytearray([n]),
        lambda n: complex(n),
        lambda n: array("i", [n]),
        lambda n: np.array([str(n), None], dtype=object),
        lambda n: torch.tensor([[0.0, n], [0.0, 0.0]]).to_sparse(),
    ],
)
def test_a_digest_sees_what_is_in_a_value_of_any_kind_and_not_where_it_lies(make):
    assert digest(make(1)) == digest(make(1)) != digest(make(2))


def test_the_strides_of_a_tensor_do_not_matter():
    x = torch.arange(6.0).view(2, 3)
    assert digest(x.T.contiguous()) == digest(x.T)
