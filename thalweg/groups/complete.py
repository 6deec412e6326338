"""Whether hand-made groups hold every parameter once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import bad_argument


def check(model: nn.Module, *parts: torch.optim.Optimizer | Iterable[Any]) -> None:
    """Refuse optimizers, or parameter groups, that together do not hold each parameter to train exactly once.

    Args:
        model: the module that is trained. Frozen parameters may be left out; tied ones are one.
        parts: optimizers; or what these take: parameters, (name, parameter) pairs, or groups.

    Raises:
        ValueError: for parameters that are missing, that stand in several places, or that are not the model's (as
            after it was built again, or a module replaced). It names them.
    """
    given = [p for part in parts for p in _parameters(part)]
    count = Counter(map(id, given))
    names = {id(p): name for name, p in model.named_parameters()}
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in count]
    twice = [name for name, p in model.named_parameters() if count[id(p)] > 1]
    foreign = [f"number {i}, {tuple(p.shape)}" for i, p in enumerate(given) if id(p) not in names]
    for wrong, allowed in (
        (missing, "every parameter of the model, but these are missing"),
        (twice, "every parameter once, but these are there several times"),
        (foreign, "parameters of the model, but these are of none of its modules"),
    ):
        if wrong:
            raise bad_argument("parts", ", ".join(wrong), allowed)


def _parameters(part: torch.optim.Optimizer | Iterable[Any]) -> Iterator[Tensor]:
    for one in part.param_groups if isinstance(part, torch.optim.Optimizer) else part:
        if isinstance(one, dict):
            yield from _parameters([one["params"]] if isinstance(one["params"], Tensor) else one["params"])
        else:
            yield one[1] if isinstance(one, tuple) else one
