"""Copies of an optimizer are optimizers."""

from __future__ import annotations

import copy
import pickle

from thalweg.testing.checks.checkpoints import own_attributes
from thalweg.testing.suite import Trial, holds
from thalweg.testing.verdicts import Failure, expect, same

COPIERS = {"deepcopy": copy.deepcopy, "pickle": lambda pair: pickle.loads(pickle.dumps(pair))}


@holds(on="last", variants=lambda case, flags: COPIERS.items())
def a_copy_goes_on_training_the_same(t: Trial) -> None:
    """An optimizer is copied with its parameters after three steps; both go on for three and end alike, to the bit.

    On the last backend, which keeps most for the next step.
    """
    params = t.case.start()
    optimizer = t.make(params)
    t.case.walk(optimizer, params, 3)
    twin, their_params = t.variant[1]((optimizer, params))
    words = f"copied by {t.variant[0]}"
    expect(repr(twin) == repr(optimizer), f"{words} it calls itself something else: {twin!r}")
    t.case.walk(optimizer, params, 3, start=3)
    try:
        t.case.walk(twin, their_params, 3, start=3)
    except (AttributeError, KeyError, TypeError) as error:
        lost = own_attributes(optimizer)
        raise Failure(f"{words} it cannot step: {type(error).__name__}: {error}{lost}") from error
    same(params, their_params, f"{words} after 3 steps it goes elsewhere in the next 3{own_attributes(optimizer)}")
