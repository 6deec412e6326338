"""The package as a whole: one meaning for a class name, no circle of imports, a line in the guide for every file."""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import thalweg
import thalweg.rule

ROOT = Path(thalweg.__file__).parent
PAGES = ROOT.parent / "docs"
TESTS = Path(__file__).parent
ROOMS = ("ir", "ir/transforms", "native", "shards", "runtime", "runtime/backends", "engine")
#: where pickles and generated kernels find modules that have moved
FORMER = {"engine/formats.py"}


@cache
def modules(room="."):
    """The syntax tree of each module of a room, by its name."""
    found = {}
    for file in sorted((ROOT / room).rglob("*.py")):
        name = ".".join(("thalweg", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


@cache
def imports():
    """Which modules each module imports, wherever in it: also in a function, and for type checkers alone."""
    known = modules()
    found = {}
    for name, tree in known.items():
        targets = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                each = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= {target if target in known else node.module for target in each}
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
        found[name] = {target for target in targets if target in known and target != name}
    return found


def circles(graph):
    """Sets of modules that import each other, by way of whatever others."""

    @cache
    def reached(start):
        seen, todo = set(), [start]
        while todo:
            for target in graph[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        return frozenset(seen)

    found = {frozenset({b for b in reached(a) if a in reached(b)} | {a}) for a in graph if a in reached(a)}
    return sorted(sorted(circle) for circle in found)


def files(room):
    """The files of a room, below the package's folder."""
    kinds = (".py", ".c", ".h")
    found = (file for file in (ROOT / room).iterdir() if file.suffix in kinds and file.name != "__init__.py")
    return {file.relative_to(ROOT).as_posix() for file in found} - FORMER


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(graph) == [["b", "c"]]


@pytest.mark.slow(reason="reads every module; make check holds the layers")
def test_no_modules_import_each_other():
    assert circles(imports()) == []


def test_a_class_name_has_one_meaning():
    """Only files with a name that is read twice are parsed: it may stand in a text."""
    read = defaultdict(list)
    for file in ROOT.rglob("*.py"):
        for name in re.findall(r"^ *class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE):
            read[name].append(file)
    twice = {name: set(found) for name, found in read.items() if len(found) > 1}
    places = defaultdict(list)
    for file in set().union(*twice.values()):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name in twice:
                places[node.name].append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_a_slow_test_says_why():
    texts = {file: file.read_text(encoding="utf-8") for file in TESTS.rglob("test_*.py") if file != Path(__file__)}
    silent = [file.name for file, text in texts.items() if re.search(r"mark\.slow\b(?!\(\s*reason=\")", text)]
    assert silent == [], "pytest.mark.slow(reason=...): a slow test runs in `make slow`, not in `make test`"


def test_the_guide_has_a_line_for_each_file():
    guide = (PAGES / "layout.md").read_text(encoding="utf-8").partition("## Old and new names")[0]
    named = re.findall(r"^\| `([\w/]+\.(?:py|c|h))`", guide, re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) == {"rule.py", *(file for room in ROOMS for file in files(room))}


@pytest.mark.parametrize("room", ROOMS)
def test_the_text_of_a_room_names_its_files(room):
    text = (ROOT / room / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w]+\.(?:py|c|h))`", text))
    assert named == {Path(file).name for file in files(room)}


def test_new_names_in_the_table_are_there():
    table = (PAGES / "layout.md").read_text(encoding="utf-8").partition("## Old and new names")[2]
    new = re.findall(r"^\| `thalweg/[\w/.]+` \| `thalweg/([\w/.]+)`", table, re.MULTILINE)
    assert len(new) > 25
    assert [file for file in new if not (ROOT / file).exists()] == []


def test_rules_are_imported_as_a_stranger_imports_them():
    for name, tree in modules("optim").items():
        taken = {
            alias.name
            for node in ast.walk(tree)
            if name != "thalweg.optim" and isinstance(node, ast.ImportFrom) and node.module != "thalweg.rule"
            for alias in node.names
        }
        assert not taken & {*thalweg.rule.__all__}, name
