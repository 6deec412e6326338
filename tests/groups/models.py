"""Small models of the kinds that people train."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Gpt(nn.Module):
    """A byte-level GPT with control flow in forward, as symbolic tracing cannot read; returns (logits, loss)."""

    def __init__(self, vocabulary=256, d=16, tied=False):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocabulary, d),
                "wpe": nn.Embedding(8, d),
                "h": nn.ModuleList([Block(d) for _ in range(2)]),
                "ln_f": nn.LayerNorm(d),
            }
        )
        self.lm_head = nn.Linear(d, vocabulary, bias=False)
        if tied:
            self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, idx, targets=None):
        if idx.shape[1] > 8:
            raise ValueError("too long")
        x = self.transformer["wte"](idx) + self.transformer["wpe"](torch.arange(idx.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        logits = self.lm_head(self.transformer["ln_f"](x))
        return logits, None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        q, k, v = self.qkv(self.ln_1(x)).chunk(3, -1)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.policy, self.value = nn.Linear(8, 3), nn.Linear(8, 1)  # registered before the body
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())

    def forward(self, x):
        x = self.body(x)
        return {"policy": self.policy(x).softmax(-1), "value": self.value(x)}


class HeadFirst(nn.Module):
    """Registers its head first and runs it last; its forward branches on a value."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 2)
        self.body = nn.Linear(4, 8)

    def forward(self, x):
        if x.sum() > 1e9:
            x = x * 2
        return self.head(torch.relu(self.body(x)))


class Residual(nn.Module):
    """Ends in a residual block, without a head."""

    def __init__(self):
        super().__init__()
        self.a = nn.ModuleList([nn.Linear(4, 8), nn.Linear(4, 8)])
        self.b = nn.ModuleList([nn.Linear(8, 4), nn.Linear(8, 4)])

    def forward(self, x):
        for a, b in zip(self.a, self.b, strict=True):
            x = x + b(torch.relu(a(x)))
        return x


class OwnMatrix(nn.Module):
    """A hand-made linear layer, learned positions, and a table that is looked up by index."""

    def __init__(self, branches=False):
        super().__init__()
        self.branches = branches
        self.table = nn.Parameter(torch.randn(10, 6))
        self.position = nn.Parameter(torch.randn(5, 6))
        self.weight = nn.Parameter(torch.randn(6, 6))
        self.out = nn.Linear(6, 3)

    def forward(self, idx):
        if self.branches and idx.sum() < 0:
            return self.out(self.table[idx])
        x = self.table[idx] + self.position
        return self.out(torch.tanh(x @ self.weight.t()))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(8, 20)

    def forward(self, idx):
        return self.head(self.lstm(self.embedding(idx))[0])


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
    )  # fmt: skip


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.RMSNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x))


def autoencoder():
    return nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 6), nn.Sigmoid())
