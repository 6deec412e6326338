"""The four pillars in one loop: loss, backpropagation, optimizer, schedule."""

from thalweg.train.events import Event, Watcher
from thalweg.train.loop import NonFiniteLossError, Outcome, fit

__all__ = ["Event", "NonFiniteLossError", "Outcome", "Watcher", "fit"]
