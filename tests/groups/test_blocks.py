"""Which matrices each weight holds: a table written from the architectures, by hand."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import thalweg
from tests.groups import hub
from thalweg.groups import Blocks, Rule, blocks
from thalweg.groups.partition import Cut, by_fate, equal_parts
from thalweg.optim.cutting import shapes

D, H = 16, 4  # numbers of a position, heads
HD = D // H


def whole(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def by_hand(q, k, v):
    return (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v


def head_by_head(q, k, v):
    return torch.stack([by_hand(q[:, i], k[:, i], v[:, i]) for i in range(H)], 1)


def linear_attention(q, k, v):
    return q.softmax(-1) @ (k.softmax(-2).transpose(-2, -1) @ v)


def halves(x):
    """Rotary positions as in Llama."""
    one, other = x.chunk(2, -1)
    return x * 0.6 + torch.cat((-other, one), -1) * 0.8


def halves_apart(x):
    """The same as in nanogpt."""
    one, other = x.chunk(2, -1)
    return torch.cat((one * 0.6 + other * 0.8, one * -0.8 + other * 0.6), -1)


def pairs(x):
    """The same of neighbours, as in GPT-J."""
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack((even * 0.6 - odd * 0.8, even * 0.8 + odd * 0.6), -1).flatten(-2)


def complex_pairs(x):
    """The same as in Llama's first code."""
    z = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(z * torch.polar(torch.ones(HD // 2), torch.ones(HD // 2))).flatten(-2)


def part_of_it(x):
    """The same for half of the numbers, as in GPT-NeoX."""
    turned, kept = x[..., : HD // 2], x[..., HD // 2 :]
    return torch.cat((halves(turned), kept), -1)


def normed(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def in_place(x):
    out = torch.empty_like(x)
    out[..., ::2], out[..., 1::2] = -x[..., 1::2], x[..., ::2]
    return x * 0.6 + out * 0.8


def as_it_is(x):
    return x


def chunk(y):
    return [z.unflatten(-1, (H, HD)).transpose(1, 2) for z in y.chunk(3, -1)]


def slices(y):
    return [y[..., i * D : (i + 1) * D].reshape(*y.shape[:2], H, HD).transpose(1, 2) for i in range(3)]


def narrow(y):
    return [y.narrow(-1, i * D, D).view(*y.shape[:2], H, HD).transpose(1, 2) for i in range(3)]


def tensor_split(y):
    return [z.view(*y.shape[:2], H, HD).transpose(1, 2) for z in torch.tensor_split(y, (D, 2 * D), -1)]


def timm(y):
    return y.reshape(*y.shape[:2], 3, H, HD).permute(2, 0, 3, 1, 4).unbind(0)


def swin(y):
    y = y.reshape(*y.shape[:2], 3, H, HD).permute(2, 0, 3, 1, 4)
    return y[0], y[1], y[2]


def einops(y):
    """As ``rearrange(y, "b t (k h d) -> k b h t d")`` does it."""
    return torch.einsum("btkhd->kbhtd", y.view(*y.shape[:2], 3, H, HD))


def neox(y):
    """q, k and v of each head side by side."""
    return y.view(*y.shape[:2], H, 3 * HD).transpose(1, 2).chunk(3, -1)


def megatron(y):
    return y.view(*y.shape[:2], H, 3, HD).permute(0, 2, 1, 3, 4).unbind(-2)


def turned_first(y):
    return [z.view(*z.shape[:2], H, HD).transpose(1, 2) for z in y.transpose(0, 1).split(D, -1)]


def after_a_norm(y):
    return chunk(F.dropout(F.layer_norm(y, (3 * D,)), 0.1))


def scattered(y):
    return [y[..., i::3].unflatten(-1, (H, HD)).transpose(1, 2) for i in range(3)]


def places_that_are_kept(y):
    """Padding is taken out before the layer, and comes back behind it."""
    mask = torch.tensor([[True, True, False], [True, True, True]])
    z = torch.zeros_like(y)
    z[mask] = y[mask]
    return chunk(z)


def rows_that_are_copied(y):
    return chunk(torch.zeros_like(y).index_copy(1, torch.tensor([2, 0, 1]), y))


def among_others(y):
    """As the features of a picture, in the places of their words."""
    mask = torch.tensor([[True, True, False], [True, True, True]])[..., None].expand_as(y)
    return chunk(torch.ones_like(y).masked_scatter(mask, y.flatten(0, 1)))


def a_slice_that_is_set(y):
    return chunk(torch.slice_scatter(torch.zeros(*y.shape[:2], 3 * D + 2), y, -1, 1, 3 * D + 1)[..., 1:-1])


class Attention(nn.Module):
    def __init__(self, cut=chunk, attend=whole, turn=as_it_is, linear=nn.Linear):
        super().__init__()
        self.emb, self.qkv, self.out, self.head = nn.Embedding(9, D), linear(D, 3 * D), nn.Linear(D, D), nn.Linear(D, 9)
        self.cut, self.attend, self.turn = cut, attend, turn

    def forward(self, i):
        q, k, v = self.cut(self.qkv(self.emb(i)))
        y = self.attend(self.turn(q), self.turn(k), v)
        return self.head(self.out(y.transpose(1, 2).reshape(*i.shape, D)))


CUTS = (
    *(chunk, slices, narrow, tensor_split, timm, swin, einops, neox, megatron),
    *(turned_first, after_a_norm, scattered),
    *(places_that_are_kept, rows_that_are_copied, among_others, a_slice_that_is_set),
)
TURNS = (halves, halves_apart, pairs, complex_pairs, part_of_it, normed, in_place)
IDS = torch.arange(6).view(2, 3) % 9


def of(model, sample=IDS):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LSTM with projections")  # torch's
        return blocks(model, sample)


@pytest.mark.parametrize("cut", CUTS)
def test_q_k_v_are_three_matrices_however_they_are_cut(cut):
    assert of(Attention(cut)) == {"qkv.weight": [(D, D)] * 3, "out.weight": [(D, D)]}


@pytest.mark.parametrize("attend", [whole, by_hand, head_by_head, linear_attention])
def test_q_k_v_are_three_matrices_however_they_attend(attend):
    assert of(Attention(attend=attend))["qkv.weight"] == [(D, D)] * 3


@pytest.mark.parametrize("cut", [chunk, neox])
@pytest.mark.parametrize("turn", TURNS)
def test_a_rotation_of_pairs_cuts_nothing(turn, cut):
    for attend in (whole, by_hand):
        assert of(Attention(cut, attend, turn))["qkv.weight"] == [(D, D)] * 3


class Net(nn.Module):
    """A body between an embedding and a head."""

    def __init__(self, forward, d=D, **parts):
        super().__init__()
        self.emb, self.head, self.run = nn.Embedding(9, D), nn.Linear(d, 9), forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, i):
        return self.head(self.run(self, self.emb(i)))


def gated(activation):
    return Net(lambda s, x: s.down(activation(s.up(x))), up=nn.Linear(D, 4 * D), down=nn.Linear(2 * D, D))


def mamba(s, x):
    y, z = s.inner(x).chunk(2, -1)
    y = F.silu(s.conv(y.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
    b, c = s.states(y).split([4, 4], -1)
    return s.out((y * (b * c).sum(-1, keepdim=True)) * F.silu(z))


def lstm_by_hand(s, x):
    h = c = torch.zeros(x.shape[0], D)
    for t in range(x.shape[1]):
        i, f, g, o = (s.x(x[:, t]) + s.h(h)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    return h


def restormer(s, x):
    q, k, v = s.deep(s.qkv(x.transpose(1, 2))).chunk(3, 1)
    return ((q @ k.transpose(1, 2)).softmax(-1) @ v).transpose(1, 2)


def falcon(s, x):
    """Two groups of heads, each of two q, a k and a v."""
    y = s.qkv(x).view(*x.shape[:2], 2, 4, HD)
    q, k, v = y[..., :-2, :].flatten(2, 3), y[..., [-2], :], y[..., [-1], :]
    k, v = (z.expand(-1, -1, -1, 2, -1).flatten(2, 3) for z in (k, v))
    return F.scaled_dot_product_attention(*(z.transpose(1, 2) for z in (q, k, v))).transpose(1, 2).flatten(2)


def latent(s, x):
    """A narrow latent and a rotary key beside it, as in DeepSeek."""
    c, r = s.down(x).split([8, HD], -1)
    k, v = s.up(F.layer_norm(c, (8,))).view(*x.shape[:2], H, 2 * HD).split([HD, HD], -1)
    k = torch.cat((k, halves(r)[:, :, None].expand(-1, -1, H, -1)), -1).transpose(1, 2)
    q = s.q(x).view(*x.shape[:2], H, 2 * HD).transpose(1, 2)
    return whole(q, k, v.transpose(1, 2)).transpose(1, 2).flatten(2)


def lora(s, x):
    y = s.qkv(x) + 2 * s.b(F.dropout(s.a(x), 0.1))
    return whole(*chunk(y)).transpose(1, 2).flatten(2)


def stack(*shape):
    return nn.Parameter(torch.randn(shape) / 4)


def of_experts(up, down):
    def forward(s, x):
        y = torch.einsum(down, F.gelu(torch.einsum(up, x, s.up)), s.down)
        return (y * s.router(x).softmax(-1)[..., None]).sum(-2)

    return forward


def one_by_one(s, x):
    y = 0
    for i in range(3):
        gate, up = F.linear(x, s.up[i]).chunk(2, -1)
        y = y + F.linear(F.silu(gate) * up, s.down[i]) * s.router(x)[..., i : i + 1]
    return y


def batched(s, x):
    flat = x.flatten(0, 1).expand(3, -1, -1)
    gate, up = torch.bmm(flat, s.up).chunk(2, -1)
    y = torch.bmm(gate.relu() * up, s.down).view(3, *x.shape[:2], -1)
    return (y * s.router(x).permute(2, 0, 1)[..., None]).sum(0)


def heads_by_einsum(s, x):
    q, k, v = (torch.einsum("btd,dhk->bhtk", x, w) for w in (s.q, s.k, s.v))
    return torch.einsum("bhtk,hkd->btd", whole(q, k, v), s.out)


def gathered(s, x):
    """Weights of the experts that each position chose."""
    flat = x.flatten(0, 1)
    share, which = s.router(flat).softmax(-1).topk(2, -1)
    y = F.gelu(torch.einsum("tkfd,td->tkf", s.up[which], flat))
    return (torch.einsum("tkdf,tkf->tkd", s.down[which], y) * share[..., None]).sum(1).view(x.shape)


def dispatched(s, x):
    """Positions that each expert was chosen by."""
    flat = x.flatten(0, 1)
    share, which = s.router(flat).softmax(-1).topk(2, -1)
    out = torch.zeros_like(flat)
    for i in range(3):
        at, place = torch.where(which == i)
        gate, up = F.linear(flat[at], s.up[i]).chunk(2, -1)
        out.index_add_(0, at, F.linear(F.silu(gate) * up, s.down[i]) * share[at, place, None])
    return out.view(x.shape)


def grouped(s, x):
    flat, ends = x.flatten(0, 1).bfloat16(), torch.tensor([2, 4, 6], dtype=torch.int32)
    gate, up = torch._grouped_mm(flat, s.up.bfloat16(), offs=ends).chunk(2, -1)
    y = torch._grouped_mm(F.silu(gate) * up, s.down.bfloat16(), offs=ends).to(x.dtype).view(x.shape)
    return y * s.router(x).softmax(-1).amax(-1, keepdim=True)


def in_rows(s, x):
    """Experts in one weight, one below the other, each picked by its number, as in DBRX."""
    flat = x.flatten(0, 1)
    share, which = s.router(flat).softmax(-1).topk(2, -1)
    out = torch.zeros_like(flat)
    for i in (0, 2):  # as if nothing had chosen the others
        y = F.silu(flat @ s.gate.view(N, M, D)[i].t()) * (flat @ s.up.view(N, M, D)[i].t())
        out = out + y @ s.down.view(N, M, D)[i] * (share * (which == i)).sum(-1, keepdim=True)
    return out.view(x.shape)


def relative(s, x):
    """Scores by content and by position, which a table of its own holds, as in DeBERTa."""
    q, k, v = chunk(s.qkv(x))
    places = s.place(s.table.weight).unflatten(-1, (H, HD)).transpose(0, 1)
    scores = q @ k.transpose(-2, -1) + (q @ places.transpose(-2, -1))[..., : x.shape[1]]
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def coordinates(s, x):
    """A bias of the scores that follows from where positions are, as in Swin v2."""
    q, k, v = chunk(s.qkv(x))
    t = x.shape[1]
    where = torch.arange(float(t))
    bias = s.b(F.relu(s.a((where[:, None] - where)[..., None]))).permute(2, 0, 1)
    return ((q @ k.transpose(-2, -1) + bias).softmax(-1) @ v).transpose(1, 2).flatten(2)


def masked_router(s, x):
    scores = s.router(x)
    best = scores.argmax(-1, keepdim=True)
    second = torch.scatter(scores, -1, best, float("-inf")).softmax(-1)
    return x * second.amax(-1, keepdim=True) + scores.amax(-1, keepdim=True)


def written(s, x):
    """Keys whose parts are written into a tensor, one of them turned, as in DeepSeek-V2."""
    c, r = s.down(x).split([8, HD], -1)
    z = torch.view_as_complex(r.reshape(*r.shape[:-1], -1, 2)) * torch.polar(torch.ones(HD // 2), torch.ones(HD // 2))
    k = x.new_empty(*x.shape[:2], H, 2 * HD)
    k[..., :HD] = s.up(F.layer_norm(c, (8,))).unflatten(-1, (H, HD))
    k[..., HD:] = torch.view_as_real(z).flatten(-2)[:, :, None]
    q = s.q(x).unflatten(-1, (H, 2 * HD)).transpose(1, 2)
    k = k.transpose(1, 2)
    return s.out(((q @ k.transpose(-2, -1)).softmax(-1) @ k).transpose(1, 2).flatten(2))


def modulated(s, x):
    """A norm scaled, shifted and gated by what a condition says, twice, as in DiT."""
    a, b, c, d, e, f = s.says(F.silu(x.mean(1)))[:, None].chunk(6, -1)
    x = x + c * s.a(F.layer_norm(x, (D,)) * (1 + b) + a)
    return x + f * s.b(F.layer_norm(x, (D,)) * (1 + e) + d)


def sampled(s, x):
    mean, spread = s.enter(x).chunk(2, -1)
    return s.leave(mean + torch.randn_like(mean) * (spread / 2).exp())


def gru_by_hand(s, x):
    h = torch.zeros(x.shape[0], D)
    for t in range(x.shape[1]):
        r, z, n = s.x(x[:, t]).chunk(3, -1)
        to_r, to_z, to_n = s.h(h).chunk(3, -1)
        n = (n + (r + to_r).sigmoid() * to_n).tanh()
        h = n + (z + to_z).sigmoid() * (h - n)
    return h


def mixing(s, x):
    """Adapters side by side in two weights, and each result used otherwise, as in RWKV-6."""
    y = (x @ s.a).tanh().view(-1, 3, 4).transpose(0, 1)
    k, v, g = torch.bmm(y, s.b).view(3, *x.shape).unbind(0)
    return s.out(x + g.sigmoid() * (k.exp() * v))


def by_zeros(s, x):
    """Queries that begin at zero, and positions that are given, as in DETR and Conformer."""
    begin, where = torch.zeros_like(x), torch.linspace(-1, 1, x.shape[1] * D).view(1, -1, D)
    q, k = (z.unflatten(-1, (H, HD)).transpose(1, 2) for z in (x, s.place(where)))
    v = s.v(begin).unflatten(-1, (H, HD)).transpose(1, 2)
    return s.out(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2))


def picked_table(s, x):
    """A bias of scores that is looked up by products with ones and zeros, as in MaxViT."""
    t = x.shape[1]
    pick = F.one_hot((torch.arange(t)[:, None] - torch.arange(t)).abs(), 4).float()
    bias = torch.einsum("nhw,ixh,jyw->nij", s.table, pick, pick)
    q, k, v = chunk(s.qkv(x))
    return ((q @ k.transpose(-2, -1) + bias[0, :t, :t]).softmax(-1) @ v).transpose(1, 2).flatten(2)


def segments(s, x):
    """Scores of each head beside the keys' own, from a weight of the heads, as in XLNet."""
    q = torch.einsum("btd,dhk->bhtk", x, s.q)
    k, v = (z.unflatten(-1, (H, HD)).transpose(1, 2) for z in s.kv(x).chunk(2, -1))
    scores = q @ k.transpose(-2, -1) + torch.einsum("bhtk,hsk->bhts", q, s.side).amax(-1, keepdim=True)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def attended(project):
    """Heads side by side that a function of the model and its input gives."""
    return lambda s, x: whole(*project(s, x)).transpose(1, 2).flatten(2)


def by_weight(s, x):
    return [F.linear(x, w).unflatten(-1, (H, HD)).transpose(1, 2) for w in s.qkv.weight.chunk(3)]


def by_stack(s, x):
    return [(x @ w).unflatten(-1, (H, HD)).transpose(1, 2) for w in s.qkv]


def palm(s, x):
    """Attention with one key and value for all heads, and an MLP, from one weight."""
    q, k, v, y = s.all(x).split([D, HD, HD, 2 * M], -1)
    k, v = (z[:, None].expand(-1, H, -1, -1) for z in (k, v))
    q = q.unflatten(-1, (H, HD)).transpose(1, 2)
    return s.out(whole(q, k, v).transpose(1, 2).flatten(2)) + s.down(F.silu(y))


N, M = 3, 2 * D  # experts, their inner width
SQUARE, UP, DOWN, ROUTER = [(D, D)], [(M, D)], [(D, M)], [(N, D)]
L = nn.Linear


def along_channels(layer):
    return Net(lambda s, x: s.c(x.transpose(1, 2)).transpose(1, 2), c=layer, d=M)


def recurrent(layer, d=D):
    return Net(lambda s, x: s.r(x)[0], d=d, r=layer)


def of_a_bank(s, x):
    """All four weights of each attention in one tensor, as in modded-nanogpt."""
    for layer in s.bank:
        q, k, v = (heads_of(y) for y in F.linear(x, layer[:3].flatten(0, 1)).chunk(3, -1))
        x = x + F.linear(whole(q, k, v).transpose(1, 2).flatten(2), layer[3])
    return x


def heads_of(y):
    return y.unflatten(-1, (H, HD)).transpose(1, 2)


def by_learned_queries(s, x):
    """A few queries that are parameters, as of Perceiver and of induced points."""
    q = s.q(s.points.expand(len(x), -1, -1))
    return F.scaled_dot_product_attention(q, *s.kv(x).chunk(2, -1)).mean(1, keepdim=True).expand_as(x)


def moe(forward, up, down):
    return Net(forward, up=stack(N, *up), down=stack(N, *down), router=L(D, N))


GLU = {"up.weight": UP * 2, "down.weight": DOWN}
EXPERTS = {"up": UP * N, "down": DOWN * N, "router.weight": ROUTER}
GATED_EXPERTS = {**EXPERTS, "up": UP * 2 * N}
TABLE = {
    "gate and up": (gated(lambda y: F.silu(y.chunk(2, -1)[0]) * y.chunk(2, -1)[1]), GLU),
    "gate and up in turn": (gated(lambda y: F.gelu(y[..., ::2]) * y[..., 1::2]), GLU),
    "F.glu": (gated(lambda y: F.glu(y)), GLU),
    "maxout": (gated(lambda y: torch.maximum(*y.chunk(2, -1))), GLU),
    "mlp": (
        Net(lambda s, x: s.b(F.gelu(s.a(x))), a=L(D, M), b=L(M, D)),
        {"a.weight": UP, "b.weight": DOWN},
    ),
    "mamba": (
        Net(mamba, inner=L(D, 4 * D), conv=nn.Conv1d(M, M, 3, padding=2, groups=M), states=L(M, 8), out=L(M, D)),
        {"inner.weight": UP * 2, "states.weight": [(4, M)] * 2, "out.weight": DOWN},
    ),
    "lstm by hand": (
        Net(lstm_by_hand, x=L(D, 4 * D), h=L(D, 4 * D)),
        {"x.weight": SQUARE * 4, "h.weight": SQUARE * 4},
    ),
    "restormer": (
        Net(restormer, qkv=nn.Conv1d(D, 3 * D, 1), deep=nn.Conv1d(3 * D, 3 * D, 3, padding=1, groups=3 * D)),
        {"qkv.weight": SQUARE * 3},
    ),
    "falcon": (Net(falcon, qkv=L(D, 2 * D)), {"qkv.weight": [(D, D), (8, D), (8, D)]}),
    "latent": (
        Net(latent, down=L(D, 8 + HD), up=L(8, 2 * D), q=L(D, 2 * D)),
        {"down.weight": [(8, D), (HD, D)], "up.weight": [(D, 8)] * 2, "q.weight": UP},
    ),
    "lora": (
        Net(lora, qkv=L(D, 3 * D), a=L(D, 2), b=L(2, 3 * D)),
        {"qkv.weight": SQUARE * 3, "a.weight": [(2, D)], "b.weight": [(D, 2)] * 3},
    ),
    "conv1d of GPT-2": (
        Attention(linear=lambda i, o: hub.Conv1D(o, i)),
        {"qkv.weight": SQUARE * 3, "out.weight": SQUARE},
    ),
    "mha": (
        Net(lambda s, x: s.a(x, x, x)[0], a=nn.MultiheadAttention(D, H, batch_first=True)),
        {"a.in_proj_weight": SQUARE * 3, "a.out_proj.weight": SQUARE},
    ),
    "lstm": (recurrent(nn.LSTM(D, D)), {"r.weight_ih_l0": SQUARE * 4, "r.weight_hh_l0": SQUARE * 4}),
    "lstm with a projection": (
        recurrent(nn.LSTM(D, D, proj_size=4), d=4),
        {"r.weight_ih_l0": SQUARE * 4, "r.weight_hh_l0": [(D, 4)] * 4, "r.weight_hr_l0": [(4, D)]},
    ),
    "gru": (recurrent(nn.GRU(D, D)), {"r.weight_ih_l0": SQUARE * 3, "r.weight_hh_l0": SQUARE * 3}),
    "rnn": (recurrent(nn.RNN(D, D)), {"r.weight_ih_l0": SQUARE, "r.weight_hh_l0": SQUARE}),
    "gru cell": (
        Net(lambda s, x: s.r(x[0]), r=nn.GRUCell(D, D)),
        {"r.weight_ih": SQUARE * 3, "r.weight_hh": SQUARE * 3},
    ),
    "groups": (along_channels(nn.Conv1d(D, M, 3, padding=1, groups=2)), {"c.weight": [(D, 8 * 3)] * 2}),
    "groups, turned": (along_channels(nn.ConvTranspose1d(D, M, 3, groups=2)), {"c.weight": [(D, 8 * 3)] * 2}),
    "experts (n, in, out)": (moe(of_experts("btd,edf->btef", "btef,efd->bted"), (D, M), (M, D)), EXPERTS),
    "experts (n, out, in)": (moe(of_experts("btd,efd->btef", "btef,edf->bted"), (M, D), (D, M)), EXPERTS),
    "experts one by one": (moe(one_by_one, (2 * M, D), (D, M)), GATED_EXPERTS),
    "experts in a batch": (moe(batched, (D, 2 * M), (M, D)), GATED_EXPERTS),
    "experts gathered": (moe(gathered, (M, D), (D, M)), EXPERTS),
    "experts dispatched": (moe(dispatched, (2 * M, D), (D, M)), GATED_EXPERTS),
    "experts in a grouped product": (moe(grouped, (D, 2 * M), (M, D)), GATED_EXPERTS),
    "a weight cut up": (Net(attended(by_weight), qkv=L(D, 3 * D)), {"qkv.weight": SQUARE * 3}),
    "a stack": (Net(attended(by_stack), qkv=stack(3, D, D)), {"qkv": SQUARE * 3}),
    "a stack by einsum": (
        Net(attended(lambda s, x: torch.einsum("btd,dchk->cbhtk", x, s.qkv)), qkv=stack(D, 3, H, HD)),
        {"qkv": SQUARE * 3},
    ),
    "weight norm": (
        Net(attended(lambda s, x: chunk(s.qkv(x))), qkv=nn.utils.parametrizations.weight_norm(L(D, 3 * D))),
        {"qkv.parametrizations.weight.original1": SQUARE * 3},
    ),
    "palm": (
        Net(palm, all=L(D, D + 2 * HD + 2 * M), out=L(D, D), down=L(2 * M, D)),
        {"all.weight": [(D, D), (HD, D), (HD, D), (2 * M, D)], "out.weight": SQUARE, "down.weight": [(D, 2 * M)]},
    ),
    "experts in rows": (
        Net(in_rows, gate=stack(N * M, D), up=stack(N * M, D), down=stack(N * M, D), router=L(D, N)),
        {"gate": UP * N, "up": UP * N, "down": DOWN * N, "router.weight": ROUTER},
    ),
    "relative positions": (
        Net(relative, qkv=L(D, 3 * D), place=L(D, D), table=nn.Embedding(9, D)),
        {"qkv.weight": SQUARE * 3, "place.weight": SQUARE},
    ),
    "coordinates": (
        Net(coordinates, qkv=L(D, 3 * D), a=L(1, M), b=L(M, H)),
        {"qkv.weight": SQUARE * 3, "a.weight": [(M, 1)], "b.weight": [(H, M)]},
    ),
    "a router that is masked": (Net(masked_router, router=L(D, N)), {"router.weight": ROUTER}),
    "a gate of one number": (
        Net(lambda s, x: s.a(x) * s.gate(x).sigmoid(), a=L(D, D), gate=L(D, 1)),
        {"a.weight": SQUARE, "gate.weight": [(1, D)]},
    ),
    "keys that are written": (
        Net(written, down=L(D, 8 + HD), up=L(8, D), q=L(D, 2 * D), out=L(2 * D, D)),
        {"down.weight": [(8, D), (HD, D)], "up.weight": [(D, 8)], "q.weight": UP, "out.weight": DOWN},
    ),
    "a norm that is modulated": (
        Net(modulated, says=L(D, 6 * D), a=L(D, D), b=L(D, D)),
        {"says.weight": SQUARE * 6, "a.weight": SQUARE, "b.weight": SQUARE},
    ),
    "mean and spread": (
        Net(sampled, enter=L(D, 8), leave=L(4, D)),
        {"enter.weight": [(4, D)] * 2, "leave.weight": [(D, 4)]},
    ),
    "gru by hand": (Net(gru_by_hand, x=L(D, 3 * D), h=L(D, 3 * D)), {"x.weight": SQUARE * 3, "h.weight": SQUARE * 3}),
    "adapters side by side": (
        Net(mixing, a=stack(D, 12), b=stack(3, 4, D), out=L(D, D)),
        {"a": [(4, D)] * 3, "b": [(D, 4)] * 3, "out.weight": SQUARE},
    ),
    "what constants meet": (
        Net(by_zeros, place=L(D, D), v=L(D, D), out=L(D, D)),
        dict.fromkeys(("place.weight", "v.weight", "out.weight"), SQUARE),
    ),
    "a table that constants pick from": (
        Net(picked_table, qkv=L(D, 3 * D), table=stack(1, 4, 4)),
        {"qkv.weight": SQUARE * 3},
    ),
    "a weight of the heads": (
        Net(segments, q=stack(D, H, HD), kv=L(D, 2 * D), side=stack(H, 2, HD)),
        {"q": SQUARE, "kv.weight": SQUARE * 2, "side": [(2, HD)] * H},
    ),
    "a bank of weights": (Net(of_a_bank, bank=stack(2, 4, D, D)), {"bank": SQUARE * 8}),
    "learned queries": (
        Net(by_learned_queries, points=stack(1, 3, D), q=L(D, D), kv=L(D, 2 * D)),
        {"q.weight": SQUARE, "kv.weight": SQUARE * 2},
    ),
    "encoder and decoder of one weight": (
        Net(
            lambda s, x: x + F.linear(F.linear(F.relu(F.linear(x, s.w)), s.middle), s.w.t()),
            w=stack(M, D),
            middle=stack(M, M),
        ),
        {"w": UP, "middle": [(M, M)]},
    ),
    "heads by einsum": (
        Net(heads_by_einsum, q=stack(D, H, HD), k=stack(D, H, HD), v=stack(D, H, HD), out=stack(H, HD, D)),
        dict.fromkeys(("q", "k", "v", "out"), SQUARE),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_models_written_here(name):
    model, expected = TABLE[name]
    assert of(model) == expected


def test_kernels_that_filter_each_channel_hold_no_matrix():
    assert "conv.weight" not in of(TABLE["mamba"][0])


def test_without_a_sample_the_model_is_run_on_what_its_layers_take():
    assert of(Attention(neox), None)["qkv.weight"] == [(D, D)] * 3


def test_a_model_is_watched_without_its_values(monkeypatch):
    monkeypatch.setattr("thalweg.groups.matrices.SMALL", 0)
    for name in ("latent", "lora", "experts in a batch", "experts gathered", "restormer"):
        model, expected = TABLE[name]
        assert of(model) == expected


def test_groups_of_a_convolution_that_no_pass_meets():
    class Model(nn.Sequential):
        def forward(self, x):
            return self[2](self[1](x))

    model = Model(nn.Conv1d(16, 8, 3, groups=2), nn.Linear(4, 8), nn.Linear(8, 2))
    assert blocks(model, torch.randn(3, 4))["0.weight"] == [(4, 24)] * 2


def test_what_cannot_be_seen_is_said_once():
    model = Attention(lambda y: chunk(torch.empty_like(y).index_copy_(-1, torch.arange(3 * D), y)))
    with pytest.warns(UserWarning, match=r"left uncut, .* qkv.weight \(not followed beyond") as said:
        assert blocks(model, IDS)["qkv.weight"] == [(3 * D, D)]
    assert len(said) == 1


def test_an_index_without_values_hides_only_what_it_picks_from(monkeypatch):
    """Rows are picked from a weight's outputs, by what only values tell, and so are columns."""

    def picking(pick):
        return Net(lambda s, x: s.b(pick(s.a(x).flatten(0, 1))), a=L(D, D), b=L(D, D))

    rows, columns = picking(lambda y: y[y.sum(-1).argsort()]), picking(lambda y: y[:, y.sum(0).argsort()])
    monkeypatch.setattr("thalweg.groups.matrices.SMALL", 0)
    assert of(rows) == {"a.weight": SQUARE, "b.weight": SQUARE}
    with pytest.warns(UserWarning, match=r"a.weight \(not followed beyond aten.index.Tensor\)\. "):
        blocks(columns, IDS)


def test_a_model_that_no_pass_can_be_made_of():
    class Lost(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            raise RuntimeError("not today")

    warnings.filterwarnings("ignore", "what makes the output")
    with pytest.warns(UserWarning, match=r"a.weight \(no forward pass was possible\).* Pass sample="):
        assert blocks(Lost()) == {"a.weight": [(4, 4)]}


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_parts_of_a_view_are_found_by_their_fates(repeats, sizes):
    kinds = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).repeat(repeats)
    found = by_fate([kinds == i for i in range(len(sizes))], len(kinds))
    assert found == Cut(repeats, tuple(sizes))
    assert found.parts == [int((kinds == i).sum()) for i in range(len(sizes))]


def test_what_is_no_part_of_a_view_is_not_taken_for_one():
    kinds = torch.tensor([0, 1, 0, 0, 1, 1])
    assert by_fate([kinds == 0], 6) is None
    assert by_fate([torch.ones(6, dtype=torch.bool)], 6) == Cut(1, (6,))
    assert by_fate([], 6) == Cut(1, (6,))


def by_head(model):
    """The matrices of each weight, by head too, as Muon takes them."""
    optimizer = thalweg.Muon(model, sample=IDS, blocks="heads")
    groups = [group for group in optimizer.param_groups if group["use_muon"]]
    return {name: found for g in groups for name, found in zip(g["param_names"], shapes(g), strict=True)}


HEADS = [(HD, D)] * H
OUTPUTS = [(D, HD)] * H


@pytest.mark.parametrize("attend", [whole, by_hand, linear_attention])
@pytest.mark.parametrize("cut", [chunk, neox, einops, slices])
def test_heads_are_matrices_of_what_they_use_and_give(cut, attend):
    for turn in (as_it_is, halves):
        assert by_head(Attention(cut, attend, turn)) == {"qkv.weight": HEADS * 3, "out.weight": OUTPUTS}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("falcon", {"qkv.weight": [(HD, D)] * 8}),  # four of queries, two of keys, two of values
        ("mha", {"a.in_proj_weight": HEADS * 3, "a.out_proj.weight": OUTPUTS}),
        ("conv1d of GPT-2", {"qkv.weight": HEADS * 3, "out.weight": OUTPUTS}),
        ("heads by einsum", {**dict.fromkeys("qkv", HEADS), "out": OUTPUTS}),
        ("gate and up", GLU),
        ("lstm", TABLE["lstm"][1]),
        ("experts in a batch", GATED_EXPERTS),
    ],
)
def test_heads_of_other_models(name, expected):
    assert by_head(TABLE[name][0]) == expected


def test_heads_of_some_weights():
    rule = Rule("out.*", blocks="heads")
    group = thalweg.Muon(Attention(chunk), sample=IDS, blocks=rule).param_groups[0]
    assert group["blocks"] == (Blocks(3), Blocks(H, along="in"))


def test_parts_that_are_multiplied_apart():
    first, third = torch.arange(12) < 3, (torch.arange(12) >= 6) & (torch.arange(12) < 9)
    assert equal_parts([first, third]) == 4
    assert equal_parts([first, ~first]) == 1
    assert equal_parts([torch.arange(12) % 2 == 0]) == 1
    assert equal_parts([]) == 1
