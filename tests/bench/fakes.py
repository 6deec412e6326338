"""Peers and optimizers that behave as the tests need."""

from types import SimpleNamespace

import torch

#: what stands in a signature for a value that must be given
REQUIRED = object()


class Lion(torch.optim.SGD):
    """A peer's optimizer of that name."""


class AdamW(torch.optim.AdamW):
    """A peer's that cannot step."""

    def step(self, closure=None):
        raise NotImplementedError("no sparse bananas")


class RMSprop(torch.optim.RMSprop):
    """A peer's that works."""


class SGDW(torch.optim.SGD):
    """A peer's that has no momentum unless it is told to, and a decay of its own."""

    def __init__(self, params, lr=REQUIRED, momentum=0.0, weight_decay=0.5, mode="plain"):
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)
        self.mode = mode


class SignSGD(SGDW):
    """A peer's that has momentum unless it is told not to."""

    def __init__(self, params, lr=1.0, momentum=0.9):
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=0.0)


class GaLore(torch.optim.AdamW):
    """A peer's that reads options of a group which its signature does not name."""

    def __init__(self, params, lr=1e-3, **group):
        super().__init__([{"params": list(params), **group}], lr=lr)


class SOAP(torch.optim.SGD):
    """A peer's that calls things otherwise."""

    def __init__(self, params, lr=1e-3, betas=(0.1, 0.2), max_precondition_dim=7, precondition_frequency=7):
        super().__init__(params, lr=lr)
        given = {"max_precondition_dim": max_precondition_dim, "precondition_frequency": precondition_frequency}
        self.param_groups[0] |= {"betas": betas, **given}


PEER = SimpleNamespace(
    SOAP=SOAP,
    Lion=Lion,
    AdamW=AdamW,
    rms_prop=RMSprop,
    sgdw=SGDW,
    SignSGD=SignSGD,
    GaLore=GaLore,
    SGD=torch.optim.SGD,
    Adam="a word",
)
