"""Gradients are the user's: they are read, may be missing, may be sparse."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from thalweg.testing.checks.reasons import without_comparison
from thalweg.testing.suite import Trial, holds
from thalweg.testing.verdicts import NotApplicable, expect, same
from thalweg.testing.walks import copies, gradients


@holds(over="every", on="flags on the first", matters=without_comparison)
def gradients_are_left_as_they_were(t: Trial) -> None:
    """After two steps each ``grad`` is the same tensor, with the same values, and was not even written over.

    With flags only where there is one backend; else the comparison of backends looks at this, too.
    """
    params = t.case.start()
    optimizer = t.make(params)
    grads = gradients(params, 0)
    before, versions = copies(grads), [g._version for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = g
    for step in range(2):
        given = t.case.feed(optimizer, step)
        if "closure" in given:
            raise NotApplicable("its closure computes gradients again")
        optimizer.step(**given)
    expect(all(p.grad is g for p, g in zip(params, grads, strict=True)), "a gradient was replaced by another tensor")
    same(grads, before, "gradients have other values after a step: other code that reads them is misled")
    expect(versions == [g._version for g in grads], "gradients were written to, if only and then put back")


@holds(on="in turn")
def a_parameter_without_gradient_is_left_alone(t: Trial) -> None:
    """Every third gradient is missing, in turns: such a parameter stays where it is and counts its own steps.

    Compared with the reference, or where there is none with an optimizer for each parameter.
    """
    ours, theirs = t.case.start(), [torch.nn.Parameter(p.detach().cpu()) for p in t.case.start()]
    a = t.make(ours)
    if t.case.reference:
        others = [t.make_reference(theirs)]
    elif t.case.coupled:
        raise NotApplicable("tensors are coupled and there is no reference")
    else:
        theirs = t.case.start()
        others = [t.make([p]) for p in theirs]
    for step in range(6):
        for params in (ours, theirs):
            for i, (p, g) in enumerate(zip(params, gradients(params, step), strict=True)):
                p.grad = None if (i + step) % 3 == 0 else g
        before = copies(ours)
        t.case.advance(a, step)
        if not t.case.coupled:
            left_out = [i for i in range(len(ours)) if (i + step) % 3 == 0]
            same([ours[i] for i in left_out], [before[i] for i in left_out], "a parameter without a gradient moved")
        for other in others:
            if t.case.reference or any(p.grad is not None for p in other.param_groups[0]["params"]):
                t.case.advance(other, step)
    within = max(1e-12, t.case.within / 10) if t.case.reference else 1e-12
    same(ours, theirs, "where some gradients are missing at each step it goes elsewhere than it should", within)


@holds()
def a_sparse_gradient_is_served_or_refused(t: Trial) -> None:
    """It moves parameters as the dense one does; or it is an error, before anything changes."""
    shape = next((s for s in t.case.shapes if len(s) == 2 and 0 not in s), (4, 3))
    dense, sparse = t.case.start([shape]), t.case.start([shape])
    a, b, before = t.make(dense), t.make(sparse), copies(sparse)
    rows = torch.tensor([0, 2], device=t.case.device)
    values = gradients(sparse, 0)[0][:2].clone()
    sparse[0].grad = torch.sparse_coo_tensor(rows[None], values, tuple(shape), check_invariants=False)
    dense[0].grad = sparse[0].grad.to_dense()
    given = t.case.feed(b, 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it costs may be said
            b.step(**given)
    except Exception as error:
        same(sparse, before, f"it refused a sparse gradient ({error}) after it had moved the parameter")
        kept: Any = b.state.get(sparse[0], {})
        expect(not kept or "hessian" in kept, f"it refused a sparse gradient ({error}) after it had begun a state")
        clear = isinstance(error, (RuntimeError, ValueError)) and "sparse" in str(error).lower()
        expect(clear, f"it says of a sparse gradient {type(error).__name__}: {error}; nothing about its being sparse")
        return
    t.case.advance(a, 0)
    same(sparse, dense, "a sparse gradient leads elsewhere than the same one, dense", 1e-12)
