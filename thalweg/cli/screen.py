"""What a race shows in the terminal: the plan, the runs as they go, the table and the verdict."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from thalweg.lab.plan import Plan
from thalweg.lab.race import Watcher
from thalweg.lab.result import Contestant, RaceResult, Role, Run
from thalweg.lab.run import Spec

BARS = "▁▂▃▄▅▆▇█"


def show_plan(console: Console, plan: Plan) -> None:
    """Who runs what how often, and the time that it will take."""
    task = plan.task
    console.print(
        f"[bold]{task.name}[/bold]: {plan.probe.parameters:,} parameters, {plan.steps} steps, batch {task.batch_size}, "
        f"budget {plan.budget.name}, {plan.jobs} worker{'s' * (plan.jobs != 1)}",
        soft_wrap=True,
        highlight=False,
    )
    table = Table("optimizer", "tuning", "verdict", "shorter", "ms a step", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for c in plan.contestants:
        label = f"{c.label} (baseline)" if c is plan.contestants[0] else c.label
        runs = plan.runs(c)
        counts = [str(runs["tune"]) if c.tuned else "not tuned", str(runs["verdict"]), str(runs["horizon"])]
        table.add_row(label, *counts, f"{1e3 * plan.step_seconds[c.label]:.1f}")
    console.print(table)
    console.print(f"{plan.total} runs, about {duration(plan.seconds())} where nothing is stored yet", highlight=False)


def duration(seconds: float) -> str:
    """``50 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def sparkline(values: list[float], width: int = 12) -> str:
    """A row of bars, the lowest value at the bottom; the last ``width`` values."""
    values = [v for v in values if math.isfinite(v)][-width:]
    if not values:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(BARS[round((v - low) / span * (len(BARS) - 1))] for v in values)


@dataclass
class _Underway:
    spec: Spec
    role: Role
    step: int = 0
    losses: list[float] = field(default_factory=list)


class Live(Watcher):
    """The live view of a race; also its watcher. On a screen that is no terminal it prints the phases only."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self.console, self.plan = console, plan
        self.lock = threading.Lock()
        self.queued: dict[str, _Underway] = {}
        self.total = plan.total
        self.done = self.reused = 0
        self.done_seconds = 0.0
        self.all_seconds = plan.seconds() * plan.jobs
        self.phase = ""
        self.best: dict[str, tuple[float, float]] = {}
        self.latest: deque[str] = deque(maxlen=3)
        self.started = time.monotonic()
        self.screen = RichLive(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Live:
        if self.console.is_terminal:
            self.screen.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.console.is_terminal:
            self.screen.stop()
        if self.reused:
            self.console.print(f"{self.reused} of {self.done} runs were found in the store", highlight=False)

    def on_phase(self, name: str) -> None:
        """Show the phase."""
        self.phase = name
        if not self.console.is_terminal:
            self.console.print(name, highlight=False)

    def on_start(self, spec: Spec, role: Role) -> None:
        """Queue the run; it is shown when it moves."""
        with self.lock:
            self.queued[spec.key] = _Underway(spec, role)

    def on_progress(self, key: str, step: int, loss: float) -> None:
        """Draw the run's loss."""
        with self.lock:
            if key in self.queued:
                self.queued[key].step = step
                self.queued[key].losses.append(loss)

    def on_finish(self, spec: Spec, run: Run, reused: bool) -> None:
        """Count it, and remember the best setting of its contestant."""
        with self.lock:
            self.queued.pop(spec.key, None)
            self.done += 1
            self.reused += reused
            self.done_seconds += self.plan.run_seconds(spec)
            label = spec.contestant.label
            if spec.steps == self.plan.steps and run["final_loss"] < self.best.get(label, (math.inf, 0.0))[0]:
                self.best[label] = (run["final_loss"], spec.lr)

    def _left(self) -> str:
        """Time left: at the speed so far, once there is one."""
        share = min(1.0, self.done_seconds / self.all_seconds) if self.all_seconds else 0.0
        elapsed = time.monotonic() - self.started
        seconds = elapsed * (1 - share) / share if share > 0.05 else self.plan.seconds() - elapsed
        return duration(max(0.0, seconds))

    def _render(self) -> RenderableType:
        with self.lock:
            moving = [u for u in self.queued.values() if u.losses][: self.plan.jobs]
            head = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=self.total, completed=self.done, width=30)
            head.add_row(Text(self.phase, style="bold"), bar, f"{self.done} of {self.total} runs, {self._left()} left")
            rows = Table.grid(padding=(0, 2))
            for u in moving:
                name = u.spec.contestant.label
                setting = f"lr {u.spec.lr:.3g} × {u.spec.multiplier:g}"
                progress = f"{u.step}/{u.spec.steps}"
                rows.add_row(
                    name, u.role, setting, f"seed {u.spec.seed}", progress, sparkline(u.losses), f"{u.losses[-1]:.4g}"
                )
            best = ", ".join(f"{label} {loss:.4g} (lr {lr:.3g})" for label, (loss, lr) in self.best.items())
            return Group(head, rows, Text(f"best so far: {best}" if best else "", style="dim"))


def show_result(console: Console, result: RaceResult) -> None:
    """The table, the verdict, what was flagged, and the lines for the user's script."""
    console.print(_leaderboard(result))
    console.print()
    console.print(Text(result["headline"], style="bold"))
    for sentence in result["sentences"]:
        console.print(sentence, highlight=False)
    for flag in result["flags"]:
        if flag["level"] == "warning":
            console.print(f"[yellow]![/yellow] {flag['text']}", highlight=False)
    winner = best_of(result)
    how = "as tuned here" if winner["tuned"] else "as it was written"
    console.print(f"\nto train with {winner['label']} {how}:", highlight=False)
    console.print(Syntax(winner["script"], "python", background_color="default", word_wrap=True))


def best_of(result: RaceResult) -> Contestant:
    """The one to recommend: the lowest mean loss among those found better than the baseline, else the baseline."""
    better = {c["challenger"] for c in result["comparisons"] if c["verdict"] in ("better", "slightly better")}
    baseline, *others = result["contestants"]
    return min([baseline, *(c for c in others if c["label"] in better)], key=lambda c: c["mean_loss"])


def _leaderboard(result: RaceResult) -> Table:
    """The contestants, best first; columns that say nothing in this race are left out."""
    ratios = {c["challenger"]: c for c in result["comparisons"]}
    decays = any(c["chosen"]["weight_decay"] for c in result["contestants"])
    diverged = any(c["diverged"] for c in result["contestants"])
    columns = ["optimizer", f"held-out ({result['task']['unit']})", "steps", "seconds", "ms/step", "state", "lr × rest"]
    table = Table(*columns, *["decay"] * decays, *["diverged"] * diverged, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for c in sorted(result["contestants"], key=lambda c: c["mean_loss"]):
        mine = ratios.get(c["label"])
        runs = sum(r["role"] == "verdict" and r["optimizer"] == c["label"] for r in result["runs"])
        chosen = c["chosen"]
        table.add_row(
            c["label"],
            f"{c['mean_loss']:.4g} ± {c['sd_loss'] or 0:.2g}",
            mine["steps_ratio"]["text"] if mine else "1",
            mine["seconds_ratio"]["text"] if mine else "1",
            f"{c['step_ms']['total']:.2g}" if c["step_ms"] else "–",
            f"{c['bytes_per_parameter']:.1f} B/p",
            f"{chosen['lr']:.2g} × {chosen['multiplier']:g}",
            *[f"{chosen['weight_decay']:.2g}"] * decays,
            *[f"{c['diverged']} of {runs}"] * diverged,
        )
    return table
