"""Architectures of these years, and what is multiplied in ways of its own: styles, banks, mixed experts, tables.

Each forward is a function of a model and its input, and each table was written from the architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.groups import zoo
from tests.groups.zoo import HEADS, IDS, INNER, D, Row, kinds
from tests.groups.zoo_further import ENDS, Net, heads, linear

SQUARE, UP, DOWN = zoo.SQUARE, zoo.UP, zoo.DOWN
SIDE, EXPERTS = 8, 3
PICTURE = torch.randn(2, 3, SIDE, SIDE)
STEM = {"stem": [(D, 3)]}


class Pictures(nn.Module):
    """A body between the first convolution and a head."""

    def __init__(self, forward: Any, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.stem, self.head, self.run = nn.Conv2d(3, D, 1), nn.Linear(D, 5), forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.run(self, self.stem(x)).mean((2, 3)))


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) / 4)


def words(forward: Any, **parts: Any) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (Net(forward, **parts), IDS)


def pictures(forward: Any, **parts: Any) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (Pictures(forward, **parts), PICTURE)


def one_each(x: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """A convolution with a kernel for each picture."""
    b = len(x)
    y = F.conv2d(x.reshape(1, b * D, SIDE, SIDE), kernels.reshape(b * D, D, 3, 3), padding=1, groups=b)
    return y.view(b, D, SIDE, SIDE)


def styled(s: Any, x: torch.Tensor) -> torch.Tensor:
    """StyleGAN2: a style scales the kernel by input, and each output of it is normed."""
    kernels = s.w[None] * s.style(x.mean((2, 3)))[:, None, :, None, None]
    return one_each(x, kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt())


def styled_too(s: Any, x: torch.Tensor) -> torch.Tensor:
    """The same with a kernel that has a dimension for the batch."""
    b = len(x)
    kernels = 0.1 * s.w * s.style(x.mean((2, 3))).view(b, 1, D, 1, 1)
    return one_each(x, kernels * torch.rsqrt(kernels.pow(2).sum([2, 3, 4]) + 1e-8).view(b, D, 1, 1, 1))


def styled_and_larger(s: Any, x: torch.Tensor) -> torch.Tensor:
    """The same where the picture grows: a transposed convolution, whose groups lie along what it takes."""
    b = len(x)
    kernels = s.w[None] * s.style(x.mean((2, 3)))[:, None, :, None, None]
    kernels = kernels.transpose(1, 2).reshape(b * D, D, 3, 3)
    return F.conv_transpose2d(x.reshape(1, b * D, SIDE, SIDE), kernels, stride=2, groups=b).unflatten(1, (b, D))[0]


def styled_layer(s: Any, x: torch.Tensor) -> torch.Tensor:
    """CIPS: the same of a linear layer."""
    w = s.w[None] * s.style(x.mean(1))[:, None, :]
    return torch.bmm(x, (w / w.norm(dim=2, keepdim=True)).transpose(1, 2))


def both_ways(s: Any, x: torch.Tensor) -> torch.Tensor:
    for w in s.w:
        x = x + F.linear(F.relu(F.linear(x, w)), w.t())
    return x


def both_ways_at_once(s: Any, x: torch.Tensor) -> torch.Tensor:
    flat = x.flatten(0, 1)
    y = torch.bmm(F.relu(torch.bmm(flat.expand(EXPERTS, -1, -1), s.w)), s.w.mT)
    return (y * s.router(flat).T[..., None]).sum(0).view_as(x)


def mixed(s: Any, x: torch.Tensor) -> torch.Tensor:
    """CondConv: experts are mixed into a kernel for each picture."""
    return one_each(x, torch.einsum("be,eoikl->boikl", s.router(x.mean((2, 3))).softmax(-1), s.w))


def mixed_by_sums(s: Any, x: torch.Tensor) -> torch.Tensor:
    share = s.router(x.mean((2, 3))).softmax(-1)
    return one_each(x, (share[:, :, None, None, None, None] * s.w[None]).sum(1))


def mixed_flat(s: Any, x: torch.Tensor) -> torch.Tensor:
    return one_each(x, s.router(x.mean((2, 3))).sigmoid() @ s.w)


def merged(s: Any, x: torch.Tensor) -> torch.Tensor:
    """SMEAR: experts are merged into one for each text."""
    w = torch.einsum("be,eoi->boi", s.router(x.mean(1)).softmax(-1), s.w)
    return s.down(torch.einsum("bti,boi->bto", x, w))


def summed_gates(s: Any, x: torch.Tensor) -> torch.Tensor:
    """WavLM: eight outputs are summed to two gates of a bias of the scores."""
    a, b = s.gates(heads(x)).unflatten(-1, (2, 4)).sum(-1, keepdim=True).sigmoid().squeeze(-1).chunk(2, -1)
    q, k, v = (heads(y) for y in s.qkv(x).chunk(3, -1))
    scores = q @ k.mT * (a * (b * s.scale - 1) + 2)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def along(q: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """BoTNet: of the products with all distances, those that two positions of a line have."""
    b, h, w, _ = q.shape
    x = F.pad(q.reshape(-1, w, q.shape[-1]) @ table.mT, [0, 1]).flatten(1)
    x = F.pad(x, [0, len(table) - w]).reshape(-1, w + 1, len(table))[:, :w, w - 1 :]
    return x.reshape(b, h, 1, w, w).expand(-1, -1, h, -1, -1)


def bottleneck(s: Any, x: torch.Tensor) -> torch.Tensor:
    b, _, h, w = x.shape
    q, k, v = (y.reshape(b * HEADS, -1, h * w).mT for y in s.qkv(x).split([D, D, D], 1))
    grid = q.unflatten(1, (h, w))
    places = along(grid, s.wide).permute(0, 1, 3, 2, 4) + along(grid.transpose(1, 2), s.high).permute(0, 3, 1, 4, 2)
    return ((q @ k.mT + places.reshape(b * HEADS, h * w, h * w)).softmax(-1) @ v).mT.reshape(b, D, h, w)


def rewritten(s: Any, x: torch.Tensor) -> torch.Tensor:
    """RWKV-7: a state that a product of two vectors changes, and what begins at it is added."""
    b, t, _ = x.shape
    last = F.pad(x, (0, 0, 1, -1)) - x
    xr, xw, xk, xv, xa, xg = (x + last * m for m in s.mix.unbind(0))
    r, k, v = s.r(xr), s.k(xk), s.v(xv)
    w = torch.exp(-F.softplus(-(torch.tanh(xw @ s.w1) @ s.w2)))
    a, g = (xa @ s.a1 @ s.a2).sigmoid(), (xg @ s.g1).sigmoid() @ s.g2
    r, w, k, v, a = (z.view(b, t, HEADS, -1) for z in (r, w, k, v, a))
    state, found = torch.zeros(b, HEADS, 8, 8), []
    for i in range(t):
        removed = state @ -k[:, i, :, :, None] @ (k * a)[:, i, :, None, :]
        state = state * w[:, i, :, None, :] + removed + v[:, i, :, :, None] @ k[:, i, :, None, :]
        found.append((state @ r[:, i, :, :, None]).squeeze(-1))
    y = torch.stack(found, 1) + (r * k * s.bonus).sum(-1, keepdim=True) * v
    return s.out(y.flatten(2) * g)


def by_head(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("...hd,hod->...ho", x.unflatten(-1, (len(w), -1)), w).flatten(-2)


def xlstm(s: Any, x: torch.Tensor) -> torch.Tensor:
    """A layer with a matrix for a memory, and one whose gates see their own head's past."""
    inner, z = s.up(x).chunk(2, -1)
    c = F.silu(s.conv(inner.mT)[..., : x.shape[1]].mT)
    q, k, v = by_head(s.w_q, c), by_head(s.w_k, c), by_head(s.w_v, inner)
    every = torch.cat([q, k, v], -1)
    decay = F.logsigmoid(s.forget(every)).cumsum(1).mT[..., None] + s.enter(every).mT[..., None, :]
    y = (heads(q) @ heads(k).mT * decay.exp()) @ heads(v)
    x = x + s.down(y.transpose(1, 2).flatten(2) * F.silu(z))
    given, h, cell = s.given(x).unflatten(-1, (4, HEADS, 8)), torch.zeros(len(x), HEADS, 8), torch.zeros(1)
    for t in range(x.shape[1]):
        i, f, n, o = (given[:, t] + torch.einsum("bhd,hdgk->bghk", h, s.past)).unbind(1)
        cell = f.sigmoid() * cell + i.exp() * n.tanh()
        h = o.sigmoid() * cell.tanh()
    return x + h.flatten(1)[:, None]


def hyena(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Long convolutions by a transform, with filters that a perceptron makes of the places."""
    t = x.shape[1]
    one, other, v = s.short(s.enter(x).mT)[..., :t].chunk(3, 1)
    where = torch.linspace(0, 1, t)[:, None] * torch.arange(1, 4)
    kernel = s.filters(torch.sin(s.waves(where))).mT
    y = torch.fft.irfft(torch.fft.rfft(v * other, n=2 * t) * torch.fft.rfft(kernel, n=2 * t), n=2 * t)[..., :t]
    return s.out((y * one).mT)


def double(s: Any, x: torch.Tensor) -> torch.Tensor:
    """FLUX: pictures and words, each with weights of their own, in one attention."""
    says = F.silu(x.mean(1))
    parts, mods = (x[:, :3], x[:, 3:]), [m(says)[:, None].chunk(6, -1) for m in s.says]

    def normed(y: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return (1 + scale) * F.layer_norm(y, (D,)) + shift

    every = [
        layer(normed(y, m[0], m[1])).unflatten(-1, (3, HEADS, 8)).permute(2, 0, 3, 1, 4)
        for layer, y, m in zip(s.qkv, parts, mods, strict=True)
    ]
    q, k, v = (torch.cat(two, 2) for two in zip(*every, strict=True))
    y = F.scaled_dot_product_attention(F.rms_norm(q, (8,)), F.rms_norm(k, (8,)), v).transpose(1, 2).flatten(2)
    out = []
    for part, m, own, place, up, down in zip(parts, mods, y.split([3, 3], 1), s.place, s.up, s.down, strict=True):
        z = part + m[2] * place(own)
        out.append(z + m[5] * down(F.gelu(up(normed(z, m[3], m[4])))))
    return torch.cat(out, 1)


def by_masks(s: Any, x: torch.Tensor) -> torch.Tensor:
    """SAM 2: queries that are pooled, and masks whose kernels layers make of tokens."""
    b, _, h, w = x.shape
    q, k, v = s.qkv(x.permute(0, 2, 3, 1)).reshape(b, h * w, 3, HEADS, -1).unbind(2)
    q = F.max_pool2d(q.reshape(b, h, w, -1).permute(0, 3, 1, 2), 2).flatten(2).mT.unflatten(-1, (HEADS, -1))
    y = F.scaled_dot_product_attention(*(z.transpose(1, 2) for z in (q, k, v))).transpose(1, 2).flatten(2)
    big = F.gelu(s.larger(s.proj(y).mT.unflatten(2, (h // 2, w // 2))))
    kernels = torch.stack([layer(s.tokens.weight[i]) for i, layer in enumerate(s.masks)])
    return (kernels @ big.flatten(2)).unflatten(2, (h, w)).repeat(1, D // 2, 1, 1)


def by_products(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.down((x[..., None, :] * s.w).sum(-1))


def both(make: Callable[[], nn.Module]) -> nn.ModuleList:
    return nn.ModuleList(make() for _ in range(2))


def each_channel(width: int) -> nn.Conv1d:
    return nn.Conv1d(width, width, 4, padding=3, groups=width)


TORCH = {
    "StyleGAN2": Row(
        pictures(styled, w=weight(D, D, 3, 3), style=linear(D, D)),
        {**STEM, "w": [(D, 9 * D)], "style": [SQUARE]},
        kinds(head="head"),
    ),
    "StyleGAN2, a batch of kernels": Row(
        pictures(styled_too, w=weight(1, D, D, 3, 3), style=linear(D, D)),
        {**STEM, "w": [(D, 9 * D)], "style": [SQUARE]},
        kinds(head="head"),
    ),
    "StyleGAN2, a larger picture": Row(
        pictures(styled_and_larger, w=weight(D, D, 3, 3), style=linear(D, D)),
        {**STEM, "w": [(D, 9 * D)], "style": [SQUARE]},
        kinds(head="head"),
    ),
    "CIPS": Row(
        words(styled_layer, w=weight(D, D), style=linear(D, D)),
        {"w": [SQUARE], "style": [SQUARE]},
        ENDS,
    ),
    "a bank used both ways": Row(words(both_ways, w=weight(EXPERTS, INNER, D)), {"w": [UP] * EXPERTS}, ENDS),
    "a bank used both ways at once": Row(
        words(both_ways_at_once, w=weight(EXPERTS, D, INNER), router=linear(D, EXPERTS)),
        {"w": [UP] * EXPERTS, "router": [(EXPERTS, D)]},
        ENDS,
    ),
    "CondConv": Row(
        pictures(mixed, w=weight(EXPERTS, D, D, 3, 3), router=linear(D, EXPERTS)),
        {**STEM, "w": [(D, 9 * D)] * EXPERTS, "router": [(EXPERTS, D)]},
        kinds(head="head"),
    ),
    "CondConv, by sums": Row(
        pictures(mixed_by_sums, w=weight(EXPERTS, D, D, 3, 3), router=linear(D, EXPERTS)),
        {**STEM, "w": [(D, 9 * D)] * EXPERTS, "router": [(EXPERTS, D)]},
        kinds(head="head"),
    ),
    "SMEAR": Row(
        words(merged, w=weight(EXPERTS, INNER, D), router=linear(D, EXPERTS), down=linear(INNER, D)),
        {"w": [UP] * EXPERTS, "router": [(EXPERTS, D)], "down": [DOWN]},
        ENDS,
    ),
    "WavLM's gates": Row(
        words(summed_gates, gates=linear(8, 8), qkv=linear(D, 3 * D), scale=weight(1, HEADS, 1, 1)),
        {"gates": [(4, 8)] * 2, "qkv": [SQUARE] * 3},
        ENDS,
    ),
    "RWKV-7": Row(
        words(
            rewritten, mix=weight(6, 1, 1, D), **{f"{one}1": weight(D, 8) for one in "wag"},
            **{f"{one}2": weight(8, D) for one in "wag"}, bonus=weight(HEADS, 8),
            **{one: linear(D, D) for one in ("r", "k", "v", "out")},
        ),
        {
            **{f"{one}1": [(8, D)] for one in "wag"}, **{f"{one}2": [(D, 8)] for one in "wag"},
            **{one: [SQUARE] for one in ("r", "k", "v", "out")},
        },
        {**ENDS, **kinds(other="bonus mix")},
    ),
    "xLSTM": Row(
        words(
            xlstm, up=linear(D, 2 * INNER), conv=each_channel(INNER), enter=linear(3 * INNER, HEADS),
            forget=linear(3 * INNER, HEADS), down=linear(INNER, D), given=linear(D, 4 * D),
            past=weight(HEADS, 8, 4, 8), **{f"w_{one}": weight(8, 8, 8) for one in "qkv"},
        ),
        {
            "up": [UP] * 2, **{f"w_{one}": [(8, 8)] * 8 for one in "qkv"}, "enter": [(HEADS, 3 * INNER)],
            "forget": [(HEADS, 3 * INNER)], "down": [DOWN], "given": [SQUARE] * 4, "past": [(8, 8)] * 16,
        },
        {**ENDS, "conv": "other"},
    ),
    "Hyena": Row(
        words(
            hyena, enter=linear(D, 3 * D), short=each_channel(3 * D), waves=linear(3, 16), filters=linear(16, D),
            out=linear(D, D),
        ),
        {"enter": [SQUARE] * 3, "waves": [(16, 3)], "filters": [(D, 16)], "out": [SQUARE]},
        {**ENDS, "short": "other"},
    ),
    "FLUX, a double block": Row(
        words(
            double, says=both(lambda: linear(D, 6 * D)), qkv=both(lambda: linear(D, 3 * D)),
            place=both(lambda: linear(D, D)), up=both(lambda: linear(D, INNER)), down=both(lambda: linear(INNER, D)),
        ),
        {
            **{f"{one}.{i}": held for i in (0, 1) for one, held in (
                ("says", [SQUARE] * 6), ("qkv", [SQUARE] * 3), ("place", [SQUARE]), ("up", [UP]), ("down", [DOWN]),
            )},
        },
        ENDS,
    ),
    "SAM 2, an eye and its masks": Row(
        pictures(
            by_masks, qkv=linear(D, 3 * INNER), proj=linear(INNER, D), larger=nn.ConvTranspose2d(D, 16, 2, 2),
            tokens=nn.Embedding(2, D), masks=both(lambda: linear(D, 16)),
        ),
        {
            **STEM, "qkv": [UP] * 3, "proj": [DOWN], "larger": [(16, 4 * D)],
            **{f"masks.{i}": [(16, D)] for i in (0, 1)},
        },
        kinds(embedding="tokens", head="head"),
    ),
    "a product by sums": Row(
        words(by_products, w=weight(INNER, D), down=linear(INNER, D)),
        {"w": [UP], "down": [DOWN]},
        ENDS,
    ),
}  # fmt: skip
