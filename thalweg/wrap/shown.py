"""Wrappers in which the weights to use are not those that are trained: they are shown for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import torch

from thalweg.wrap.lists import assign
from thalweg.wrap.wrapper import Wrapper


class Shown(Wrapper):
    """Base of wrappers that keep, for each parameter, the value that is to be evaluated; ``shown`` is its name."""

    shown: ClassVar[str]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._swapped = False

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_between("a copy")
        return super().__getstate__()

    @contextlib.contextmanager
    def swap(self) -> Iterator[None]:
        """Let the parameters hold what is to be evaluated for a while; then what they held comes back, bit for bit.

        Raises:
            RuntimeError: within another ``swap``; and within this one from ``step``, ``state_dict``,
                ``load_state_dict`` and copies: the weights that are trained would be lost in them.
        """
        self._refuse_between("swap")
        self._forget_departed()
        params = list(self.kept)
        held = [p.detach().clone() for p in params]
        with torch.no_grad():
            assign(params, [self.kept[p][self.shown] for p in params])
        self._swapped = True
        try:
            yield
        finally:
            self._swapped = False
            with torch.no_grad():
                assign(params, held)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch; refused within ``swap``, whose end would overwrite what a model has loaded."""
        self._refuse_between("load_state_dict")
        super().load_state_dict(state_dict)

    def _refuse_between(self, what: str) -> None:
        if self._swapped:
            raise RuntimeError(
                f"{what} within swap(): the parameters hold their {self.shown}s now, and what they held would be lost. "
                "Leave the context first; model.state_dict() within it saves them"
            )
