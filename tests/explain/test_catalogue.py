"""The list of all optimizers: told once for each version of the code, then read."""

import json

import pytest

from tests.processes import python
from thalweg.explain import catalogue as module
from thalweg.explain import explain
from thalweg.explain.catalogue import Catalogue, CatalogueEntry, catalogue
from thalweg.explain.docstring import Words
from thalweg.native import disk_cache
from thalweg.registry import optimizers, wrappers

FEW = Catalogue([CatalogueEntry({"name": "A", "family": "f"}, "what f is", Words("idea", ("x", "y"), adds="a"))], [])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "thalweg"


@pytest.fixture
def told(monkeypatch):
    """How often the classes were asked."""
    calls = []
    monkeypatch.setattr(module, "_told", lambda: calls.append(1) or FEW)
    return calls


def test_what_is_kept_is_what_the_classes_say():
    first, second = catalogue(), catalogue()
    assert first == second
    assert [one.name for one in second.optimizers] == list(optimizers())
    assert [one.name for one in second.wrappers] == list(wrappers())
    for one in second.optimizers[::10]:
        about = explain(one.name)
        assert (one.facts, one.about, one.text, one.family) == (about.as_dict(), about.about, about.text, about.family)


@pytest.mark.slow(reason="four processes, one of which imports everything")
def test_the_list_is_shown_without_torch_once_it_is_kept():
    code = "import sys; from thalweg.cli.app import app; app({}, standalone_mode=False); print('torch' in sys.modules)"
    first, *others = [
        python(code.format(words)) for words in (["list"], ["list"], ["list", "--zh"], ["list", "--tree"])
    ]
    assert first.endswith("True\n")
    assert others[0] == first.replace("True\n", "False\n")
    assert all(text.endswith("False\n") for text in others)


def test_it_is_told_once(told):
    assert catalogue() == catalogue() == FEW
    assert len(told) == 1


def test_other_code_tells_it_again(told, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    (tmp_path / "optimizer.py").write_text("1", encoding="utf-8")
    catalogue()
    (tmp_path / "optimizer.py").write_text("2", encoding="utf-8")
    catalogue()
    assert len(told) == 2


def test_code_that_cannot_be_read_tells_it_each_time_and_keeps_nothing(told, tmp_path, monkeypatch, folder):
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "archive.zip")
    assert catalogue() == catalogue() == FEW
    assert len(told) == 2
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"optimizers": []}', "no text", "no words", "other words"])
def test_damage_is_mended(told, damage):
    catalogue()
    kept = json.loads(disk_cache.read(module.FILE))
    if damage == "no text":
        del kept["optimizers"][0]["text"]
    elif damage == "no words":
        kept["optimizers"][0]["text"] = None
    elif damage == "other words":
        kept["optimizers"][0]["text"]["more"] = "?"
    disk_cache.write(module.FILE, (json.dumps(kept) if damage.endswith(("text", "words")) else damage).encode())
    assert catalogue() == catalogue() == FEW
    assert len(told) == 2


def test_a_folder_that_cannot_be_written_does_no_harm(told, folder):
    folder.parent.mkdir()
    folder.write_text("not a folder", encoding="utf-8")
    assert catalogue() == FEW
