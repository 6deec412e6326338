"""Prose: cut between Chinese characters, with its styles, and never wider than the terminal."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thalweg.cli.prose import Prose


def lines_of(text, columns):
    console = Console(file=io.StringIO(), width=columns)
    table = Table.grid()
    table.add_column(overflow="fold")
    table.add_row(text)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("columns", [12, 20, 40])
def test_nothing_is_lost_and_no_line_is_too_wide(columns):
    text = "SOAP 在梯度协方差的特征基里做 Adam（见论文），https://example.org/a/long/address 因此各轴分别缩放。"
    lines = lines_of(Prose(text), columns)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(Text(line).cell_len <= columns for line in lines)


def test_a_line_is_filled_before_the_next_one_begins():
    assert lines_of(Prose("EMA 不改变训练，只是另存一份。"), 16) == ["EMA 不改变训练，", "只是另存一份。"]


def test_styles_stay_with_their_words():
    console = Console(width=12)
    text = Prose.assemble(("SGD + ", "cyan"), "用符号代替", ("梯度", "bold"))
    rows = text.wrap(console, 12)
    assert [row.plain for row in rows] == ["SGD + 用符号", "代替梯度"]
    assert [[row.plain[s.start : s.end] for s in row.spans] for row in rows] == [["SGD + "], ["梯度"]]
