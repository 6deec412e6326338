"""Architectures whose parts part late: behind products of numbers, sums over edges, or in products with other layers.

Each forward is a function of a model and its input, and each table was written from the architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from tests.groups import zoo
from tests.groups.zoo import HEADS, INNER, D, Row, kinds
from tests.groups.zoo_2026 import both, each_channel, weight, words
from tests.groups.zoo_further import ENDS, heads, linear

SQUARE, UP, DOWN, WIDE, BACK = zoo.SQUARE, zoo.UP, zoo.DOWN, zoo.WIDE, zoo.BACK
STREAMS, NODES, WAVES = 4, 5, 8
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])


class Graphs(nn.Module):
    """A body between what is known of the nodes of a graph and a head."""

    def __init__(self, forward: Any, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.stem, self.head, self.run = nn.Linear(5, D), nn.Linear(D, 3), forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor, edges: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return self.head(self.run(self, self.stem(x), edges, places))


def graphs(forward: Any, **parts: Any) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (Graphs(forward, **parts), (torch.randn(NODES, 5), EDGES, torch.randn(NODES, 3)))


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def list_of(*shape: int) -> nn.ParameterList:
    return nn.ParameterList([weight(*shape), weight(*shape)])


def streams(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Gemma 3n: several residual streams, each corrected by a gain of its own, of which one goes through the layer."""
    every = torch.stack([x, *(layer(x) for layer in s.enter)])
    for _ in range(2):
        says = torch.tanh(s.router(F.rms_norm(every[0], (D,))))
        mixed = s.predict(says).unflatten(-1, (STREAMS, STREAMS)).mT
        foreseen = (every.permute(1, 2, 3, 0) @ mixed).permute(3, 0, 1, 2) + every
        one = foreseen[0] + s.layer(foreseen[0])
        says = torch.tanh(s.router(F.rms_norm(one, (D,))))
        gains = (s.correct(says) + 1).permute(2, 0, 1)[..., None]
        every = (one - foreseen[0]).repeat(STREAMS, 1, 1, 1) * gains + foreseen
        every[1:] += s.back(F.gelu(s.gate(every[0])) * x[..., :16])
    return torch.stack([every[0], *(layer(y) for layer, y in zip(s.leave, every[1:], strict=True))]).mean(0)


def hyena(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Of order 3: two long convolutions, one behind the other, with filters that one layer makes."""
    t = x.shape[1]
    last, one, two, v = s.short(s.enter(x).mT)[..., :t].chunk(4, 1)
    where = torch.linspace(0, 1, t)[:, None] * torch.arange(1, 4)
    kernels = s.filters(torch.sin(s.waves(where))).unflatten(-1, (D, 2)).permute(2, 1, 0)
    for kernel, gate in zip(kernels, (one, two), strict=True):
        v = torch.fft.irfft(torch.fft.rfft(v * gate, n=2 * t) * torch.fft.rfft(kernel, n=2 * t), n=2 * t)[..., :t]
    return s.out((v * last).mT)


def seen_along(places: torch.Tensor, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Waves of how long edges are, and which way they point."""
    along = places[edges[0]] - places[edges[1]]
    length = along.norm(dim=-1, keepdim=True)
    return torch.exp(-((length - torch.linspace(0, 3, WAVES)) ** 2)), along / length


def painn(s: Any, x: torch.Tensor, edges: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Numbers and vectors of nodes, changed by what their neighbours say, then by each other."""
    waves, ways = seen_along(places, edges)
    vectors = torch.zeros(NODES, D, 3)
    for says, filters, two, change in zip(s.says, s.filters, s.two, s.change, strict=True):
        numbers, by_vectors, by_ways = (says(x)[edges[0]] * filters(waves)).split(D, -1)
        to_vectors = vectors[edges[0]] * by_vectors[..., None] + ways[:, None] * by_ways[..., None]
        x = x + torch.zeros(NODES, D).scatter_add(0, edges[1][:, None].expand(-1, D), numbers)
        vectors = vectors + torch.zeros(NODES, D, 3).index_add(0, edges[1], to_vectors)
        u, v = two(vectors.mT).mT.split(D, 1)
        a, b, c = change(torch.cat([x, v.norm(dim=-1)], -1)).split(D, -1)
        vectors = vectors + a[..., None] * u
        x = x + b * (u * v).sum(-1) + c
    return x


def paths(s: Any, x: torch.Tensor, edges: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """e3nn, MACE: numbers that an edge's length makes, some for each path of a product of numbers and vectors."""
    waves, ways = seen_along(places, edges)
    numbers, vectors = x[edges[0]][:, :8], x[edges[0]][:, 8:].unflatten(1, (8, 3))
    a, b, c = s.radial(waves).split(8, 1)
    to_vectors = torch.cat([b[..., None] * numbers[..., None] * ways[:, None], c[..., None] * vectors], 1)
    sums = torch.zeros(NODES, 8).index_add(0, edges[1], a * numbers)
    more = torch.zeros(NODES, 16, 3).index_add(0, edges[1], to_vectors)
    return torch.cat([s.numbers(sums), torch.einsum("zui,uw->zwi", more, s.vectors).flatten(1)], 1)


def in_pairs(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Differential attention as published: all heads in one product, every other taken from the one before."""
    q, k = (layer(x).unflatten(-1, (2 * HEADS, -1)).transpose(1, 2) for layer in (s.q, s.k))
    one, other = (q @ k.mT).softmax(-1).unflatten(1, (HEADS, 2)).unbind(2)
    return s.out(((one - s.less * other) @ heads(s.v(x))).transpose(1, 2).flatten(2))


def joint(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Stable Diffusion 3.5: one norm with two scales and shifts, for two attentions, and words that only give keys."""
    x, text = x[:, :3], x[:, 3:]
    m, (scale, shift) = s.says(x.mean(1))[:, None].chunk(9, -1), s.text_says(x.mean(1))[:, None].chunk(2, -1)
    normed = F.layer_norm(x, (D,))
    one, two, text = (
        normed * (1 + m[1]) + m[0],
        normed * (1 + m[7]) + m[6],
        F.layer_norm(text, (D,)) * (1 + scale) + shift,
    )
    k, v = (torch.cat([a(one), b(text)], 1) for a, b in ((s.k, s.text_k), (s.v, s.text_v)))
    x = x + m[2] * s.out(attended(heads(s.q(one)), heads(k), heads(v)))
    x = x + m[8] * s.own_out(attended(*map(heads, s.own(two).chunk(3, -1))))
    return x + m[5] * s.down(F.gelu(s.up(F.layer_norm(x, (D,)) * (1 + m[4]) + m[3])))


class LowRank(nn.Module):
    def __init__(self, gives: int, takes: int) -> None:
        super().__init__()
        self.a, self.b = weight(4, takes), weight(gives, 4)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w + self.b @ self.a


def with_low_rank(layer: nn.Linear) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", LowRank(layer.out_features, layer.in_features))


def attention(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.out(attended(*map(heads, s.qkv(x).chunk(3, -1))))


def speedrun(s: Any, x: torch.Tensor) -> torch.Tensor:
    """modded-nanogpt: q, k, v in a stack, a gate of each head from the first numbers, a weight kept as (in, out)."""
    for qkv, out, gate, up, down in zip(s.qkv, s.out, s.gate, s.up, s.down, strict=True):
        q, k, v = F.linear(x, qkv.flatten(end_dim=1)).unflatten(-1, (3 * HEADS, -1)).chunk(3, -2)
        y = F.scaled_dot_product_attention(*(z.transpose(1, 2) for z in (q, k, v))).transpose(1, 2)
        x = x + F.linear((y * gate(x[..., :12]).sigmoid()[..., None]).flatten(2), out)
        x = x + F.linear(F.relu(F.linear(x, up)).square(), down.T)
    return x


def chosen(s: Any, x: torch.Tensor) -> torch.Tensor:
    """GPT-OSS as published: gate and up in turn, of the experts that each position chose."""
    flat = x.flatten(0, 1)
    share, which = s.router(flat).topk(2, -1)
    y = torch.einsum("beck,bk->bec", s.w1[which], flat) + s.b1[which]
    gate, up = y[..., ::2].clamp(max=7), y[..., 1::2].clamp(-7, 7)
    y = torch.einsum("beck,bek->bec", s.w2[which], gate * (gate * 1.7).sigmoid() * (up + 1)) + s.b2[which]
    return torch.einsum("bec,be->bc", y, share.softmax(-1)).view_as(x)


def made(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A layer that gives the weights and biases of two others."""
    w1, b1, w2, b2 = s.makes(F.relu(s.sees(x.mean((0, 1))))).split([16 * D, 16, D * 16, D])
    return x + F.linear(F.relu(F.linear(x, w1.view(16, D), b1)), w2.view(D, 16), b2)


def monarch(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A product of two weights of blocks, between which numbers change places."""
    y = torch.einsum("btki,kio->btko", x.unflatten(-1, (4, 8)), s.one).mT
    return torch.einsum("btok,okj->btoj", y, s.other).mT.flatten(-2)


def learning(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Titans: a perceptron that learns from the first half of a text, and is asked in the second."""
    (k, now), (v, _) = (layer(x).chunk(2, 1) for layer in (s.k, s.v))
    inner = k @ s.one
    error = s.rate(x[:, :3]).sigmoid() * (F.silu(inner) @ s.two - v)
    one, two = s.one - k.mT @ ((error @ s.two.mT) * inner.sigmoid()), s.two - F.silu(inner).mT @ error
    return torch.cat([k, F.silu(now @ one) @ two], 1)


TORCH = {
    "Gemma 3n's streams": Row(
        words(
            streams, router=linear(D, STREAMS), predict=linear(STREAMS, STREAMS**2), correct=linear(STREAMS, STREAMS),
            layer=linear(D, D), gate=linear(D, 16), back=linear(16, D),
            **{one: nn.ModuleList(linear(D, D) for _ in range(STREAMS - 1)) for one in ("enter", "leave")},
        ),
        {
            "router": [(STREAMS, D)], "predict": [(STREAMS**2, STREAMS)], "correct": [(STREAMS, STREAMS)],
            "layer": [SQUARE], "gate": [(16, D)], "back": [(D, 16)],
            **{f"{one}.{i}": [SQUARE] for one in ("enter", "leave") for i in range(STREAMS - 1)},
        },
        ENDS,
    ),
    "Hyena of order 3": Row(
        words(
            hyena, enter=linear(D, 4 * D), short=each_channel(4 * D), waves=linear(3, 16), filters=linear(16, 2 * D),
            out=linear(D, D),
        ),
        {"enter": [SQUARE] * 4, "waves": [(16, 3)], "filters": [(D, 16)] * 2, "out": [SQUARE]},
        {**ENDS, "short": "other"},
    ),
    "PaiNN": Row(
        graphs(
            painn, says=both(lambda: linear(D, 3 * D)), filters=both(lambda: linear(WAVES, 3 * D)),
            two=both(lambda: nn.Linear(D, 2 * D, bias=False)), change=both(lambda: linear(2 * D, 3 * D)),
        ),
        {"stem": [(D, 5)]} | {f"{one}.{i}": held for i in (0, 1) for one, held in (
            ("says", [SQUARE] * 3), ("filters", [(D, WAVES)] * 3), ("two", [SQUARE] * 2), ("change", [(D, 2 * D)] * 3),
        )},
        kinds(head="head"),
    ),
    "paths of e3nn": Row(
        graphs(paths, radial=linear(WAVES, 24), numbers=linear(8, 8), vectors=weight(16, 8)),
        {"stem": [(8, 5), (24, 5)], "radial": [(8, WAVES)] * 3, "numbers": [(8, 8)], "vectors": [(8, 16)]},
        kinds(head="head"),
    ),
    "differential attention in one product": Row(
        words(
            in_pairs, q=linear(D, 2 * D), k=linear(D, 2 * D), v=linear(D, D), out=linear(D, D),
            less=nn.Parameter(torch.tensor(0.8)),
        ),
        {"q": [SQUARE] * 2, "k": [SQUARE] * 2, "v": [SQUARE], "out": [SQUARE]},
        ENDS,
    ),
    "Stable Diffusion 3.5": Row(
        words(
            joint, says=linear(D, 9 * D), text_says=linear(D, 2 * D), own=linear(D, 3 * D), up=linear(D, INNER),
            down=linear(INNER, D),
            **{one: linear(D, D) for one in ("q", "k", "v", "text_k", "text_v", "out", "own_out")},
        ),
        {
            "says": [SQUARE] * 9, "text_says": [SQUARE] * 2, "own": [SQUARE] * 3, "up": [UP], "down": [DOWN],
            **{one: [SQUARE] for one in ("q", "k", "v", "text_k", "text_v", "out", "own_out")},
        },
        ENDS,
    ),
    "LoRA as a parametrization": Row(
        words(attention, qkv=with_low_rank(linear(D, 3 * D)), out=linear(D, D)),
        {"original": [SQUARE] * 3, "0.a": [(4, D)], "0.b": [(D, 4)] * 3, "out": [SQUARE]},
        ENDS,
    ),
    "modded-nanogpt": Row(
        words(
            speedrun, qkv=list_of(3, D, D), out=list_of(D, D), gate=both(lambda: linear(12, HEADS)),
            up=list_of(4 * D, D), down=list_of(4 * D, D),
        ),
        {f"{one}.{i}": held for i in (0, 1) for one, held in (
            ("qkv", [SQUARE] * 3), ("out", [SQUARE]), ("gate", [(HEADS, 12)]), ("up", [WIDE]), ("down", [BACK]),
        )},
        ENDS,
    ),
    "GPT-OSS, experts gathered": Row(
        words(
            chosen, router=linear(D, 3), w1=weight(3, 2 * INNER, D), b1=weight(3, 2 * INNER), w2=weight(3, D, INNER),
            b2=weight(3, D),
        ),
        {"router": [(3, D)], "w1": [UP] * 6, "w2": [DOWN] * 3},
        {**ENDS, **kinds(embedding="b1 b2")},
    ),
    "a layer that gives layers": Row(
        words(made, sees=linear(D, 16), makes=linear(16, 2 * 16 * D + 16 + D)),
        {"sees": [(16, D)], "makes": [(16 * D, 16), (16, 16), (16 * D, 16), (D, 16)]},
        ENDS,
    ),
    "Monarch": Row(
        words(monarch, one=weight(4, 8, 8), other=weight(8, 4, 4)),
        {"one": [(8, 8)] * 4, "other": [(4, 4)] * 8},
        ENDS,
    ),
    "Titans": Row(
        words(
            learning, k=linear(D, D), v=linear(D, D), rate=linear(D, 1), one=weight(D, INNER), two=weight(INNER, D)
        ),
        {"k": [SQUARE], "v": [SQUARE], "rate": [(1, D)], "one": [UP], "two": [DOWN]},
        ENDS,
    ),
}  # fmt: skip
