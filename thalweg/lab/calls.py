"""Counts the calls of modules and of backward that are made while somebody is watched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from thalweg.lab.tasks.examples import rows

#: examples that are looked at in one call
MOST = 4096


class Calls:
    """Counters, which run within :meth:`counted`.

    Attributes:
        forward: calls of a module that no other module's call made.
        backward: runs of autograd's engine.
        fed: hashes of the examples that modules were given.
    """

    def __init__(self) -> None:
        self.forward = self.backward = 0
        self.fed: set[bytes] = set()
        self.depth = 0
        self.on = False

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is called meanwhile."""
        autograd: Any = torch.autograd
        engine = autograd._engine_run_backward

        def counting(*args: Any, **kwargs: Any) -> Any:
            self.backward += self.on
            return engine(*args, **kwargs)

        hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        autograd._engine_run_backward = counting
        self.on, self.depth = True, 0
        try:
            yield
        finally:
            self.on = False
            autograd._engine_run_backward = engine
            for hook in hooks:
                hook.remove()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count what is called meanwhile."""
        was, self.on = self.on, False
        try:
            yield
        finally:
            self.on = was

    def _enter(self, module: nn.Module, args: Any) -> None:
        if self.on and not self.depth:
            self.forward += 1
            self.fed.update(rows(args, MOST))
        self.depth += 1

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.depth -= 1
