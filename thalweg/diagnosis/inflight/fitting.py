"""A watch beside :func:`thalweg.train.fit`."""

from __future__ import annotations

from typing import Any

from thalweg.diagnosis.inflight.watching import Watch, watch
from thalweg.train.events import Event, Watcher


class FitWatch(Watcher):
    """Watches a run of ``fit``: ``fit(..., watchers=[FitWatch(log="run.jsonl")])``.

    Attributes:
        watch: of the run, once it has begun; its findings stay there.
    """

    def __init__(self, **arguments: Any) -> None:
        """Prepare.

        Args:
            arguments: of :func:`thalweg.watch`, but for model and optimizer.
        """
        self.arguments = arguments
        self.watch: Watch | None = None

    def on_start(self, event: Event) -> None:
        """Begin to watch."""
        self.watch = watch(event.model, event.optimizer, **self.arguments)

    def on_loss(self, event: Event) -> None:
        """Tell the loss."""
        if self.watch is not None:
            self.watch.loss(event.loss)

    def on_end(self, event: Event) -> None:
        """Look no more."""
        if self.watch is not None:
            self.watch.close()
