"""What stands in a terminal of any width, and in a file: whole tables, warnings under the headline, a line a minute."""

import io
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.lab.report.samples import race
from thalweg.cli import progress, screen
from thalweg.cli.tables import Column, columns, fitting, leaderboard
from thalweg.lab.forecast import Forecast

RACES = {
    "three": race(),
    "six": race(("adamw", "sgd", "momentum", "rmsprop", "adam", "my-optimizer-of-a-long-name"), seeds=8),
    "diverged": race(diverged="momentum"),
    "busy": race(quiet=False, rises=5.0),
}


def shown(show, *what, width=110, **options):
    """The lines that are printed into a file of so many columns."""
    console = Console(file=io.StringIO(), width=width, **options)
    show(console, *what)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 110, 200])
@pytest.mark.parametrize("result", RACES.values(), ids=RACES)
def test_a_table_is_never_broken(result, width):
    lines = shown(leaderboard, result, width=width)
    note = any("not shown" in line for line in lines)
    table = lines[: 1 + len(result["contestants"])]
    assert [line.split()[0] for line in table[1:]] == [
        c["label"] for c in sorted(result["contestants"], key=lambda c: c["mean_loss"])
    ]
    assert max(map(cell_len, lines)) <= width
    assert note == (len(fitting(columns(result), width)) < len(columns(result)))
    assert "verdict" in table[0]


def test_what_matters_least_is_left_out_first():
    heads = ["optimizer", "held-out (nats per byte)", "minus adamw's", "verdict", "steps", "seconds", "lr × rest"]
    wide = [column.head for column in columns(RACES["three"])]
    assert wide == [*heads, "ms/step", "state"]
    assert [column.head for column in fitting(columns(RACES["three"]), 60)] == [
        "optimizer",
        heads[1],
        "verdict",
        "steps",
    ]
    assert fitting([Column("a" * 50, ["1"])], 10) != []


def test_columns_that_say_nothing_are_left_out():
    heads = [column.head for column in columns(RACES["busy"])]
    assert "seconds" not in heads
    assert "diverged" not in heads
    assert "diverged" in [column.head for column in columns(RACES["diverged"])]


def test_warnings_stand_right_under_the_headline():
    result = RACES["busy"]
    lines = shown(screen.show_result, result, width=1000)
    at = lines.index(result["headline"])
    assert lines[at + 1 : at + 1 + len(result["warnings"])] == [f"! {text}" for text in result["warnings"]]
    assert "on an over-fitted task" in result["headline"]
    assert "seconds" not in result["headline"]
    assert lines.index(result["sentences"][0]) > at


def test_lines_for_the_script_are_not_broken():
    result = race()
    result["contestants"][2]["script"] = "optimizer = " + "x" * 150
    assert result["contestants"][2]["script"] in shown(screen.show_result, result, width=80)


@pytest.mark.parametrize("width", [80, 110])
def test_several_tasks_end_with_an_overview(width):
    results = [race(name="one"), race(name="two")]
    lines = shown(screen.show_overview, results, width=width)
    assert max(map(cell_len, lines)) <= width
    (one,) = [line for line in lines if line.startswith("one ")]
    assert one.split()[1:] == ["better", "worse"]
    assert any(line.startswith("2 tasks against adamw: ") for line in lines)


class Made:
    """As much of a plan as its watcher asks for."""

    jobs, steps = 1, 20

    def run_seconds(self, spec):
        return 100.0


AHEAD = Forecast(runs=6, stored=0, seconds=600.0, whole=600.0)


def test_into_a_pipe_goes_a_line_now_and_then():
    console = Console(file=io.StringIO(), width=110)
    with progress.Live(console, Made(), AHEAD, every=0.05) as live:
        live.on_phase("search")
        time.sleep(0.4)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "search"
    assert 2 <= len(lines) <= 10
    assert set(lines[1:]) == {"0 of 6 runs, about 10 min left"}


@pytest.mark.parametrize("terminal", [False, True])
def test_nodes_and_what_was_lost_are_shown_while_a_race_runs_and_at_its_end(terminal):
    console = Console(file=io.StringIO(), width=110, force_terminal=terminal)
    with progress.Live(console, Made(), AHEAD, every=0.05) as live:
        live.on_elsewhere("a (3 calls); 1 lost and made again")
        time.sleep(0.5)
    assert "nodes: a (3 calls); 1 lost and made again" in console.file.getvalue()
    result = race()
    result["environment"] |= {"nodes": "a (5 calls)", "lost": "1, made again: adamw, seed 3"}
    assert "made on a (5 calls); lost: 1, made again: adamw, seed 3" in shown(screen.show_result, result, width=1000)


def test_found_runs_do_not_make_the_rest_look_short():
    """Half of the runs were found in no time; the other half takes as long as it takes."""
    live = progress.Live(Console(file=io.StringIO()), Made(), AHEAD)

    class Spec:
        key, steps = "k", 20
        lr = 0.1

        class contestant:  # noqa: N801
            label = "adamw"

    for _ in range(3):
        live.on_finish(Spec(), {"final_loss": 1.0, "status": "finished"}, reused=True)
    assert live._left() == "5 min"
