"""What is wrong with a run: found before it starts by :func:`check`, each cause named, with evidence and remedy."""

from thalweg.diagnosis.causes import Cause, causes
from thalweg.diagnosis.finding import Finding

__all__ = ["Cause", "Finding", "causes"]
