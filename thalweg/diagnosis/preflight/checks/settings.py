"""Hyperparameters: ε, β, momentum and weight decay against what they meet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from thalweg.diagnosis import limits
from thalweg.diagnosis.families import ADAPTIVE, ORTHOGONAL, SIGN, Family, family_of, innermost
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.known import Preflight
from thalweg.diagnosis.preflight.subject import Owner
from thalweg.groups.places import is_norm


def eps(known: Preflight) -> Iterator[Finding | Fine]:
    """ε against the root of the second moment."""
    rehearsal = known.rehearsal
    if rehearsal is None or not rehearsal.below:
        return
    sizes = {name: known.subject.trainable[name].numel() for name in rehearsal.below}
    share = sum(rehearsal.below[name] * sizes[name] for name in sizes) / sum(sizes.values())
    if share > limits.EPS:
        names = [name for name, below in rehearsal.below.items() if below > limits.EPS]
        value = max(known.subject.owner(name).group["eps"] for name in names)  # type: ignore[union-attr]
        yield finding(
            "eps_dominates",
            f"{share:.0%} of the numbers have √v below ε = {value:g}; less than {limits.EPS:.0%} is expected.",
            names,
            numbers={"share": share, "eps": value},
            eps=f"{value * 1e-5:.0e}",
        )
    else:
        yield Fine("ε against √v", f"√v is below ε for {share:.1%} of the numbers")


def betas(known: Preflight) -> Iterator[Finding | Fine]:
    """β₁ and β₂ of optimizers of Adam's kind, and how far averages look back."""
    told = set()
    for optimizer in known.subject.optimizers:
        for group in optimizer.param_groups:
            pair = group.get("betas")
            adaptive = family_of(optimizer, group) is ADAPTIVE
            if adaptive and isinstance(pair, (tuple, list)) and len(pair) == 2:
                first, second = map(float, pair)
                if first > math.sqrt(second) and "swapped" not in told:
                    told.add("swapped")
                    yield finding(
                        "betas_swapped",
                        f"β₁ = {first:g} and β₂ = {second:g}; β₁ below √β₂ = {math.sqrt(second):.3g} is expected.",
                        betas=(second, first),
                    )
            yield from _memory(known, group, told)


def _memory(known: Preflight, group: dict[str, Any], told: set[str]) -> Iterator[Finding]:
    steps = known.subject.steps
    pair = group.get("betas") or ()  # three of them are averages of different lengths on purpose
    named = {f"β{'₁₂'[i]}": float(beta) for i, beta in enumerate(pair) if len(pair) == 2 and beta is not None}
    if isinstance(group.get("momentum"), float):
        named["momentum"] = group["momentum"]
    for name, beta in named.items():
        back = 1 / (1 - beta) if beta < 1 else math.inf
        if steps is not None and back > 1.01 * max(limits.MEMORY * steps, limits.MEMORY_USUAL) and name not in told:
            told.add(name)
            yield finding(
                "memory_too_long",
                f"{name} = {beta:g} averages over {back:.3g} steps, and the run has {steps}; at most "
                f"{limits.MEMORY * steps:g} is expected.",
                numbers={"back": back, "steps": steps},
                patch="betas=(0.9, 0.99)" if name != "momentum" else "momentum=0.9",
            )


def decay(known: Preflight) -> Iterator[Finding | Fine]:
    """Decay on gains and biases, and decay that is as large as the step."""
    yield from _on_vectors(known)
    yield from _dominating(known)


def _on_vectors(known: Preflight) -> Iterator[Finding | Fine]:
    subject = known.subject
    gains = [
        f"{name}.{own}".lstrip(".")
        for name, module in subject.model.named_modules()
        if is_norm(module)
        for own in module._parameters
    ]
    decayed: dict[str, tuple[Owner, float]] = {}
    for name, p in subject.trainable.items():
        owner = subject.owner(name)
        if owner and p.ndim < 2 and (strength := decay_of(owner)) > 0:
            decayed[name] = (owner, strength)
    hit = [name for name in gains if name in decayed]
    if not decayed:
        return
    strongest = max(strength for _, strength in decayed.values())
    owner = next(owner for owner, _ in decayed.values())
    in_a_run = max(lost(known, owner, strength) for owner, strength in decayed.values())
    text = f"λ = {strongest:g} acts on {len(decayed)} vectors"
    if hit and strongest >= limits.DECAY and in_a_run >= limits.DECAY_IN_A_RUN:
        yield finding(
            "decay_on_norms",
            f"{text}, {len(hit)} of them of norms, and takes {in_a_run:.1%} off them in {known.steps} steps; λ = 0 is "
            "expected.",
            hit,
            numbers={"decay": strongest, "in a run": in_a_run},
            optimizer=type(owner.optimizer).__name__,
            decay=f"{strongest:g}",
            lr=f"{known.peaks[owner.number][owner.place]:g}",
        )
    else:
        yield Fine("decay on vectors", f"{text} and takes {in_a_run:.2%} off them in {known.steps} steps", note=True)


def lost(known: Preflight, owner: Owner, strength: float) -> float:
    """The share of a weight that decay alone takes off in a run."""
    rates = known.curves[owner.number].rates[: known.steps]
    return 1 - math.exp(-strength * sum(rate[owner.place] for rate in rates))


def decay_of(owner: Owner) -> float:
    """The weight decay of a group; 0 where it has none, or keeps it as something else than a number."""
    value = owner.group.get("weight_decay", 0.0)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _dominating(known: Preflight) -> Iterator[Finding | Fine]:
    rehearsal = known.rehearsal
    if rehearsal is None or not rehearsal.steps:
        return
    shares = {}
    for name, p in known.subject.trainable.items():
        owner = known.subject.owner(name)
        if owner is None or p.ndim < 2 or name in rehearsal.silent:
            continue
        family, strength = family_of(owner.optimizer, owner.group), decay_of(owner)
        if family is not None and is_decoupled(owner, family):
            lr = known.peaks[owner.number][owner.place]
            shares[name] = min(1.0, lr * strength / max(rehearsal.early.get(name, math.inf), 1e-30))
        elif family is not None and rehearsal.sizes.get(name):  # behind a head of zeros the first gradient is zero
            pull = strength * rehearsal.weights[name]
            shares[name] = pull / (pull + rehearsal.sizes[name])
    heavy = [name for name, share in shares.items() if share > limits.DECAY_SHARE]
    if heavy and 2 * len(heavy) >= len(shares):
        strength = max(decay_of(known.subject.owner(name)) for name in heavy)  # type: ignore[arg-type]
        yield finding(
            "decay_dominates",
            f"Weight decay with λ = {strength:g} makes {max(shares[name] for name in heavy):.0%} of the first steps; "
            f"less than {limits.DECAY_SHARE:.0%} is expected.",
            heavy,
            decay=f"{strength / 100:g}",
        )


def is_decoupled(owner: Owner, family: Family) -> bool:
    """Whether decay shrinks the weights, and is no part of the gradient; where the group does not say, by the name."""
    stated = owner.group.get("decoupled_weight_decay")
    by_name = family in (ORTHOGONAL, SIGN) or type(innermost(owner.optimizer)).__name__.endswith("W")
    return by_name if stated is None else bool(stated)


CHECKS = (eps, betas, decay)
