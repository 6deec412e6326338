"""Small tasks that need torch alone: data that can be learnt, and models for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]
CLASSES, FEATURES, TOKENS, LENGTH, WIDTH = 4, 16, 32, 24, 32


def drawn(x: Tensor, y: Tensor, size: int = 32, seed: int = 1) -> Callable[[], Iterator[Batch]]:
    """Endless batches, drawn with replacement."""

    def batches() -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            chosen = torch.randint(0, len(x), (size,), generator=generator)
            yield x[chosen], y[chosen]

    return batches


@functools.cache
def points() -> Batch:
    """512 points in 16 dimensions; the class is the largest of the first four."""
    x = torch.randn(512, FEATURES, generator=torch.Generator().manual_seed(0))
    return x, x[:, :CLASSES].argmax(1)


@functools.cache
def pictures() -> Batch:
    """256 pictures of 1 × 12 × 12, with a bright patch in one of four corners."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, CLASSES, (256,), generator=g)
    x = 0.5 * torch.randn(256, 1, 12, 12, generator=g)
    for corner in range(CLASSES):
        top, left = 6 * (corner // 2), 6 * (corner % 2)
        x[y == corner, :, top : top + 4, left : left + 4] += 1.0
    return x, y


@functools.cache
def numbers() -> Batch:
    """512 points, and a smooth function of them with mean 0 and variance 1."""
    x = points()[0]
    y = torch.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    return x, (y - y.mean()) / y.std()


def text(size: int = 16, seed: int = 1) -> Callable[[], Iterator[Tensor]]:
    """Endless batches of token sequences, (size, 25), of a chain in which each token has three followers."""
    table = torch.randint(0, TOKENS, (TOKENS, 3), generator=torch.Generator().manual_seed(0))

    def batches() -> Iterator[Tensor]:
        g = torch.Generator().manual_seed(seed)
        while True:
            rows = [torch.randint(0, TOKENS, (size,), generator=g)]
            for _ in range(LENGTH):
                rows.append(table[rows[-1], torch.randint(0, 3, (size,), generator=g)])
            yield torch.stack(rows, 1)

    return batches


# -- models ------------------------------------------------------------------------------------------------------------


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A model at seed 0."""
    torch.manual_seed(0)
    return build()


def perceptron(outputs: int = CLASSES) -> nn.Sequential:
    """Three layers."""
    return nn.Sequential(
        nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs)
    )  # fmt: skip


def convolutions() -> nn.Sequential:
    """Two convolutions with batch norms, pooled."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.1), nn.Linear(144, CLASSES),
    )  # fmt: skip


class TinyAttention(nn.Module):
    """Causal self-attention, with q, k and v in one weight or in three."""

    def __init__(self, width: int, heads: int = 2, fused: bool = False, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.causal, self.fused = heads, causal, fused
        if fused:
            self.qkv = nn.Linear(width, 3 * width, bias=False)
        else:
            self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, places, width) to the same shape."""
        parts = self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a residual connection; or the norms after the sums."""

    def __init__(self, width: int, after: bool = False, **options: Any) -> None:
        super().__init__()
        self.after = after
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = TinyAttention(width, **options)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, places, width) to the same shape."""
        if self.after:
            x = self.ln_1(x + self.attention(x))
            return self.ln_2(x + self.down(F.gelu(self.up(x))))  # type: ignore[no-any-return]
        x = x + self.attention(self.ln_1(x))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))  # type: ignore[no-any-return]


class RoutedBlock(TransformerBlock):
    """The same with a mixture of experts in the place of the perceptron: for each token two of eight."""

    def __init__(self, width: int, experts: int = 8, **options: Any) -> None:
        super().__init__(width, **options)
        del self.up, self.down
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, places, width) to the same shape."""
        x = x + self.attention(self.ln_1(x))
        tokens = self.ln_2(x)
        shares, chosen = self.router(tokens).softmax(-1).topk(2)
        weights = torch.zeros(*tokens.shape[:-1], len(self.experts)).scatter(-1, chosen, shares)
        outputs = torch.stack([expert(tokens) for expert in self.experts], -1)
        return x + (outputs * weights.unsqueeze(-2)).sum(-1)


class Transformer(nn.Module):
    """A language model of a few blocks; ``tied`` uses the embedding as the head, ``routed`` mixtures of experts."""

    def __init__(
        self,
        blocks: int = 2,
        width: int = WIDTH,
        tied: bool = False,
        std: float = 0.02,
        routed: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        block = RoutedBlock if routed else TransformerBlock
        self.tokens, self.places = nn.Embedding(TOKENS, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.ModuleList(block(width, **options) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, TOKENS, bias=False)
        for embedding in (self.tokens, self.places):
            nn.init.normal_(embedding.weight, std=std)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, places) token numbers to (batch, places, tokens) logits."""
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """An LSTM over tokens."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, TOKENS)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, places) token numbers to (batch, places, tokens) logits."""
        return self.head(self.lstm(self.tokens(ids))[0])  # type: ignore[no-any-return]


# -- losses ------------------------------------------------------------------------------------------------------------


def classify(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of a batch of inputs and class numbers."""
    x, y = batch
    return F.cross_entropy(model(x), y)


def regress(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error."""
    x, y = batch
    return F.mse_loss(model(x), y)


def predict(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean cross-entropy of each token from those before it."""
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
