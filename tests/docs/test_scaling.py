"""The model of docs/scaling.md: its tables are what it calculates, and it gives what others have published."""

from pathlib import Path

import pytest

from docs.generator import scaling

PAGES = [Path(__file__).parents[2] / "docs" / name for name in ("scaling.md", "zh/scaling.md")]


@pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])
def test_the_pages_show_what_is_calculated(page):
    text = page.read_text(encoding="utf-8").replace("、", ", ").replace(" %", "%")  # as Chinese writes them
    rows = (*scaling.rows(), *scaling.published(), *scaling.timed())
    missing = [row for row in rows if row.replace(" %", "%") not in text]
    assert missing == []


@pytest.mark.parametrize("one", scaling.PUBLISHED, ids=lambda one: one.name)
def test_published_figures_come_out_within_a_fifth(one):
    loss, products = one.calculated()
    assert loss == pytest.approx(one.muon / one.adamw - 1, rel=0.2)
    assert products == pytest.approx(one.products, rel=0.2)


@pytest.mark.parametrize("one", scaling.TIMED, ids=lambda one: one.name)
def test_so_do_times_that_nothing_was_fitted_to(one):
    assert one.calculated() == pytest.approx(one.muon, rel=0.2)


@pytest.mark.parametrize("one", scaling.TIMED[1:], ids=lambda one: one.name)
def test_so_does_what_they_add_to_a_step(one):
    """But for the smallest model, whose products wait to be launched."""
    assert one.longer() == pytest.approx(one.muon_step / one.step - 1, rel=0.2)


@pytest.mark.parametrize("sides", [sides for sides in scaling.ONE_MATRIX if min(sides) > 2048], ids=str)
def test_so_does_the_time_of_one_matrix(sides):
    assert abs(scaling.difference(sides)) < 0.15


def test_operations_of_a_square_matrix():
    assert scaling.newton_schulz((8, 8)) == 30 * 8**3
    assert scaling.newton_schulz((8, 8), symmetric=True) == 20 * 8**3
    assert scaling.newton_schulz((4, 16)) == scaling.newton_schulz((16, 4))


def test_operations_over_the_gram_matrix():
    """Those of full products, and of symmetric ones, which take less time."""
    full = 2 * 2 * 4 * 4 * 16
    assert scaling.over_gram((4, 16)) == full + (full + 14 * 2 * 4**3) / scaling.SYMMETRIC_GAIN
    assert scaling.over_gram((4, 16)) == scaling.over_gram((16, 4))


def test_messages_are_what_the_plan_foretells_for_even_owners():
    machine = scaling.Machine(1e12, 1e12, wire=1.0)
    matrices = [(64, 64)] * 8
    size, tokens = 8 * 64 * 64, 1e3
    found = scaling.share(matrices, tokens, 2, machine)
    seconds = found.messages * 6 * size * tokens / 2 / machine.training
    assert seconds == pytest.approx(2 * 4 * size * (2 - 1) / 2**2)
