"""Whether an optimizer steps tensors of which parts lie on several ranks as it steps whole ones."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from thalweg.testing import ranks as pool
from thalweg.testing import walks
from thalweg.testing.case import Case
from thalweg.testing.suite import shown
from thalweg.testing.verdicts import NotApplicable, fail

#: steps of a walk; before the last of them a checkpoint is loaded into another optimizer
STEPS = 4
#: by name, the dimension along which tensors are cut; None for none
LAYOUTS: dict[str, int | None] = {"rows": 0, "columns": 1, "replicated": None}


@dataclass(frozen=True)
class ShardedTrial:
    """A walk on so many ranks beside one on a single process, with a checkpoint on its way, and a missing gradient.

    Attributes:
        flags: hyperparameters.
        layout: how tensors lie on the ranks.
        ranks: how many.
    """

    case: Case
    flags: Mapping[str, Any]
    layout: str
    ranks: int

    @property
    def id(self) -> str:
        """The name of a test."""
        return f"{self.case.name}-the_bits_of_one_process-{self.ranks} ranks-{self.layout}-{shown(self.flags)}"

    def run(self) -> None:
        """Do what it says.

        Raises:
            Failure: if a bit differs, or the optimizer raises an error.
            NotApplicable: if the case cannot be sent to other processes.
        """
        try:
            pickle.dumps(self)
        except Exception as error:
            raise NotApplicable(f"other processes cannot import it: {error}") from error
        try:
            found = pool.shared(self.ranks).run(_differing, self)
        except pool.RankError as error:
            fail(str(error))
        for rank, (message, *_) in enumerate(one for one in found if one):
            fail(f"rank {rank}: {message}")


def sharded_trials(case: Case, ranks: int) -> Iterator[ShardedTrial]:
    """Every trial of a case on so many ranks: the defaults in every layout, each set of flags by rows."""
    for layout in LAYOUTS:
        yield ShardedTrial(case, {}, layout, ranks)
    for flags in case.flags:
        yield ShardedTrial(case, flags, "rows", ranks)


def _differing(trial: ShardedTrial) -> list[str]:
    """On each rank: what differs from one process."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))

    def spread(x: Tensor) -> Tensor:
        dim = LAYOUTS[trial.layout]
        where = Replicate() if dim is None or not x.ndim else Shard(min(dim, x.ndim - 1))
        return distribute_tensor(x.detach().clone(), mesh, [where])

    alone = [p.detach() for p in _walked(trial, lambda x: x.detach().clone())]
    together = [p.detach().full_tensor() for p in _walked(trial, spread)]  # type: ignore[attr-defined]
    pairs = zip(alone, together, strict=True)
    bad = [(k, walks.distance([a], [b])) for k, (a, b) in enumerate(pairs) if not torch.equal(a, b)]
    return [f"parameter {k} differs by up to {most}" for k, most in bad]


def _walked(trial: ShardedTrial, lay: Any) -> Sequence[Tensor]:
    case, given = trial.case, {**trial.case.base, **trial.flags} if trial.flags else {}
    like = walks.parameters(case.shapes, torch.float32)
    params = [Parameter(lay(p)) for p in like]
    optimizer = case.make(params, **given)
    for step in range(STEPS):
        for k, (p, g) in enumerate(zip(params, walks.gradients(like, step), strict=True)):
            p.grad = None if step == 1 and k == 1 else lay(g)
        if step == STEPS - 1:
            saved, params = optimizer.state_dict(), [Parameter(p.detach().clone()) for p in params]
            gradients = [lay(g) for g in walks.gradients(like, step)]
            optimizer = case.make(params, **given)
            optimizer.load_state_dict(saved)
            for p, g in zip(params, gradients, strict=True):
                p.grad = g
        case.advance(optimizer, step)
    return params
