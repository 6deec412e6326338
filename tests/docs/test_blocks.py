"""Every Python block of the README and the docs runs as it stands."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- no-run[^>]*-->\n)?```python\n(.*?)```", re.DOTALL)


def blocks():
    for page in PAGES:
        for i, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8"))):
            if not match[1]:
                yield pytest.param(match[2], id=f"{page.name}-{i}")


@pytest.mark.parametrize("code", list(blocks()))
def test_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "block.py"
    script.write_text(code, encoding="utf-8")
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_files_of_ours_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?:", target):
            assert (page.parent / target).exists(), target


def test_the_chinese_readme_has_the_same_code_and_commands():
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    code = [[line.split("#")[0].strip() for line in b.splitlines()] for _, b in BLOCK.findall(english)]
    assert code == [[line.split("#")[0].strip() for line in b.splitlines()] for _, b in BLOCK.findall(chinese)]
    for command in ("make race", "make test", "thalweg task new", "pip install 'thalweg[lab]'"):
        assert command in english
        assert command in chinese
