"""Which dimensions of a weight are summed over with activations: one fact, and all that takes it from there."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import thalweg
from tests.groups import hub, models
from tests.groups.test_rules import got
from thalweg.groups import describe, dims, multiplied, muon, mup, of, roles
from thalweg.groups.evidence import look
from thalweg.groups.flow import Known

#: how a weight of (4, 6) is used, the size that activations have then, and whether it is kept as (in, out)
USES = {
    "x @ W": (lambda x, W: x @ W, 4, True),
    "x @ W.t()": (lambda x, W: x @ W.t(), 6, False),
    "x @ W.T": (lambda x, W: x @ W.T, 6, False),
    "x @ W.mT": (lambda x, W: x @ W.mT, 6, False),
    "matmul": (lambda x, W: torch.matmul(x, W), 4, True),
    "(W @ x.t()).t()": (lambda x, W: (W @ x.t()).t(), 6, False),
    "(W.t() @ x.t()).t()": (lambda x, W: (W.t() @ x.t()).t(), 4, True),
    "mm": (lambda x, W: x.mm(W), 4, True),
    "linear": (lambda x, W: F.linear(x, W), 6, False),
    "linear by name": (lambda x, W: F.linear(input=x, weight=W), 6, False),
    "linear of W.t()": (lambda x, W: F.linear(x, W.t()), 4, True),
    "addmm": (lambda x, W: torch.addmm(torch.ones(6), x, W), 4, True),
    "einsum": (lambda x, W: torch.einsum("bi,io->bo", x, W), 4, True),
    "einsum turned": (lambda x, W: torch.einsum("oi,bi->bo", W, x), 6, False),
    "einsum of dots": (lambda x, W: torch.einsum("...i,io->...o", x, W), 4, True),
    "bmm": (lambda x, W: torch.bmm(x[None], W[None])[0], 4, True),
    "transposed": (lambda x, W: x @ W.transpose(0, 1), 6, False),
    "permuted": (lambda x, W: x @ W.permute(1, 0), 6, False),
    "masked": (lambda x, W: x @ (W * torch.ones(4, 6).tril()), 4, True),
    "masked, turned": (lambda x, W: x @ (W * torch.ones(4, 6).tril()).t(), 6, False),
    "scaled": (lambda x, W: x @ (2 * W / 3), 4, True),
    "normed": (lambda x, W: F.linear(x, F.normalize(W, dim=1)), 6, False),
    "copied": (lambda x, W: x @ W.t().contiguous().clone(), 6, False),
    "of another kind": (lambda x, W: (x.double() @ W.double()).float(), 4, True),
    "viewed": (lambda x, W: x @ W.view(2, 2, 6).reshape(4, 6), 4, True),
    "a kernel": (lambda x, W: F.conv1d(x[..., None], W[..., None])[..., 0], 6, False),
}  # fmt: skip


class Uses(nn.Module):
    def __init__(self, use, size):
        super().__init__()
        self.use = use
        self.first, self.W, self.last = nn.Linear(3, size), nn.Parameter(torch.randn(4, 6)), nn.Linear(10 - size, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.use(torch.tanh(self.first(x)), self.W)))


@pytest.mark.parametrize("how", ["sample", "trace", "shapes"])
@pytest.mark.parametrize(("use", "size", "turned"), USES.values(), ids=USES)
def test_the_use_tells_which_way_a_weight_is_kept(use, size, turned, how, monkeypatch):
    if how == "shapes":
        monkeypatch.setattr("thalweg.groups.running.SMALL", 0)
    sample = None if how == "trace" else torch.randn(5, 3)
    found = {r.name: r for r in roles(Uses(use, size), sample)}
    assert (found["W"].kind, found["W"].transposed) == ("hidden", turned)
    assert ("symbolic" in found["W"].why) == (how == "trace")


MODULES = [
    (nn.Linear(3, 4), False), (nn.Conv2d(3, 4, 2), False), (nn.ConvTranspose1d(3, 4, 2), True),
    (nn.ConvTranspose2d(3, 4, 2), True), (nn.ConvTranspose3d(3, 4, 2), True), (hub.Conv1D(4, 3), True),
    (nn.Bilinear(3, 3, 4), False), (nn.LSTM(3, 4), False), (nn.MultiheadAttention(4, 2), False),
    (nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(3, 4, 2)), True),
]  # fmt: skip


@pytest.mark.parametrize(("module", "turned"), MODULES, ids=[type(m).__name__ for m, _ in MODULES])
def test_the_module_tells_where_it_can(module, turned):
    found = roles(nn.ModuleDict({"it": module, "head": nn.Linear(4, 2)}), head="head")
    assert {r.transposed for r in found if r.parameter.ndim > 1 and r.name.startswith("it") and r.kind == "hidden"} <= {
        turned
    }
    assert not any(r.transposed for r in found if r.kind == "vector")


@given(sizes=st.permutations([2, 3, 5, 7]), moves=st.lists(st.sampled_from(["t", "p", "v", "m", "u", "s"]), max_size=6))
def test_origins_follow_dimensions_through_any_moves(sizes, moves):
    """Sizes are all different, so they tell dimensions apart, and those that views join are products."""
    p = nn.Parameter(torch.empty(*sizes))
    x = p * 1
    for move in moves:
        if move == "t":
            x = x.transpose(0, -1)
        elif move == "p":
            x = x.permute(*range(1, x.ndim), 0)
        elif move == "v" and x.ndim > 2:
            x = x.flatten(0, 1)
        elif move == "m":
            x = x * torch.ones(x.shape) + 1
        elif move == "u":
            x = x.unsqueeze(1)
        else:
            x = x.squeeze()
    found = dims.origins(x.grad_fn, {id(p): "p"})
    assert [math.prod(sizes[i] for _, i in origin) for origin in found] == list(x.shape)


def test_where_two_uses_disagree_the_first_tells_which_way_a_matrix_is_kept():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.W, self.last = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(torch.tanh(x @ self.W) @ self.W.t())

    evidence = look(Both(), torch.randn(2, 4), Known())
    assert evidence.layout("W") is None
    assert [r.name for r in roles(Both()) if r.transposed] == ["W"]


def test_what_no_use_tells_is_said():
    model = models.unseen(nn.Sequential(models.Own(4, 6), nn.Linear(6, 2)))
    optimizer = thalweg.Muon(model, lr=0.1, hidden=models.Own, head="1", blocks="none")
    assert "taken to be kept as (out, in), which no use tells: 0.kernel" in repr(optimizer)
    assert "taken to be" not in repr(thalweg.Muon(nn.Sequential(models.Own(4, 6), nn.Linear(6, 2)), lr=0.1))


# -- what takes it from there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "size", "turned"), [USES[k] for k in ("x @ W", "x @ W.t()", "masked", "einsum turned")]
)
@pytest.mark.parametrize("sample", [None, torch.randn(16, 3)])
def test_muons_scale_is_that_of_the_layer_and_not_of_memory(use, size, turned, sample):
    torch.manual_seed(0)
    model = Uses(use, size)
    model(torch.randn(16, 3)).square().mean().backward()
    before = model.W.detach().clone()
    optimizer = thalweg.Muon(
        model, lr=1.0, weight_decay=0.0, sample=sample, ns_steps=20, ns_coefficients=(1.5, -0.5, 0.0)
    )
    optimizer.step()
    fan_in, fan_out = (4, 6) if turned else (6, 4)
    norm = torch.linalg.matrix_norm(model.W.detach() - before, 2).item()
    assert norm == pytest.approx(max(1.0, fan_out / fan_in) ** 0.5, rel=0.02)
    assert ("transposed=True" in repr(optimizer)) == turned


def test_muon_on_a_transposed_convolution_moves_as_on_its_turned_kernel():
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(3, 8, 2)
    model = nn.Sequential(nn.Conv2d(1, 3, 1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    model(torch.randn(2, 1, 4, 4)).square().mean().backward()
    turned = nn.Parameter(layer.weight.detach().transpose(0, 1).clone())
    turned.grad = layer.weight.grad.transpose(0, 1).clone()
    thalweg.Muon(model, lr=0.1).step()
    thalweg.Muon([{"params": [turned], "flatten": True}], lr=0.1).step()
    torch.testing.assert_close(layer.weight.transpose(0, 1), turned)


def test_groups_say_it_and_the_table_shows_it():
    groups = of(models.UNet(), lr=0.1)
    assert got(groups, "lr") == dict.fromkeys(got(groups, "lr"), 0.1)
    assert [group.get("transposed", False) for group in groups] == [False, True]
    assert [name for name, _ in groups[1]["params"]] == ["up.weight"]
    assert any("up.weight" in line and "(in 4, out 4, 2, 2)" in line for line in str(groups).splitlines())
    assert [row.transposed for row in groups.rows if row.name == "up.weight"] == [True]
    assert "4×4×2×2 (in×out)" in describe(roles(models.UNet()))
    torch.optim.AdamW(groups)  # which passes over it


def test_optimizers_that_do_not_ask_have_no_group_for_it():
    assert len(of(models.UNet(), lr=0.1, optimizer=torch.optim.AdamW)) == 1
    assert len(of(models.UNet(), lr=0.1, optimizer=thalweg.AdamW)) == 2
    parts = muon(models.UNet(), muon={}, adamw={}, optimizer=(torch.optim.Muon, torch.optim.AdamW), kernels=False)
    assert not any("transposed" in group for group in parts)


def test_every_preset_keeps_it():
    model = Uses(*USES["x @ W"][:2])
    for groups in (
        multiplied(model, 0.1), muon(model, muon={}, adamw={}), mup(model, {4: 2, 6: 3}, lr=0.1), of(model, lr=0.1),
    ):  # fmt: skip
        held = [group for group in groups if group.get("transposed")]
        assert [[name for name, _ in group["params"]] for group in held] == [["W"]]


def test_an_optimizer_by_name_is_told_too():
    groups = thalweg.create("adamw", models.UNet(), centralize=True).param_groups
    assert [(group["transposed"], group["param_names"][0]) for group in groups] == [
        (False, "down1.weight"), (True, "up.weight"),
    ]  # fmt: skip
    assert len(thalweg.create("adamw", models.mlp()).param_groups) == 1
    assert len(thalweg.create("adamw", nn.LazyLinear(3)).param_groups) == 1


def test_centralize_and_adaptive_clipping_go_along_the_fan_in():
    for options in ({"centralize": True}, {"clip_adaptive": 0.01}):
        steps = []
        for use in ("x @ W", "x @ W.t()"):
            torch.manual_seed(0)
            model = Uses(*USES[use][:2])
            W = torch.arange(24.0).reshape(4, 6).cos()
            with torch.no_grad():
                model.W = nn.Parameter(W.clone())
            optimizer = thalweg.SGD(of(model, lr=1.0), lr=1.0, **options)
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
            model.W.grad = W.sin() + 1
            optimizer.step()
            steps.append((W - model.W.detach(), W.sin() + 1, W))
        (turned, g, W), (plain, _, _) = steps
        if "centralize" in options:
            torch.testing.assert_close(turned, g - g.mean(0, keepdim=True))
            torch.testing.assert_close(plain, g - g.mean(1, keepdim=True))
        else:
            torch.testing.assert_close(turned.norm(dim=0), 0.01 * W.norm(dim=0))
            torch.testing.assert_close(plain.norm(dim=1), 0.01 * W.norm(dim=1))


def test_a_router_of_experts_does_not_keep_its_rate_where_it_is_hand_made():
    class Router(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.first, self.router, self.last = nn.Linear(3, d), nn.Parameter(torch.randn(d, 4)), nn.Linear(d, 2)

        def forward(self, x):
            x = self.first(x)
            return self.last(x * (x @ self.router).softmax(-1).amax(-1, keepdim=True))

    assert got(mup(Router(16), Router(8), lr=1.0), "lr")["router"] == 0.5
    assert got(mup(Router(16), Router(8), lr=1.0, like="sgd"), "lr")["router"] == 0.5


def test_the_fans_of_a_hub_layer_are_known_to_mup():
    found = got(mup(hub.GPT2(d=16), hub.GPT2(d=8), lr=1.0, output="multiplier"), "lr")
    assert {found[f"h.0.{name}.weight"] for name in ("c_attn", "c_proj")} == {0.5}
    model, base = (nn.ModuleDict({"up": hub.Conv1D(12, n), "head": nn.Linear(12, 2)}) for n in (8, 4))
    assert got(mup(model, base, lr=1.0, head="head"), "lr")["up.weight"] == 0.5
