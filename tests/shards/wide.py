"""What the wide matrix of layouts runs on each rank."""

import thalweg
from tests.shards.layouts import differing

#: what an optimizer needs to be told; those that need more than gradients are apart
GIVEN = {"GaLore": {"rank": 2}, "APOLLO": {"rank": 2}}


def every(layout, **more):
    """All optimizers on one layout: what differs, or the error."""
    found = {}
    for rule in thalweg.optimizers():
        try:
            bad = differing(rule, GIVEN.get(rule, {}), layout, **more)
        except Exception as error:
            bad = f"{type(error).__name__}: {str(error)[:300]}"
        if bad:
            found[rule] = bad
    return found
