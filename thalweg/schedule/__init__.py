"""Learning rates as functions of the step; a schedule gives the factor of the peak."""

from thalweg.schedule.bridge import Scheduler
from thalweg.schedule.shapes import Constant, Cosine, Linear, Schedule, Warmup, Wsd, constant, cosine, linear, wsd

__all__ = [
    "Constant",
    "Cosine",
    "Linear",
    "Schedule",
    "Scheduler",
    "Warmup",
    "Wsd",
    "constant",
    "cosine",
    "linear",
    "wsd",
]
