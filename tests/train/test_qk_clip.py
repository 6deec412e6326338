"""QK-clip: logits that are too large come back to the bound, and nothing else moves."""

import pytest
import torch
from torch import nn

import thalweg
from thalweg.train import Attention, LogitMax, QKClip, fit

D, HEADS = 4, 3


class Layer(nn.Module):
    """Causal attention with separate projections; several heads may share a key."""

    def __init__(self, kv=HEADS, bias=True):
        super().__init__()
        self.q, self.k = nn.Linear(5, HEADS * D, bias=bias), nn.Linear(5, kv * D, bias=bias)
        self.v, self.out = nn.Linear(5, HEADS * D), nn.Linear(HEADS * D, 5)
        self.seen = LogitMax()

    def heads(self, x):
        return (y.unflatten(-1, (-1, D)).transpose(1, 2) for y in (self.q(x), self.k(x), self.v(x)))

    def forward(self, x):
        q, k, v = self.heads(x)
        self.seen.see(q, k, causal=True)
        k = k.repeat_interleave(HEADS // k.shape[1], 1)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


def logits(layer, x):
    """The largest of each head that a position sees, pair by pair."""
    q, k, _ = layer.heads(x)
    k = k.repeat_interleave(HEADS // k.shape[1], 1)
    found = q @ k.mT / D**0.5
    rows, columns = torch.tril_indices(x.shape[1], x.shape[1])
    return found[:, :, rows, columns].amax((0, 2)).detach()


def made(**options):
    torch.manual_seed(0)
    layer = Layer(**options)
    layer.q.weight.data[:D] *= 9  # the first head is far above the others
    return layer, 3 * torch.randn(2, 7, 5)


@pytest.mark.parametrize("kv", [HEADS, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_a_head_that_is_too_large_comes_back_to_the_bound_and_the_others_stay(kv, bias):
    layer, x = made(kv=kv, bias=bias)
    layer(x)
    before = logits(layer, x)
    tau = float(before.sort().values[-2:].mean())
    assert QKClip([Attention(layer.q, layer.k, layer.seen.take)], tau=tau).clip() == 1
    torch.testing.assert_close(logits(layer, x), before.clamp(max=tau))


def test_what_is_within_the_bound_is_left_to_the_bit_and_without_a_pass_nothing_happens():
    layer, x = made()
    weight = layer.q.weight.detach().clone()
    clip = QKClip([Attention(layer.q, layer.k, layer.seen.take)], tau=1e6)
    assert clip.clip() == 0
    layer(x)
    assert clip.clip() == 0
    assert torch.equal(layer.q.weight, weight)


@pytest.mark.parametrize("added", [True, False])
def test_a_mask_says_what_is_attended_to(added):
    layer, x = made()
    q, k, _ = layer.heads(x)
    mask = torch.ones(7, 7, dtype=torch.bool).tril()
    seen = LogitMax()
    seen.see(q, k, mask=torch.zeros(7, 7).masked_fill(~mask, -float("inf")) if added else mask)
    torch.testing.assert_close(seen.take(), logits(layer, x))


def test_the_largest_of_several_passes_counts_and_the_next_step_begins_again():
    layer, x = made()
    for scale in (0.1, 1.0, 0.3):
        layer(scale * x)
    torch.testing.assert_close(layer.seen.take(), logits(layer, x))
    assert layer.seen.take() is None


def test_rows_of_a_fused_weight():
    layer, x = made(bias=False)
    layer(x)
    largest = layer.seen.take()
    fused = nn.Linear(5, 3 * HEADS * D, bias=False)
    fused.weight.data = torch.cat([layer.q.weight, layer.k.weight, layer.v.weight]).detach().clone()
    n, tau = HEADS * D, float(largest.max()) / 2
    QKClip([Attention(fused, fused, lambda: largest, slice(0, n), slice(n, 2 * n))], tau=tau).clip()
    QKClip([Attention(layer.q, layer.k, lambda: largest)], tau=tau).clip()
    assert torch.equal(fused.weight, torch.cat([layer.q.weight, layer.k.weight, layer.v.weight]))


def test_it_watches_a_training():
    layer, x = made()
    optimizer = thalweg.Muon(layer, lr=0.3, sample=x)
    clip = QKClip([Attention(layer.q, layer.k, layer.seen.take)], tau=2.0)
    fit(layer, [x] * 4, lambda model, batch: model(batch).square().mean(), optimizer, steps=4, watchers=[clip])
    assert logits(layer, x).max() < 20


def test_bits_below_16_bit_weights_do_not_outlive_them():
    layer, _ = made(bias=False)
    layer.q, layer.k = layer.q.bfloat16(), layer.k.bfloat16()
    optimizer = thalweg.SGD(layer.q.parameters(), lr=0.1, master="split16")
    layer.q.weight.grad = torch.randn_like(layer.q.weight)
    optimizer.step()
    QKClip([Attention(layer.q, layer.k, lambda: torch.full((HEADS,), 200.0))]).clip(optimizer)
    assert not optimizer.state[layer.q.weight]["master_bits"].any()


def test_what_cannot_be_is_refused():
    layer, _ = made()
    with pytest.raises(ValueError, match=r"tau=0: expected a number in \(0, ∞\)"):
        QKClip([], tau=0)
    with pytest.raises(ValueError, match=r"12 rows for 5 heads.*Say which rows"):
        QKClip([Attention(layer.q, layer.k, lambda: torch.full((5,), 200.0))]).clip()
