"""What `fit(progress=True)` shows: the step, the loss and the learning rate."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from thalweg.train.events import Event, Watcher

#: a terminal's line is rewritten this often at most, in seconds
OFTEN = 0.1


class Progress(Watcher):
    """One line that is rewritten in a terminal; in a file or a notebook's log a line for each tenth of the run."""

    def __init__(self, steps: int, out: TextIO | None = None) -> None:
        """Prepare.

        Args:
            steps: of the whole run.
            out: where to write; standard error if None.
        """
        self.steps, self.out = steps, out or sys.stderr
        self.rewrites = self.out.isatty()
        self.begun = self.shown = time.monotonic()
        self.first = 0

    def on_start(self, event: Event) -> None:
        """Note where a resumed run begins."""
        self.begun, self.first = time.monotonic(), event.step

    def on_step(self, event: Event) -> None:
        """Show the step if it is time."""
        done = event.step + 1
        tenth = done * 10 // self.steps > event.step * 10 // self.steps
        if done == self.steps or (time.monotonic() - self.shown > OFTEN if self.rewrites else tenth):
            self._show(done, event)

    def on_end(self, event: Event) -> None:
        """Leave the line, so that what is printed next has its own."""
        if self.rewrites:
            self.out.write("\n")

    def _show(self, done: int, event: Event) -> None:
        self.shown = time.monotonic()
        pace = (done - self.first) / max(self.shown - self.begun, 1e-9)
        text = f"step {done:,} of {self.steps:,}  loss {event.loss:.4g}  lr {event.lr:.3g}  {pace:.3g} steps/s"
        self.out.write(f"\r{text:<78}" if self.rewrites else f"{text}\n")
        self.out.flush()
