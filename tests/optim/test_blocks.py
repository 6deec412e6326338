"""Optimizers for matrices, of weights that hold several: each steps as it would in a tensor of its own."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn

import thalweg
from tests.groups.test_blocks import IDS, TABLE, Attention, D, L, Net, neox
from thalweg.groups import Blocks, Rule
from thalweg.optim.cutting import shapes
from thalweg.optim.routed import Routed

ROUTED = [cls for cls in (getattr(thalweg.optim, name) for name in thalweg.optim.__all__) if issubclass(cls, Routed)]
FAMILY = [cls for cls in ROUTED if cls.takes_blocks]
#: how a weight is cut, and its shape
CUTS = {
    "equal": (3, (12, 5)),
    "sizes": ((6, 3, 3), (12, 5)),
    "by head": (Blocks(3, repeats=2), (12, 5)),
    "uneven by head": (Blocks((2, 1, 1), repeats=2), (16, 5)),
    "columns": (Blocks(4, along="in"), (6, 12)),
    "stack": (Blocks(layout="n out in"), (3, 6, 4)),
    "stack, turned": (Blocks(layout="n in out"), (3, 4, 6)),
    "gates in a stack": (Blocks(2, layout="n in out"), (3, 4, 6)),
    "kernel": (2, (6, 2, 3, 3)),
}


def apart(x, how):
    """The matrices in a tensor, each a tensor of its own."""
    held = how if isinstance(how, Blocks) else Blocks(how)
    return [X.contiguous() for batch in held.matrices(x) for X in batch]


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("cls", FAMILY)
def test_a_block_steps_as_in_a_tensor_of_its_own(cls, name):
    how, shape = CUTS[name]
    torch.manual_seed(0)
    fused = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    single = [nn.Parameter(X) for X in apart(fused.detach().clone(), how)]
    one = cls([{"params": [fused], "blocks": how}], lr=0.1)
    other = cls(single, lr=0.1)
    for _ in range(3):
        fused.grad = torch.randn(shape, dtype=torch.float64)
        for p, g in zip(single, apart(fused.grad, how), strict=True):
            p.grad = g
        one.step()
        other.step()
    for X, p in zip(apart(fused.detach(), how), single, strict=True):
        torch.testing.assert_close(X, p.detach(), rtol=0, atol=1e-9)


class Own(thalweg.Muon):
    """A rule of a user's own, which knows of no blocks.

    Parent: Muon. Adds: nothing.
    """

    @staticmethod
    def direction(p, g, s, h):
        return thalweg.Muon.direction(p, g, s, h)


def test_a_rule_of_ones_own_takes_a_weight_for_one_matrix():
    with pytest.raises(ValueError, match="None, since Own takes a weight for one matrix"):
        Own([nn.Parameter(torch.ones(6, 3))], blocks=3)
    assert Own(Attention(neox), sample=IDS).param_groups[0]["blocks"] is None


def test_muon_cuts_a_model_by_use_where_nothing_else_is_asked():
    assert thalweg.Muon(Attention(neox), sample=IDS).param_groups[0]["blocks"] == (Blocks(3, repeats=4), None)


@pytest.mark.parametrize("scale", [None, "match_rms_adamw", lambda m, n: 1 + m / n])
def test_each_block_has_the_scale_of_its_own_shape(scale):
    p = nn.Parameter(torch.zeros(16, 4, dtype=torch.float64))
    optimizer = thalweg.Muon(
        [{"params": [p], "blocks": (8, 4, 4)}],
        lr=1.0,
        adjust_lr_fn=scale,
        ns_coefficients=(2.0, -1.5, 0.5),
        ns_steps=40,
    )
    p.grad = torch.randn_like(p)
    optimizer.step()
    factor = {None: lambda m, n: max(1, m / n) ** 0.5, "match_rms_adamw": lambda m, n: 0.2 * max(m, n) ** 0.5}
    for X, m in zip(p.detach().split([8, 4, 4]), (8, 4, 4), strict=True):
        singular = torch.linalg.svdvals(X)  # the iteration runs in bfloat16
        torch.testing.assert_close(
            singular, torch.full_like(singular, factor.get(scale, scale)(m, 4)), rtol=0.01, atol=0
        )


@pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
def test_backends_agree(backend):
    def walked(backend, dtype):
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in [(12, 5), (8, 4), (3, 4, 6)]]
        groups = [
            {"params": [p], "blocks": b} for p, b in zip(params, [3, (4, 2, 2), Blocks(layout="n in out")], strict=True)
        ]
        optimizer = thalweg.Muon(groups, lr=0.1, backend=backend)
        for _ in range(2):
            for p in params:
                p.grad = torch.randn(p.shape, dtype=dtype)
            optimizer.step()
        return params

    for one, other in zip(walked(backend, torch.float64), walked("eager", torch.float64), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_parameters_of_one_group_have_blocks_each():
    model = Attention(neox)
    optimizer = thalweg.Muon(model, sample=IDS, blocks="auto")
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 5]
    assert optimizer.param_groups[0]["blocks"] == (Blocks(3, repeats=4), None)
    assert "blocks=3 equal parts of out, 4 times: qkv.weight" in repr(optimizer)
    assert "tensors, blocks=3 equal parts of out, 4 times" in str(optimizer.plan())
    optimizer.param_groups[0]["params"].append(nn.Parameter(torch.ones(2, 2)))
    optimizer.param_groups[0]["params"][-1].grad = torch.ones(2, 2)
    with pytest.raises(ValueError, match="one for each of the 3 parameters"):
        optimizer.step()


@pytest.mark.parametrize("name", TABLE)
def test_a_model_is_cut_as_it_is_said_to_be(name):
    model, expected = TABLE[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LSTM with projections")  # torch's
        optimizer = thalweg.Muon(model, sample=IDS, blocks="auto")
    found = {}
    for group in optimizer.param_groups:
        if group["use_muon"]:
            found.update(zip(group["param_names"], shapes(group), strict=True))
    assert {name: sorted(one) for name, one in found.items()} == {name: sorted(one) for name, one in expected.items()}


class TestCheckpoints:
    def params(self):
        torch.manual_seed(0)
        return [nn.Parameter(torch.randn(12, 4)), nn.Parameter(torch.randn(4, 6))]

    def step(self, optimizer, params):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()

    def test_those_of_torchs_muon_load_and_keep_the_cut(self):
        params = self.params()
        theirs = torch.optim.Muon(params, lr=0.1)
        self.step(theirs, params)
        ours = thalweg.Muon([{"params": params, "blocks": 2}])
        ours.load_state_dict(theirs.state_dict())
        assert ours.param_groups[0]["blocks"] == Blocks(2)
        assert ours.param_groups[0]["lr"] == 0.1
        assert torch.equal(ours.state[params[0]]["momentum_buffer"], theirs.state[params[0]]["momentum_buffer"])

    @pytest.mark.parametrize("cls", [cls for cls in FAMILY if "left" in cls.states])
    def test_factors_fit_the_matrices_that_they_are_of(self, cls):
        params = self.params()
        before = cls([{"params": params}])
        self.step(before, params)
        after = cls([{"params": params, "blocks": 2}])
        with pytest.raises(ValueError, match=r"expected the shape .* Give the blocks"):
            after.load_state_dict(before.state_dict())

    @pytest.mark.parametrize("cls", [cls for cls in FAMILY if "left" not in cls.states])
    def test_the_cut_may_change_between_runs(self, cls):
        params = self.params()
        before = cls([{"params": params}])
        self.step(before, params)
        file = io.BytesIO()
        torch.save(before.state_dict(), file)
        file.seek(0)
        after = cls([{"params": params, "blocks": 2}])
        after.load_state_dict(torch.load(file, weights_only=True))
        assert after.param_groups[0]["blocks"] == Blocks(2)
        self.step(after, params)
        file = io.BytesIO()
        torch.save(after.state_dict(), file)
        file.seek(0)
        before.load_state_dict(torch.load(file, weights_only=True))
        assert before.param_groups[0]["blocks"] is None
        self.step(before, params)

    def test_which_way_weights_are_kept_is_not_the_checkpoints_to_say(self):
        params = self.params()
        theirs = torch.optim.Muon(params, lr=0.1)
        self.step(theirs, params)
        ours = thalweg.Muon([{"params": params, "transposed": True}])
        ours.load_state_dict(theirs.state_dict())
        assert ours.param_groups[0]["transposed"]

    def test_copies_keep_the_cut(self):
        optimizer = thalweg.Muon(Attention(neox), sample=IDS, blocks="auto")
        for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
            assert copied.param_groups[0]["blocks"] == (Blocks(3, repeats=4), None)


class TestWords:
    def test_none_leaves_weights_and_stacks_as_they_were(self):
        model = TABLE["experts one by one"][0]
        optimizer = thalweg.Muon(model, sample=IDS, blocks="none")
        assert optimizer.param_groups[0]["blocks"] is None
        assert optimizer.param_groups[0]["param_names"] == ["router.weight"]

    def test_rules_by_name_by_type_and_by_what_a_parameter_is(self):
        net = Net(lambda s, x: s.b(s.r(s.a(x))[0]), a=L(D, D), b=L(D, D), r=nn.GRU(D, D))
        rules = [
            Rule("a.*", blocks=2),
            Rule(nn.GRU, blocks="none"),
            Rule(lambda param: param.name == "b.weight", blocks=lambda p: (p.shape[0] - 4, 4)),
        ]
        group = thalweg.Muon(net, sample=IDS, blocks=rules).param_groups[0]
        found = dict(zip(group["param_names"], group["blocks"], strict=True))
        assert found == {
            "a.weight": Blocks(2), "b.weight": Blocks((3, 1)), "r.weight_ih_l0": None, "r.weight_hh_l0": None
        }  # fmt: skip

    def test_what_no_rule_matches_is_as_its_use_tells(self):
        group = thalweg.Muon(Attention(neox), sample=IDS, blocks=Rule("out.*", blocks=2)).param_groups[0]
        assert group["blocks"] == (Blocks(3, repeats=4), Blocks(2))

    def test_a_rule_makes_a_stack_its_matrices(self):
        model = TABLE["experts (n, in, out)"][0]
        rule = Rule(["up", "down"], blocks=Blocks(layout="n in out"))
        group = thalweg.Muon(model, sample=IDS, blocks=rule).param_groups[0]
        assert dict(zip(group["param_names"], group["blocks"], strict=True)) == {
            "up": Blocks(layout="n in out"), "down": Blocks(layout="n in out"), "router.weight": None
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            ("al", r"blocks='al': expected one of 'auto', 'heads', 'none'"),
            (3, r"blocks=3: expected a word, or rules that set blocks"),
            (Rule("*", lr=1.0), r"rules that set blocks and nothing else"),
            (Rule("qk*", blocks=5), r"parts that make up the 48 outputs of qkv.weight, \(48, 16\)"),
            (Rule("qk*", blocks="heads?"), r"blocks='heads\?': expected a number of equal parts"),
            (Rule("k*", blocks=3), r"Rule\('k\*', blocks=3\): expected a rule that matches a parameter"),
            (Rule("emb*", blocks=3), r"rules that match a hidden weight: qkv.weight"),
        ],
    )
    def test_what_cannot_be_is_refused(self, how, message):
        with pytest.raises(ValueError, match=message):
            thalweg.Muon(Attention(neox), sample=IDS, blocks=how)

    @pytest.mark.parametrize("how", ["auto", Rule("*", blocks=3), [Rule("*", blocks=3)]])
    def test_parameters_alone_do_not_tell(self, how):
        with pytest.raises(ValueError, match=r"where params is no model\. Pass the model itself, Muon"):
            thalweg.Muon([nn.Parameter(torch.ones(3, 3))], blocks=how)

    def test_blocks_of_parameters_alone(self):
        params = [nn.Parameter(torch.ones(6, 3)), nn.Parameter(torch.ones(9, 3))]
        assert thalweg.Muon(params, blocks=3).param_groups[0]["blocks"] == Blocks(3)
        assert thalweg.Muon(params, blocks="none").param_groups[0]["blocks"] is None
        each = thalweg.Muon(params, blocks=lambda p: (p.shape[0] - 3, 3)).param_groups[0]["blocks"]
        assert each == (Blocks(2), Blocks((2, 1)))
        with pytest.raises(ValueError, match=r"parts that make up the 9 outputs of parameter 1 of its group"):
            thalweg.Muon(params, blocks=2)

    def test_a_stack_without_its_layout_is_refused_with_it(self):
        p = nn.Parameter(torch.ones(3, 4, 5))
        with pytest.raises(ValueError, match=r"blocks=thalweg.groups.Blocks\(layout='n out in'\)"):
            thalweg.Muon([p])
        assert thalweg.Muon([p], blocks=Blocks(layout="n out in")).param_groups[0]["blocks"].stacked

    def test_what_cannot_be_seen_is_said_once(self):
        class Lost(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

            def forward(self, x):
                raise RuntimeError("not today")

        with pytest.warns(UserWarning, match="left uncut") as said:
            optimizer = thalweg.Muon(Lost(), blocks="auto", head=())
        assert [str(one.message) for one in said if "left uncut" in str(one.message)] == [
            "left uncut, since it is not seen how Lost uses what they give: a.weight (no forward pass was possible), "
            "b.weight (no forward pass was possible). Pass sample=… (an input that the model runs on), or an optimizer "
            "for matrices takes a rule: blocks=[Rule('a.weight', blocks=3)], or blocks=None for one matrix"
        ]
        assert optimizer.param_groups[0]["blocks"] is None
        assert "left uncut, since it is not seen how Lost" in repr(thalweg.Muon(Lost(), head=()))


@pytest.mark.parametrize("state_dtype", ["bfloat16", "int8"])
def test_states_in_few_bits(state_dtype):
    p, q = (nn.Parameter(torch.ones(12, 32)) for _ in range(2))
    for one, how in ((p, 3), (q, None)):
        optimizer = thalweg.Muon([one], lr=0.1, blocks=how, state_dtype=state_dtype)
        torch.manual_seed(1)
        one.grad = torch.randn(12, 32)
        optimizer.step()
    assert not torch.equal(p, q)
    assert p.isfinite().all()


class TestFunctionsOfAUser:
    """What they raise, and what they should not give, is said with the parameter's name and shape."""

    def model(self):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))

    @pytest.mark.parametrize(
        ("blocks", "said"),
        [
            (lambda p: p.shape[5], r"of shape \(8, 4\), but it raised IndexError: .*Let it give None"),
            (lambda p: "three", r"of shape \(8, 4\), but it raised ValueError: blocks='three'"),
        ],
    )
    def test_an_error_in_blocks_names_the_weight(self, blocks, said):
        for make in (
            lambda: thalweg.Muon(self.model(), sample=torch.ones(1, 4), blocks=Rule("*", blocks=blocks)),
            lambda: thalweg.Muon([{"params": [("0.weight", self.model()[0].weight)], "blocks": blocks}]),
        ):
            with pytest.raises(ValueError, match=f"blocks=.*<lambda>: .* takes 0.weight, {said}") as found:
                make()
            assert found.value.__cause__ is not None

    def test_an_error_in_the_scale_of_a_step_names_the_shape(self):
        with pytest.raises(
            ValueError, match=r"adjust_lr_fn=<lambda>: .* m=8 outputs and n=4 inputs.*ZeroDivisionError"
        ):
            thalweg.Muon([self.model()[0].weight], adjust_lr_fn=lambda m, n: m / 0)

    def test_an_error_in_a_predicate_names_the_parameter(self):
        with pytest.raises(ValueError, match=r"where=<lambda>: .* takes 0.bias, of shape \(8,\).*IndexError"):
            thalweg.groups.of(self.model(), Rule(lambda p: p.parameter.shape[1] > 4, lr=1.0), lr=0.1)
