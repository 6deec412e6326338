"""What surrounds every direction: an open list of transforms, built in and the user's own.

A step goes through them in this order:

1. the inverse of the loss scale, where ``GradScaler`` gives one;
2. ``before`` of the built-in transforms that keywords switch on, in the order of :data:`STANDARD`;
3. ``before`` of those in ``transforms=[…]``, in the order of the list: first of the class, then of the constructor;
4. coupled decay;
5. the direction;
6. ``after`` of those in ``transforms=[…]``, in the order of the list;
7. ``after`` of the built-in ones, in the order of :data:`STANDARD`;
8. decoupled decay and the step.

So those in the list stand next to the direction, on both sides. A built-in one that is in the list acts there, and not
in its place among the others.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from thalweg.ir.names import seen_by
from thalweg.ir.transforms import clipping, gradients, steps
from thalweg.ir.transforms.base import Transform, coupled

#: those that every optimizer has as keywords, in the order in which they act
STANDARD: tuple[type[Transform], ...] = (
    gradients.maximize,
    clipping.clip_value,
    clipping.clip_norm,
    clipping.clip_global_norm,
    clipping.clip_adaptive,
    gradients.centralize,
    gradients.gradient_noise,
    gradients.grokfast,
    gradients.orthograd,
    steps.cautious,
    steps.cautious_decay,
    steps.hyperball,
    steps.trust_ratio,
)


def update(rule: Any, p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
    """One whole update of one tensor; the only place where a direction becomes a step.

    Args:
        rule: the optimizer class: its ``direction(p, g, s, h)`` gives the direction u, or u and what decoupled decay
            takes from, where that is not p.
        p: the parameter. Not written.
        g: its gradient. Not written.
        s: its state; what ``direction`` assigns to an attribute is the new state.
        h: the group's hyperparameters.

    Returns:
        The new parameter.
    """
    standard, listed = ([(t, *seen_by(t, s, h)) for t in kind if t.is_on(h)] for kind in (rule.standard, rule.listed))
    if h.inverse_scale:
        g = g * h.inverse_scale
    for t, mine, known in (*standard, *listed):
        g = _given(t.before, t.before(p, g, mine, known))
    g = coupled(p, g, h)
    u: Any = rule.direction(p, g, s, h)
    u, q = u if isinstance(u, tuple) else (u, p)
    for t, mine, known in (*listed, *standard):
        new = _given(t.after, t.after(p, g, u, q, mine, known))
        u, q = new if isinstance(new, tuple) else (new, q)
    own = [one for one in (*standard, *listed) if one[0].step is not Transform.step]
    if len(own) > 1:
        names = " and ".join(t.__name__ for t, *_ in own)
        raise ValueError(f"{names}: expected one of them, since each makes the step itself. Switch the others off")
    t, mine, known = own[0] if own else (Transform, s, h)
    return _given(t.step, t.step(p, u, q, mine, known))  # type: ignore[no-any-return]


def _given(function: Any, value: Any) -> Any:
    """The result of a transform's function.

    Raises:
        TypeError: where it gave nothing.
    """
    if value is None:
        raise TypeError(f"{function.__qualname__} gave None: expected it to return what it made")
    return value
