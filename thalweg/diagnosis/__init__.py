"""What is wrong with a run: found before it starts by :func:`check`, and while it goes on by :func:`watch`.

Each cause is named, with evidence and remedy. Beside the loops of others watch ``TrainerWatch`` (transformers) and
``LightningWatch``, which are imported when they are asked for.
"""

from typing import Any

from thalweg.diagnosis.causes import Cause, causes
from thalweg.diagnosis.finding import Finding
from thalweg.diagnosis.inflight.fitting import FitWatch
from thalweg.diagnosis.inflight.watching import Watch, WatchWarning, watch
from thalweg.diagnosis.preflight.checking import check
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.report import CheckReport

__all__ = ["Cause", "CheckReport", "Finding", "Fine", "FitWatch", "Watch", "WatchWarning", "causes", "check", "watch"]

_OF_OTHERS = {"TrainerWatch": "transformers", "LightningWatch": "lightning"}


def __getattr__(name: str) -> Any:
    if name not in _OF_OTHERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    library = _OF_OTHERS[name]
    try:
        return getattr(importlib.import_module(f"{__name__}.trainers.{library}"), name)
    except ImportError as error:
        raise ImportError(
            f"{name} needs {library}, which cannot be imported ({error}): pip install {library}"
        ) from error
