"""What stands around any optimizer, ours or torch's, and is one itself."""

from thalweg.wrap.ema import EMA
from thalweg.wrap.ema_nesterov import EMANesterov
from thalweg.wrap.gpa import GPA
from thalweg.wrap.lookahead import Lookahead
from thalweg.wrap.mechanic import Mechanic
from thalweg.wrap.sam import ASAM, SAM
from thalweg.wrap.snoo import SNOO

__all__ = ["ASAM", "EMA", "GPA", "SAM", "SNOO", "EMANesterov", "Lookahead", "Mechanic"]
