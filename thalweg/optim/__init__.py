"""The optimizers, simplest first: one small file a family, math only."""

from thalweg.optim.adam import Adam, Adamax, AdamW, NAdam, NAdamW, RAdam
from thalweg.optim.adamuon import AdaMuon
from thalweg.optim.adamw import AdamC, StableAdamW
from thalweg.optim.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from thalweg.optim.averages import (
    ADOPT,
    MARS,
    AdaBelief,
    AdaBound,
    AdaMod,
    Adan,
    AdEMAMix,
    Grams,
    LaProp,
    QHAdam,
    SimplifiedAdEMAMix,
    Yogi,
    diffGrad,
)
from thalweg.optim.blockwise import AdamMini, Amos, NovoGrad
from thalweg.optim.curvature import AdaHessian, SophiaG, SophiaH
from thalweg.optim.d_adaptation import DAdaptAdam, DAdaptSGD, Prodigy
from thalweg.optim.dion2 import Dion2
from thalweg.optim.dog import DoG, DoWG, LDoG
from thalweg.optim.factored import CAME, SM3, Adafactor
from thalweg.optim.inertia import AccSGD, Adai
from thalweg.optim.layerwise import LAMB, LARS, Fromage
from thalweg.optim.lbfgs import LBFGS
from thalweg.optim.low_rank import APOLLO, GaLore
from thalweg.optim.madgrad import MADGRAD
from thalweg.optim.mano import Mano
from thalweg.optim.momo import MoMo, MoMoAdam
from thalweg.optim.muon import Muon
from thalweg.optim.normuon import NorMuon
from thalweg.optim.parameter_free import COCOB
from thalweg.optim.projected import SGDP, AdamP
from thalweg.optim.psgd import PSGDKron
from thalweg.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeRAdam, ScheduleFreeSGD
from thalweg.optim.scion import Scion
from thalweg.optim.sgd import ASGD, QHM, SGD, SGDW, AggMo, Momentum, Nesterov, SignSGD, Signum
from thalweg.optim.shampoo import Shampoo
from thalweg.optim.sign import Lion, Tiger
from thalweg.optim.soap import SOAP
from thalweg.optim.soap_muon import SOAPMuon

__all__ = [
    "ADOPT",
    "APOLLO",
    "ASGD",
    "CAME",
    "COCOB",
    "LAMB",
    "LARS",
    "LBFGS",
    "MADGRAD",
    "MARS",
    "QHM",
    "SGD",
    "SGDP",
    "SGDW",
    "SM3",
    "SOAP",
    "AccSGD",
    "AdEMAMix",
    "AdaBelief",
    "AdaBound",
    "AdaHessian",
    "AdaMod",
    "AdaMuon",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adai",
    "Adam",
    "AdamC",
    "AdamMini",
    "AdamP",
    "AdamW",
    "Adamax",
    "Adan",
    "AggMo",
    "Amos",
    "DAdaptAdam",
    "DAdaptSGD",
    "Dion2",
    "DoG",
    "DoWG",
    "Fromage",
    "GaLore",
    "Grams",
    "LDoG",
    "LaProp",
    "Lion",
    "Mano",
    "MoMo",
    "MoMoAdam",
    "Momentum",
    "Muon",
    "NAdam",
    "NAdamW",
    "Nesterov",
    "NorMuon",
    "NovoGrad",
    "PSGDKron",
    "Prodigy",
    "QHAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SOAPMuon",
    "ScheduleFreeAdamW",
    "ScheduleFreeRAdam",
    "ScheduleFreeSGD",
    "Scion",
    "Shampoo",
    "SignSGD",
    "Signum",
    "SimplifiedAdEMAMix",
    "SophiaG",
    "SophiaH",
    "StableAdamW",
    "Tiger",
    "Yogi",
    "diffGrad",
]
