"""Tensors that are not rows of numbers side by side."""

from __future__ import annotations

import torch
from torch.nn import Parameter

from thalweg.testing.case import Case
from thalweg.testing.suite import Trial, holds
from thalweg.testing.verdicts import NotApplicable, expect, fail, same
from thalweg.testing.walks import drawn, gradients


def _not_claimed(case: Case) -> str | None:
    return None if any(0 in shape or not len(shape) for shape in case.shapes) else "the case's shapes have none such"


@holds(on="in turn", unless=[_not_claimed])
def tensors_without_dimension_or_element_are_served(t: Trial) -> None:
    """A 0-dim parameter moves as one of one element does, and the empty ones of the case's shapes do no harm."""
    if t.case.coupled:
        raise NotApplicable("tensors are coupled: an empty one may count")
    odd = [tuple(s) for s in t.case.shapes if 0 in s or not len(s)]
    params, alone = t.case.start([*odd, (3, 2)]), t.case.start([s for s in odd if not len(s)] + [(3, 2)])
    kept = [p for p in params if p.numel()]
    for p, q in zip(kept, alone, strict=True):
        q.data = p.detach().clone().reshape(q.shape)
    a, b = t.make(params), t.make(alone)
    for step in range(3):
        for p, q, g in zip(kept, alone, gradients(kept, step), strict=True):
            p.grad, q.grad = g, g.clone()
        for p in params:
            if not p.numel():
                p.grad = torch.zeros_like(p)
        for optimizer in (a, b):
            t.case.advance(optimizer, step)
    same(kept, alone, "beside empty tensors it moves otherwise than without them")
    expect(all(p.isfinite().all() for p in kept), "a 0-dim parameter is no number after three steps")


@holds(on="in turn")
def complex_parameters_move_as_pairs_or_are_refused(t: Trial) -> None:
    """A complex parameter moves as its real and imaginary parts do in a real tensor with a last dimension of two.

    A rule that looks at whole tensors is compared with its reference instead. What is not ``complex`` must refuse.
    """
    params = t.case.start([(4, 3)], torch.complex128)
    if not t.case.complex:
        try:
            t.case.walk(t.make(params), params, 1)
        except (ValueError, RuntimeError, TypeError):
            return
        fail("it took complex parameters, which the case says that it does not serve, without an error")
    optimizer = t.make_or_say("complex parameters", params)
    with t.may_refuse(params):
        t.case.walk(optimizer, params, 5)
    if t.case.reference:
        expected = [Parameter(p.detach().cpu()) for p in t.case.start([(4, 3)], torch.complex128)]
        t.case.walk(t.make_reference(expected), expected, 5)
        same(params, expected, "a complex parameter leads elsewhere than the reference", 1e-12)
        return
    pairs = [Parameter(torch.view_as_real(p.detach()).clone()) for p in t.case.start([(4, 3)], torch.complex128)]
    other, wide = t.make(pairs), t.case.start([(4, 3)], torch.complex128)
    for step in range(5):
        for p, g in zip(pairs, gradients(wide, step), strict=True):
            p.grad = torch.view_as_real(g)
        t.case.advance(other, step)
    same([torch.view_as_real(p.detach()) for p in params], pairs, "complex parameters do not move as pairs do", 1e-12)


@holds(on="in turn")
def strides_play_no_part(t: Trial) -> None:
    """Matrices stored by columns move as those stored by rows do, along gradients stored by rows, and stay so."""
    params = t.case.start()
    _walk_alike(t, [p.detach().mT.contiguous().mT if p.ndim > 1 else p.detach() for p in params])


@holds(on="in turn")
def gaps_in_memory_play_no_part(t: Trial) -> None:
    """Every second number of a longer row is a parameter like another."""
    params = t.case.start()
    _walk_alike(t, [torch.stack([p.detach(), p.detach()], -1)[..., 0] for p in params])


@holds(on="in turn")
def channels_last_plays_no_part(t: Trial) -> None:
    """A convolution's kernel in channels_last moves as it does in rows, and stays so."""
    kernel = drawn((6, 4, 3, 3), torch.float64, torch.Generator().manual_seed(0), t.case.device)
    t.make_or_say("tensors of four dimensions", [Parameter(kernel.clone())])
    _walk_alike(t, [kernel.to(memory_format=torch.channels_last)])


def _walk_alike(t: Trial, tensors: list[torch.Tensor]) -> None:
    plain = [Parameter(x.clone(memory_format=torch.contiguous_format)) for x in tensors]
    odd = [Parameter(x) for x in tensors]
    strides = [p.stride() for p in odd]
    t.case.walk(t.make(plain), plain, 5)
    with t.may_refuse(odd):
        t.case.walk(t.make(odd), odd, 5)
    same(odd, plain, "parameters with other strides lead elsewhere", 1e-12)
    expect(strides == [p.stride() for p in odd], "parameters have other strides after the steps")
