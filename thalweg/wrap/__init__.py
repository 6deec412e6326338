"""What stands around any optimizer, ours or torch's, and is one itself."""

from thalweg.wrap.ema import EMA
from thalweg.wrap.lookahead import Lookahead
from thalweg.wrap.mechanic import Mechanic
from thalweg.wrap.sam import ASAM, SAM

__all__ = ["ASAM", "EMA", "SAM", "Lookahead", "Mechanic"]
