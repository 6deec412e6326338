"""What surrounds a direction, for ``transforms=[…]`` of any optimizer of ours.

    AdamW(params, lr, transforms=[clip_global_norm(1.0), grokfast(2.0)])

The order in which they act is told in :mod:`thalweg.ir.transforms`. One of your own needs :mod:`thalweg.rule`.
"""

from thalweg.ir.transforms.base import Transform as Transform
from thalweg.ir.transforms.clipping import *  # noqa: F403
from thalweg.ir.transforms.gradients import *  # noqa: F403
from thalweg.ir.transforms.steps import *  # noqa: F403
