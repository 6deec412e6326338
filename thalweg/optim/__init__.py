"""The optimizers, simplest first: one small file a family, math only."""

from thalweg.optim.adam import Adam, Adamax, AdamW, NAdam, NAdamW, RAdam
from thalweg.optim.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from thalweg.optim.averages import (
    ADOPT,
    MARS,
    AdaBelief,
    AdaBound,
    Adan,
    AdEMAMix,
    Grams,
    LaProp,
    QHAdam,
    SimplifiedAdEMAMix,
    Yogi,
    diffGrad,
)
from thalweg.optim.curvature import AdaHessian, SophiaG, SophiaH
from thalweg.optim.layerwise import LAMB, LARS
from thalweg.optim.lbfgs import LBFGS
from thalweg.optim.momo import MoMo, MoMoAdam
from thalweg.optim.muon import Muon
from thalweg.optim.sgd import ASGD, QHM, SGD, SGDW, AggMo, SignSGD, Signum
from thalweg.optim.sign import Lion, Tiger

__all__ = [
    "ADOPT",
    "ASGD",
    "LAMB",
    "LARS",
    "LBFGS",
    "MARS",
    "QHM",
    "SGD",
    "SGDW",
    "AdEMAMix",
    "AdaBelief",
    "AdaBound",
    "AdaHessian",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "AggMo",
    "Grams",
    "LaProp",
    "Lion",
    "MoMo",
    "MoMoAdam",
    "Muon",
    "NAdam",
    "NAdamW",
    "QHAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SignSGD",
    "Signum",
    "SimplifiedAdEMAMix",
    "SophiaG",
    "SophiaH",
    "Tiger",
    "Yogi",
    "diffGrad",
]
