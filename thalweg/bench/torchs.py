"""Torch's optimizer of the same name, in its fastest form."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from thalweg.bench.entrants import SETTINGS, Entrant
from thalweg.bench.turns import seconds_of
from thalweg.bench.works import Load, Work

#: torch's own clipping, of the whole gradient to this norm
CLIP = 1.0
#: its forms, the fastest first, and what asks for each
FORMS = {"fused": {"fused": True}, "foreach": {"foreach": True}, "plain": {"foreach": False}}
#: number of tensors up to which foreach and the plain loop are both tried; above it the loop loses for certain, slowly
BOTH = 10_000

T = TypeVar("T")


def twin(name: str) -> Any:
    """``torch.optim``'s class of that name, or None."""
    cls = getattr(torch.optim, name, None)
    return cls if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) else None


def torchs(name: str, work: Work, dtype: torch.dtype, clip: bool = False) -> Entrant | None:
    """Torch's fastest of that name, warm: fused where torch has it, else the faster of foreach and the plain loop.

    Args:
        name: of the optimizer.
        work: what it steps, a fresh load of it.
        dtype: of the parameters.
        clip: whether ``clip_grad_norm_`` is a part of the step.

    Returns:
        None where torch has no such optimizer.

    Raises:
        Exception: what the plain form raises, where no form runs.
    """
    cls = twin(name)
    if cls is None:
        return None
    try:
        return _warm(cls, name, work.load(dtype), "fused", clip)
    except Exception:  # torch says in many ways that it cannot fuse
        pass
    try:
        listed = _warm(cls, name, work.load(dtype), "foreach", clip)
    except Exception:
        return _warm(cls, name, work.load(dtype), "plain", clip)
    if len(work.shapes) > BOTH:
        return listed
    return min((listed, _warm(cls, name, work.load(dtype), "plain", clip)), key=_seconds)


def _warm(cls: Any, name: str, load: Load, kind: str, clip: bool) -> Entrant:
    before = functools.partial(nn.utils.clip_grad_norm_, max_norm=CLIP, foreach=kind != "plain") if clip else None
    entrant = Entrant(load, build(cls, name, load, kind), f"clip_grad_norm_ + {kind}" if clip else kind, before)
    entrant.warm()
    return entrant


def build(cls: Any, name: str, load: Load, kind: str) -> list[torch.optim.Optimizer]:
    """The optimizer over the load; torch's Muon takes the matrices and fused AdamW the rest.

    Raises:
        TypeError: where the class has no such form.
    """
    given = arguments(cls, name, kind)
    if name != "Muon":
        return [cls(load.params, **given)]
    rest = load.rest()
    return [cls(load.matrices(), **given), *([torch.optim.AdamW(rest, fused=True)] if rest else [])]


def arguments(cls: Any, name: str, kind: str) -> dict[str, Any]:
    """What the class is given in addition to the parameters.

    Raises:
        TypeError: where the class has no such form.
    """
    takes = inspect.signature(cls).parameters
    if kind != "plain" and kind not in takes:
        raise TypeError(f"torch.optim.{cls.__name__} has no {kind}=")
    return {k: v for k, v in {**SETTINGS.get(name, {}), **FORMS[kind]}.items() if k in takes}


def compilable(cls: Any) -> str:
    """The form that ``torch.compile`` makes the most of."""
    return "foreach" if "foreach" in inspect.signature(cls).parameters else "plain"


def first_that_runs(make: Callable[[str], T], kinds: Sequence[str] = ("fused", "foreach")) -> tuple[str, T]:
    """What ``make`` makes of the fastest form that it does not refuse, and which that is.

    Args:
        make: builds a form.
        kinds: the forms, fastest first; then comes the plain one.

    Raises:
        Exception: the last form's, where all are refused.
    """
    for kind in kinds:
        try:
            return kind, make(kind)
        except Exception:  # torch says in many ways that it has no such form
            pass
    return "plain", make("plain")


def _seconds(entrant: Entrant) -> float:
    """Of one step."""
    entrant.prepare()
    return seconds_of(entrant.step, entrant.load.work.device)
