"""The rule is the one that it says: against a reference, with every flag, in every implementation."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from thalweg.engine.optimizer import Optimizer
from thalweg.ir.fields import Hyper
from thalweg.testing.backends import ways
from thalweg.testing.case import IMPLEMENTATION, Case
from thalweg.testing.checks.reasons import compares_more, no_reference, one_way, other_numbers_only
from thalweg.testing.suite import Trial, holds, shown, without_flags
from thalweg.testing.verdicts import expect, fail, same
from thalweg.testing.walks import distance, give

STEPS = 100
#: with flags, whose effect must show by then, and on all backends but the last
FEW = 25


@holds(over="every", on="flags on the last", unless=[no_reference])
def equals_its_reference_for_100_steps(t: Trial) -> None:
    """Both walk from the same place along the same random gradients, in float64.

    100 steps on the last backend, which is the fastest, and 25 on the others; with flags 25 on the last alone. Another
    check holds backends to one another.
    """
    steps = STEPS if not t.flags and t.backend[0] == [*ways(t.case)][-1] else FEW
    ours = t.case.start()
    t.case.walk(t.make(ours), ours, steps)
    apart = distance(ours, _end(t.case, tuple(t.hypers.items()), steps))
    if not apart <= t.case.within:
        fail(f"{_when_they_part(t)}; after {steps} steps they are {apart:.2g} apart")


@functools.lru_cache(maxsize=4)
def _end(case: Case, flags: tuple[tuple[str, Any], ...], steps: int) -> list[Tensor]:
    """Where the reference leads: the same for all backends, which are tried one after the other."""
    theirs = _beside(case)
    case.walk(case.make_reference(theirs, **dict(flags)), theirs, steps)
    return theirs


def _beside(case: Case) -> list[Any]:
    """Parameters of the reference, which need not know another device than the CPU."""
    return [torch.nn.Parameter(p.detach().cpu()) for p in case.start()]


def _when_they_part(t: Trial) -> str:
    """The first step at which they are apart, and where."""
    ours, theirs = t.case.start(), _beside(t.case)
    a, b = t.make(ours), t.make_reference(theirs)
    for step in range(STEPS):
        t.case.walk(a, ours, 1, step)
        t.case.walk(b, theirs, 1, step)
        apart = [distance([p], [q]) for p, q in zip(ours, theirs, strict=True)]
        wrong = [i for i, d in enumerate(apart) if not d <= t.case.within]
        if wrong:
            p, d = ours[wrong[0]], apart[wrong[0]]
            where = f"in {len(wrong)} of {len(ours)} tensors; in that of shape {tuple(p.shape)} by {d:.2g}"
            look = "the rule itself or a default" if step == 0 else "what is kept from step to step"
            return f"it leaves its reference at step {step + 1}, {where}: look at {look}"
    return "it leaves its reference only sometimes: the same walk, taken again, agrees"


@holds(over="flags", on="last")
def every_flag_changes_the_path(t: Trial) -> None:
    """Eight steps with and without the flags must lead to different places; else they are ignored."""
    plain, flagged = _plain(t.case, t.backend[0]), t.case.taken(8, **t.backend[1], **t.hypers)
    expect(
        not distance(plain, flagged) <= 1e-6,
        f"{shown(t.flags)} changes nothing in 8 steps from the path of the defaults: it is ignored, or is the default",
    )


@functools.lru_cache(maxsize=1)
def _plain(case: Case, backend: str) -> list[Tensor]:
    """Where the defaults lead: the same for all flags, which are tried one after the other."""
    return list(case.taken(8, **ways(case)[backend], **case.base))


@holds(unless=[without_flags])
def every_hyperparameter_is_tried(t: Trial) -> None:
    """Each argument of the constructor stands in ``flags`` or ``options``, so that none can be ignored unseen."""
    tried = {"lr", *IMPLEMENTATION, *t.case.options, *(name for flags in t.case.flags for name in flags)}
    missing = [name for name in own(t.case) if name not in tried]
    expect(not missing, f"no flags of the case set {', '.join(missing)}: nothing shows that it does anything")


def own(case: Case) -> Iterator[str]:
    """What the constructor takes; of Thalweg's own rules, what they themselves declare and what reaches the rule."""
    rule = case.declared
    for name in case.arguments:
        if rule is None or (name in rule.hypers and _its_own(rule.hypers[name])):
            yield name


def _its_own(h: Hyper) -> bool:
    """Whether it is not of what surrounds any rule, though the rule may say in other words what it does."""
    base = Optimizer.hypers.get(h.name)
    return not h.constant and (base is None or replace(base, doc=h.doc) != h)


def _dtypes(case: Case, flags: Mapping[str, Any]) -> list[tuple[str, torch.dtype]]:
    """All for the defaults; for flags the widest, and where they change more than numbers one other, in its turn."""
    widest, *narrow = case.dtypes
    if other_numbers_only(case, flags):
        return [(str(widest)[6:], widest)]
    turn = list(case.flags).index(flags) % len(narrow) if flags and narrow else 0
    return [(str(d)[6:], d) for d in (widest, *(narrow[turn : turn + 1] if flags else narrow))]


@holds(over="every", unless=[one_way], variants=_dtypes, matters=compares_more)
def every_backend_takes_the_same_path(t: Trial) -> None:
    """Four steps, with the defaults in each dtype; with flags in float64, and on two backends in another dtype.

    Of flags that change numbers alone in what is declared, one set is tried, in float64: it is the same graph.

    The gradients must be as they were on each of them.
    """
    dtype: torch.dtype = t.variant[1]
    shapes = sorted({tuple(s) for s in t.case.shapes})  # some backends multiply matrices of one shape together
    within = 64 * torch.finfo(dtype).eps
    (_, first), *others = ways(t.case).items()
    flags = {**t.hypers, **floor(t, dtype)}
    a = _four_steps(t.case, shapes, dtype, {**first, **flags})
    for name, backend in others if not t.flags or dtype == t.case.dtypes[0] else others[:1]:
        b = _four_steps(t.case, shapes, dtype, {**backend, **flags})
        same(a, b, f"4 steps on {name} lead elsewhere than on {t.backend[0]}", within)


def _four_steps(case: Case, shapes: Iterable[tuple[int, ...]], dtype: torch.dtype, given: Mapping[str, Any]) -> Any:
    """Where they lead; the last gradients must not even be written over."""
    params = case.start(list(shapes), dtype)
    optimizer = case.make(params, **given)
    case.walk(optimizer, params, 3)
    give(params, 3)
    grads = [p.grad for p in params]
    case.advance(optimizer, 3)
    written = any(p.grad is g and g is not None and g._version for p, g in zip(params, grads, strict=True))
    expect(not written, f"gradients were written to with {shown(given)}")
    return params


def floor(t: Trial, dtype: torch.dtype) -> dict[str, float]:
    """In float16 the usual ε is 0."""
    small = dtype == torch.float16 and "eps" not in {**t.hypers, **t.case.options} and t.case.takes("eps")
    return {"eps": 1e-3} if small and isinstance(t.case.arguments["eps"].default, float) else {}
