"""A small GPT on bytes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks.corpus import CONTEXT, VOCABULARY, NextByte
from thalweg.lab.tasks.scaled import width

#: width of a head
HEAD = 16


class BytesGpt(NextByte):
    """A byte-level GPT (2 layers, width 64, context 64) on Python source."""

    name = "bytes-gpt"
    steps = 400
    good_for = "clear differences after a few seconds: Muon is far ahead of AdamW, and AdamW of momentum"
    seconds_per_run = 6.0

    def model(self, seed: int, size: float = 1) -> nn.Module:
        """Some 0.13 M parameters; of another size it is wider, with heads of 16."""
        d = width(lambda d: Gpt(d=d, heads=d // HEAD), 64, size, HEAD)
        return fresh(seed, lambda: Gpt(d=d, heads=d // HEAD))


class Gpt(nn.Module):
    """A pre-norm GPT with learned positions and a head of its own.

    Maps bytes (batch, time), time ≤ 64, to logits (batch, time, 256) of each next byte.
    """

    def __init__(self, layers: int = 2, d: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, d)
        self.positions = nn.Embedding(CONTEXT, d)
        self.blocks = nn.Sequential(*(Block(d, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, VOCABULARY, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h: Tensor = self.tokens(x) + self.positions.weight[: x.shape[1]]
        logits: Tensor = self.head(self.norm(self.blocks(h)))
        return logits


class Block(nn.Module):
    """Attention, then a perceptron; each reads a norm of the stream and adds to the stream."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_perceptron = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """The stream (batch, time, d) with this block's part added."""
        h = h + self.out(self.attend(self.qkv(self.norm_attention(h))))
        added: Tensor = self.down(F.gelu(self.up(self.norm_perceptron(h))))
        return h + added

    def attend(self, qkv: Tensor) -> Tensor:
        """Causal attention by heads: (batch, time, 3 d) to (batch, time, d)."""
        q, k, v = torch.unflatten(qkv, -1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
