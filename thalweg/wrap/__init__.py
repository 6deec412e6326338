"""What stands around any optimizer, ours or torch's, and is one itself."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thalweg.wrap.ema import EMA as EMA
    from thalweg.wrap.ema_nesterov import EMANesterov as EMANesterov
    from thalweg.wrap.gpa import GPA as GPA
    from thalweg.wrap.lookahead import Lookahead as Lookahead
    from thalweg.wrap.mechanic import Mechanic as Mechanic
    from thalweg.wrap.sam import ASAM as ASAM
    from thalweg.wrap.sam import SAM as SAM
    from thalweg.wrap.snoo import SNOO as SNOO
else:
    # whoever asks for an optimizer alone needs none of them
    from thalweg._base import lazy as _lazy

    _HOMES = {
        "ASAM": "sam",
        "EMA": "ema",
        "EMANesterov": "ema_nesterov",
        "GPA": "gpa",
        "Lookahead": "lookahead",
        "Mechanic": "mechanic",
        "SAM": "sam",
        "SNOO": "snoo",
    }
    __all__ = sorted(_HOMES)

    def __getattr__(name):
        return _lazy.attribute(__name__, name, {**_HOMES, **dict.fromkeys(_HOMES.values())})

    def __dir__():
        return sorted({*globals(), *_HOMES})
