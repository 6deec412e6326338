"""Slow weights, which move once after every k steps of an optimizer; the parameters then go on from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg.engine.dynamo import uncompiled
from thalweg.wrap.lists import copies, wide
from thalweg.wrap.wrapper import Closure, Wrapper


class SlowWeights(Wrapper):
    """Base of wrappers that declare ``k``, and say how the slow weights follow the fast ones.

    The slow weights begin as the parameters are before their first step.
    """

    tensors: ClassVar[tuple[str, ...]] = ("slow",)
    counts: ClassVar[dict[str, int]] = {"step": 0}

    @uncompiled
    @torch.no_grad()
    def step(self, closure: Closure | None = None, **more: Any) -> Any:
        """A step of the inner optimizer, which gets ``more``, such as MoMo's ``loss``; after every k-th a slow one."""
        self._check_step(closure)
        for group in self.param_groups:
            new = [p for p in self._moving(group, closure) if p not in self.kept]
            for p, start in zip(new, copies(new), strict=True):
                self.kept[p] = self._begun(start)
        loss = self.optimizer.step(closure, **more)
        for group in self.param_groups:
            fast = [p for p in group["params"] if p in self.kept]
            if self._count(group) % self._of(group, "k") == 0 and fast:
                slow = [self.kept[p]["slow"] for p in fast]
                self._follow(group, fast, slow, wide(fast))
                self._write(fast, slow)
        return loss

    def _begun(self, start: Tensor) -> dict[str, Tensor]:
        """What is kept of a parameter, from the copy of it before its first step."""
        return {"slow": start}

    def _follow(
        self, group: dict[str, Any], params: Sequence[Tensor], slow: list[Tensor], fast: Sequence[Tensor]
    ) -> None:
        """Move the slow weights of a group, in place; ``fast`` are the values of ``params``."""
        raise NotImplementedError
