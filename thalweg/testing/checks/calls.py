"""``step`` is called as torch's is: with a closure, with hooks around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.testing.suite import Trial, holds
from thalweg.testing.verdicts import expect


@holds(on="in turn")
def closures_and_hooks_are_called(t: Trial) -> None:
    """``step(closure)`` computes the loss with gradients on, gives it back, and goes down; hooks before and after."""
    params = t.case.start()
    optimizer = t.make(params)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Any = sum((p**2).sum() for p in params)
        loss.backward()
        calls.append("closure")
        return loss  # type: ignore[no-any-return]

    begin = closure().item()
    given = t.case.feed(optimizer, 0)
    own = "closure" in given
    losses = [optimizer.step(closure) for _ in range(3)]
    expect(all(isinstance(x, (Tensor, float)) for x in losses), f"step(closure) gives {losses[0]!r}, not the loss")
    found = [float(torch.as_tensor(x).detach()) for x in losses]
    expect(abs(found[0] - begin) <= 1e-9 * begin, f"the first step gives a loss of {found[0]:.6g}; it was {begin:.6g}")
    expect(found[2] < begin, f"after two steps the sum of squares is {found[2]:.6g}; it was {begin:.6g}")
    around = [c for c in calls[1:] if c != "closure"]
    expect(around == ["before", "after"] * 3, f"three steps called hooks as {around}")
    if not own:
        expected = ["closure", *["before", "closure", "after"] * 3]
        expect(calls == expected, f"three steps called {calls[1:]}, not {expected[1:]}")


@holds()
def gradients_of_the_user_are_not_switched_off(t: Trial) -> None:
    """After a step torch records gradients as before, and parameters still require them."""
    params = t.case.start()
    t.case.walk(t.make(params), params, 1)
    expect(torch.is_grad_enabled(), "after a step gradients are off")
    expect(all(p.requires_grad and p.is_leaf for p in params), "after a step parameters require no gradient")
