"""Every Python block of the README and the docs runs as it stands, and every command of ours can be typed."""

import contextlib
import re
import runpy
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import torch

from docs.generator import optimizer_pages, reference, runs, schedule_pages, usage
from docs.generator.site import TRANSLATIONS
from thalweg import schedule
from thalweg.cli.app import app
from thalweg.registry import optimizers, wrappers

ROOT = Path(__file__).parents[2]
RUNS = runs.load()
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
DOCS = ROOT / "docs"
PAGES = [*READMES, *sorted(DOCS.rglob("*.md"))]
TRANSLATED = tuple(DOCS / name for name in TRANSLATIONS)
#: of which the code runs; that of a translated page is the same
RUN = [page for page in PAGES if not any(map(page.is_relative_to, TRANSLATED))]
#: a comment above a block may say what is to be known of it: a file that it is, packages that it needs
BLOCK = re.compile(r"(?:<!-- ([\w-]+)(?:: ([^>]*?))? -->\n)?```python\n(.*?)```", re.DOTALL)
PLAIN = re.compile(r"^```(?:sh)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
#: places that are made when the site is built
MADE = {
    *(f"{optimizer_pages.FOLDER}/{name.lower()}.md" for name in {**optimizers(), **wrappers()}),
    *(f"{schedule_pages.FOLDER}/{name}.md" for name in schedule.schedules()),
    *(f"{reference.FOLDER}/{name}.md" for name in (*reference.MODULES, reference.COMMANDS)),
    *(f"{folder}/index.md" for folder in (optimizer_pages.FOLDER, schedule_pages.FOLDER)),
}


def blocks():
    for page in RUN:
        found = BLOCK.findall(page.read_text(encoding="utf-8"))
        files = {given: code for what, given, code in found if what == "file"}
        for i, (what, given, code) in enumerate(found):
            if what == "no-run":
                continue
            missing = [name for name in given.split() if what == "needs" and find_spec(name) is None]
            marks = [pytest.mark.skip(reason=f"{', '.join(missing)} is not installed")] if missing else []
            yield pytest.param(code, files, id=f"{page.relative_to(ROOT)}-{i}", marks=marks)


@pytest.mark.parametrize(("code", "files"), list(blocks()))
def test_runs(code, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    script = tmp_path / "block.py"
    script.write_text(code, encoding="utf-8")
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        for name in files:
            sys.modules.pop(Path(name).stem, None)


def test_the_optimizer_of_write_your_own_passes_the_suite_there(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for what, name, code in BLOCK.findall((ROOT / "docs" / "write-your-own.md").read_text(encoding="utf-8")):
        if what == "file":
            (tmp_path / name).write_text(code, encoding="utf-8")
    ran = 0
    try:
        test = runpy.run_path(str(tmp_path / "test_softsign.py"))["test_softsign"]
        (trials,) = (mark.args[1] for mark in test.pytestmark)
        for trial in trials:
            with contextlib.suppress(pytest.skip.Exception):
                test(trial)
                ran += 1
    finally:
        sys.modules.pop("softsign", None)
    assert ran > 60


def commands():
    for page in PAGES:
        for block in PLAIN.findall(page.read_text(encoding="utf-8")):
            for line in block.splitlines():
                if line.startswith("thalweg "):
                    yield pytest.param(line, id=f"{page.relative_to(ROOT)}-{line.split('#')[0].strip()}")


@pytest.mark.parametrize("line", list(commands()))
def test_can_be_typed(line):
    _, verb, *words = shlex.split(line, comments=True)
    command, name = app.get_command(click.Context(app), verb), verb
    while isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
    command.make_context(name, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_files_of_ours_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?:", target):
            there = (page.parent / target).resolve()
            folder = next((t for t in TRANSLATED if page.is_relative_to(t)), DOCS)
            assert there.exists() or there.relative_to(folder).as_posix() in MADE, target


TRAINS = pytest.mark.slow(reason="trains a model with each of all optimizers; make test has three of them")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("SGD", "Muon", "Lookahead") else TRAINS)
        for name in (*optimizers(), *wrappers())
    ],
)
def test_the_example_on_the_page_of_an_optimizer_learns(name):
    made = {}
    exec(usage.lines(name, RUNS.get(name)), made)
    assert type(made["optimizer"]).__name__ == name
    assert isinstance(made["optimizer"], torch.optim.Optimizer)
    first, *_, last = made["losses"]
    assert last < 0.6 * first


@pytest.mark.parametrize("cls", schedule.schedules().values(), ids=lambda c: c.__name__)
def test_the_lines_on_the_page_of_a_schedule_run(cls, capsys):
    exec(schedule_pages.usage(cls), {})
    assert cls.__name__ in capsys.readouterr().out


def test_the_chinese_readme_has_the_same_code_and_commands():
    english, chinese = (path.read_text(encoding="utf-8") for path in READMES)
    code = [[line.split("#")[0].strip() for line in b.splitlines()] for *_, b in BLOCK.findall(english)]
    assert code == [[line.split("#")[0].strip() for line in b.splitlines()] for *_, b in BLOCK.findall(chinese)]
    for command in ("make race", "make test", "thalweg task new", 'pip install ".[lab]"'):
        assert command in english
        assert command in chinese
