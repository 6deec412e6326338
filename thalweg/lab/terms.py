"""On what terms a contestant races that is not one of the field: sentences for the rules of a race."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thalweg.lab.contestant import Contestant


def terms(field: Sequence[Contestant]) -> list[str]:
    """A sentence for each kind of special terms, with the labels that it concerns; none for a plain field."""
    recipes = [c for c in field if not c.tuned]
    carried = [c for c in field if c.transferred]
    asking = [c for c in field if c.traits.closure]
    ranges = [c for c in field if c.lr_range]
    single = [c for c in field if c.tuned and c.traits.one_group]
    own = [c for c in field if c.traits.decay == "its own way"]
    said = (
        (recipes, "present recipe, not tuned. It runs as it was written: one learning rate and one weight decay for "
         "all parameters, and the class's own defaults for what it does not say. Warmup and schedule are the race's."),
        (carried, f"{carried[0].transferred if carried else ''}, where the search was; here is none."),
        (asking, "asks for the loss itself, and is charged for every pass (forward and backward) that it makes. Steps "
         "of such a run are counted in passes, its schedule goes by passes, and a step for which too few passes are "
         "left is taken back."),
        (ranges, "the learning rate is searched within the range that was given, and not beyond it."),
        (single, "takes one parameter group, so there is no multiplier to tune."),
        (own, "weight decay acts in the class's own way; it is not p ← p − lr·λ·p."),
    )  # fmt: skip
    return [f"{_names(concerned)}: {text}" for concerned, text in said if concerned]


def _names(contestants: Iterable[Contestant]) -> str:
    return ", ".join(c.label for c in contestants)
