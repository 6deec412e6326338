"""The site builds without a warning, its formulas are read, and its checks see what they look for."""

import json
import re
from pathlib import Path

import pytest
import torch
from markdown import markdown

from docs.generator import optimizer_pages, runs
from docs.generator.check import problems
from docs.generator.math import mathml
from docs.generator.optimizer_pages import differences, page
from docs.generator.schedule_pages import text_of
from docs.generator.site import TRANSLATIONS, asked, build, editions, lay_out
from docs.generator.surfaces import CAMEL, RAVINE, STRAIGHT, SURFACES, TILTED
from docs.generator.walking import train, walk
from tests.cases import CASES
from thalweg import SGD, schedule
from thalweg.explain import explain
from thalweg.registry import optimizers, wrappers


def render(text):
    return markdown(text, extensions=["docs.generator.math", "tables", "pymdownx.superfences"])


@pytest.mark.slow(reason="builds the whole documentation")
def test_the_site_builds_and_nothing_is_wrong_with_it(tmp_path):
    assert build(runs.load(), tmp_path) == []
    for name in optimizers():
        assert (tmp_path / "site" / "optimizers" / f"{name.lower()}.html").exists()
    for name in schedule.schedules():
        assert (tmp_path / "site" / "schedules" / f"{name}.html").exists()
    pages = {file.relative_to(tmp_path / "site").as_posix() for file in (tmp_path / "site").rglob("*.html")}
    for language in TRANSLATIONS:
        assert {f"{language}/{page}" for page in pages if page.partition("/")[0] not in TRANSLATIONS} - pages == {
            f"{language}/404.html"
        }
        assert f'href="./{language}/index.html"' in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def phrases():
    return asked(runs.load())


def test_another_language_is_a_folder_of_pages_and_a_table_of_phrases(tmp_path):
    folder = tmp_path / "docs" / "zh"
    folder.mkdir(parents=True)
    table = '[phrases]\n"The step" = "一步"\n"Reference" = "参考"\n[docs]\n"step size" = "步长甲"\n'
    (folder / "phrases.toml").write_text(table, encoding="utf-8")
    (folder / "index.md").write_text("# 首页\n", encoding="utf-8")
    english, chinese = editions(tmp_path / "docs")
    lay_out(runs.load(), tmp_path / "zh", chinese)
    pages = tmp_path / "zh" / "pages"
    adamw = (pages / "optimizers" / "adamw.md").read_text(encoding="utf-8")
    assert "## 一步" in adamw
    assert "步长甲" in adamw
    assert explain("adamw").text.strength not in adamw  # the words of thalweg/explain/zh.toml
    assert (pages / "index.md").read_text(encoding="utf-8") == "# 首页 { #thalweg }\n"
    story = (pages / "story.md").read_text(encoding="utf-8")
    assert "has not been translated yet" in story.split("\n## ")[0]
    assert not (pages / "zh").exists()
    settings = (tmp_path / "zh" / "zensical.toml").read_text(encoding="utf-8")
    assert 'language = "zh"' in settings
    assert '"参考"' in settings
    assert english.say("The step") == "The step"


@pytest.mark.parametrize("edition", editions()[1:], ids=lambda e: e.name)
def test_every_phrase_of_the_site_is_translated(edition, phrases):
    assert sorted(phrases - edition.say.phrases.keys()) == [], "add these to docs/zh/phrases.toml"


def test_the_phrases_are_those_that_the_pages_ask_for(phrases):
    assert {"The step", "Reference", "Around any optimizer", "learning rate", "**Strength:**"} <= phrases
    assert 80 < len(phrases) < 400


def test_formulas_become_mathml_and_code_stays():
    html = render("A $x_t$ and `$y$` cost $5 or $6.\n\n$$\\frac{a}{b}$$\n\n```python\ns = '$z$'\n```\n")
    assert html.count("<math") == 2
    assert '<math display="block"><mrow><mfrac>' in html
    assert "<code>$y$</code> cost $5 or $6." in html
    assert "$z$" in re.sub("<[^>]*>", "", html)


def test_the_cells_of_a_table_know_their_column():
    html = markdown("| a *b* | |\n| --- | --- |\n| 1 | 2 |\n| | 3 |\n", extensions=["tables", "docs.generator.tables"])
    assert html.count('data-label="a b"') == 1
    assert html.count("data-label") == 1


def test_a_cell_with_a_dash_alone_is_marked_since_a_narrow_screen_leaves_it_out():
    html = markdown(
        "| a | b |\n| --- | --- |\n| 1 | – |\n| 2 | 3 – 4 |\n", extensions=["tables", "docs.generator.tables"]
    )
    assert html.count("data-none") == 1


def test_tables_in_formulas_may_stand_in_each_other():
    inner = r"\begin{cases} a & b < c \\ d & \text{else} \end{cases}"
    html = mathml(rf"\begin{{aligned}} x &= \frac{{{{1}}}}{{2}} \\ y &= \sum {inner} \end{{aligned}}")
    assert html.count("<mtable") == 2
    assert html.count("<mtr") == 4
    assert html.count("<mtd") == 8
    assert "{</mo>" in html


def test_formulas_beside_each_other_are_stacked_where_a_narrow_screen_would_cut_them():
    adam = (
        r"m \leftarrow \beta m + (1-\beta)\,g, \quad v \leftarrow \alpha v + (1-\alpha)\,g^2, \qquad p \leftarrow p - u"
    )
    html = mathml(adam, displayed=True)
    assert html.count("<mtr>") == 3
    assert "gathered" in html
    assert "<mtr>" not in mathml(adam)  # in a line of text
    assert "<mtr>" not in mathml(r"a = b, \quad c = d", displayed=True)
    held = r"x = \begin{cases} 1 & y > 0, \quad \text{which is often so} \\ 0 & \text{else, and long, too} \end{cases}"
    assert mathml(held, displayed=True).count("gathered") == 0


def test_a_command_that_has_no_mathml_is_an_error():
    with pytest.raises(ValueError, match=r"no MathML for '\\\\nosuch'"):
        mathml(r"x + \nosuch")


def test_the_checks_see_what_is_wrong(tmp_path):
    (tmp_path / "there.html").write_text('<p id="here">fine</p>')
    (tmp_path / "page.html").write_text(
        '<a href="there.html#here">a</a><a href="there.html#gone">b</a><a href="gone.html">c</a>'
        '<a href="https://example.org">d</a><img src="https://example.org/x.png"><script src="gone.js"></script>'
        "<p>a ``b`` c</p>"
    )
    assert problems(tmp_path) == [
        "page.html fetches https://example.org/x.png",
        "page.html needs gone.js, which is not there",
        "page.html links to there.html#gone, which is not there",
        "page.html links to gone.html, which is not there",
        "page.html shows markup that was meant to be read",
    ]
    assert problems(tmp_path / "nowhere") != []


@pytest.mark.parametrize("surface", [*SURFACES, STRAIGHT, TILTED], ids=lambda s: s.name)
def test_the_lowest_points_of_a_surface_are_where_it_says(surface):
    for point in surface.lowest:
        x, y = (torch.tensor(c, dtype=torch.float64, requires_grad=True) for c in point)
        height = surface.height(x, y)
        height.backward()
        assert height.item() == pytest.approx(surface.least, abs=1e-4)
        assert abs(x.grad) + abs(y.grad) < 0.01
    left, right, bottom, top = surface.window
    assert left < surface.start[0] < right
    assert bottom < surface.start[1] < top


def test_paths_and_losses_that_are_kept_are_those_of_a_run():
    kept = runs.load()["SGD"]
    for surface in (RAVINE, CAMEL):
        path = walk(SGD, surface, kept[surface.name]["lr"])
        flat = [c for point in path for c in point]
        assert kept[surface.name]["path"] == pytest.approx(flat, abs=1e-3)
    i = runs.RATES.index(0.1)
    assert kept["digits"][i] == pytest.approx(sum(train(SGD, 0.1, s).held_out for s in runs.SEEDS) / 2, rel=0.02)


def test_a_rate_that_is_far_too_high_diverges():
    assert walk(SGD, RAVINE, 100.0) is None
    assert train(SGD, 1e6, 0).held_out != train(SGD, 1e6, 0).held_out


def test_what_is_kept_is_small_and_of_optimizers_that_there_are():
    text = runs.FILE.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert json.loads(text).keys() <= optimizers().keys()
    pictures = Path(__file__).parents[2] / "docs" / "images" / "story"
    assert sum(f.stat().st_size for f in pictures.iterdir()) < 500_000


def test_another_rule_or_default_is_another_run():
    class Same(SGD):
        pass

    class Other(SGD):
        @staticmethod
        def direction(p, g, s, h):
            return 2 * g

    assert runs.fingerprint(Same) == runs.fingerprint(SGD) != runs.fingerprint(Other)


def test_a_page_says_what_the_class_says():
    about = explain("adamw")
    text = page(about, runs.load()["AdamW"])
    assert about.formula.latex in text
    assert "[Adam](adam.md) → **AdamW**" in text
    assert "| `weight_decay` | λ | `0.01` | `[0, ∞)` | coefficient of the weight decay |" in text
    assert about.text.strength in text
    assert "![Sensitivity of AdamW" in text
    assert "![" not in page(about, None)


@pytest.mark.parametrize("name", [*optimizers(), *wrappers()])
def test_a_page_says_how_it_differs_or_what_says_that_it_does_not(name):
    about = explain(name)
    said = "\n".join(differences(about))
    references = [case.reference for case in CASES if case.optimizer == name or case.name == name]
    torchs = getattr(torch.optim, name, None)
    assert ("difference from `torch.optim" in said) == (torchs is not None)
    assert ("except for what is named here" in said) == bool(torchs is not None and about.text.differs)
    if torchs is not None:
        assert torchs in references or name == "LBFGS"  # whose steps have tests of their own
    elif "No difference from the paper" in said:
        assert name in wrappers() or any(r.__module__.startswith("tests.references") for r in references)
    else:
        assert about.text.differs


def test_the_library_that_steps_otherwise_is_named_with_its_reason():
    said = "\n".join(differences(explain("MARS")))
    assert "| `pytorch_optimizer.MARS` | it adds ε before the root is corrected |" in said
    assert "`qhoptim.pyt.QHM`" in "\n".join(differences(explain("QHM")))


def test_a_schedules_text_is_taken_apart():
    text = text_of(schedule.Wsd)
    assert text.idea.startswith("Warmup-stable-decay: the learning rate is stable")
    assert set(text.arguments) == {"steps", "final", "decay", "shape"}
    assert "$$f(t)" in text.body
    assert text.labelled["Example"] == 'Wsd(100, shape="1-sqrt")'
    assert text.labelled["Source"].endswith("2405.18392")


@pytest.mark.parametrize("cls", schedule.schedules().values(), ids=lambda c: c.__name__)
def test_what_is_said_for_and_against_a_schedule_is_a_sentence(cls):
    text = text_of(cls)
    for said in (text.idea, text.labelled["Strength"], text.labelled["Weakness"]):
        assert not said[0].islower() or not said[0].isascii(), f"{said!r} begins as no sentence does"
        assert said.endswith(".")


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("see https://a.org/x, and more", "see <https://a.org/x>, and more"),
        ("Wen et al. (2025, https://a.org/2509.02046) found", "Wen et al. (2025, <https://a.org/2509.02046>) found"),
        ("Wen et al.（https://a.org/2509.02046）测得", "Wen et al.（<https://a.org/2509.02046>）测得"),
        ("Wen et al. 2025 (https://a.org/x) found", "Wen et al. 2025 (<https://a.org/x>) found"),
        ("a [link](https://a.org/x) stays", "a [link](https://a.org/x) stays"),
        ("见 https://a.org/x。", "见 <https://a.org/x>。"),
    ],
)
def test_an_address_ends_before_the_punctuation_of_its_sentence(text, linked):
    assert optimizer_pages.markdown(text) == linked
