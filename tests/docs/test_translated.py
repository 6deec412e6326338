"""A translated page has the headings, code, links and parts of the English one, and takes its place in the site."""

import ast
import re

import pytest

from docs.generator import made, schedule_pages
from docs.generator.optimizer_pages import differences
from docs.generator.site import DOCS, TRANSLATIONS, editions
from docs.generator.translated import FENCE, anchors_of, headings, placed, untranslated
from tests.docs.test_blocks import BLOCK
from thalweg.explain import ENGLISH, explain
from thalweg.registry import optimizers

TRANSLATED = [page for name in TRANSLATIONS for page in sorted((DOCS / name).rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
pages = pytest.mark.parametrize("page", TRANSLATED, ids=lambda p: p.relative_to(DOCS).as_posix())


def english_of(page):
    return DOCS / page.relative_to(DOCS / page.relative_to(DOCS).parts[0])


def read(page):
    return page.read_text(encoding="utf-8")


def code(page):
    """What runs, and under which condition; comments may be in any language."""
    return [(what, given, ast.dump(ast.parse(text))) for what, given, text in BLOCK.findall(read(page))]


def commands(page):
    blocks = [block for block in FENCE.findall(read(page)) if not block.startswith("```python")]
    bare = [[re.sub(r" --zh$", "", line.split("#")[0].strip()) for line in block.splitlines()] for block in blocks]
    return [[line for line in lines if line] for lines in bare]


@pages
def test_it_has_the_headings_of_the_english_page(page):
    levels = [[len(h) - len(h.lstrip("#")) for h in headings(read(p))] for p in (page, english_of(page))]
    assert levels[0] == levels[1]


@pages
def test_its_code_and_commands_are_those_of_the_english_page(page):
    assert code(page) == code(english_of(page))
    assert commands(page) == commands(english_of(page))


@pages
def test_it_links_wherever_the_english_page_links(page):
    name, *place = page.relative_to(DOCS).parts
    there = placed(read(page), read(english_of(page)), "/".join(place), name)
    assert set(LINK.findall(there)) >= set(LINK.findall(read(english_of(page))))


@pages
def test_its_tables_have_the_rows_and_columns_of_the_english_page(page):
    """A table of files is longer by a line with each new file: translate that line, too."""
    shapes = [
        [line.count("|") for line in read(p).splitlines() if line.lstrip().startswith("| ")]
        for p in (page, english_of(page))
    ]
    assert shapes[0] == shapes[1]


@pages
def test_its_tables_begin_with_the_files_that_the_english_page_names(page):
    named = [re.findall(r"^ *\| (`[\w./]+\.\w+`) \|", read(p), re.MULTILINE) for p in (page, english_of(page))]
    assert named[0] == named[1]


@pages
def test_its_parts_are_made_in_its_own_language(page):
    name = page.relative_to(DOCS).parts[0]
    parts = [[found[1] for found in made.PART.findall(read(p))] for p in (page, english_of(page))]
    assert parts[0] == parts[1]
    assert made.language_of(page).name == name
    assert made.language_of(english_of(page)).name == "en"


def test_there_is_an_edition_for_each_language():
    assert [edition.name for edition in editions()] == ["", *TRANSLATIONS]


def test_headings_get_the_anchors_of_the_english_page_and_comments_in_code_do_not():
    english = "# Title\n\n## A *b* `c`\n\n```sh\n# no heading\n```\n\n## A b c\n"
    text = "# 标题\n\n## 甲\n\n```sh\n# 不是标题\n```\n\n## 乙\n"
    assert anchors_of(english) == ["title", "a-b-c", "a-b-c_1"]
    assert placed(text, english, "page.md", "zh").splitlines()[::2] == [
        "# 标题 { #title }", "## 甲 { #a-b-c }", "```sh", "```", "## 乙 { #a-b-c_1 }",
    ]  # fmt: skip


def test_a_page_whose_headings_are_others_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"docs/zh/page\.md has 1 headings and docs/page\.md has 2"):
        placed("# 一", "# One\n\n# Two", "page.md", "zh")


@pytest.mark.parametrize(
    ("place", "written", "laid_out"),
    [
        ("page.md", "../results.md#here", "results.md#here"),
        ("page.md", "other.md#here", "other.md#here"),
        ("page.md", "images/a.svg", "images/a.svg"),
        ("page.md", "../images/a.svg", "images/a.svg"),
        ("page.md", "#here", "#here"),
        ("page.md", "https://example.org/../x", "https://example.org/../x"),
        ("guides/page.md", "../../results.md", "../results.md"),
        ("guides/page.md", "../start.md", "../start.md"),
        ("guides/page.md", "../../guides/other.md", "other.md"),
    ],
)
def test_links_hold_where_a_page_is_written_and_where_it_is_laid_out(place, written, laid_out):
    assert placed(f"# 一\n\n[x]({written})", "# One", place, "zh").endswith(f"[x]({laid_out})")


def test_a_page_that_is_not_translated_says_so_below_its_title():
    text = untranslated("<!-- first -->\n# Title\n\nText.\n", editions()[-1].say)
    assert text.startswith('<!-- first -->\n# Title\n\n!!! note ""\n    本页尚无中文版')
    assert text.endswith("\n\nText.\n")


def test_every_phrase_of_the_generator_is_translated():
    """Those of pictures too, which are not drawn for it."""
    asked = set()
    for file in sorted((DOCS / "generator").glob("*.py")):
        for node in ast.walk(ast.parse(read(file))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                asked |= {x.value for x in node.args if isinstance(x, ast.Constant)}
    assert len(asked) > 80
    for edition in editions()[1:]:
        assert sorted(asked - edition.say.phrases.keys()) == []


@pytest.mark.parametrize("edition", editions()[1:], ids=lambda e: e.name)
def test_every_text_of_the_schedules_and_of_other_libraries_is_translated(edition):
    told = set()

    class Listening(type(ENGLISH)):
        def doc(self, text):
            told.add(text)
            return text

    schedule_pages.files(Listening())
    for name in optimizers():
        differences(explain(name), Listening())
    assert len(told) > 100
    assert sorted(told - edition.say.docs.keys() - {""}) == [], "add these to [docs] in docs/zh/phrases.toml"
