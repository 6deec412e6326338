"""The site's sources are laid out in ``build/docs``, built into ``build/docs/site``, and checked there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from docs.generator import optimizer_pages, reference, runs, schedule_pages, translated
from docs.generator.check import problems
from thalweg.explain import ENGLISH, Language, chinese

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
SOURCES = ROOT / "build" / "docs"
#: what is no page
NOT_PAGES = {"generator", "data"}
#: the languages other than English, each with what it calls itself; the pages of each are in a folder of ``docs``
TRANSLATIONS = {"zh": "中文"}
Nav = list[dict[str, Any]]


def navigation(say: Language = ENGLISH) -> Nav:
    """What stands in the menu, in the order in which to read it."""
    return [
        {"Thalweg": "index.md"},
        {say("Start in five minutes"): "start.md"},
        {say("My run does not learn"): "my-run-does-not-learn.md"},
        {say("The story of optimizers"): "story.md"},
        {say("Optimizers"): optimizer_pages.navigation(say)},
        {say("Schedules"): schedule_pages.navigation(say)},
        {
            say("Guides"): [
                {say("Coming from torch and others"): "moving.md"},
                {say("From your training script"): "from-a-script.md"},
                {say("Write your own"): "write-your-own.md"},
                {say("Parameter groups"): "guides/groups.md"},
                {say("Schedules"): "guides/schedules.md"},
                {say("Around any optimizer"): "guides/wrappers.md"},
                {say("Memory and formats"): "guides/formats.md"},
                {say("Sharded training"): "scaling.md"},
                {say("Functions of matrices"): "guides/matrices.md"},
                {say("Logging"): "guides/logging.md"},
                {say("Error messages"): "guides/errors.md"},
            ]
        },
        {
            say("The race"): [
                {say("How to read a verdict"): "race.md"},
                {say("On several machines"): "guides/cluster.md"},
                {say("Results"): "results.md"},
            ]
        },
        {say("Reference"): reference.navigation(say)},
        {say("Design"): "design.md"},
        {say("Where things are"): "layout.md"},
        {say("Performance"): "performance.md"},
        {say("Not here"): "not-here.md"},
    ]


@dataclass(frozen=True)
class Edition:
    """The site in one language.

    Attributes:
        say: what replaces an English phrase; English itself replaces none.
        folder: where its written pages are; a page that it lacks is shown in English.
    """

    say: Language
    folder: Path

    @property
    def name(self) -> str:
        """Of its folder in the site; empty for English, which is at the top."""
        return "" if self.folder == DOCS else self.folder.name


def editions(docs: Path = DOCS) -> list[Edition]:
    """English, and each language that has a folder with a table of phrases, ``docs/zh/phrases.toml``."""
    made = [Edition(ENGLISH, DOCS)]
    for name in TRANSLATIONS:
        table = docs / name / "phrases.toml"
        if table.exists():
            own, found = chinese(), tomllib.loads(table.read_text(encoding="utf-8"))
            phrases = {**own.phrases, **found.get("phrases", {})}
            texts = {**own.docs, **found.get("docs", {})}
            made.append(Edition(replace(own, phrases=phrases, docs=texts), docs / name))
    return made


def asked(found: dict[str, runs.Run]) -> set[str]:
    """Every phrase that a translation of the site needs: those that making the pages asks for."""
    said: set[str] = set()

    class Listening(Language):
        """English that writes down what it is asked."""

        def __call__(self, phrase: str, **values: Any) -> str:
            said.add(phrase)
            return super().__call__(phrase, **values)

    say = Listening()
    optimizer_pages.files(found, say)
    schedule_pages.files(say)
    reference.files(say)
    navigation(say)
    return said


def lay_out(found: dict[str, runs.Run], sources: Path, edition: Edition) -> None:
    """Written pages, pages made from classes and runs, and settings."""
    pages, say = sources / "pages", edition.say
    shutil.rmtree(sources, ignore_errors=True)
    apart = NOT_PAGES | set(TRANSLATIONS)
    shutil.copytree(DOCS, pages, ignore=lambda at, names: apart & set(names) if Path(at) == DOCS else set())
    if edition.name:
        _translate(pages, edition)
    made = {**optimizer_pages.files(found, say), **schedule_pages.files(say), **_reference(edition)}
    for place, text in made.items():
        file = pages / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assets = Path(__file__).parent / "assets"
    shutil.copytree(assets, pages, dirs_exist_ok=True)
    settings = (Path(__file__).parent / "zensical.toml").read_text(encoding="utf-8")
    nav = f"nav = {_toml(navigation(say))}\n"
    text = settings.replace("[project]\n", f"[project]\n{nav}{_alternates(edition)}", 1)
    if edition.name:
        text = text.replace('language = "en"', f'language = "{edition.name}"')
    (sources / "zensical.toml").write_text(text, encoding="utf-8")


def _translate(pages: Path, edition: Edition) -> None:
    """Translated pages and pictures in the places of the English ones; a page that has none says so."""
    english = {file.relative_to(pages): file.read_text(encoding="utf-8") for file in pages.rglob("*.md")}
    shutil.copytree(edition.folder, pages, dirs_exist_ok=True, ignore=shutil.ignore_patterns("phrases.toml"))
    for place, text in english.items():
        own = edition.folder / place
        if own.exists():
            made = translated.placed(own.read_text(encoding="utf-8"), text, place.as_posix(), edition.name)
        else:
            made = translated.untranslated(text, edition.say)
        (pages / place).write_text(made, encoding="utf-8")


def _reference(edition: Edition) -> dict[str, str]:
    """Pages from docstrings; in another language they say that these are in English."""
    made, say = reference.files(edition.say), edition.say
    if not edition.name:
        return made
    said = say("What is made from docstrings is in English here.")
    return {place: translated.noted(text, said) for place, text in made.items()}


def _alternates(edition: Edition) -> str:
    """The menu of languages; it leads to where each begins."""
    top = "../" if edition.name else ""
    links = [{"name": "English", "link": f"{top}index.html", "lang": "en"}]
    links += [{"name": name, "link": f"{top}{code}/index.html", "lang": code} for code, name in TRANSLATIONS.items()]
    return f"extra.alternate = {_toml(links)}\n"


def build(found: dict[str, runs.Run], sources: Path = SOURCES, docs: Path = DOCS) -> list[str]:
    """Build the site from the runs that are there, in ``sources/site``; what is wrong with it.

    Other languages are built beside it, in ``sources/zh``, and put into a folder of the site: ``site/zh/index.html``.
    """
    wrong = []
    for edition in editions(docs):
        place = sources.with_name(f"{sources.name}-{edition.name}") if edition.name else sources
        lay_out(found, place, edition)
        wrong += _run(place)
        if edition.name:
            # the page for what is not found is served from the top alone
            own = shutil.ignore_patterns("404.html")
            shutil.copytree(place / "site", sources / "site" / edition.name, dirs_exist_ok=True, ignore=own)
            shutil.rmtree(place)
    return wrong or problems(sources / "site")


def _run(sources: Path) -> list[str]:
    """What the builder of pages says that is no good news."""
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", str(sources / "zensical.toml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_environment(), check=False)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    if done.returncode:
        return [said]
    return [line for line in said.splitlines() if re.search(r"warn|error", line, re.IGNORECASE)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def _toml(value: Any) -> str:
    """Lists, tables and strings in a line of TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
