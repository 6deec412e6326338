"""What is wrong with a run: found before it starts by :func:`check`, and while it goes on by :func:`watch`.

Each cause is named, with evidence and remedy.
"""

from thalweg.diagnosis.causes import Cause, causes
from thalweg.diagnosis.finding import Finding
from thalweg.diagnosis.inflight.fitting import FitWatch
from thalweg.diagnosis.inflight.watching import Watch, WatchWarning, watch
from thalweg.diagnosis.preflight.checking import check
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.report import CheckReport

__all__ = ["Cause", "CheckReport", "Finding", "Fine", "FitWatch", "Watch", "WatchWarning", "causes", "check", "watch"]
