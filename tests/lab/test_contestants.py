import pytest
import torch

import thalweg
from thalweg._base.errors import ThalwegError
from thalweg.lab.contestants import CONTESTANTS, parse, parse_all


def test_reads_labels_and_offsets():
    assert parse("adamw").label == "adamw"
    twin = parse("twin=adamw@50")
    assert (twin.label, twin.optimizer, twin.seed_offset) == ("twin", "AdamW", 50)
    assert twin.settings == CONTESTANTS["adamw"].settings


@pytest.mark.parametrize(("entry", "message"), [
    ("adamv", "no optimizer 'adamv'; did you mean adam"),
    ("lbfgs", "LBFGS does not race"),
    ("lookahead", "Lookahead does not race"),
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
    if name == "muon":
        assert [g["use_muon"] for g in optimizer.param_groups] == [True, False]


OWN = """
import torch
from thalweg.engine.declare import hyper
from thalweg.engine.optimizer import Optimizer


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
