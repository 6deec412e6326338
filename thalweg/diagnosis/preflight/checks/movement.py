"""What the steps change: all that is meant to move, by how much of a last place, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from thalweg.diagnosis import limits
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.known import Preflight
from thalweg.diagnosis.preflight.subject import modules_of

#: share of the norm of all gradients below which one is no more than rounding
SLIGHT = 1e-5
_NARROW = (torch.bfloat16, torch.float16)


def moving(known: Preflight) -> Iterator[Finding | Fine]:
    """Parameters with gradients that no step has changed."""
    rehearsal = known.rehearsal
    if rehearsal is None or not rehearsal.whole:
        return
    expected = [
        n for n, p in known.subject.trainable.items() if n not in rehearsal.silent and id(p) in known.subject.owners
    ]
    narrow = [n for n in expected if known.subject.trainable[n].dtype in _NARROW and not _keeps_bits(known, n)]
    yield from _swallowed(known, narrow)
    slight = SLIGHT * rehearsal.gradients[0]  # of a bias before a batch norm the gradient is rounding alone
    still = [
        n
        for n in expected
        if n not in rehearsal.moved and n not in narrow and _peak(known, n) > 0 and rehearsal.sizes.get(n, 0.0) > slight
    ]
    if still:
        yield finding(
            "does_not_move",
            f"{len(still)} parameters with gradients are the same to the last bit after {rehearsal.steps} steps at "
            f"learning rates up to {max(_peak(known, n) for n in still):.3g}.",
            still,
        )
    elif not narrow:
        yield Fine("steps", f"every parameter with a gradient moves ({len(expected)} of them)")


def stopped(known: Preflight) -> Iterator[Finding | Fine]:
    """Groups whose learning rate is zero throughout."""
    names = [n for n, p in known.subject.trainable.items() if id(p) in known.subject.owners and _peak(known, n) == 0]
    if names:
        yield finding("lr_zero", "The learning rate is 0 at every step of the run.", names, lr="1e-3")


def _swallowed(known: Preflight, narrow: list[str]) -> Iterator[Finding | Fine]:
    rehearsal = known.rehearsal
    assert rehearsal is not None
    shares = {n: rehearsal.changed[n] for n in narrow if n in rehearsal.changed}
    if not shares:
        return
    sizes = {n: known.subject.trainable[n].numel() for n in shares}
    share = sum(shares[n] * sizes[n] for n in shares) / sum(sizes.values())
    units = sum(rehearsal.units.get(n, 0.0) * sizes[n] for n in shares) / sum(sizes.values())
    text = f"a step at the peak rate changes {share:.1%} of the 16-bit numbers, by {units:.2g} units in the last place"
    lost = [n for n in shares if shares[n] < limits.SWALLOWED]
    if share < limits.SWALLOWED:
        lr = max(_peak(known, n) for n in lost)
        yield finding(
            "update_swallowed",
            f"On average {text}; at least {limits.SWALLOWED:.0%} is expected.",
            lost,
            numbers={"share": share, "units": units},
            lr=f"{lr:g}",
        )
    else:
        some = f"; {', '.join(lost[:3])} hardly move" if lost else ""
        yield Fine("16-bit parameters", text + some, note=bool(lost))


def _keeps_bits(known: Preflight, name: str) -> bool:
    """Whether the optimizer keeps what rounding loses: a master copy, or rounding at random."""
    owner = known.subject.owner(name)
    if owner is None:
        return False
    state = owner.optimizer.state.get(known.subject.trainable[name], {})
    return (
        bool(owner.group.get("master"))
        or owner.group.get("rounding") == "stochastic"
        or any("master" in str(key) for key in state)
    )


def _peak(known: Preflight, name: str) -> float:
    owner = known.subject.owner(name)
    return known.peaks[owner.number][owner.place] if owner else 0.0


def frozen(known: Preflight) -> Iterator[Finding | Fine]:
    """What is frozen and changes all the same."""
    rehearsal = known.rehearsal
    if rehearsal is None or not rehearsal.steps:
        return
    moved = [name for name in _held(known) if name in rehearsal.moved]
    if moved:
        yield finding("frozen_moves", f"{len(moved)} frozen parameters changed in {rehearsal.steps} steps.", moved)


def _held(known: Preflight) -> Iterator[str]:
    """Frozen parameters that an optimizer has, or that share their memory with trained ones.

    Others the user's own code moves, as a teacher that follows its student within the forward pass.
    """
    subject = known.subject
    having = {id(p) for optimizer in subject.optimizers for group in optimizer.param_groups for p in group["params"]}
    trained = {p.untyped_storage().data_ptr() for p in subject.trainable.values()}
    for name, p in subject.parameters.items():
        if not p.requires_grad and (id(p) in having or p.untyped_storage().data_ptr() in trained):
            yield name


def statistics(known: Preflight) -> Iterator[Finding | Fine]:
    """Batch norms whose weights are frozen and that go on collecting statistics."""
    rehearsal = known.rehearsal
    if rehearsal is None or not rehearsal.steps:
        return
    collecting = [
        name
        for name, module in modules_of(known.subject.model, nn.modules.batchnorm._BatchNorm)
        if module._parameters.get("weight") is not None
        and not any(p.requires_grad for p in module.parameters())
        and f"{name}.running_mean" in rehearsal.buffers
        and f"{name}.weight" not in rehearsal.moved - {*_held(known)}
    ]
    if collecting:
        yield finding(
            "frozen_moves",
            f"The running statistics of {len(collecting)} batch norms changed in {rehearsal.steps} steps, while their "
            "weights are frozen.",
            collecting,
        )


def marked(known: Preflight) -> Iterator[Finding | Fine]:
    """Modules on which ``requires_grad`` was set as an attribute that nobody reads."""
    model = known.subject.model
    named = [
        name
        for name, module in model.named_modules()
        if vars(module).get("requires_grad") is False and any(p.requires_grad for p in module.parameters())
    ]
    if named:
        yield finding(
            "frozen_moves",
            f"{named[0]}.requires_grad = False was set on the module, which freezes nothing: its "
            f"{sum(1 for _ in model.get_submodule(named[0]).parameters())} parameters are trained.",
            named,
        )


CHECKS = (moving, stopped, frozen, statistics, marked)
