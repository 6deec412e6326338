"""Rules, and what comes of several of them."""

import copy
import functools
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import thalweg
from tests.groups import models
from tests.groups.test_roles import TABLE
from thalweg.groups import LayerDecay, NoDecay, Param, Rule, keys, of, times
from thalweg.schedule import Scheduler, linear


def got(groups, key):
    """A hyperparameter of each parameter that has it, by name."""
    return {name: group[key] for group in groups for name, _ in group["params"] if key in group}


def chosen(where, model=None):
    """The names that a rule matches."""
    return set(got(of(model or models.Gpt(), Rule(where, lr=1.0)), "lr"))


GPT = models.Gpt()
BLOCK = {name for name, _ in GPT.named_parameters() if name.startswith("transformer.h.1.")}
NORMS = {name for name, _ in GPT.named_parameters() if ".ln_" in name}


@pytest.mark.parametrize(("where", "expected"), [
    ("lm_head.weight", {"lm_head.weight"}),
    ("transformer.h.1.*", BLOCK),
    ("*.ln_?.*", NORMS),
    ("*.w[pt]e.weight", {"transformer.wpe.weight", "transformer.wte.weight"}),
    (nn.LayerNorm, NORMS),
    (nn.Embedding, {"transformer.wpe.weight", "transformer.wte.weight"}),
    (GPT.transformer["h"][1], BLOCK),
    (GPT.lm_head.weight, {"lm_head.weight"}),
    (lambda p: p.parameter.shape[0] == 256, {"transformer.wte.weight", "lm_head.weight"}),
    (lambda p: p.kind == "head", {"lm_head.weight"}),
    (lambda p: isinstance(p.module, nn.LayerNorm), NORMS),
    ([nn.LayerNorm, "lm_head.*", GPT.transformer["h"][1]], NORMS | BLOCK | {"lm_head.weight"}),
])  # fmt: skip
def test_what_a_rule_matches(where, expected):
    assert chosen(where, GPT) == expected


def test_a_type_stands_for_all_that_is_inside_its_modules():
    assert chosen(models.Block) == {name for name, _ in models.Gpt().named_parameters() if ".h." in name}


def test_a_generator_of_patterns_serves_more_than_once():
    rule = Rule((pattern for pattern in ("lm_head.*",)), lr=1.0)
    assert [set(got(of(models.Gpt(), rule), "lr")) for _ in range(2)] == [{"lm_head.weight"}] * 2


def test_the_first_rule_that_sets_a_hyperparameter_wins_and_the_rest_is_merged():
    groups = of(
        models.mlp(),
        Rule("0.weight", lr=1.0),
        Rule("*.weight", lr=2.0, momentum=0.5),
        Rule("0.*", momentum=0.7, weight_decay=0.3),
        lr=3.0,
        momentum=0.9,
    )
    assert got(groups, "lr") == {
        "0.weight": 1.0, "0.bias": 3.0, "1.weight": 2.0, "3.weight": 2.0, "3.bias": 3.0, "5.weight": 2.0, "5.bias": 3.0,
    }  # fmt: skip
    assert got(groups, "momentum")["0.weight"] == 0.5
    assert got(groups, "momentum")["0.bias"] == 0.7
    assert got(groups, "weight_decay") == {"0.weight": 0.3, "0.bias": 0.3}


def test_a_factor_multiplies_what_stands_below_it_and_nothing_above():
    groups = of(
        models.mlp(),
        Rule("0.*", lr=1.0),
        Rule("*", lr=times(0.5)),
        Rule("3.*", lr=8.0),
        Rule("5.*", lr=times(3)),
        lr=10.0,
    )
    assert got(groups, "lr") == {
        "0.weight": 1.0, "0.bias": 1.0, "1.weight": 5.0, "3.weight": 4.0, "3.bias": 4.0, "5.weight": 15.0,
        "5.bias": 15.0,
    }  # fmt: skip


def test_a_predicate_sees_what_is_decided_above_it():
    seen = {}

    def look(p: Param):
        seen[p.name] = dict(p.settings)
        return True

    of(models.mlp(), Rule("0.*", lr=1.0), Rule(look, momentum=0.5))
    assert (seen["0.bias"], seen["5.bias"]) == ({"lr": 1.0}, {})


def test_a_rule_is_not_asked_about_what_is_decided():
    def ask(p):
        assert not p.name.startswith("0.")
        return True

    assert got(of(models.mlp(), Rule("0.*", lr=1.0), Rule(ask, lr=2.0)), "lr")["5.bias"] == 2.0


def test_parameters_with_equal_values_share_a_group_whatever_rule_gave_them():
    groups = of(models.mlp(), Rule("0.*", lr=0.5), Rule("3.*", lr=times(0.5)), Rule("5.*", betas=[0.9, 0.99]), lr=1.0)
    assert [[name for name, _ in group["params"]] for group in groups] == [
        ["0.weight", "0.bias", "3.weight", "3.bias"], ["1.weight"], ["5.weight", "5.bias"],
    ]  # fmt: skip


def test_learning_rates_in_tensors():
    lr = torch.tensor(0.5)
    plain, halved = of(models.mlp(), Rule("*.bias", lr=times(0.5)), lr=lr)
    assert plain["lr"] is lr
    assert halved["lr"].item() == 0.25
    assert torch.optim.AdamW(of(models.mlp(), Rule("*.bias", lr=times(0.5)), lr=lr, capturable=True, foreach=True))


def test_a_tied_parameter_is_one_and_goes_by_each_of_its_names():
    model = models.Llama(tied=True)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        groups = of(model, Rule(name, lr=2.0), lr=1.0)
        assert got(groups, "lr")["model.embed_tokens.weight"] == 2.0
        assert "lm_head.weight" not in got(groups, "lr")
    row = next(row for row in groups.rows if row.name == "model.embed_tokens.weight")
    assert row.aliases == ("lm_head.weight",)


def test_frozen_parameters_have_no_place_unless_asked_for():
    model = models.mlp()
    model[0].requires_grad_(False)
    assert set(got(of(model, lr=1.0), "lr")) == {"1.weight", "3.weight", "3.bias", "5.weight", "5.bias"}
    assert set(got(of(model, lr=1.0, frozen=True), "lr")) == {name for name, _ in model.named_parameters()}
    assert of(model, Rule("0.*", lr=2.0), lr=1.0)[0]["lr"] == 1.0  # it matches something, though nothing that trains


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrapped_models_go_by_their_own_names_and_by_those_inside(wrap):
    model = wrap(models.mlp())
    prefix = next(iter(model.named_parameters()))[0].removesuffix("0.weight")
    for pattern in ("0.bias", f"{prefix}0.bias"):
        groups = of(model, Rule(pattern, lr=2.0), lr=1.0)
        assert {name for name, lr in got(groups, "lr").items() if lr == 2.0} == {f"{prefix}0.bias"}
    assert list(got(groups, "lr")) != []


def test_nothing_of_the_model_changes():
    model = models.Gpt()
    before = pickle.dumps(model.state_dict()), [p.requires_grad for p in model.parameters()]
    of(model, NoDecay(), LayerDecay(0.5), lr=1.0)
    assert (pickle.dumps(model.state_dict()), [p.requires_grad for p in model.parameters()]) == before


# -- any optimizer ---------------------------------------------------------------------------------------

TORCH = [
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adamax, torch.optim.NAdam, torch.optim.RAdam,
    torch.optim.RMSprop, torch.optim.Rprop, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.ASGD,
    torch.optim.Adafactor,
]  # fmt: skip
OURS = [thalweg.SGD, thalweg.AdamW, thalweg.Lion, thalweg.LAMB]


@pytest.mark.parametrize("optimizer", [*TORCH, *OURS], ids=lambda cls: f"{cls.__module__.split('.')[0]}.{cls.__name__}")
def test_any_optimizer_steps_with_the_groups_and_keeps_the_names(optimizer):
    model = models.mlp()
    groups = of(model, LayerDecay(0.5), lr=0.01, optimizer=optimizer)
    names = [[name for name, _ in group["params"]] for group in groups]
    built = optimizer(groups)
    assert [group["lr"] for group in built.param_groups] == [0.0025, 0.005, 0.01]
    assert [group["param_names"] for group in built.state_dict()["param_groups"]] == names
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.randn(8, 4)).square().sum().backward()
    built.step()
    assert not any(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    again = optimizer(of(model, LayerDecay(0.5), lr=0.7))
    again.load_state_dict(copy.deepcopy(built.state_dict()))
    assert [group["lr"] for group in again.param_groups] == [0.0025, 0.005, 0.01]


@pytest.mark.parametrize("optimizer", [*TORCH, *OURS, thalweg.Muon], ids=lambda cls: cls.__name__)
def test_whatever_a_group_of_an_optimizer_holds_is_a_known_key(optimizer):
    for key, value in optimizer([nn.Parameter(torch.zeros(2, 2))]).defaults.items():
        keys.check(key, value, optimizer)
    with pytest.raises(ValueError, match="lrr"):
        keys.check("lrr", 1, optimizer)


def test_groups_are_what_an_optimizer_would_do_by_hand():
    ours, theirs = models.mlp().double(), models.mlp().double()
    theirs.load_state_dict(ours.state_dict())
    named = dict(theirs.named_parameters())
    pair = [
        torch.optim.AdamW(of(ours, Rule("*.weight", weight_decay=0.3), NoDecay(), Rule("5.*", lr=times(2)), lr=0.1)),
        torch.optim.AdamW([
            {"params": [named[n] for n in ("0.weight", "1.weight", "3.weight")], "weight_decay": 0.3, "lr": 0.1},
            {"params": [named[n] for n in ("0.bias", "3.bias")], "weight_decay": 0.0, "lr": 0.1},
            {"params": [named["5.weight"]], "weight_decay": 0.3, "lr": 0.2},
            {"params": [named["5.bias"]], "weight_decay": 0.0, "lr": 0.2},
        ]),
    ]  # fmt: skip
    for step in range(5):
        x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        for model, optimizer in zip((ours, theirs), pair, strict=True):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


def test_a_schedule_moves_every_group_from_its_own_peak():
    optimizer = torch.optim.SGD(of(models.mlp(), LayerDecay(0.5), lr=0.1))
    scheduler = Scheduler(optimizer, linear(4))
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.75 * lr for lr in (0.025, 0.05, 0.1)])


# -- properties ------------------------------------------------------------------------------------------

RULES = st.one_of(
    st.builds(
        lambda pattern, lr: Rule(pattern, lr=lr),
        st.sampled_from(["*", "*weight*", "*bias*", "*.0.*", "[a-m]*"]),
        st.one_of(st.floats(0, 1), st.builds(times, st.floats(0, 2))),
    ),
    st.builds(lambda decay: Rule(lambda p: p.parameter.ndim < 2, weight_decay=decay), st.floats(0, 1)),
    st.builds(NoDecay, norms=st.booleans(), biases=st.booleans(), vectors=st.booleans(), embeddings=st.booleans()),
)


@given(
    row=st.sampled_from(TABLE),
    rules=st.lists(RULES, max_size=4),
    frozen=st.sets(st.integers(0, 5)),
    keep=st.booleans(),
)
def test_every_parameter_is_there_exactly_once_and_nothing_is_lost(row, rules, frozen, keep):
    model = row[1]()
    params = list(model.parameters())
    for i in frozen - {len(params) - 1}:
        if i < len(params):
            params[i].requires_grad_(False)
    for rule in rules:
        rule.optional = True  # of random rules, some match nothing
    groups = of(model, *rules, lr=0.1, frozen=keep)
    expected = [(name, p) for name, p in model.named_parameters() if keep or p.requires_grad]
    found = [pair for group in groups for pair in group["params"]]
    assert sorted(name for name, _ in found) == sorted(name for name, _ in expected)
    assert {name: id(p) for name, p in found} == {name: id(p) for name, p in expected}
    assert sum(p.numel() for _, p in found) == sum(p.numel() for _, p in expected)
    settings = [tuple((k, v) for k, v in group.items() if k != "params") for group in groups]
    assert len(set(settings)) == len(settings)
    assert [row.name for row in groups.rows] == [name for name, _ in model.named_parameters()]
    assert sum(row.numel for row in groups.rows) == sum(p.numel() for p in params)
    for row in groups.rows:
        if row.group is None:
            assert not dict(model.named_parameters())[row.name].requires_grad
        else:
            assert row.name in [name for name, _ in groups[row.group]["params"]]
            assert row.settings == {k: v for k, v in groups[row.group].items() if k != "params"}


@given(
    values=st.lists(st.one_of(st.none(), st.floats(0.1, 1), st.builds(times, st.floats(0.1, 2))), max_size=6),
    default=st.floats(0.1, 1),
)
def test_the_value_is_that_of_the_equation(values, default):
    """The factors above the first value, times that value; read from below, as the text has it from above."""
    rules = [Rule("weight", lr=value) if value is not None else Rule("bias", momentum=0.5) for value in values]
    for rule in rules:
        rule.optional = True
    expected = default
    for value in reversed([value for value in values if value is not None]):
        expected = expected * value.factor if isinstance(value, times) else value
    assert got(of(nn.Linear(2, 2), *rules, lr=default), "lr")["weight"] == pytest.approx(expected)


# -- errors ----------------------------------------------------------------------------------------------


class Passes(torch.optim.SGD):
    def __init__(self, params, strength=1, **kwargs):
        super().__init__(params, **kwargs)


def build(*rules, model=models.mlp, **options):
    return lambda: of(model(), *rules, **options)


def frozen_whole():
    return models.mlp().requires_grad_(False)


ADAMW = {"optimizer": torch.optim.AdamW}


def blind():
    return models.unseen(models.Mixture())


CASES = {
    "nothing matches": (build(Rule("layers.*", lr=1)), r"Rule\('layers.\*', lr=1\): .* matches a par.*like 0.weight"),
    "near": (build(Rule("head.weight", lr=1), model=models.Gpt), r"Did you mean lm_head.weight"),
    "a module's name": (build(Rule("lm_head", lr=1), model=models.Gpt), r"'lm_head.\*' is what is in lm_head"),
    "no such type": (build(Rule(nn.Conv2d, lr=1)), r"rule=Rule\(Conv2d, lr=1\).*matches a parameter"),
    "foreign module": (build(Rule(nn.Linear(2, 2), lr=1)), r"rule=Rule\(a Linear, lr=1\)"),
    "foreign parameter": (build(Rule(nn.Parameter(torch.zeros(2)), lr=1)), r"a parameter \(2,\)"),
    "all decided": (build(Rule("*", lr=1), Rule("0.*", lr=2)), r"rule=Rule\('0.\*', lr=2\).*lr is open.*further up"),
    "some decided": (build(Rule("0.*", lr=1), Rule("0.bias", lr=2)), r"'0.bias'.*decide 2 of 7.*further up"),
    "no rule": (build({"lr": 1}), r"rules=\{'lr': 1\}.*Rule\("),
    "a class of rule": (build(NoDecay), r"rules=<class.*NoDecay\(\)"),
    "uncovered": (build(Rule("*weight", lr=1), NoDecay(), strict=True), r"'0.bias, 3.bias, 5.bias'.*none matches"),
    "no base": (build(Rule("0.*", lr=times(0.5))), r"lr=None.*multiply by 0.5, for 0.weight.*Pass lr="),
    "base no number": (build(Rule("0.*", betas=times(0.5)), betas=(0.9, 0.99)), r"betas=\(0.9, 0.99\).*a number"),
    "base a flag": (build(Rule("0.*", nesterov=times(0.5)), nesterov=True), r"nesterov=True.*a number"),
    "negative lr": (build(Rule("0.*", lr=-1), lr=1), r"lr=-1: .*\[0, ∞\), for 0.weight"),
    "no lr": (build(lr="fast"), r"lr='fast': .*\[0, ∞\)"),
    "endless decay": (build(weight_decay=float("inf")), r"weight_decay=inf"),
    "lr not a number": (build(lr=torch.tensor(float("nan"))), r"lr=tensor\(nan\)"),
    "factor": (lambda: times(-1), r"factor=-1.*\[0, ∞\)"),
    "infinite factor": (lambda: times(float("inf")), r"factor=inf"),
    "factor no number": (lambda: times(True), r"factor=True"),
    "no settings": (lambda: Rule("*"), r"settings=\{\}.*lr=1e-4"),
    "params": (lambda: Rule("*", params=[]), r"params=\[\].*where says"),
    "names": (build(param_names=["a"]), r"param_names=\['a'\].*the model says"),
    "where": (lambda: Rule(3, lr=1), r"where=3.*glob"),
    "where in a list": (lambda: Rule(["*", 3], lr=1), r"where=3.*glob"),
    "no where": (lambda: Rule([], lr=1), r"where=\(\).*at least one"),
    "a type of no module": (lambda: Rule(int, lr=1), r"where=<class 'int'>.*type of module"),
    "misspelt in a rule": (build(Rule("0.*", weight_deca=1), **ADAMW), r"weight_deca=Rule.*AdamW.*mean weight_decay"),
    "misspelt default": (build(**ADAMW, beta=(0.9, 0.95)), r"beta=\(0.9, 0.95\).*AdamW: .*betas, .*mean betas"),
    "of another optimizer": (build(momentum=0.9, **ADAMW), r"momentum=0.9.*of AdamW"),
    "no decay in Rprop": (build(NoDecay(), optimizer=torch.optim.Rprop), r"weight_decay=NoDecay\(\).*of Rprop"),
    "ours": (build(Rule("0.*", betas=(0.9, 0.9)), optimizer=thalweg.SGD), r"betas=Rule.*of SGD.*momentum"),
    "not of a group": (build(backend="eager", optimizer=thalweg.AdamW), r"backend='eager'.*of AdamW"),
    "passed on": (build(strenght=2, lr=1, optimizer=Passes), r"strenght=2.*of Passes.*mean strength"),
    "partial": (build(mometum=2, optimizer=functools.partial(torch.optim.SGD, lr=1)), r"mometum=2.*mean momentum"),
    "two classes": (build(ns=2, optimizer=(torch.optim.Muon, torch.optim.AdamW)), r"ns=2.*of Muon or AdamW"),
    "no class": (build(lr=1, optimizer="adamw"), r"optimizer='adamw'.*an optimizer class"),
    "an instance": (build(lr=1, optimizer=torch.optim.SGD([torch.zeros(2)])), r"optimizer=an optimizer, SGD"),
    "nothing to train": (build(lr=1, model=frozen_whole), r"model='Sequential'.*needs a gradient"),
    "no parameters": (build(lr=1, model=nn.ReLU), r"model='ReLU'.*needs a gradient"),
    "no model": (build(lr=1, model=list), r"model=\[\].*Module"),
    "lazy": (build(lr=1, model=lambda: nn.LazyLinear(3)), r"model='weight, bias'.*lazy"),
    "unknown use": (build(NoDecay(), model=blind), r"layers.0.up \(2, 8, 16\).*sample="),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CASES.values(), ids=CASES)
def test_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_no_signature_tells_is_not_refused():
    def factory(params, **options):
        return torch.optim.SGD(params, **options)

    assert of(models.mlp(), lr=1.0, momentum=0.9, optimizer=factory)[0]["momentum"] == 0.9


def test_labels_of_groups_are_allowed_and_told_apart():
    groups = of(models.mlp(), Rule("5.*", name="head"), Rule("*", name="body"), lr=0.1, optimizer=torch.optim.AdamW)
    assert [group["name"] for group in torch.optim.AdamW(groups).param_groups] == ["body", "head"]


def test_a_rule_above_answers_for_what_cannot_be_seen():
    model = models.Mixture()
    groups = of(model, Rule("layers.*", weight_decay=0.3), NoDecay(), weight_decay=0.1)
    assert got(groups, "weight_decay")["layers.0.up"] == 0.3
    seen = of(model, NoDecay(), weight_decay=0.1, sample=torch.randn(2, 8))
    assert got(seen, "weight_decay")["layers.0.up"] == 0.1
    assert got(seen, "weight_decay")["layers.0.up_bias"] == 0.0
    assert of(model, NoDecay(embeddings=False), weight_decay=0.1) is not None
