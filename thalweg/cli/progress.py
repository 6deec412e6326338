"""A race as it runs: live on a terminal, a line a minute into a file or a pipe."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from thalweg.lab.forecast import Forecast, duration
from thalweg.lab.plan import RacePlan
from thalweg.lab.race import RaceWatcher
from thalweg.lab.result import Role, Run
from thalweg.lab.run import Spec

BARS = "▁▂▃▄▅▆▇█"
#: seconds between two lines where there is no terminal
EVERY = 60.0


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

    def cells(self) -> list[str]:
        """Its line in the live view."""
        setting = f"lr {self.spec.lr:.3g} × {self.spec.multiplier:g}"
        how_far, loss = f"{self.step}/{self.spec.steps}", f"{self.losses[-1]:.4g}"
        name = self.spec.contestant.label
        return [name, self.role, setting, f"seed {self.spec.seed}", how_far, sparkline(self.losses), loss]


class Live(RaceWatcher):
    """The live view of a race; also its watcher. Where there is no terminal it prints a line now and then."""

    def __init__(self, console: Console, plan: RacePlan, ahead: Forecast, every: float = EVERY) -> None:
        self.console, self.plan, self.every = console, plan, every
        self.lock = threading.Lock()
        self.queued: dict[str, _Underway] = {}
        self.total = ahead.runs
        self.done = 0
        self.waited = False
        self.run_seconds = self.found_seconds = 0.0
        self.all_seconds = ahead.whole * plan.jobs
        self.phase = self.elsewhere = ""
        self.best: dict[str, tuple[float, float]] = {}
        self.started = time.monotonic()
        self.screen = RichLive(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)
        self.over = threading.Event()
        self.lines = threading.Thread(target=self._print_lines, daemon=True)

    def __enter__(self) -> Live:
        if self.console.is_terminal:
            self.screen.start()
        else:
            self.lines.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        if self.console.is_terminal:
            self.screen.stop()

    def _print_lines(self) -> None:
        while not self.over.wait(self.every):
            with self.lock:
                elsewhere = f"; nodes: {self.elsewhere}" if self.elsewhere else ""
                text = f"{self._how_far()}{self._best(', best so far: ')}{elsewhere}"
            self.console.print(Text(text), no_wrap=True, overflow="ellipsis", highlight=False)

    def on_phase(self, name: str) -> None:
        """Show the phase."""
        self.phase = name
        if not self.console.is_terminal:
            self.console.print(name, highlight=False)

    def on_start(self, spec: Spec, role: Role) -> None:
        """Queue the run; it is shown when it moves."""
        with self.lock:
            self.queued[spec.key] = _Underway(spec, role)

    def on_wait(self, spec: Spec) -> None:
        """Say once that another race makes runs of this one."""
        if not self.waited:
            self.waited = True
            text = "another race on this store makes some of these runs; they are waited for, not made twice"
            self.console.print(text, highlight=False)

    def on_elsewhere(self, text: str) -> None:
        """Keep it for the next look."""
        self.elsewhere = text

    def on_note(self, text: str) -> None:
        """Say it, above what moves."""
        self.console.print(text, highlight=False, markup=False)

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
            seconds = self.plan.run_seconds(spec)
            self.found_seconds += seconds * reused
            self.run_seconds += seconds * (not reused)
            label = spec.contestant.label
            whole = spec.steps == self.plan.steps and run["status"] == "finished"
            if whole and run["final_loss"] < self.best.get(label, (math.inf, 0.0))[0]:
                self.best[label] = (run["final_loss"], spec.lr)

    def _left(self) -> str:
        """Time left: at the speed so far, once there is one. What was found in the store took none."""
        to_run = self.all_seconds - self.found_seconds
        share = min(1.0, self.run_seconds / to_run) if to_run > 0 else 1.0
        elapsed = time.monotonic() - self.started
        whole = elapsed / share if share > 0.05 else to_run / self.plan.jobs
        return duration((1 - share) * whole)

    def _how_far(self) -> str:
        """What is left is said while runs are: the timing pass behind them is short."""
        left = f", about {self._left()} left" if self.done < self.total else ""
        return f"{self.done} of {max(self.done, self.total)} runs{left}"

    def _best(self, before: str) -> str:
        best = ", ".join(f"{label} {loss:.4g} (lr {lr:.3g})" for label, (loss, lr) in self.best.items())
        return f"{before}{best}" if best else ""

    def _render(self) -> RenderableType:
        with self.lock:
            moving = [u for u in self.queued.values() if u.losses][: self.plan.jobs]
            head = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=self.total, completed=self.done, width=max(5, min(30, self.console.width - 60)))
            head.add_row(Text(self.phase, style="bold"), bar, self._how_far())
            rows = Table.grid(padding=(0, 2))
            for _ in range(7):
                rows.add_column(no_wrap=True, overflow="ellipsis")
            for u in moving:
                rows.add_row(*u.cells())
            best = Text(self._best("best so far: "), style="dim", no_wrap=True, overflow="ellipsis")
            nodes = Text(f"nodes: {self.elsewhere}", style="dim", no_wrap=True, overflow="ellipsis")
            return Group(head, rows, *([nodes] if self.elsewhere else []), best)
