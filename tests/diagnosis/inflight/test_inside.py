"""What a watch sees within a model, against the same computed by hand: attention logits, routers, ranks of updates."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import thalweg
from thalweg.diagnosis.inflight.attention import attentions
from thalweg.diagnosis.inflight.elements import Elements
from thalweg.diagnosis.inflight.router_load import RouterLoad
from thalweg.diagnosis.inflight.routers import loads
from thalweg.diagnosis.inflight.spectra import Spectra
from thalweg.diagnosis.nodes import walk
from thalweg.testing.faults import FAULTS, HEALTHY, tasks

LENGTH, WIDTH, HEADS = 12, 16, 2
FORBIDDEN = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)


def named(model):
    return {id(p): name for name, p in model.named_parameters()}


def seen(model, loss):
    """The largest logit of each attention, by layer."""
    return {one.layer: float(one.largest) for one in attentions(walk(loss.grad_fn), named(model))}


class Attention(nn.Module):
    """Attention of one layer that may be written in several ways."""

    def __init__(self, way):
        super().__init__()
        self.way, self.q, self.k, self.v = way, *(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        self.products = (q @ k.mT / math.sqrt(q.shape[-1])).detach()
        return WAYS[self.way](q, k, v)


def added(q, k, v):
    scores = q @ k.mT * q.shape[-1] ** -0.5
    return (scores + torch.zeros_like(scores).masked_fill(FORBIDDEN, -math.inf)).softmax(-1) @ v


def with_a_sink(q, k, v):
    """A further logit, as in gpt-oss, that takes weight and gives nothing."""
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(FORBIDDEN, -1e9)
    scores = torch.cat([scores, torch.full((*scores.shape[:-1], 1), 50.0)], -1)
    return (scores - scores.amax(-1, keepdim=True).detach()).softmax(-1)[..., :-1] @ v


WAYS = {
    "causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "bool mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=~FORBIDDEN),
    "dropout": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=~FORBIDDEN, dropout_p=0.1),
    "filled": lambda q, k, v: (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(FORBIDDEN, -math.inf).softmax(-1) @ v,
    "added": added,
    "sink": with_a_sink,
    "einsum": lambda q, k, v: torch.where(
        FORBIDDEN, -math.inf, torch.einsum("bhqd,bhkd->bhqk", q, k) * q.shape[-1] ** -0.5
    ).softmax(-1) @ v,
    "float32 softmax": lambda q, k, v: F.softmax(
        (q @ k.mT).div(math.sqrt(q.shape[-1])).masked_fill(FORBIDDEN, -1e9), -1, dtype=torch.float32
    ).to(v.dtype) @ v,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_the_largest_logit_is_that_of_the_products_that_are_attended_to(way):
    torch.manual_seed(0)
    model = nn.ModuleDict({"block": Attention(way)})
    x = torch.randn(3, LENGTH, WIDTH)
    loss = model["block"](x).square().sum()
    allowed = model["block"].products.masked_fill(FORBIDDEN, -math.inf)
    assert seen(model, loss) == {"block": pytest.approx(float(allowed.max()), rel=1e-5)}


@pytest.mark.parametrize("weights", [True, False])
def test_of_torchs_own_attention_too(weights):
    torch.manual_seed(0)
    model = nn.ModuleDict({"block": nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)})
    x = torch.randn(3, LENGTH, WIDTH)
    loss = model["block"](x, x, x, need_weights=weights, attn_mask=FORBIDDEN)[0].square().sum()
    q, k, _ = F.linear(x, model["block"].in_proj_weight, model["block"].in_proj_bias).chunk(3, -1)
    q, k = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k))
    expected = (q @ k.mT / math.sqrt(WIDTH / HEADS)).masked_fill(FORBIDDEN, -math.inf).max()
    assert seen(model, loss) == {"block": pytest.approx(expected.item(), rel=1e-5)}


def test_what_checkpointing_will_compute_again_is_left_alone():
    torch.manual_seed(0)
    model = nn.ModuleDict({"block": Attention("causal")})
    calls = []
    model["block"].register_forward_hook(lambda *_: calls.append(1))
    loss = checkpoint(model["block"], torch.randn(3, LENGTH, WIDTH), use_reentrant=False).square().sum()
    assert seen(model, loss) == {}
    assert len(calls) == 1


def test_a_softmax_over_classes_or_a_cap_is_no_attention():
    torch.manual_seed(0)
    model = nn.Linear(WIDTH, 5)
    scores = model(torch.randn(3, LENGTH, WIDTH))
    assert seen(model, scores.softmax(-1).square().sum()) == {}
    capped = (20 * torch.tanh(scores @ scores.mT / 20)).softmax(-1)  # bounded, whatever the products are
    assert seen(model, capped.square().sum()) == {}


class Routed(nn.Module):
    """A mixture of six experts, of which each token gets one or two."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.router, self.experts = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, 6 * WIDTH)

    def forward(self, x):
        shares = self.router(x).softmax(-1)
        if self.way == "max":
            chosen, index = shares.max(-1, keepdim=True)
        elif self.way == "gather":  # as DeepSeek does it, with a bias that takes no gradient
            index = (shares.detach() + torch.linspace(0, 1, 6)).topk(2)[1]
            chosen = shares.gather(-1, index)
        else:
            chosen, index = shares.topk(2)
        self.counts = tuple(torch.bincount(index.flatten(), minlength=6).tolist())
        given = self.experts(x).unflatten(-1, (6, WIDTH))
        return (given.gather(-2, index[..., None].expand(*index.shape, WIDTH)) * chosen[..., None]).sum(-2)


@pytest.mark.parametrize("way", ["topk", "gather", "max"])
def test_the_load_of_a_router_is_what_it_has_chosen(way):
    torch.manual_seed(0)
    model = nn.ModuleDict({"mlp": Routed(way)})
    loss = model["mlp"](torch.randn(40, WIDTH)).square().sum()
    found = loads(loss.grad_fn, walk(loss.grad_fn), named(model))
    ((layer, (counts, each)),) = found.items()
    assert layer == "mlp.router"
    assert tuple(counts.tolist()) == model["mlp"].counts
    assert each == (1 if way == "max" else 2)


def test_a_choice_of_classes_is_no_router():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 6))
    logs = model(torch.randn(40, WIDTH)).log_softmax(-1)
    for loss in (-logs.gather(-1, torch.zeros(40, 1, dtype=torch.long)).mean(), -logs.topk(2)[0].mean()):
        assert loads(loss.grad_fn, walk(loss.grad_fn), named(model)) == {}


def test_maxima_of_attention_logits_are_no_router():
    torch.manual_seed(0)
    q, k = nn.Linear(WIDTH, LENGTH), nn.Linear(WIDTH, LENGTH)
    x = torch.randn(3, LENGTH, WIDTH)
    scores = q(x) @ k(x).mT
    loss = ((scores - scores.max(-1, keepdim=True)[0]).softmax(-1) @ x * q.bias.sum()).sum()
    assert loads(loss.grad_fn, walk(loss.grad_fn), named(nn.ModuleList([q, k]))) == {}


@pytest.mark.parametrize(
    ("counts", "used", "idle", "collapsed"),
    [
        ((100, 100, 100, 100), 4.0, 0, False),
        ((200, 200, 0, 0), 2.0, 2, True),  # the two that a token gets, and no others
        ((150, 150, 60, 40), 3.49, 0, False),
        ((1, 1, 0, 0), 2.0, 2, False),  # too few to judge
    ],
)
def test_a_load_tells_how_many_experts_are_used(counts, used, idle, collapsed):
    load = RouterLoad(counts, 2)
    assert load.used == pytest.approx(used, abs=0.01)
    assert (load.idle, load.is_collapsed) == (idle, collapsed)
    assert sum(load.shares) == pytest.approx(1)


def effective(matrix):
    s = torch.linalg.svdvals(matrix).square()
    return float(s.sum() ** 2 / s.square().sum())


@pytest.mark.parametrize("rank", [1, 3, 40])
def test_an_effective_rank_is_that_of_the_singular_values(rank):
    torch.manual_seed(rank)
    p = nn.Parameter(torch.randn(48, 64))
    gradient, update = (torch.randn(48, rank) @ torch.randn(rank, 64) for _ in range(2))
    p.grad = gradient
    spectra = Spectra([p], [0])
    state = torch.get_rng_state()
    spectra.begin()
    with torch.no_grad():
        p += 1e-3 * update
    ((which, found),) = spectra.end()().items()
    assert which == 0
    assert torch.equal(torch.get_rng_state(), state)
    for mine, matrix in zip(found, (gradient, update), strict=True):
        assert mine == pytest.approx(effective(matrix), rel=0.4)


def test_matrices_take_turns():
    parameters = [nn.Parameter(torch.randn(4, 4)) for _ in range(11)]
    for p in parameters:
        p.grad = torch.randn(4, 4)
    spectra = Spectra(parameters, range(11))
    looked = []
    for _ in range(3):
        spectra.begin()
        looked.append(list(spectra.end()()))
    assert looked[0] == list(range(8))
    assert {i for look in looked for i in look} == set(range(11))


def run(setup, updates, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with thalweg.watch(setup.model, setup.optimizer, setup.scheduler, **arguments) as w:
            setup.loop.watch = w
            losses = list(setup.updates(updates))
    assert not w.voice.said
    return w, losses


def test_a_watched_run_has_logits_loads_and_ranks_and_the_same_losses():
    bare = list(HEALTHY["routing"]().updates(25))
    w, losses = run(HEALTHY["routing"](), 25)
    assert losses == bare
    inside = w.history.inside
    assert {*inside[0].logits} == {"blocks.0.attention", "blocks.1.attention"}
    assert {*inside[0].routers} == {"blocks.0.router", "blocks.1.router"}
    assert sum(inside[0].routers["blocks.0.router"].counts) == 2 * 16 * tasks.LENGTH
    ranks = {name: both for sample in w.history.recent for name, both in sample.ranks.items()}
    assert all(1 <= x <= 32 for both in ranks.values() for x in both if x == x)  # of an idle expert there is none
    assert {"blocks.0.attention.q.weight", "head.weight"} <= ranks.keys()


def test_muon_uses_more_directions_than_gradients_have():
    w, _ = run(HEALTHY["orthogonalizing"](), 5)
    gradient, update = w.history.recent[0].ranks["blocks.0.attention.q.weight"]
    assert update > 20 > 10 > gradient


def test_what_gradients_promise_is_the_slope_along_the_update():
    setup = HEALTHY["classifying"]()
    w, _ = run(setup, 1)
    setup = HEALTHY["classifying"]()
    before = [p.detach().clone() for p in setup.model.parameters()]
    next(setup.updates(1))
    fresh = HEALTHY["classifying"]()
    fresh.loss(fresh.model, next(fresh.batches())).backward()
    slope = -sum(
        float((p.grad * (new.detach() - old)).sum())
        for p, new, old in zip(fresh.model.parameters(), setup.model.parameters(), before, strict=True)
    )
    assert w.history.last.promised == pytest.approx(slope, rel=0.3)  # from some elements


@pytest.mark.parametrize("shape", [(128, 64), (128, 128), (8, 16, 3, 3), (1024, 256), (7, 5)])
def test_the_elements_that_are_looked_at_lie_in_all_columns(shape):
    columns = torch.arange(shape[-1]).expand(shape).clone()
    seen = Elements([columns]).of([columns])
    assert {*seen.tolist()} == {*range(shape[-1])} or len(seen) == len({*seen.tolist()})


def test_the_seen_decrease_is_the_slope_of_the_losses():
    losses = thalweg.diagnosis.inflight.losses.Losses()
    for step in range(200):
        losses.tell(step, 5.0 - 0.01 * step + 0.1 * (-1) ** step)
    assert losses.falls == pytest.approx(0.01, rel=0.01)
    w, _ = run(HEALTHY["classifying"](), 60)
    assert 0 < w.history.kept < 1.5
    assert "of what the gradients promise" in str(w)


@pytest.mark.parametrize("name", ["exploding_logits", "collapsing_router"])
def test_what_goes_wrong_within_is_named_by_layer(name):
    fault = FAULTS[name]
    w, _ = run(fault.build(), fault.step + 40)
    (found,) = w.findings
    assert (found.cause, found.layer) == (fault.causes[0], fault.layer)


def test_logits_in_bfloat16_may_be_smaller():
    w, _ = run(HEALTHY["writing"](), 1)
    w.history.dtypes["a"] = torch.bfloat16
    assert w.history.bearable("blocks.0.attention") == 1000
    assert w.history.bearable("a") == 256
