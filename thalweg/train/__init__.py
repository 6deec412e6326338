"""The four pillars in one loop: loss, backpropagation, optimizer, schedule."""

from thalweg.train.events import Event, Watcher
from thalweg.train.loop import NonFiniteError, Outcome, fit, update
from thalweg.train.qk_clip import Attention, LogitMax, QKClip

__all__ = ["Attention", "Event", "LogitMax", "NonFiniteError", "Outcome", "QKClip", "Watcher", "fit", "update"]
