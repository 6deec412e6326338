"""Parameter groups."""

from __future__ import annotations

from typing import Any

import torch

from thalweg.testing.case import Case
from thalweg.testing.checks.reasons import few_tensors, no_rate
from thalweg.testing.suite import Trial, holds
from thalweg.testing.verdicts import expect, same
from thalweg.testing.walks import give


def _coupled(case: Case) -> str | None:
    return None if case.alone else "groups are coupled: one by itself steps otherwise"


@holds(on="in turn", unless=[no_rate, few_tensors, _coupled])
def groups_have_hyperparameters_of_their_own(t: Trial) -> None:
    """Two groups with other learning rates and decays move as two optimizers do."""
    together, apart = t.case.start(), t.case.start()
    own = [{"lr": 0.1}, {"lr": 0.02, **({"weight_decay": 0.5} if t.case.takes("weight_decay") else {})}]
    parts = zip((together[:2], together[2:]), own, strict=True)
    a = t.make([{"params": some, **given} for some, given in parts])
    others = [t.make(some, **given) for some, given in zip((apart[:2], apart[2:]), own, strict=True)]
    for step in range(5):
        give(together, step)
        give(apart, step)
        for optimizer in (a, *others):
            t.case.advance(optimizer, step)
    same(together, apart, "two groups do not move as they do by themselves")


@holds(unless=[few_tensors])
def a_group_that_is_added_later_is_like_one_from_the_start(t: Trial) -> None:
    """``add_param_group`` before the first step, and another one after it."""
    early, late = t.case.start(), t.case.start()
    a, b = t.make([{"params": early[:1]}, {"params": early[1:]}]), t.make(late[:1])
    b.add_param_group({"params": late[1:]})
    t.case.walk(a, early, 2)
    t.case.walk(b, late, 2)
    same(early, late, "a group that was added moves otherwise than one that was there at construction")
    more = t.case.start()
    b.add_param_group({"params": more})
    before = [p.detach().clone() for p in more if p.numel()]
    t.case.walk(b, [*late, *more], 3, start=3)  # of three steps of one length none takes back another
    still = any(torch.equal(p, q) for p, q in zip(before, [p for p in more if p.numel()], strict=True))
    expect(not still, "a parameter that was added after two steps does not move in the next three")


@holds()
def a_group_is_added_whole_or_not_at_all(t: Trial) -> None:
    """A parameter twice, and values that must be refused: an error, and the groups are as they were."""
    params = t.case.start()
    optimizer = t.make(params)
    wrong: list[dict[str, Any]] = [{"params": [*t.case.start()[:1], params[0]]}]
    if t.case.declared:
        wrong.append({"params": t.case.start(), "lr": -1.0})
    for group in wrong:
        try:
            optimizer.add_param_group(dict(group))
        except ValueError:
            expect(len(optimizer.param_groups) == 1, "a group that was refused is there nevertheless")
        else:
            what = "lr=-1.0" if "lr" in group else "a parameter that it has already"
            expect(False, f"a group with {what} was added without an error")
    t.case.walk(optimizer, params, 1)


@holds()
def parameters_keep_their_names(t: Trial) -> None:
    """Given as (name, parameter), they are named in the checkpoint."""
    params = t.case.start()
    names = [f"p{i}" for i in range(len(params))]
    optimizer = t.make(list(zip(names, params, strict=True)))
    found = optimizer.state_dict()["param_groups"][0].get("param_names")
    expect(found == names, f"parameters were named {names}; the checkpoint has param_names={found}")
