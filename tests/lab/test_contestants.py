import pytest
import torch

import thalweg
from thalweg._base.errors import ThalwegError
from thalweg.lab import classes
from thalweg.lab.contestant import Point
from thalweg.lab.contestants import CONTESTANTS, parse, parse_all
from thalweg.lab.tasks import imports
from thalweg.wrap.wrapper import layers


def test_reads_labels_and_offsets():
    assert parse("adamw").label == "adamw"
    twin = parse("twin=adamw@50")
    assert (twin.label, twin.optimizer, twin.seed_offset) == ("twin", "AdamW", 50)
    assert twin.settings == CONTESTANTS["adamw"].settings


@pytest.mark.parametrize(("entry", "message"), [
    ("adamv", "no optimizer 'adamv'; did you mean adam"),
    ("lookahead", "Lookahead does not race alone: it wraps another optimizer, as in lookahead.adamw."),
    ("sophia-h", "SophiaH does not race"),
    ("nowhere.py:Mine", "cannot read nowhere.py|cannot read .*nowhere.py"),
    ("moun", "did you mean muon"),
    ("a b", "is not NAME"),
    ("", "is not NAME"),
])  # fmt: skip
def test_says_what_is_wrong_with_an_entry(entry, message):
    with pytest.raises(ThalwegError, match=message):
        parse(entry)


def test_the_baseline_comes_first_and_must_race():
    assert [c.label for c in parse_all(["muon", "adamw"], "adamw")] == ["adamw", "muon"]
    with pytest.raises(ThalwegError, match="--baseline 'sgd' is not among"):
        parse_all(["muon", "adamw"], "sgd")
    with pytest.raises(ThalwegError, match="twice"):
        parse_all(["adamw", "adamw"], "adamw")


def test_decay_shrinks_everyone_alike_at_its_centre():
    shrinks = {c.centre * c.decay(0.1) for c in CONTESTANTS.values()}
    assert max(shrinks) == pytest.approx(min(shrinks)) == pytest.approx(3e-4)


@pytest.mark.parametrize("name", CONTESTANTS)
def test_builds_over_the_races_groups(name):
    hidden, rest = torch.nn.Parameter(torch.randn(4, 4)), torch.nn.Parameter(torch.randn(4))
    groups = [
        {"params": [hidden], "lr": 0.1, "weight_decay": 0.5, "role": "hidden"},
        {"params": [rest], "lr": 0.3, "weight_decay": 0.0, "role": "rest"},
    ]
    optimizer = CONTESTANTS[name].build(groups, 0.1, {})
    assert isinstance(optimizer, getattr(thalweg, CONTESTANTS[name].optimizer))
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.3]
    assert all(g["decoupled_weight_decay"] for g in optimizer.param_groups)
    if name in ("muon", "normuon"):
        assert [g["use_muon"] for g in optimizer.param_groups] == [True, False]


OWN = """
import torch
from thalweg.rule import Optimizer, hyper


class Half(Optimizer):
    lr: float = hyper(default=0.25, within="[0, ∞)")

    @staticmethod
    def direction(p, g, s, h):
        return 0.5 * g
"""


def test_a_users_own_optimizer_races_from_its_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    mine = parse(f"{file}:Half")
    assert (mine.label, mine.centre) == ("half", 0.25)
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = mine.build([{"params": [p]}], 0.1, {})
    p.grad = torch.ones(2)
    optimizer.step()
    assert torch.allclose(p, torch.full((2,), 0.95))
    file.write_text(OWN.replace("0.5", "0.75"))
    assert parse(f"{file}:Half").code != mine.code
    with pytest.raises(ThalwegError, match="found no Other"):
        parse(f"{file}:Other")


def test_the_code_of_a_users_own_optimizer_is_that_of_its_neighbours_too(tmp_path):
    file, neighbour = tmp_path / "mine.py", tmp_path / "factor_of_half.py"
    file.write_text(OWN.replace("import torch\n", "import factor_of_half\n", 1))
    neighbour.write_text("FACTOR = 0.5\n")
    before = parse(f"{file}:Half").code
    assert parse(f"{file}:Half").code == before
    neighbour.write_text("FACTOR = 0.75\n")
    assert parse(f"{file}:Half").code != before


@pytest.mark.parametrize(
    ("declared", "found"), [("lr: float = hyper(default=0.0, within='[0, ∞)')", "lr = 0.0"), ("", "lr = None")]
)
def test_a_users_own_optimizer_must_say_where_its_search_starts(tmp_path, declared, found):
    file = tmp_path / "mine.py"
    file.write_text(OWN.replace('lr: float = hyper(default=0.25, within="[0, ∞)")', declared))
    with pytest.raises(ThalwegError, match=f"Half does not race: found {found}; expected a default above 0"):
        parse(f"{file}:Half")


def test_a_users_own_muon_is_told_which_matrices_are_hidden(tmp_path):
    (tmp_path / "mine.py").write_text("import thalweg\n\nclass Mine(thalweg.Muon):\n    pass\n")
    hidden, rest = torch.nn.Parameter(torch.randn(4, 4)), torch.nn.Parameter(torch.randn(4))
    groups = [{"params": [hidden], "lr": 0.1, "role": "hidden"}, {"params": [rest], "lr": 0.3, "role": "rest"}]
    optimizer = parse(f"{tmp_path / 'mine.py'}:Mine").build(groups, 0.1, {})
    assert [g["use_muon"] for g in optimizer.param_groups] == [True, False]


def test_muon_takes_the_kernel_of_a_conv1d():
    kernel = torch.nn.Parameter(torch.randn(4, 4, 3))
    optimizer = CONTESTANTS["muon"].build([{"params": [kernel], "lr": 0.1, "role": "hidden"}], 0.1, {})
    kernel.grad = torch.randn(4, 4, 3)
    optimizer.step()
    assert kernel.isfinite().all()


def test_any_optimizer_of_the_library_races_from_its_default_rate():
    lion = parse("lion")
    assert (lion.optimizer, lion.centre, lion.settings) == ("Lion", thalweg.Lion.hypers["lr"].default, {})
    assert parse("b=adam-mini").optimizer == "AdamMini"


FOREIGN = """
import torch


class Signs(torch.optim.Optimizer):
    def __init__(self, params, lr=0.25, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad.sign())
"""


def _layers():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))


def test_any_class_of_torchs_base_races_from_its_file(tmp_path):
    (tmp_path / "mine.py").write_text(FOREIGN)
    mine = parse(f"{tmp_path}/mine.py:Signs")
    assert (mine.label, mine.centre, mine.ours) == ("signs", 0.25, False)
    optimizer = mine.build_for(_layers(), Point(0.1, 3.0, 0.5))
    assert [set(g) - {"params"} for g in optimizer.param_groups] == [{"lr", "weight_decay"}] * 2
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.1, 0.5), (0.1 * 3.0, 0.0)]


def test_a_class_of_a_package_races_by_its_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "__init__.py").write_text(FOREIGN)
    found = parse("some_package:Signs")
    assert (found.label, found.shown, found.file) == ("some_package:Signs", "some_package:Signs", "")
    assert found.code
    assert isinstance(found.build_for(_layers(), Point(0.1)), found.rule)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("no_such_package:Lion", "no package 'no_such_package' is installed; pip install no_such_package"),
        ("torch.optim:Nadam", "has no Nadam; expected a subclass of torch.optim.Optimizer; there are: NAdam"),
        ("torch.optim:swa_utils", "has a module swa_utils"),
        ("torch.nn:Linear", "has a type Linear|has a ABCMeta Linear"),
        ("torch.optim.nowhere:X", "No module named 'torch.optim.nowhere'"),
    ],
)
def test_says_what_is_wrong_with_a_module(entry, message):
    with pytest.raises(ThalwegError, match=message):
        parse(entry)


def test_a_learning_rate_makes_a_recipe():
    recipe = parse("adamw(lr=3e-4, weight_decay=0.1)")
    assert (recipe.label, recipe.shown) == ("adamw(lr=3e-4,weight_decay=0.1)", "AdamW")
    assert (recipe.tuned, recipe.centre, recipe.weight_decay, recipe.knobs) == (False, 3e-4, 0.1, {})
    assert recipe.settings == {}  # the class's own betas, as in the script that it comes from
    assert recipe.decay(0.3) == 0.1
    assert not recipe.multiplies
    assert not recipe.decays


def test_a_recipe_is_what_its_script_would_make():
    """All parameters in one group, decayed in the way of the class."""
    ours, theirs = _layers(), _layers()
    recipe = parse("adam(lr=1e-2, weight_decay=0.3)")
    optimizer = recipe.build_for(ours, Point(recipe.centre, 1.0, recipe.decay(0.0)))
    plain = torch.optim.Adam(theirs.parameters(), lr=1e-2, weight_decay=0.3)
    assert len(optimizer.param_groups) == 1
    for _ in range(3):
        for model, one in ((ours, optimizer), (theirs, plain)):
            one.zero_grad()
            model(torch.ones(2, 3)).square().mean().backward()
            one.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_recipe_of_muon_tells_the_matrices_apart():
    recipe = parse("muon(lr=0.02, weight_decay=0.1)")
    optimizer = recipe.build_for(_layers(), Point(0.02, 1.0, 0.1))
    assert {g["use_muon"] for g in optimizer.param_groups} == {True, False}


def test_what_makes_a_name_of_the_field_stays_in_a_recipe():
    assert parse("momentum(lr=0.1)").settings == {"momentum": 0.9, "nesterov": True}
    assert parse("momentum(lr=0.1, nesterov=False)").settings == {"momentum": 0.9, "nesterov": False}
    assert parse("adamw-int8(lr=1e-3)").settings["state_dtype"] == "int8"


def test_a_range_and_fixed_settings_leave_it_tuned():
    ranged = parse("adamw(lr=1e-4..1e-2)")
    assert (ranged.tuned, ranged.lr_range) == (True, (1e-4, 1e-2))
    assert ranged.centre == pytest.approx(1e-3)
    fixed = parse("adamw(betas=(0.9, 0.99), weight_decay=0.1)")
    assert (fixed.tuned, fixed.settings, fixed.weight_decay) == (True, {"betas": (0.9, 0.99)}, 0.1)
    assert "betas" not in fixed.knobs
    assert "eps" in fixed.knobs
    assert not fixed.decays


def test_a_wrapper_stands_around_any_other():
    optimizer = parse("lookahead(sam(torch.optim:SGD(momentum=0.9), rho=0.1), k=3)").build_for(_layers(), Point(0.1))
    assert [type(one).__name__ for one in layers(optimizer)] == ["Lookahead", "SAM", "SGD"]
    assert type(layers(optimizer)[-1]) is torch.optim.SGD
    assert (optimizer.param_groups[0]["sam_rho"], optimizer.param_groups[0]["lookahead_k"]) == (0.1, 3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("adamw(lr=0)", "lr=0: expected a number above 0"),
        ("adamw(lr=-1e-3)", "lr=-0.001: expected a number above 0"),
        ("adamw(lr=True)", "lr=True: expected a number above 0"),
        ("adamw(lr=1e-2..1e-4)", "expected 0 < low < high"),
        ("adamw(lr=0..1)", "expected 0 < low < high"),
        ("adamw(weight_decay=-1)", "weight_decay=-1: expected a number of at least 0"),
        ("adamw(weight_decay=0..1)", "weight_decay=.*: expected a number of at least 0"),
        ("adamw(eps=1e-8..1e-3)", "eps: a range is searched for lr alone"),
        ("adamw(betaz=1)", "AdamW has no setting 'betaz'; did you mean betas"),
        ("adamw(betas=2)", "betas=2: expected 2 numbers"),
        ("adamw(backend='eager')", "AdamW has no setting 'backend'"),
        ("torch.optim:NAdam(beta=1)", "NAdam has no setting 'beta'; did you mean betas"),
        ("torch.optim:NAdam(betas=(2, 2))", "ValueError: Invalid beta"),
        (
            "adamw(sgd)",
            "adamw wraps no other optimizer; wrappers are: asam, ema, emanesterov, gpa, lookahead, mechanic, sam, snoo",
        ),
        ("sam(adamw, lr=1e-3)", "SAM has no setting 'lr'"),
        ("sam(adamw, rho=-1)", "rho=-1: expected a number in"),
        ("sam(sam(adamw))", "expected one without SAM in it"),
        ("sam(adamv)", "no optimizer 'adamv'; did you mean adam"),
    ],
)
def test_says_what_is_wrong_with_a_setting(entry, message):
    with pytest.raises(ThalwegError, match=message) as caught:
        parse(entry)
    assert "\n" not in str(caught.value)


def test_a_class_without_a_default_rate_says_how_to_give_it_one(tmp_path):
    (tmp_path / "mine.py").write_text(FOREIGN.replace("lr=0.25", "lr"))
    with pytest.raises(ThalwegError, match=r"found lr = None; .*or say where to: signs\(lr=1e-4..1e-2\)"):
        parse(f"{tmp_path}/mine.py:Signs")
    assert parse(f"{tmp_path}/mine.py:Signs(lr=1e-3..1e-1)").centre == pytest.approx(1e-2)
    assert not parse(f"{tmp_path}/mine.py:Signs(lr=1e-3)").tuned


def test_whatever_is_in_the_call_is_part_of_who_it_is():
    entries = ["adamw", "adamw(lr=3e-3)", "adamw(betas=(0.9, 0.99))", "sam(adamw)", "sam(adamw, rho=0.1)", "ema(adamw)",
               "torch.optim:AdamW", "torch.optim:AdamW(lr=3e-3)"]  # fmt: skip
    assert len({repr(parse(entry).identity) for entry in entries}) == len(entries)


def test_what_a_class_is_defined_by_is_read_once_while_it_stays_the_same(tmp_path, monkeypatch):
    """Each run asks for it twice, and a class may stand in a large repository."""
    (tmp_path / "mine.py").write_text(FOREIGN.replace("import torch\n", "import torch\nimport a_neighbour_of_mine\n"))
    (tmp_path / "a_neighbour_of_mine.py").write_text("X = 1\n")
    mine = f"{tmp_path}/mine.py:Signs"
    before = classes.code(mine)
    monkeypatch.setattr(imports, "_parsed", None)  # what is not remembered fails
    assert classes.code(mine) == before
    monkeypatch.undo()
    (tmp_path / "a_neighbour_of_mine.py").write_text("X = 2\n")
    assert classes.code(mine) != before
