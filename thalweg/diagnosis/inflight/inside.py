"""What is looked at within a model now and then: attention logits, the load of routers, the ranks of updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.diagnosis.inflight.attention import attentions
from thalweg.diagnosis.inflight.router_load import RouterLoad
from thalweg.diagnosis.inflight.routers import loads
from thalweg.diagnosis.inflight.spectra import Ranks, Spectra
from thalweg.diagnosis.nodes import walk


class Inside:
    """Looks, and holds the numbers on their device until they are asked for.

    Args:
        model: whose parameters they are.
        parameters: all.
        names: of these.
        matrices: the numbers of those that are hidden matrices.

    Attributes:
        dtypes: in which each attention holds its logits, by layer.
    """

    def __init__(
        self, model: nn.Module, parameters: Sequence[Tensor], names: Sequence[str], matrices: Sequence[int]
    ) -> None:
        self.model, self.names = model, names
        self.known: Mapping[int, str] = {id(p): name for p, name in zip(parameters, names, strict=True)}
        self.spectra = Spectra(parameters, matrices)
        self.ranks: Callable[[], Ranks] = dict
        self.logits: dict[str, Tensor] = {}
        self.counts: dict[str, tuple[Tensor, int]] = {}
        self.dtypes: dict[str, torch.dtype] = {}

    def see(self, loss: Tensor) -> None:
        """Look at the graph behind a loss, before its backward frees it."""
        behind, known = list(walk(loss.grad_fn)), {**self.known, **_whole(self.model, self.known)}
        seen = attentions(behind, known)
        self.dtypes = {one.layer: one.dtype for one in seen}
        self.logits = {
            layer: torch.stack([one.largest for one in seen if one.layer == layer]).amax() for layer in self.dtypes
        }
        self.counts = loads(loss.grad_fn, behind, known)

    def stepping(self) -> None:
        """The optimizer is about to step."""
        self.spectra.begin()

    def stepped(self) -> None:
        """It has."""
        self.ranks = self.spectra.end()

    def take(self) -> dict[str, Any]:
        """Move the numbers to the host, as a sample has them."""
        ranks, self.ranks = self.ranks(), dict
        logits, self.logits = self.logits, {}
        counts, self.counts = self.counts, {}
        largest = torch.stack(list(logits.values())).tolist() if logits else []
        return {
            "ranks": {self.names[i]: both for i, both in ranks.items()},
            "logits": dict(zip(logits, largest, strict=True)),
            "routers": {name: RouterLoad(tuple(map(int, n.tolist())), chosen) for name, (n, chosen) in counts.items()},
        }


def _whole(model: nn.Module, known: Mapping[int, str]) -> dict[int, str]:
    """Names of the whole parameters that FSDP2 puts in the place of its shards during a pass, by ``id``."""
    getters: list[Any] = [getattr(module, "_get_fsdp_state", None) for module in model.modules()]
    states = [getter() for getter in getters if getter is not None]
    groups = [group for state in states for group in getattr(state, "_fsdp_param_groups", ())]
    pairs = [(getattr(p, "_unsharded_param", None), p.sharded_param) for group in groups for p in group.fsdp_params]
    return {id(whole): known[id(shard)] for whole, shard in pairs if whole is not None and id(shard) in known}
