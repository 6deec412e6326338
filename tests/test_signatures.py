"""Type checkers see of every class the constructor that runs: names, order and what must be a keyword."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from thalweg.registry import optimizers, wrappers

ROOT = Path(__file__).parents[1]
CLASSES = {**optimizers(), **wrappers()}


def arguments(cls):
    """The names by position, and those by keyword, of the constructor as it runs."""
    parameters = inspect.signature(cls).parameters.values()
    places = [x.name for x in parameters if x.kind is x.POSITIONAL_OR_KEYWORD]
    return places, sorted(x.name for x in parameters if x.kind is x.KEYWORD_ONLY)


def calls():
    """A file in which each class is shown, and called with all its defaults by position."""
    lines = [
        "from math import inf",
        "from typing import Any",
        "import thalweg",
        "params: list[Any] = []",
        "inner = thalweg.SGD(params)",
    ]
    for name, cls in CLASSES.items():
        given = list(inspect.signature(cls).parameters.values())
        defaults = [repr(x.default) for x in given[1:] if x.kind is x.POSITIONAL_OR_KEYWORD]
        first = "inner" if name in wrappers() else "params"
        lines += [f"reveal_type(thalweg.{name}.__init__)", f"thalweg.{name}({', '.join([first, *defaults])})"]
    return "\n".join(lines) + "\n"


def shown(text):
    """What a checker says of a signature, as :func:`arguments` gives it."""
    inside = text[text.index("(") + 1 :]
    parts, depth = [""], 1
    for letter in inside:
        depth += (letter in "([") - (letter in ")]")
        if not depth:
            break
        if letter == "," and depth == 1:
            parts.append("")
        else:
            parts[-1] += letter
    names = [part.split(":")[0].strip() for part in parts]
    star = names.index("*") if "*" in names else len(names)
    return names[1:star], sorted(names[star + 1 :])


def compare(found):
    assert found.keys() == CLASSES.keys()
    wrong = {n: (found[n], arguments(cls)) for n, cls in CLASSES.items() if found[n] != arguments(cls)}
    assert not wrong, wrong


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "calls.py"
    path.write_text(calls(), encoding="utf-8")
    return path


def run(*command):
    here = {**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True, encoding="utf-8")
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow(reason="a type checker reads the package")
def test_mypy_sees_the_signature_that_runs(sample):
    code, said, error = run(sys.executable, "-m", "mypy", "--no-error-summary", str(sample))
    assert not code, said + error
    lines = [line for line in said.splitlines() if "Revealed type is" in line]
    compare(dict(zip(CLASSES, map(shown, lines), strict=True)))


def pyright():
    """It, or None where it is not installed, or cannot fetch the part of itself that its Python package leaves out."""
    path = shutil.which("pyright", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if path is None:
        return None
    return None if subprocess.run([path, "--version"], capture_output=True).returncode else path


@pytest.mark.slow(reason="a type checker reads the package")
def test_pyright_sees_the_signature_that_runs(sample):
    (sample.parent / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}), encoding="utf-8")
    if (path := pyright()) is None:
        pytest.skip("pyright is not installed, or does not start")
    command = [path, "--outputjson", "--pythonpath", sys.executable, "--project", str(sample.parent)]
    _, said, error = run(*command)
    told = json.loads(said)["generalDiagnostics"]
    wrong = [each["message"] for each in told if each["severity"] != "information"]
    assert not wrong, (wrong, error)
    lines = [each["message"] for each in told if re.match("Type of", each["message"])]
    compare(dict(zip(CLASSES, [shown(line.partition(" is ")[2]) for line in lines], strict=True)))
