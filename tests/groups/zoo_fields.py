"""Architectures whose forward takes derivatives, or in which what layers give picks, mixes or numbers other things.

Each forward is a function of a model and its input, and each table was written from the architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.groups import zoo
from tests.groups.zoo import HEADS, INNER, D, Row, kinds
from tests.groups.zoo_2026 import both, each_channel, weight, words
from tests.groups.zoo_apart import EDGES, NODES, WAVES, attended, graphs, list_of, seen_along
from tests.groups.zoo_further import ENDS, heads, linear

SQUARE, UP, DOWN, WIDE, BACK = zoo.SQUARE, zoo.UP, zoo.DOWN, zoo.WIDE, zoo.BACK
EXPERTS, SLOTS, KEYS, STREAMS, MODES = 3, 2, 5, 3, 4


class Field(nn.Module):
    """Numbers for places; what is returned is for ``forward`` to say."""

    def __init__(self, forward: Any, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *given: torch.Tensor) -> Any:
        return self.run(self, *given)


def fields(forward: Any, *given: torch.Tensor, **parts: Any) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (Field(forward, **parts), given)


def derivative(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def forces(s: Any, kinds: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SchNet: an energy, and its derivative by the places of atoms."""
    places = places.requires_grad_()
    x, (waves, _) = s.atoms(kinds), seen_along(places, EDGES)
    says = s.before(x)[EDGES[0]] * s.filters(F.softplus(s.waves(waves)))
    x = x + s.after(F.softplus(torch.zeros(NODES, D).index_add(0, EDGES[1], says)))
    energy = s.energy(F.softplus(s.inner(x))).sum()
    return energy, -derivative(energy, places)


def wave(s: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A network that is to fulfil an equation: its value, and what is left of the equation there."""
    x = x.requires_grad_()
    y = s.value(torch.tanh(s.two(torch.tanh(s.one(x)))))
    slope = derivative(y, x)
    return y, slope[:, 1] - derivative(slope[:, 0], x)[:, 0]


def operator(s: Any, x: torch.Tensor) -> torch.Tensor:
    """FNO: the lowest waves of all channels are multiplied with complex matrices, one for each."""
    x = s.lift(x)
    w = s.spectral if s.spectral.is_complex() else torch.view_as_complex(s.spectral)
    waves = torch.fft.rfft(x)
    mixed = F.pad(torch.einsum("bix,iox->box", waves[..., :MODES], w), (0, waves.shape[-1] - MODES))
    return s.value(F.gelu(torch.fft.irfft(mixed, n=x.shape[-1]) + s.skip(x)))


def graph_attention(s: Any, x: torch.Tensor, edges: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    x = s.layer(x).unflatten(-1, (HEADS, -1))
    scores = (x * s.into).sum(-1)[edges[1]] + (x * s.out_of).sum(-1)[edges[0]]
    share = F.leaky_relu(scores).exp()
    share = share / torch.zeros(NODES, HEADS).index_add(0, edges[1], share)[edges[1]]
    return torch.zeros(NODES, HEADS, D // HEADS).index_add(0, edges[1], x[edges[0]] * share[..., None]).flatten(1)


def soft_experts(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Soft MoE: each slot of each expert takes a mean of all tokens, each token a mean of all slots."""
    scores = torch.einsum("btd,dnp->btnp", x, s.phi)
    slots = torch.einsum("btd,btnp->bnpd", x, scores.softmax(1))
    y = torch.einsum("bnpf,nfd->bnpd", F.gelu(torch.einsum("bnpd,ndf->bnpf", slots, s.up)), s.down)
    return torch.einsum("bnpd,btnp->btd", y, scores.flatten(2).softmax(-1).view_as(scores))


def soft_modules(s: Any, x: torch.Tensor) -> torch.Tensor:
    """The same, where each expert is a module."""
    scores = torch.einsum("btd,dnp->btnp", F.normalize(x, dim=-1), F.normalize(s.phi, dim=0) * s.scale)
    slots = torch.einsum("btd,btnp->bnpd", x, scores.softmax(1))
    y = torch.stack([layer(slots[:, i]) for i, layer in enumerate(s.layers)], 1)
    return torch.einsum("bnpd,btnp->btd", y, scores.flatten(2).softmax(-1).view_as(scores))


def memory(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Product keys: two halves of a query find the best of their keys, and pairs of these find values."""
    q, keys = s.query(x).view(-1, HEADS // 2, 2, 8), s.keys.view(HEADS // 2, 2, KEYS, 8)
    one, other = (torch.einsum("bhd,hnd->bhn", q[:, :, half], keys[:, half]).topk(2) for half in (0, 1))
    scores = (one.values[..., None] + other.values[..., None, :]).flatten(-2)
    places = (one.indices[..., None] * KEYS + other.indices[..., None, :]).flatten(-2)
    best = scores.topk(2)
    share, which = best.values.softmax(-1), places.gather(-1, best.indices)
    return x + (s.values[which] * share[..., None]).sum((1, 2)).view_as(x)


def manifold(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Hyper-connections (mHC): one weight gives what streams are read, written and mixed with."""
    streams = x[..., None, :].repeat(1, 1, STREAMS, 1)
    for layer in s.layers:
        told = F.linear(F.rms_norm(streams.flatten(2), (STREAMS * D,)), s.told)
        read, write, mix = told.split([STREAMS, STREAMS, STREAMS**2], -1)
        mix = mix.unflatten(-1, (STREAMS, STREAMS)).exp()
        mix = mix / mix.sum(-1, keepdim=True)
        y = layer(torch.einsum("btn,btnd->btd", read.sigmoid(), streams))
        streams = mix @ streams + 2 * write.sigmoid()[..., None] * y[..., None, :]
    return streams.mean(2)


def delta(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Kimi Linear: a state that forgets by channel, behind convolutions of each channel by itself."""
    b, t, _ = x.shape
    q, k, v = (
        heads(F.silu(conv(layer(x).mT)[..., :t].mT)) for conv, layer in zip(s.convs, (s.wq, s.wk, s.wv), strict=True)
    )
    decay = -s.rate.exp()[:, None, None] * F.softplus(heads(s.forget_up(s.forget_down(x))))
    strength = s.strength(x).sigmoid().mT[..., None]
    state, found = torch.zeros(b, HEADS, 8, 8), []
    for i in range(t):
        state = state * decay[:, :, i, :, None].exp()
        error = v[:, :, i] - torch.einsum("bhk,bhkv->bhv", k[:, :, i], state)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, :, i] * strength[:, :, i], error)
        found.append(torch.einsum("bhk,bhkv->bhv", q[:, :, i], state))
    y = F.rms_norm(torch.stack(found, 1), (8,)) * s.gate_up(s.gate_down(x)).view(b, t, HEADS, 8).sigmoid()
    return x + s.leave(y.flatten(2))


def speedrun(s: Any, x: torch.Tensor) -> torch.Tensor:
    """modded-nanogpt later: q, k, v and the output in one weight, values from a table, skips from earlier layers."""
    first, skips = x, []
    for i, (qkvo, up, down) in enumerate(zip(s.qkvo, s.up, s.down, strict=True)):
        x = s.gains[i, 0] * (x + skips.pop() if i else x) + s.gains[i, 1] * first
        q, k, v = F.linear(F.rms_norm(x, (D,)), qkvo[: 3 * D]).unflatten(-1, (3 * HEADS, -1)).chunk(3, -2)
        v = v + s.gains[i, 0] * s.early((first[..., 0] * 9).long() % 7).view_as(v)
        x = x + F.linear(attended(*(z.transpose(1, 2) for z in (q, k, v))), qkvo[3 * D :])
        skips.append(x)
        x = x + F.linear(F.relu(F.linear(F.rms_norm(x, (D,)), up)).square(), down.T)
    return x


def points(s: Any, x: torch.Tensor) -> torch.Tensor:
    """AlphaFold: keys and values of numbers in one weight, head by head, and those of points in another."""
    k, v = s.both(x).unflatten(-1, (HEADS, 16)).transpose(1, 2).split(8, -1)
    of_keys, of_values = torch.stack(s.points(x).chunk(3, -1), -1).unflatten(2, (HEADS, 6)).split([2, 4], 3)
    of_queries = torch.stack(s.asked(x).chunk(3, -1), -1).unflatten(2, (HEADS, 2))
    apart = (of_queries[:, :, None] - of_keys[:, None]).square().sum((-1, -2)).permute(0, 3, 1, 2)
    share = (heads(s.queries(x)) @ k.mT - apart).softmax(-1)
    y = torch.einsum("bhij,bjhpc->bihpc", share, of_values).flatten(2)
    return x + s.leave(torch.cat([(share @ v).transpose(1, 2).flatten(2), y], -1))


def perceptron() -> nn.Sequential:
    return nn.Sequential(linear(D, INNER), nn.GELU(), linear(INNER, D))


def operator_of(w: nn.Parameter) -> Callable[[], tuple[nn.Module, Any]]:
    kernel = {"lift": nn.Conv1d(2, 16, 1), "skip": nn.Conv1d(16, 16, 1), "value": nn.Conv1d(16, 1, 1)}
    return fields(operator, torch.randn(2, 2, 16), spectral=w, **kernel)


PERCEPTRONS = {f"layers.{i}.{j}": [one] for i in (0, 1) for j, one in ((0, UP), (2, DOWN))}
OPERATOR = {"lift": [(16, 2)], "skip": [(16, 16)]}
TORCH = {
    "SchNet with forces": Row(
        fields(
            forces, torch.arange(NODES), torch.randn(NODES, 3), atoms=nn.Embedding(10, D), waves=linear(WAVES, D),
            filters=linear(D, D), before=linear(D, D), after=linear(D, D), inner=linear(D, 16), energy=linear(16, 1),
        ),
        {
            "waves": [(D, WAVES)], "filters": [SQUARE], "before": [SQUARE], "after": [SQUARE], "inner": [(16, D)],
        },
        kinds(embedding="atoms", head="energy"),
    ),
    "a network for an equation": Row(
        fields(wave, torch.randn(6, 2), one=linear(2, D), two=linear(D, D), value=linear(D, 1)),
        {"one": [(D, 2)], "two": [SQUARE]},
        kinds(head="value"),
    ),
    "FNO": Row(
        operator_of(nn.Parameter(torch.randn(16, 16, MODES, dtype=torch.cfloat) / 8)),
        OPERATOR,
        kinds(head="value", other="spectral"),
    ),
    "FNO, pairs of numbers": Row(
        operator_of(weight(16, 16, MODES, 2)), OPERATOR, kinds(head="value", other="spectral")
    ),
    "GAT": Row(
        graphs(graph_attention, layer=linear(D, D), into=weight(1, HEADS, 8), out_of=weight(1, HEADS, 8)),
        {"stem": [(D, 5)], "layer": [SQUARE]},
        kinds(other="into out_of", head="head"),
    ),
    "Soft MoE": Row(
        words(
            soft_experts, phi=weight(D, EXPERTS, SLOTS), up=weight(EXPERTS, D, INNER), down=weight(EXPERTS, INNER, D)
        ),
        {"phi": [(EXPERTS * SLOTS, D)], "up": [UP] * EXPERTS, "down": [DOWN] * EXPERTS},
        ENDS,
    ),
    "Soft MoE, modules": Row(
        words(soft_modules, phi=weight(D, 2, SLOTS), scale=weight(1), layers=both(perceptron)),
        {"phi": [(2 * SLOTS, D)], **PERCEPTRONS},
        ENDS,
    ),
    "product keys": Row(
        words(memory, query=linear(D, D), keys=weight(HEADS * KEYS, 8), values=weight(KEYS**2, D)),
        {"query": [(16, D)] * 2, "keys": [(KEYS, 8)] * 4},
        {**ENDS, "values": "embedding"},
    ),
    "hyper-connections": Row(
        words(manifold, told=weight(2 * STREAMS + STREAMS**2, STREAMS * D), layers=both(perceptron)),
        {"told": [(STREAMS, STREAMS * D)] * 2 + [(STREAMS**2, STREAMS * D)], **PERCEPTRONS},
        ENDS,
    ),
    "Kimi Linear": Row(
        words(
            delta, wq=linear(D, D), wk=linear(D, D), wv=linear(D, D), leave=linear(D, D), strength=linear(D, HEADS),
            convs=nn.ModuleList(each_channel(D) for _ in range(3)), forget_down=linear(D, 8), forget_up=linear(8, D),
            gate_down=linear(D, 8), gate_up=linear(8, D), rate=weight(HEADS),
        ),
        {
            **{one: [SQUARE] for one in ("wq", "wk", "wv", "leave")}, "strength": [(HEADS, D)],
            **{f"{one}_down": [(8, D)] for one in ("forget", "gate")},
            **{f"{one}_up": [(D, 8)] for one in ("forget", "gate")},
        },
        {**ENDS, **kinds(other="convs.0 convs.1 convs.2")},
    ),
    "modded-nanogpt, later": Row(
        words(
            speedrun, qkvo=list_of(4 * D, D), up=list_of(4 * D, D), down=list_of(4 * D, D), gains=weight(2, 2),
            early=nn.Embedding(7, D),
        ),
        {f"{one}.{i}": held for i in (0, 1) for one, held in (
            ("qkvo", [SQUARE] * 4), ("up", [WIDE]), ("down", [BACK]),
        )},
        {**ENDS, **kinds(embedding="early", other="gains")},
    ),
    "invariant points": Row(
        words(
            points, both=linear(D, 2 * D), points=linear(D, 3 * HEADS * 6), asked=linear(D, 3 * HEADS * 2),
            queries=linear(D, D), leave=linear(D + 3 * HEADS * 4, D),
        ),
        {
            "both": [SQUARE] * 2, "points": [(24, D), (48, D)], "asked": [(24, D)], "queries": [SQUARE],
            "leave": [(D, D + 48)],
        },
        ENDS,
    ),
}  # fmt: skip
