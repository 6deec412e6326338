"""What each parameter is in its model, and parameter groups made from that.

:func:`of` makes groups from rules; :func:`no_decay`, :func:`layer_decay`, :func:`mup` and :func:`muon` are the usual
ones in one call. All return a list of dicts for any ``torch.optim.Optimizer``; ``print`` shows who gets what.
"""

from thalweg.groups.assign import of
from thalweg.groups.by_role import multiplied, split
from thalweg.groups.complete import check
from thalweg.groups.decay import NoDecay
from thalweg.groups.depth import LayerDecay
from thalweg.groups.matrices import blocks
from thalweg.groups.places import Kind
from thalweg.groups.presets import layer_decay, muon, mup, no_decay
from thalweg.groups.roles import Role, describe, roles
from thalweg.groups.rules import Rule, times
from thalweg.groups.table import Groups, Row
from thalweg.groups.view import Param
from thalweg.groups.width import MuP
from thalweg.linalg.blocks import Blocks

__all__ = [
    "Blocks",
    "Groups",
    "Kind",
    "LayerDecay",
    "MuP",
    "NoDecay",
    "Param",
    "Role",
    "Row",
    "Rule",
    "blocks",
    "check",
    "describe",
    "layer_decay",
    "multiplied",
    "muon",
    "mup",
    "no_decay",
    "of",
    "roles",
    "split",
    "times",
]
