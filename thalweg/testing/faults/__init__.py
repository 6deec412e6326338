"""Runs that are broken on purpose, and healthy ones beside them: what finds faults is tried on these.

Each :class:`Fault` says what is broken, by which names of causes that may be called, in which layer, from which step
on, and whether it can be found before training; ``build()`` makes the run, ``updates()`` of that trains it::

    from thalweg.testing.faults import FAULTS

    setup = FAULTS["new_head"].build()
    arguments, named = setup.arguments()
    print(thalweg.check(*arguments, **named))
"""

from thalweg.testing.faults import data, inside, loops, models, optimizers, schedules  # noqa: F401 - they register themselves
from thalweg.testing.faults.fault import FAULTS, Fault
from thalweg.testing.faults.healthy import HEALTHY
from thalweg.testing.faults.setup import Loop, Setup

__all__ = ["FAULTS", "HEALTHY", "Fault", "Loop", "Setup"]
