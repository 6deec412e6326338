"""The figures of a report: from the result to drawings.

`verdicts` (differences by seed against the margin), `curves` (losses on the way), `horizons` (complete runs), `tuning`
(what the search saw), `bars` (time and memory), `across` (several tasks), `picture` (a race at one glance).
"""

from thalweg.lab.report.figures.across import profile, tasks
from thalweg.lab.report.figures.bars import memory, time_split
from thalweg.lab.report.figures.curves import curves
from thalweg.lab.report.figures.horizons import horizons
from thalweg.lab.report.figures.picture import picture
from thalweg.lab.report.figures.tuning import multiplier_legend, sensitivity, tuning_curves
from thalweg.lab.report.figures.verdicts import verdicts

__all__ = [
    "curves",
    "horizons",
    "memory",
    "multiplier_legend",
    "picture",
    "profile",
    "sensitivity",
    "tasks",
    "time_split",
    "tuning_curves",
    "verdicts",
]
