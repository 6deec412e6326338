"""Parameters and states in fewer bits."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.testing.backends import ways
from thalweg.testing.case import Case
from thalweg.testing.checks.reasons import few_tensors, lacks
from thalweg.testing.checks.rule import floor
from thalweg.testing.suite import Trial, holds
from thalweg.testing.verdicts import expect, same
from thalweg.testing.walks import copies, distance

FORMAT_STEPS = 8
#: how states are kept, and how parameters in bfloat16
FORMATS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "states in bfloat16": (torch.float32, {"state_dtype": "bfloat16"}),
    "states in int8": (torch.float32, {"state_dtype": "int8"}),
    "rounded at random": (torch.bfloat16, {"rounding": "stochastic"}),
    "8 bits beside": (torch.bfloat16, {"master": "split8"}),
    "16 bits beside": (torch.bfloat16, {"master": "split16"}),
}
#: each of them once, where to the bit is asked for: what one of two loses shows, whatever the other does
TOGETHER: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "states in int8, rounded at random": (torch.bfloat16, {"state_dtype": "int8", "rounding": "stochastic"}),
    "states in bfloat16, 8 bits beside": (torch.bfloat16, {"state_dtype": "bfloat16", "master": "split8"}),
    "16 bits beside": FORMATS["16 bits beside"],
}


def _narrow(case: Case, flags: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return ((str(d)[6:], d) for d in case.dtypes if d != torch.float64)


def _float64_only(case: Case) -> str | None:
    return None if list(_narrow(case, {})) else "float64 is all that it serves"


@holds(unless=[_float64_only], variants=_narrow)
def follows_float64_in_fewer_bits(t: Trial) -> None:
    """Five steps in each dtype end near those in float64, and the parameters keep their dtype."""
    dtype: torch.dtype = t.variant[1]
    eps = floor(t, dtype)
    exact, start, params = t.case.start(), t.case.start(), t.case.start(dtype=dtype)
    for some in (exact, params):
        t.case.walk(t.make(some, **eps), some, 5)
    expect(all(p.dtype == dtype for p in params), "parameters have another dtype after the steps")
    moved, off = distance(exact, start), distance(exact, [p.double() for p in params])
    rounding = 40 * torch.finfo(dtype).eps * max(p.abs().max().item() for p in exact if p.numel())
    expect(
        off <= 0.25 * moved + rounding,
        f"after 5 steps in {t.variant[0]} parameters are {off:.2g} from those in float64, which moved by {moved:.2g}",
    )


def _no_two_dtypes(case: Case) -> str | None:
    return None if len(case.dtypes) > 1 else "it serves one dtype only"


@holds(on="in turn", unless=[_no_two_dtypes, few_tensors])
def dtypes_may_stand_side_by_side(t: Trial) -> None:
    """Parameters of several dtypes in one group move as those of each dtype do in a group of their own."""
    together, apart = _of_many_dtypes(t.case), _of_many_dtypes(t.case)
    a, each = t.make(together), [t.make([p]) for p in apart] if not t.case.coupled else [t.make(apart)]
    for step in range(3):
        for params in (together, apart):
            generator = torch.Generator().manual_seed(step)
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
        for optimizer in (a, *each):
            t.case.advance(optimizer, step)
    same(together, apart, "parameters of several dtypes in one group move otherwise than by themselves")
    expect(all(p.isfinite().all() for p in together), "parameters of several dtypes in one group are no numbers")


def _of_many_dtypes(case: Case) -> list[torch.nn.Parameter]:
    dtypes = sorted(case.dtypes, key=lambda dtype: dtype.itemsize)
    shapes = [case.shapes[i % len(case.shapes)] for i in range(len(dtypes))]
    return [case.start([shape], dtype)[0] for shape, dtype in zip(shapes, dtypes, strict=True)]


@holds(unless=[lacks("state_dtype")], variants=lambda case, flags: FORMATS.items())
def follows_full_precision_in_every_format(t: Trial) -> None:
    """Eight steps in each format of states and parameters end near those in float32, but for how they are stored."""
    dtype, given = t.variant[1]
    start, exact = _in_float32(t.case, dtype, t.backend[0])
    params = [torch.nn.Parameter(p.clone()) for p in start]
    t.case.walk(t.make(params, **given), params, FORMAT_STEPS)
    moved, off = _apart(start, exact), _apart(params, exact)
    drift = FORMAT_STEPS if given.get("rounding") == "stochastic" else 1
    stored = torch.finfo(dtype).eps * drift**0.5 * _apart(exact, [torch.zeros_like(p) for p in exact])
    expect(
        off <= 0.3 * moved + stored,
        f"{FORMAT_STEPS} steps in this format end {off:.2g} from where they end in float32, {moved:.2g} from the start",
    )


@functools.lru_cache(maxsize=2)
def _in_float32(case: Case, dtype: torch.dtype, backend: str) -> tuple[list[Tensor], list[Tensor]]:
    """A start in ``dtype``, and where steps in float32 lead from it: the same for several formats, tried in turn."""
    start = copies(case.start(dtype=dtype))
    exact = [torch.nn.Parameter(p.to(torch.float32, copy=True)) for p in start]
    case.walk(case.make(exact, **ways(case)[backend]), exact, FORMAT_STEPS)
    return start, copies(exact)


def _apart(a: Iterable[Tensor], b: Iterable[Tensor]) -> float:
    """The Euclidean distance of all numbers."""
    apart = [(p.detach().float() - q.detach().float()).flatten() for p, q in zip(a, b, strict=True)]
    return float(torch.cat(apart).norm())


@holds(unless=[lacks("state_dtype")], variants=lambda case, flags: TOGETHER.items())
def resumes_in_every_format(t: Trial) -> None:
    """After two steps a checkpoint through a file; two more lead alike, to the bit: rounding at random goes on."""
    dtype, given = t.variant[1]
    params, again, _ = resumed(t, 2, dtype, given)
    same(params, again, "2 steps, a checkpoint and 2 steps lead elsewhere than 4 steps")


def resumed(
    t: Trial, steps: int, dtype: torch.dtype = torch.float64, given: Mapping[str, Any] | None = None, **late: Any
) -> tuple[Any, Any, Any]:
    """Where an optimizer leads that goes on after ``steps`` steps, where a new one that loads its checkpoint, and it.

    ``late`` is given to the new one's constructor.
    """
    params = t.case.start(dtype=dtype)
    first = t.make(params, **(given or {}))
    t.case.walk(first, params, steps)
    again = [torch.nn.Parameter(p.detach().clone()) for p in params]
    second = t.make(again, **(given or {}), **late)
    second.load_state_dict(through_a_file(first.state_dict()))
    for optimizer, some in ((first, params), (second, again)):
        t.case.walk(optimizer, some, steps, start=steps)
    return params, again, first


def through_a_file(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Saved and loaded as a checkpoint is, by the loader that executes nothing."""
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded
