"""QK-clip: attention logits that grow beyond a bound are brought back by their weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg._base.errors import bad_argument
from thalweg.runtime.state import MASTER
from thalweg.train.events import Event, Watcher

#: queries whose logits are computed at once
CHUNK = 1024


class LogitMax:
    """The largest attention logit of each head since it was last taken; call ``see`` in the forward pass."""

    def __init__(self) -> None:
        self._largest: Tensor | None = None

    @torch.no_grad()
    def see(
        self,
        query: Tensor,
        key: Tensor,
        scale: float | None = None,
        causal: bool = False,
        mask: Tensor | None = None,
    ) -> None:
        r"""Take in what one forward pass attends to.

        Args:
            query: (batch, heads, length, d).
            key: (batch, heads or a divisor of them, length, d); several heads may share one.
            scale: of the products; None is $1/\sqrt d$, as ``scaled_dot_product_attention`` has it.
            causal: whether a position attends to itself and those before it alone.
            mask: as that function has it, (…, length, length): where it is False nothing is attended to, and numbers
                are added to the logits; None for none.
        """
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        found = torch.full((query.shape[1],), -math.inf, device=query.device)
        for start in range(0, query.shape[2], CHUNK):
            logits = (query[:, :, start : start + CHUNK] @ key.mT).float() * scale
            if causal:
                after = torch.ones(logits.shape[-2:], dtype=torch.bool, device=query.device).triu(start + 1)
                logits = logits.masked_fill(after, -math.inf)
            if mask is not None:
                logits = _masked(logits, mask if mask.shape[-2] == 1 else mask[..., start : start + CHUNK, :])
            found = torch.maximum(found, logits.amax((0, 2, 3)))
        self._largest = found if self._largest is None else torch.maximum(self._largest, found)

    def take(self) -> Tensor | None:
        """One number for each head, and begin again; None where nothing was seen."""
        found, self._largest = self._largest, None
        return found


def _masked(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask


@dataclass(frozen=True)
class Attention:
    """Where the queries and keys of one layer come from.

    Attributes:
        query: the layer whose weight (and bias, if it has one) makes queries, head by head: (heads · d, in).
        key: the layer that makes keys; it may be the same one.
        logits: gives the largest logit of each head since the last step, as :meth:`LogitMax.take` does; or None.
        query_rows, key_rows: which rows of these weights, where a weight makes more than that; None is all.
    """

    query: nn.Module
    key: nn.Module
    logits: Callable[[], Tensor | None]
    query_rows: slice | None = None
    key_rows: slice | None = None


class QKClip(Watcher):
    r"""After each step, shrink the query and key weights of every head whose largest logit S is above τ.

    $$\gamma = \min(1, \tau / S), \qquad W_q \leftarrow \sqrt\gamma\,W_q, \quad W_k \leftarrow \sqrt\gamma\,W_k$$

    so that the same inputs would have given logits of at most τ. Where several heads share a key, the key stays, and
    $W_q$ takes all of γ: that touches no other head. Muon with it is MuonClip. Over several processes S is the largest
    of all. Pass it to ``fit(watchers=…)``, or call :meth:`clip` after ``optimizer.step()``.

    Source: Kimi Team 2025, "Kimi K2: open agentic intelligence", algorithm 1, https://arxiv.org/abs/2507.20534
    Differs: parts of queries and keys that rotary embeddings turn are not told from others; the paper's are apart, and
    its shared rotary key stays as it is.

    Args:
        layers: one :class:`Attention` for each layer.
        tau: τ, above 0.

    Raises:
        ValueError: for τ outside its range.
    """

    def __init__(self, layers: Sequence[Attention], tau: float = 100.0) -> None:
        if not 0 < tau < math.inf:
            raise bad_argument("tau", tau, "a number in (0, ∞)")
        self.layers, self.tau = list(layers), tau

    def on_step(self, event: Event) -> None:
        """After the update of the parameters."""
        self.clip(event.optimizer)

    @torch.no_grad()
    def clip(self, optimizer: torch.optim.Optimizer | None = None) -> int:
        """Shrink what has grown; the number of heads. ``optimizer`` may keep bits below 16-bit weights, which go.

        Raises:
            ValueError: where a weight's rows are not so many for each head.
        """
        return sum(self._clip(layer, optimizer) for layer in self.layers)

    def _clip(self, layer: Attention, optimizer: torch.optim.Optimizer | None) -> int:
        largest = layer.logits()
        if largest is None:
            return 0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        gamma = torch.where(largest > self.tau, self.tau / largest, 1.0)
        if not (gamma < 1).any():
            return 0
        queries, keys = layer.query_rows or slice(None), layer.key_rows or slice(None)
        own = _count(layer.key, keys) == _count(layer.query, queries)
        _shrink(layer.query, queries, gamma.sqrt() if own else gamma, optimizer)
        if own:
            _shrink(layer.key, keys, gamma.sqrt(), optimizer)
        return int((gamma < 1).sum())


def _count(module: nn.Module, rows: slice) -> int:
    return len(range(*rows.indices(len(module.weight))))  # type: ignore[arg-type]


def _shrink(module: nn.Module, rows: slice, factors: Tensor, optimizer: torch.optim.Optimizer | None) -> None:
    """Multiply the rows of each head."""
    count = _count(module, rows)
    if count % len(factors):
        what = f"a weight with {count} rows for {len(factors)} heads"
        raise bad_argument("layers", what, "as many rows for each head", "Say which rows: Attention(…, query_rows=…)")
    by_row = factors.repeat_interleave(count // len(factors))
    for p in (module.weight, getattr(module, "bias", None)):
        if isinstance(p, Tensor):
            part = p.data[rows]
            part.mul_(by_row.to(part).reshape(-1, *(1,) * (part.ndim - 1)))
            bits = optimizer.state.get(p, {}).get(MASTER) if optimizer else None
            if bits is not None:
                bits[rows].zero_()
