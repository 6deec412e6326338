"""The optimizers, simplest first: one small file a family, math only."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer as Optimizer
    from torch.optim import lr_scheduler as lr_scheduler
    from torch.optim import swa_utils as swa_utils

    from thalweg.optim.adam import Adam as Adam
    from thalweg.optim.adam import Adamax as Adamax
    from thalweg.optim.adam import AdamW as AdamW
    from thalweg.optim.adam import NAdam as NAdam
    from thalweg.optim.adam import NAdamW as NAdamW
    from thalweg.optim.adam import RAdam as RAdam
    from thalweg.optim.adamuon import AdaMuon as AdaMuon
    from thalweg.optim.adamw import AdamC as AdamC
    from thalweg.optim.adamw import StableAdamW as StableAdamW
    from thalweg.optim.adaptive import Adadelta as Adadelta
    from thalweg.optim.adaptive import Adagrad as Adagrad
    from thalweg.optim.adaptive import RMSprop as RMSprop
    from thalweg.optim.adaptive import Rprop as Rprop
    from thalweg.optim.averages import ADOPT as ADOPT
    from thalweg.optim.averages import MARS as MARS
    from thalweg.optim.averages import AdaBelief as AdaBelief
    from thalweg.optim.averages import AdaBound as AdaBound
    from thalweg.optim.averages import AdaMod as AdaMod
    from thalweg.optim.averages import Adan as Adan
    from thalweg.optim.averages import AdEMAMix as AdEMAMix
    from thalweg.optim.averages import Grams as Grams
    from thalweg.optim.averages import LaProp as LaProp
    from thalweg.optim.averages import QHAdam as QHAdam
    from thalweg.optim.averages import SimplifiedAdEMAMix as SimplifiedAdEMAMix
    from thalweg.optim.averages import Yogi as Yogi
    from thalweg.optim.averages import diffGrad as diffGrad
    from thalweg.optim.blockwise import AdamMini as AdamMini
    from thalweg.optim.blockwise import Amos as Amos
    from thalweg.optim.blockwise import NovoGrad as NovoGrad
    from thalweg.optim.curvature import AdaHessian as AdaHessian
    from thalweg.optim.curvature import SophiaG as SophiaG
    from thalweg.optim.curvature import SophiaH as SophiaH
    from thalweg.optim.d_adaptation import DAdaptAdam as DAdaptAdam
    from thalweg.optim.d_adaptation import DAdaptSGD as DAdaptSGD
    from thalweg.optim.d_adaptation import Prodigy as Prodigy
    from thalweg.optim.dion2 import Dion2 as Dion2
    from thalweg.optim.dog import DoG as DoG
    from thalweg.optim.dog import DoWG as DoWG
    from thalweg.optim.dog import LDoG as LDoG
    from thalweg.optim.factored import CAME as CAME
    from thalweg.optim.factored import SM3 as SM3
    from thalweg.optim.factored import Adafactor as Adafactor
    from thalweg.optim.inertia import AccSGD as AccSGD
    from thalweg.optim.inertia import Adai as Adai
    from thalweg.optim.layerwise import LAMB as LAMB
    from thalweg.optim.layerwise import LARS as LARS
    from thalweg.optim.layerwise import Fromage as Fromage
    from thalweg.optim.lbfgs import LBFGS as LBFGS
    from thalweg.optim.low_rank import APOLLO as APOLLO
    from thalweg.optim.low_rank import GaLore as GaLore
    from thalweg.optim.madgrad import MADGRAD as MADGRAD
    from thalweg.optim.mano import Mano as Mano
    from thalweg.optim.momo import MoMo as MoMo
    from thalweg.optim.momo import MoMoAdam as MoMoAdam
    from thalweg.optim.muon import Muon as Muon
    from thalweg.optim.normuon import NorMuon as NorMuon
    from thalweg.optim.parameter_free import COCOB as COCOB
    from thalweg.optim.projected import SGDP as SGDP
    from thalweg.optim.projected import AdamP as AdamP
    from thalweg.optim.psgd import PSGDKron as PSGDKron
    from thalweg.optim.schedule_free import ScheduleFreeAdamW as ScheduleFreeAdamW
    from thalweg.optim.schedule_free import ScheduleFreeRAdam as ScheduleFreeRAdam
    from thalweg.optim.schedule_free import ScheduleFreeSGD as ScheduleFreeSGD
    from thalweg.optim.scion import Scion as Scion
    from thalweg.optim.sgd import ASGD as ASGD
    from thalweg.optim.sgd import QHM as QHM
    from thalweg.optim.sgd import SGD as SGD
    from thalweg.optim.sgd import SGDW as SGDW
    from thalweg.optim.sgd import AggMo as AggMo
    from thalweg.optim.sgd import Momentum as Momentum
    from thalweg.optim.sgd import Nesterov as Nesterov
    from thalweg.optim.sgd import SignSGD as SignSGD
    from thalweg.optim.sgd import Signum as Signum
    from thalweg.optim.shampoo import Shampoo as Shampoo
    from thalweg.optim.sign import Lion as Lion
    from thalweg.optim.sign import Tiger as Tiger
    from thalweg.optim.soap import SOAP as SOAP
    from thalweg.optim.soap_muon import SOAPMuon as SOAPMuon
else:
    # making a class ready takes its time: of a hundred, only those that are asked for are imported
    from thalweg._base import lazy as _lazy

    #: what each family's file defines; the imports above tell it type checkers and editors
    _FAMILIES = {
        "adam": "Adam Adamax AdamW NAdam NAdamW RAdam",
        "adamuon": "AdaMuon",
        "adamw": "AdamC StableAdamW",
        "adaptive": "Adadelta Adagrad RMSprop Rprop",
        "averages": "ADOPT MARS AdaBelief AdaBound AdaMod Adan AdEMAMix Grams LaProp QHAdam SimplifiedAdEMAMix Yogi "
        "diffGrad",
        "blockwise": "AdamMini Amos NovoGrad",
        "curvature": "AdaHessian SophiaG SophiaH",
        "d_adaptation": "DAdaptAdam DAdaptSGD Prodigy",
        "dion2": "Dion2",
        "dog": "DoG DoWG LDoG",
        "factored": "CAME SM3 Adafactor",
        "inertia": "AccSGD Adai",
        "layerwise": "LAMB LARS Fromage",
        "lbfgs": "LBFGS",
        "low_rank": "APOLLO GaLore",
        "madgrad": "MADGRAD",
        "mano": "Mano",
        "momo": "MoMo MoMoAdam",
        "muon": "Muon",
        "normuon": "NorMuon",
        "parameter_free": "COCOB",
        "projected": "SGDP AdamP",
        "psgd": "PSGDKron",
        "schedule_free": "ScheduleFreeAdamW ScheduleFreeRAdam ScheduleFreeSGD",
        "scion": "Scion",
        "sgd": "ASGD QHM SGD SGDW AggMo Momentum Nesterov SignSGD Signum",
        "shampoo": "Shampoo",
        "sign": "Lion Tiger",
        "soap": "SOAP",
        "soap_muon": "SOAPMuon",
    }
    _HOMES = {name: family for family, names in _FAMILIES.items() for name in names.split()}
    __all__ = sorted(_HOMES)
    #: what `torch.optim` has in addition to optimizers, for a script in which this package stands in its place
    _TORCHS = ("lr_scheduler", "swa_utils")

    def __getattr__(name):
        if name == "Optimizer":
            from torch.optim import Optimizer

            return Optimizer
        return _lazy.attribute(__name__, name, {**_HOMES, **dict.fromkeys([*_FAMILIES, *_TORCHS])})

    def __dir__():
        return sorted({*globals(), *_HOMES})
