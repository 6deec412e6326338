"""What a race shows in the terminal before and after its runs: the plan, the table and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.text import Text

from thalweg.cli.tables import Column, leaderboard, print_table
from thalweg.lab.contestant import Contestant
from thalweg.lab.forecast import Forecast, duration
from thalweg.lab.names import beside, named, without_folder
from thalweg.lab.overview import overview
from thalweg.lab.plan import RacePlan
from thalweg.lab.result import ContestantResult, RaceResult


def show_plan(console: Console, plan: RacePlan, ahead: Forecast) -> None:
    """Who runs what how often, and the time that it will take."""
    task = plan.task
    console.print(
        f"[bold]{task.name}[/bold]: {plan.probe.parameters:,} parameters, {plan.steps} steps, batch {task.batch_size}, "
        f"budget {plan.budget.name}, {plan.jobs} worker{'s' * (plan.jobs != 1)}",
        soft_wrap=True,
        highlight=False,
    )
    runs = [plan.runs(c) for c in plan.contestants]
    labels = [c.label for c in plan.contestants]
    tuning = [_tuning(c, mine) for c, mine in zip(plan.contestants, runs, strict=True)]
    columns = [
        Column(
            "optimizer",
            [
                beside(c.label, without_folder(c.shown), "baseline" * (c is plan.contestants[0]))
                for c in plan.contestants
            ],
            left=True,
        ),
        Column("tuning", tuning),
        Column("verdict", [str(mine["verdict"]) for mine in runs], 1),
        Column("shorter", [str(mine["horizon"]) for mine in runs], 2),
        Column("ms a step", [f"{1e3 * plan.step_seconds[label]:.1f}" for label in labels], 3),
    ]
    print_table(console, columns)
    stored = f", {ahead.stored} of them stored" if ahead.stored else ""
    console.print(f"about {ahead.runs} runs{stored}; about {duration(ahead.seconds)}", highlight=False)


def _tuning(contestant: Contestant, runs: Mapping[str, int]) -> str:
    if contestant.searches:
        return str(runs["tune"])
    return "transferred" if contestant.transferred else "not tuned"


def show_result(console: Console, result: RaceResult) -> None:
    """The table, the headline with its warnings under it, the verdict, and the lines for the user's script."""
    leaderboard(console, result)
    console.print()
    console.print(Text(result["headline"], style="bold"))
    for text in result["warnings"]:
        console.print(f"[yellow]![/yellow] {escape(text)}", highlight=False)
    console.print()
    for sentence in result["sentences"]:
        console.print(sentence, highlight=False, markup=False)
    show_why(console, result)
    if "nodes" in result["environment"]:
        nodes, lost = (result["environment"][name] for name in ("nodes", "lost"))
        console.print(f"\nmade on {nodes}; lost: {lost}", highlight=False, markup=False)
    winner = best_of(result)
    how = "as tuned here" if winner["tuned"] else winner.get("transferred") or "as it was written"
    console.print(f"\nto train with {named(winner)} {how}:", highlight=False, markup=False)
    code = Syntax("", "python", background_color="default").highlight(winner["script"])
    code.rstrip()
    console.print(code, soft_wrap=True)  # a line that was broken here could not be copied


def show_why(console: Console, result: RaceResult) -> None:
    """What a watched run of each contestant has shown, the lowest mean loss first."""
    seen = [(c["label"], c.get("why")) for c in sorted(result["contestants"], key=lambda c: c["mean_loss"])]
    said = [f"{label}: {why['said']}" for label, why in seen if why and why["said"]]
    if said:
        share = result["protocol"]["watched"]["share"]
        took = f" ({share:.1%} of the time of all other runs)" if share else ""
        console.print(f"\nwhy, as the first part of one more run of each shows{took}:", highlight=False, markup=False)
    for text in said:
        console.print(text, highlight=False, markup=False)


def best_of(result: RaceResult) -> ContestantResult:
    """The one to recommend: the lowest mean loss among those found better than the baseline, else the baseline."""
    better = {c["challenger"] for c in result["comparisons"] if c["verdict"] in ("better", "slightly better")}
    baseline, *others = result["contestants"]
    return min([baseline, *(c for c in others if c["label"] in better)], key=lambda c: c["mean_loss"])


def show_overview(console: Console, results: Sequence[RaceResult]) -> None:
    """Several tasks side by side, and what they come to."""
    seen = overview(results)
    names = {c["label"]: named(c) for c in results[0]["contestants"]}
    heads = ["task", *(names[one["challenger"]] for one in seen["challengers"])]
    rows = [
        [task, *(one["tasks"][i]["verdict"] for one in seen["challengers"])] for i, task in enumerate(seen["tasks"])
    ]
    console.print()
    print_table(console, [Column(head, [row[i] for row in rows], left=True) for i, head in enumerate(heads)])
    console.print()
    console.print(Text(seen["headline"], style="bold"))
    for sentence in seen["sentences"]:
        console.print(sentence, highlight=False, markup=False)
