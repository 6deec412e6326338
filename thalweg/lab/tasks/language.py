"""Byte-level language models on the source text of the standard library: a small GPT and an LSTM."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks._supervised import evaluating, seeded
from thalweg.lab.tasks.corpus import bytes_of_stdlib

VOCABULARY = 256
CONTEXT = 64


class _Bytes(Task):
    """Predict the next byte of Python source."""

    batch_size = 16
    unit = "nats per byte"
    build: ClassVar[type[nn.Module]]

    def model(self, seed: int) -> nn.Module:
        """The model, freshly initialised."""
        return seeded(seed, self.build)

    def batches(self, seed: int) -> Iterator[Tensor]:
        """Windows (16, 65) at random places of the training text."""
        text, _, _ = bytes_of_stdlib()
        generator = torch.Generator().manual_seed(seed)
        window = torch.arange(CONTEXT + 1)
        while True:
            start = torch.randint(len(text) - CONTEXT, (self.batch_size, 1), generator=generator)
            yield text[start + window].long()

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Cross-entropy of the next byte."""
        return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def evaluate(self, model: nn.Module) -> float:
        """Mean over 256 fixed windows, spread evenly over the held-out files."""
        _, held, _ = bytes_of_stdlib()
        start = torch.linspace(0, len(held) - CONTEXT - 1, 256).long()[:, None]
        windows = held[start + torch.arange(CONTEXT + 1)].long()
        with evaluating(model):
            return float(torch.stack([self.loss(model, part) for part in windows.chunk(4)]).mean())

    def sample(self) -> Tensor:
        """One short window."""
        return torch.zeros(1, 4, dtype=torch.long)

    def data(self) -> Mapping[str, str]:
        """The text differs by version of Python."""
        _, _, digest = bytes_of_stdlib()
        return {"source": "lib/*.py of the interpreter", "python": platform.python_version(), "sha256": digest}


class Gpt(nn.Module):
    """A pre-norm GPT with learned positions; (batch, time) of bytes to (batch, time, 256) of logits."""

    def __init__(self, d: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, d)
        self.positions = nn.Embedding(CONTEXT, d)
        self.blocks = nn.ModuleList(_Block(d, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, VOCABULARY, bias=False)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the next byte at every place."""
        h = self.tokens(x) + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        b, t, d = h.shape
        q, k, v = self.qkv(self.norm_1(h)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        h = h + self.out(mixed)
        return h + self.down(F.gelu(self.up(self.norm_2(h))))  # type: ignore[no-any-return]


class Lstm(nn.Module):
    """Embedding, one LSTM layer, head; (batch, time) of bytes to (batch, time, 256) of logits."""

    def __init__(self, d: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, d)
        self.lstm = nn.LSTM(d, hidden, batch_first=True)
        self.head = nn.Linear(hidden, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the next byte at every place."""
        return self.head(self.lstm(self.tokens(x))[0])  # type: ignore[no-any-return]


class BytesGpt(_Bytes):
    """A byte-level GPT (2 layers, width 64, context 64) on Python source."""

    name = "bytes-gpt"
    steps = 400
    build = Gpt
    good_for = "large, clear differences in seconds; the first task to try"


class BytesLstm(_Bytes):
    """A byte-level LSTM (128 units, context 64) on Python source."""

    name = "bytes-lstm"
    steps = 400
    build = Lstm
    good_for = "the recurrent case: few, large, gated matrices"
