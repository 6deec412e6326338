"""The key of a run holds what our own code means, and what it is compiled with."""

import functools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import thalweg
from thalweg.lab import setting
from thalweg.native import compiler

#: of each text once: it takes a second for all of them
meaning = functools.cache(setting.imports.meaning)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of our package, what is kept of it in the cache, and its hash."""
    folder = tmp_path_factory.mktemp("copied")
    ignored = shutil.ignore_patterns("__pycache__", "docs", "bench", "cli", "explain")
    root = Path(shutil.copytree(Path(thalweg.__file__).parent, folder / "thalweg", ignore=ignored))
    with pytest.MonkeyPatch.context() as patch:
        _look_at(root, patch)
        return root, setting._code()


def _look_at(root, patch):
    patch.setenv("XDG_CACHE_HOME", str(root.parent / "cache"))
    patch.setattr(setting.imports, "meaning", meaning)
    patch.setattr(setting, "thalweg", SimpleNamespace(__file__=str(root / "__init__.py")))


@pytest.fixture
def package(copied, monkeypatch):
    """A copy of our package whose files may be edited, and its hash as it is; put back afterwards."""
    root, before = copied
    _look_at(root, monkeypatch)
    kept = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    yield root, before
    for file in [file for file in root.rglob("*") if file.is_file()]:
        if file not in kept:
            file.unlink()
        elif file.read_bytes() != kept[file]:
            file.write_bytes(kept[file])


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_typo_in_a_docstring_or_a_comment_throws_no_run_away(package):
    root, before = package
    edit(root / "lab" / "run.py", '"""One complete', '"""A whole')
    edit(root / "native" / "compiler.py", "#: not -ffast-math", "#: no -ffast-math")
    edit(root / "_base" / "version.py", "__version__", "__version__ = 'another'  #")  # a release
    edit(root / "lab" / "report" / "page.py", "import", "import os\nimport")  # takes no part in a run
    assert setting._code() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("lab/run.py", "DIVERGED = 2.0", "DIVERGED = 3.0"),
        ("optim/adam.py", "(0.9, 0.999)", "(0.9, 0.99)"),
        ("native/row_column.c", "static", "static inline"),
        ("runtime/backends/prelude.h", "static", "static inline"),
        ("lab/tasks/seeding.py", "random.seed(value)", "random.seed(0)"),
    ],
)
def test_a_change_in_what_runs_makes_new_runs(package, file, old, new):
    root, before = package
    edit(root / file, old, new)
    assert setting._code() != before


def test_a_file_that_was_renamed_or_added_makes_new_runs(package):
    root, before = package
    (root / "runtime" / "more.c").write_text("")
    assert setting._code() != before


def test_it_is_found_again_in_the_cache_and_without_one(package, monkeypatch):
    _, before = package
    monkeypatch.setattr(setting.imports, "meaning", lambda text: pytest.fail("it was kept"))
    assert setting._code() == before
    monkeypatch.undo()


def test_the_compiler_and_its_flags_are_part_of_it(monkeypatch):
    setting.setting.cache_clear()
    with_compiler = setting.setting()["compiler"]
    assert with_compiler == compiler.identity()
    monkeypatch.setenv("CC", "cc -O1")
    compiler.forget()
    other = compiler.identity()
    monkeypatch.setenv("CC", "no-such-compiler")
    compiler.forget()
    assert len({with_compiler, other, compiler.identity()}) == 3
    assert compiler.identity() == "none"
    monkeypatch.undo()
    compiler.forget()
