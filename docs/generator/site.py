"""The site's sources are laid out in ``build/docs``, built into ``build/docs/site``, and checked there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from docs.generator import optimizer_pages, runs, schedule_pages
from docs.generator.check import problems

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
SOURCES = ROOT / "build" / "docs"
#: what is no page
NOT_PAGES = {"generator", "data"}
Nav = list[dict[str, Any]]


def navigation() -> Nav:
    """What stands in the menu, in the order in which to read it."""
    return [
        {"Thalweg": "index.md"},
        {"Start in five minutes": "start.md"},
        {"The story of optimizers": "story.md"},
        {"Optimizers": optimizer_pages.navigation()},
        {"Schedules": schedule_pages.navigation()},
        {
            "Guides": [
                {"Coming from torch and others": "moving.md"},
                {"From your training script": "from-a-script.md"},
                {"Write your own": "write-your-own.md"},
                {"Parameter groups": "guides/groups.md"},
                {"Schedules": "guides/schedules.md"},
                {"Around any optimizer": "guides/wrappers.md"},
                {"Memory and formats": "guides/formats.md"},
            ]
        },
        {
            "The race": [
                {"How to read a verdict": "race.md"},
                {"Results": "results.md"},
            ]
        },
        {"Design": "design.md"},
        {"Where things are": "layout.md"},
        {"Performance": "performance.md"},
    ]


def lay_out(found: dict[str, runs.Run], sources: Path) -> None:
    """Written pages, pages made from classes and runs, and settings."""
    pages = sources / "pages"
    shutil.rmtree(sources, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=lambda at, names: NOT_PAGES & set(names) if Path(at) == DOCS else set())
    for place, text in {**optimizer_pages.files(found), **schedule_pages.files()}.items():
        file = pages / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assets = Path(__file__).parent / "assets"
    shutil.copytree(assets, pages, dirs_exist_ok=True)
    settings = (Path(__file__).parent / "zensical.toml").read_text(encoding="utf-8")
    nav = f"nav = {_toml(navigation())}\n"
    text = settings.replace("[project]\n", f"[project]\n{nav}", 1)
    (sources / "zensical.toml").write_text(text, encoding="utf-8")


def build(found: dict[str, runs.Run], sources: Path = SOURCES) -> list[str]:
    """Build the site from the runs that are there, in ``sources/site``; what is wrong with it."""
    lay_out(found, sources)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", str(sources / "zensical.toml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_environment(), check=False)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    if done.returncode:
        return [said]
    warnings = [line for line in said.splitlines() if re.search(r"warn|error", line, re.IGNORECASE)]
    return warnings + problems(sources / "site")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def _toml(value: Any) -> str:
    """Lists, tables and strings in a line of TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
