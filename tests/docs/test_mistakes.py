"""Mistakes on the page of errors: our messages name the argument, its value and what is allowed."""

import pytest

from docs.generator.mistakes import MISTAKES, message


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.code)
def test_a_message_names_the_argument_its_value_and_what_is_allowed(mistake):
    said = message(mistake.ours)
    assert [part for part in mistake.says if part not in said] == []
    assert "\n" not in said


def test_there_are_thirty_of_all_kinds():
    assert len({m.code for m in MISTAKES}) == len(MISTAKES) >= 30


@pytest.mark.parametrize("mistake", [m for m in MISTAKES if m.torchs], ids=lambda m: m.code)
def test_torch_is_asked_the_same(mistake):
    assert message(mistake.torchs) != message(mistake.ours)
