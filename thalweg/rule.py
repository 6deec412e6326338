"""All that a rule or a transform of one's own needs: ``from thalweg.rule import Optimizer, hyper, state, count, ops``.

- `Optimizer`: the base class; a subclass declares hyperparameters and state, and one pure ``direction``.
- `hyper`: a hyperparameter, with its default, range and meaning.
- `state`: what is kept for each parameter; `number`: a number that is; `count`: the number of updates.
- `shared`: a number that all parameters of a group have in common.
- `Transform`: the base class of what surrounds a direction, which declares the same and has ``before`` or ``after``.
- `ops`: the operations beyond torch's own: means and norms of rows and tensors, sums over all of them, leaves.

The rules of :mod:`thalweg.optim` are written with these names alone, but for a few that override a step.
"""

from thalweg.engine.optimizer import Optimizer as Optimizer
from thalweg.ir import ops as ops
from thalweg.ir.fields import count as count
from thalweg.ir.fields import hyper as hyper
from thalweg.ir.fields import number as number
from thalweg.ir.fields import shared as shared
from thalweg.ir.fields import state as state
from thalweg.ir.transforms.base import Transform as Transform

__all__ = ["Optimizer", "Transform", "count", "hyper", "number", "ops", "shared", "state"]
