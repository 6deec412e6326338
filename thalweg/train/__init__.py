"""The four pillars in one loop: loss, backpropagation, optimizer, schedule."""

from thalweg.train.events import Event, Watcher
from thalweg.train.loop import NonFiniteError, Outcome, fit, update

__all__ = ["Event", "NonFiniteError", "Outcome", "Watcher", "fit", "update"]
