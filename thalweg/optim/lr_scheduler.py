"""torch's schedulers, for a script that has put ``thalweg.optim`` in the place of ``torch.optim``."""

from torch.optim.lr_scheduler import *  # noqa: F403 - all of them are torch's
from torch.optim.lr_scheduler import _LRScheduler as _LRScheduler  # what older scripts derive theirs from
