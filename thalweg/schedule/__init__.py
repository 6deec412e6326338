"""Learning rates, and other hyperparameters, as functions of the step; a schedule gives the factor of the peak."""

from thalweg.schedule.bridge import Scheduler
from thalweg.schedule.catalog import schedules
from thalweg.schedule.compose import Constant, Product, Shape, Then
from thalweg.schedule.cycles import CosineRestarts, Cyclic, OneCycle
from thalweg.schedule.drawing import plot
from thalweg.schedule.plateau import Plateau, PlateauState
from thalweg.schedule.protocol import Schedule
from thalweg.schedule.recipes import constant, cosine, linear, polynomial, rex, wsd
from thalweg.schedule.shapes import Cosine, Exponential, InverseSqrt, Linear, MultiStep, Polynomial, Rex, Step, Wsd
from thalweg.schedule.units import ByEpoch, ByFraction, epochs, share
from thalweg.schedule.values import Between
from thalweg.schedule.warmup import UntunedWarmup, Warmup

__all__ = [
    "Between",
    "ByEpoch",
    "ByFraction",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "InverseSqrt",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Plateau",
    "PlateauState",
    "Polynomial",
    "Product",
    "Rex",
    "Schedule",
    "Scheduler",
    "Shape",
    "Step",
    "Then",
    "UntunedWarmup",
    "Warmup",
    "Wsd",
    "constant",
    "cosine",
    "epochs",
    "linear",
    "plot",
    "polynomial",
    "rex",
    "schedules",
    "share",
    "wsd",
]
