"""The optimizers, simplest first: one small file a family, math only."""

from thalweg.optim.adam import Adam, AdamW
from thalweg.optim.adaptive import RMSprop
from thalweg.optim.muon import Muon
from thalweg.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Muon", "RMSprop"]
