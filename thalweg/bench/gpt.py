"""A small GPT-2: whose tensors are the work `gpt`, and whose training step is timed as a whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BenchGpt(nn.Module):
    """Pre-norm blocks with biases, learned positions, the head tied to the tokens, as in GPT-2.

    Maps tokens (batch, time), time ≤ ``context``, to logits (batch, time, ``vocabulary``).
    """

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, context: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(BenchBlock(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h: Tensor = self.tokens(x) + self.positions.weight[: x.shape[1]]
        return F.linear(self.norm(self.blocks(h)), self.tokens.weight)

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean nats a token: each of ``tokens`` (batch, time + 1) from those before it."""
        return F.cross_entropy(self(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


class BenchBlock(nn.Module):
    """Attention, then a perceptron; each reads a norm of the stream and adds to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """The stream (batch, time, width) with this block's part added."""
        q, k, v = self.qkv(self.norm_attention(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(seen.transpose(1, 2).flatten(-2))
        added: Tensor = self.down(F.gelu(self.up(self.norm_perceptron(h))))
        return h + added


def shapes(layers: int, width: int, vocabulary: int, context: int) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by name, without the memory."""
    with torch.device("meta"):
        model = BenchGpt(layers, width, 1, vocabulary, context)
    return {name: tuple(p.shape) for name, p in model.named_parameters()}
