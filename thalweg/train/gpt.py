"""A small GPT, which races and benchmarks train.

Stored runs of the task ``bytes-gpt`` begin with the weights that it has from a seed: what it is made of, the order
included, is not to change.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Gpt(nn.Module):
    """Pre-norm blocks with learned positions.

    Maps tokens (batch, time), time ≤ ``context``, to logits (batch, time, ``vocabulary``) of each next one.

    Args:
        layers, width, heads, vocabulary, context: its size.
        like_gpt2: biases in all layers, and the head tied to the tokens; else no biases, and a head of its own.
    """

    def __init__(
        self, layers: int, width: int, heads: int, vocabulary: int, context: int, like_gpt2: bool = False
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, bias=like_gpt2) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = None if like_gpt2 else nn.Linear(width, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h: Tensor = self.norm(self.blocks(self.tokens(x) + self.positions.weight[: x.shape[1]]))
        logits: Tensor = F.linear(h, self.tokens.weight) if self.head is None else self.head(h)
        return logits

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean nats a token: each of ``tokens`` (batch, time + 1) from those before it."""
        return F.cross_entropy(self(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


class Block(nn.Module):
    """Attention, then a perceptron; each reads a norm of the stream and adds to the stream."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias), nn.Linear(width, width, bias)
        self.up, self.down = nn.Linear(width, 4 * width, bias), nn.Linear(4 * width, width, bias)

    def forward(self, h: Tensor) -> Tensor:
        """The stream (batch, time, width) with this block's part added."""
        q, k, v = torch.unflatten(self.qkv(self.norm_attention(h)), -1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(seen.transpose(1, 2).flatten(-2))
        added: Tensor = self.down(F.gelu(self.up(self.norm_perceptron(h))))
        return h + added
