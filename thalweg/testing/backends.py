"""The ways in which a case computes the same step."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from thalweg import optim

if TYPE_CHECKING:
    from thalweg.testing.case import Case

#: the oracle first, so that others are compared with it
OURS = ("eager", "foreach", "cpu", "triton")


def ways(case: Case) -> dict[str, Mapping[str, Any]]:
    """Arguments of the constructor by a word; the first is the one that others are compared with."""
    if isinstance(case.backends, Mapping):
        return dict(case.backends)
    if case.backends is not None:
        return {name: {"backend": name} for name in case.backends}
    if case.declared:
        return {name: {"backend": name} for name in OURS if serves(name, case.device)}
    if not case.takes("foreach"):
        return {"": {}}
    found: dict[str, Mapping[str, Any]] = {"loop": {"foreach": False}, "foreach": {"foreach": True}}
    if case.takes("fused") and _fuses(case):
        found["fused"] = {"fused": True}
    return found


@functools.cache
def serves(name: Any, device: str) -> bool:
    """Whether a backend of Thalweg runs on this machine."""
    if name == "triton" and torch.device(device).type == "cpu":  # its interpreter would take minutes
        return False
    p = torch.nn.Parameter(torch.zeros(2, device=device))
    p.grad = torch.ones_like(p)
    try:
        optim.SGD([p], backend=name).step()
    except ValueError:
        return False
    return True


def _fuses(case: Case) -> bool:
    try:
        case.make(case.start(), fused=True)
    except (RuntimeError, ValueError, TypeError):
        return False
    return True
