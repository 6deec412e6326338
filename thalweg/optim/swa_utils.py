"""torch's averages of weights, for a script that has put ``thalweg.optim`` in the place of ``torch.optim``."""

from torch.optim.swa_utils import *  # noqa: F403 - all of them are torch's
