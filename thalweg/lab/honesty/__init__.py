"""What makes a verdict dishonest, checked from the runs and the protocol by the program; nothing is taken on trust.

Two things are refused outright: tuning and verdict seeds that overlap, and unequal numbers of trials. All else becomes
a flag of the report: *ok* (checked, in order), *note* (the reader should know) or *warning* (the reader should doubt).

Of the protocol these keys are read; what is missing is said to be not recorded:

====================  ==================================================================================================
``baseline``          label of the declared baseline; else the first comparison's
``alpha``             of all comparisons together, at the first look (0.05)
``looks``             the other looks at the same pairs of classes (none)
``quiet``             whether the timing pass had a core to itself, and ``quiet_cpu_share``, how much of one
``backends``          label → backend that took the steps
``batch_size`` …      what is the same for all, see `tuning.SHARED`
``conditions``        label → the same and more, where a contestant had its own; optional
``held_out_seen``     how many of the examples that the evaluation feeds (``of``) are in the first ``batches``
``schedule_steps``    length of the schedule of a full run; optional
``repeats``           label → ``equal``, or by how much its run, made again, differs
``evaluation_noise``  by how much two evaluations of one model differed; optional
``fixed``             what the task declares to be the same for all seeds: ``model``, ``batches``; optional
``epochs``            passes over the training data in a full run, where the data are finite; optional
====================  ==================================================================================================

The margin is computed again from the baseline's runs, the intervals from everyone's. A run may hold ``schedule_steps``
of its own; without it the end of its curve is checked alone.
"""

from __future__ import annotations

from thalweg.lab.honesty import claims, conduct, runs, tuning
from thalweg.lab.honesty.record import Record
from thalweg.lab.result import Flag, RaceResult

#: every check, in the order of the report; each gives one flag, or refuses
CHECKS = (*tuning.CHECKS, *runs.CHECKS, *conduct.CHECKS, *claims.CHECKS)


def flags(result: RaceResult) -> list[Flag]:
    """The honesty check of a race: one flag for each item, in a fixed order.

    Args:
        result: everything but ``flags``, ``headline`` and ``sentences``, which are not read.

    Raises:
        ThalwegError: if tuning and verdict seeds overlap, or the numbers of trials differ.
    """
    record = Record(result)
    return [check(record) for check in CHECKS]
