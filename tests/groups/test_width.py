"""muP: the factors are those of the paper's tables, and do what it says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.groups import models
from tests.groups.test_rules import got
from thalweg.groups import MuP, NoDecay, Rule, mup, of

BASE, WIDE = 16, 64
R = WIDE / BASE


def factors(model, base, *, key="lr", **options):
    return got(mup(model, base, lr=1.0, weight_decay=1.0, **options), key)


def part(name):
    """What a parameter of the GPT is, in the words of the paper's tables."""
    if name.startswith("lm_head"):
        return "output"
    hidden = ".h." in name and name.endswith("weight") and ".ln_" not in name
    return "hidden" if hidden else "input"


#: (like, output) → the factor of each kind: tables 3 and 8 of the paper, over their values at the base width
PAPER = {
    ("adam", "lr"): {"input": 1.0, "hidden": 1 / R, "output": 1 / R},
    ("sgd", "lr"): {"input": R, "hidden": 1.0, "output": 1 / R},
    ("adam", "multiplier"): {"input": 1.0, "hidden": 1 / R, "output": 1.0},
    ("sgd", "multiplier"): {"input": R, "hidden": 1.0, "output": R},
}
SIZES = {64: 16, 192: 48, 256: 64}


@pytest.mark.parametrize("base", [
    lambda: models.Gpt(d=BASE, vocabulary=50),
    lambda: {name: tuple(p.shape) for name, p in models.Gpt(d=BASE, vocabulary=50).named_parameters()},
    lambda: SIZES,
], ids=["model", "shapes", "sizes"])  # fmt: skip
@pytest.mark.parametrize(("like", "output"), PAPER)
def test_a_gpt_gets_the_factors_of_the_paper(like, output, base):
    found = factors(models.Gpt(d=WIDE, vocabulary=50), base(), like=like, output=output)
    assert found == {name: pytest.approx(PAPER[like, output][part(name)]) for name in found}


@pytest.mark.parametrize(("like", "output"), PAPER)
def test_lr_times_decay_is_the_same_at_every_width(like, output):
    model, base = models.Gpt(d=WIDE), models.Gpt(d=BASE)
    lrs = factors(model, base, like=like, output=output)
    decays = factors(model, base, like=like, output=output, key="weight_decay")
    assert [lrs[name] * decays[name] for name in lrs] == [pytest.approx(1.0)] * len(lrs)
    assert set(factors(model, base, key="weight_decay", independent_decay=False).values()) == {1.0}


def test_at_the_base_width_nothing_changes():
    for like, output in PAPER:
        assert set(factors(models.Gpt(d=BASE), models.Gpt(d=BASE), like=like, output=output).values()) == {1.0}


def test_a_base_on_meta_or_in_a_wrapper_takes_no_memory_and_makes_no_difference():
    with torch.device("meta"):
        base = models.Llama(d=8)
    plain = factors(models.Llama(d=16), base)
    assert list(factors(nn.DataParallel(models.Llama(d=16)), nn.DataParallel(base)).values()) == list(plain.values())
    assert plain["model.layers.0.self_attn.qk_norm.weight"] == 1.0
    assert plain["model.layers.0.mlp.down_proj.weight"] == 0.5


def test_it_composes_with_no_decay_and_shows_itself():
    rule = MuP(models.Gpt(d=16), like="sgd", independent_decay=False)
    assert repr(rule) == "MuP(Gpt, like='sgd', output='lr', independent_decay=False)"
    groups = mup(models.Gpt(d=64), models.Gpt(d=16), NoDecay(), lr=1.0, weight_decay=0.1)
    decays = got(groups, "weight_decay")
    assert (decays["transformer.h.0.qkv.bias"], decays["transformer.h.0.qkv.weight"]) == (0.0, pytest.approx(0.4))


def test_tied_embeddings_take_a_multiplier():
    model, base = models.Llama(d=16, tied=True), models.Llama(d=8, tied=True)
    assert factors(model, base, output="multiplier")["model.embed_tokens.weight"] == 1.0
    assert factors(model, base, output="multiplier", like="sgd")["model.embed_tokens.weight"] == 2.0
    with pytest.raises(ValueError, match=r"output='lr'.*model.embed_tokens.weight is embedding and output"):
        factors(model, base)

    def by_use(d):
        model = models.TiedByUse()
        model.head, model.body = nn.Linear(d, 10, bias=False), nn.Linear(d, d)
        return model

    assert factors(by_use(12), by_use(6), output="multiplier", like="sgd")["head.weight"] == 2.0
    with pytest.raises(ValueError, match=r"head.weight is embedding and output"):
        factors(by_use(12), by_use(6))


@pytest.mark.parametrize(("make", "adam", "sgd"), [
    (lambda n: nn.Conv2d(n, 3 * n, 3), {"weight": 1 / 2, "bias": 1}, {"weight": 1, "bias": 2}),
    (lambda n: nn.Conv2d(3, n, 3), {"weight": 1, "bias": 1}, {"weight": 2, "bias": 2}),
    (lambda n: nn.Conv2d(n, n, 3, groups=n), {"weight": 1, "bias": 1}, {"weight": 2, "bias": 2}),
    (lambda n: nn.ConvTranspose2d(n, 3, 3), {"weight": 1 / 2, "bias": 1}, {"weight": 1 / 2, "bias": 1}),
    (lambda n: nn.ConvTranspose2d(3, n, 3), {"weight": 1, "bias": 1}, {"weight": 2, "bias": 2}),
    (lambda n: nn.Embedding(7, n), {"weight": 1}, {"weight": 2}),
    (lambda n: nn.Linear(n, n * n // 4), {"weight": 1 / 2, "bias": 1}, {"weight": 2, "bias": 4}),
    (lambda n: models.Own(n, n), {"kernel": 1 / 2}, {"kernel": 1}),
    (lambda n: nn.Bilinear(3, 3, n), {"weight": 1, "bias": 1}, {"weight": 2, "bias": 2}),
    (lambda n: nn.LSTM(3, n), dict.fromkeys(["weight_ih_l0", "bias_ih_l0", "bias_hh_l0"], 1) | {"weight_hh_l0": 1 / 2},
     dict.fromkeys(["weight_ih_l0", "bias_ih_l0", "bias_hh_l0"], 2) | {"weight_hh_l0": 1}),
])  # fmt: skip
def test_the_fan_in_of_every_layer(make, adam, sgd):
    def within(n):  # what makes the output is another layer
        return nn.ModuleDict({"layer": make(n), "head": nn.Linear(5, 5)})

    for like, expected in (("adam", adam), ("sgd", sgd)):
        found = factors(within(8), within(4), like=like, head="head", hidden=(models.Own, nn.Bilinear))
        assert {name.removeprefix("layer."): f for name, f in found.items() if name.startswith("layer")} == expected


def test_the_table_says_what_grows_and_what_forward_multiplies_by():
    why = {row.name: row.why for row in mup(models.Gpt(d=64), models.Gpt(d=16), lr=1.0, output="multiplier").rows}
    assert why["transformer.h.0.qkv.weight"] == "muP: fan-in × 4, fan-out × 4"
    assert why["lm_head.weight"] == "muP: fan-in × 4, fan-out × 1, the output times 0.25 in forward"


def test_rules_above_are_exact_and_answer_for_what_cannot_be_told():
    rules = [Rule("layers.*", lr=0.5), Rule("*bias", weight_decay=0.0)]
    groups = mup(models.Mixture(16), models.Mixture(8), *rules, lr=1.0, weight_decay=0.1, head="head")
    assert got(groups, "lr")["layers.1.down"] == 0.5
    assert got(groups, "weight_decay")["layers.1.down"] == 0.1  # decay goes with the exact lr
    assert got(groups, "lr")["head.weight"] == 0.5
    assert got(groups, "weight_decay")["head.weight"] == 0.2
    assert got(groups, "weight_decay")["head.bias"] == 0.0
    grown = factors(models.Mixture(16), models.Mixture(8), sample=torch.randn(2, 16))
    assert (grown["layers.0.up"], grown["layers.0.router.weight"]) == (0.5, 0.5)


def chain(n):
    return nn.Sequential(nn.Linear(3, n), nn.RMSNorm(n), nn.Linear(n, 2 * n), nn.Tanh(), nn.Linear(2 * n, 5))


@given(
    widths=st.lists(st.integers(2, 20), min_size=3, max_size=3),
    like=st.sampled_from(["adam", "sgd"]),
    lr=st.floats(0, 1),
)
def test_factors_multiply_along_a_chain_of_widths(widths, like, lr):
    """From a to b and from b to c is from a to c."""
    a, b, c = map(chain, widths)
    first, second, whole = (factors(m, n, like=like) for m, n in ((b, a), (c, b), (c, a)))
    assert whole == {name: pytest.approx(first[name] * second[name]) for name in whole}
    assert got(mup(c, a, lr=lr, like=like), "lr") == {name: pytest.approx(lr * f) for name, f in whole.items()}


# -- what it is for ---------------------------------------------------------------------------------------------------


class Mlp(nn.Module):
    """An MLP in muP: variances of 1/fan-in, but 1/fan-in² for the output, over the base; or a multiplier in forward."""

    def __init__(self, n, ratio=1.0, multiplier=1.0):
        super().__init__()
        self.embed, self.layers = nn.Linear(8, n), nn.Sequential(nn.Linear(n, n), nn.ReLU(), nn.Linear(n, n), nn.ReLU())
        self.head, self.multiplier = nn.Linear(n, 4, bias=False), multiplier
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        self.head.weight.data /= ratio**0.5

    def features(self, x):
        return self.layers(torch.relu(self.embed(x)))

    def forward(self, x):
        return self.head(self.features(x)) * self.multiplier


def batch(step=0, n=16):
    made = torch.Generator().manual_seed(step)
    return torch.randn(n, 8, generator=made, dtype=torch.float64), torch.randn(
        n, 4, generator=made, dtype=torch.float64
    )


def train(model, optimizer, steps):
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    return model


OPTIMIZERS = {
    "adam": lambda groups: torch.optim.Adam(groups, eps=1e-30),
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9),
}


@pytest.mark.parametrize("like", OPTIMIZERS)
def test_a_smaller_output_weight_and_a_multiplier_are_the_same_function_at_every_step(like):
    """The paper's lemma J.1 takes table 3 to table 8: multiplier × θ, initial std / θ, lr / θ (Adam) or / θ² (SGD)."""
    torch.manual_seed(0)
    small, wide = Mlp(8).double(), Mlp(32, ratio=4.0).double()
    scaled = Mlp(32, multiplier=1 / 4).double()
    scaled.load_state_dict(wide.state_dict())
    scaled.head.weight.data *= 4
    lr = {"adam": 0.01, "sgd": 0.02}[like]
    for model, output in ((wide, "lr"), (scaled, "multiplier")):
        train(model, OPTIMIZERS[like](mup(model, small, lr=lr, like=like, output=output)), 8)
    x, _ = batch(99)
    assert not torch.allclose(wide(x), Mlp(32, ratio=4.0).double()(x))
    torch.testing.assert_close(wide(x), scaled(x), rtol=0, atol=1e-9)


def change(n, like, groups, steps=3):
    """How far training moves features and output of an MLP of width n: root mean squares."""
    torch.manual_seed(n)
    model = Mlp(n, ratio=n / 32).double()
    x, _ = batch(99, 64)
    with torch.no_grad():
        before = model.features(x), model(x)
    train(model, OPTIMIZERS[like](groups(model)), steps)
    with torch.no_grad():
        after = model.features(x), model(x)
    return [(a - b).square().mean().sqrt().item() for a, b in zip(after, before, strict=True)]


@pytest.mark.parametrize("like", OPTIMIZERS)
def test_features_and_output_move_alike_at_every_width_and_without_mup_they_do_not(like):
    """The paper's coordinate check (its figure 5)."""
    lr = {"adam": 0.005, "sgd": 0.05}[like]
    narrow = change(32, like, lambda model: of(model, lr=lr))
    moved = change(512, like, lambda model: mup(model, Mlp(32), lr=lr, like=like))
    without = change(512, like, lambda model: of(model, lr=lr))
    for few, many in zip(narrow, moved, strict=True):
        assert 0.7 < many / few < 1.4
    assert any(not 0.4 < many / few < 2.5 for few, many in zip(narrow, without, strict=True))


def renamed():
    return {f"x.{name}": tuple(p.shape) for name, p in models.mlp().named_parameters()}


def flat():
    return {name: (p.numel(),) for name, p in models.mlp().named_parameters()}


@pytest.mark.parametrize(("call", "message"), [
    (lambda: MuP(3), r"base=3.*a module, shapes by name"),
    (lambda: MuP({}), r"base=\{\}"),
    (lambda: MuP(models.mlp(), like="lion"), r"like='lion'.*'adam', 'sgd'"),
    (lambda: MuP(models.mlp(), output="head"), r"output='head'.*'lr', 'multiplier'"),
    (lambda: mup(models.mlp(), models.cnn(), lr=1), r"base='0?.*the parameters of the model, but only one"),
    (lambda: mup(models.mlp(), renamed(), lr=1), r"x.0.bias.*only one of them"),
    (lambda: mup(models.mlp(), flat(), lr=1), r"base=\(32,\).*a shape like \(8, 4\) for 0.weight"),
    (lambda: mup(models.mlp(), {9: 3}, lr=1), r"base=9.*sizes that occur"),
    (lambda: mup(models.mlp(), {8: 0}, lr=1), r"base=0.*a size for 8"),
    (lambda: mup(models.mlp(), {8: 0.5}, lr=1), r"base=0.5.*an integer > 0"),
    (lambda: mup(nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 5), lr=1), r"the kernel size of weight"),
    (lambda: mup(nn.Bilinear(4, 4, 4), nn.Bilinear(2, 2, 2), lr=1), r"which sizes of weight \(4, 4, 4\).*a rule above"),
    (lambda: of(models.Gpt(d=32), MuP(models.Gpt(d=16)), lr=1), r"weight_decay=None.*multiply by 2"),
])  # fmt: skip
def test_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def hand_made(a, b):
    return nn.Sequential(nn.Linear(3, a), models.Own(a, b), nn.Linear(b, 3))


@pytest.mark.parametrize(("narrow", "wide", "adam", "sgd"), [
    ((4, 4), (8, 12), 1 / 2, 3 / 2),
    ((4, 5), (8, 5), 1 / 2, 1 / 2),  # a router: what it takes grows, what it gives does not
    ((5, 4), (5, 8), 1, 2),
    ((4, 6), (8, 12), 1 / 2, 1),
])  # fmt: skip
def test_of_a_hand_made_kernel_the_use_tells_the_fan_in(narrow, wide, adam, sgd):
    for like, factor in (("adam", adam), ("sgd", sgd)):
        assert factors(hand_made(*wide), hand_made(*narrow), like=like)["1.kernel"] == pytest.approx(factor)


def test_a_fan_in_that_nothing_tells_is_refused_and_not_taken_for_an_input():
    def unseen(a, b):
        return nn.ModuleDict({"own": models.Own(a, b), "head": nn.Linear(5, 5)})

    for wide, narrow in (((8, 5), (4, 5)), ((8, 12), (4, 4))):
        with pytest.raises(ValueError, match=r"which sizes of own.kernel .*a rule above"):
            factors(unseen(*wide), unseen(*narrow), head="head", hidden=models.Own)
