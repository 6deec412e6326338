"""The story: its plain loops take the steps of the classes, its tables are what those do, its parts are up to date."""

import re
import sys

import pytest
import torch
from torch import nn

import thalweg
from docs.generator import by_hand, made
from tests.docs.test_blocks import BLOCK, ROOT
from thalweg.linalg.newton_schulz import newton_schulz

STORY = (ROOT / "docs" / "story.md").read_text(encoding="utf-8")
FILES = {given: code for what, given, code in BLOCK.findall(STORY) if what == "file"}
#: each plain loop, and what takes the same steps
PAIRS = {
    "sgd": ("SGD", {"lr": 0.1}, torch.optim.SGD, {}),
    "momentum": ("Momentum", {"lr": 0.02}, torch.optim.SGD, {"momentum": 0.9}),
    "rmsprop": ("RMSprop", {"lr": 0.01}, torch.optim.RMSprop, {}),
    "adam": ("Adam", {"lr": 0.01}, torch.optim.Adam, {}),
    "adamw": ("AdamW", {"lr": 0.01, "weight_decay": 0.1}, torch.optim.AdamW, {}),
    "muon": ("Muon", {"lr": 0.02}, torch.optim.Muon, {"weight_decay": 0.0}),
}
#: the classes behind the tables, with the learning rate of the table
BY_HAND = {
    "SGD": lambda p: thalweg.SGD(p, lr=0.1),
    "momentum": lambda p: thalweg.Momentum(p, lr=0.1),
    "RMSprop": lambda p: thalweg.RMSprop(p, lr=0.01),
    "Adam": lambda p: thalweg.Adam(p, lr=0.1),
    "AdamW": lambda p: thalweg.AdamW(p, lr=0.1, weight_decay=0.1),
}


@pytest.fixture
def loops(tmp_path, monkeypatch):
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def trained(make, dtype=torch.float64):
    """The weights of a small network after 20 steps on random batches."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 5, bias=False)).to(dtype)
    optimizer = make(model.parameters())
    for _ in range(20):
        x = torch.randn(16, 6, dtype=dtype)
        (model(x).square().mean() + model(x).sum(1).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", PAIRS)
def test_a_plain_loop_takes_the_steps_of_torch(loops, name):
    cls, given, theirs, more = PAIRS[name]
    plain = getattr(__import__(name), cls)
    ours = trained(lambda params: plain(params, **given))
    other = trained(lambda params: theirs(params, **given, **more))
    # torch's Muon iterates in bfloat16
    torch.testing.assert_close(ours, other, rtol=0, atol=0.02 if name == "muon" else 1e-9)


def test_the_plain_newton_schulz_is_ours(loops):
    G = torch.randn(5, 7, dtype=torch.float64)
    mine = __import__("muon").orthogonal(G)
    torch.testing.assert_close(mine, newton_schulz(G, dtype=None), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", BY_HAND)
def test_the_steps_by_hand_are_those_of_the_class(name):
    p = nn.Parameter(torch.tensor([by_hand.START], dtype=torch.float64))
    optimizer = BY_HAND[name]([p])
    for (expected,) in by_hand.RULES[name]().points:
        p.grad = 2 * p.detach()
        optimizer.step()
        assert p.item() == pytest.approx(expected, abs=1e-6)


def test_the_steps_of_muon_by_hand_are_those_of_the_class():
    W = nn.Parameter(torch.diag(torch.tensor(by_hand.DIAGONAL, dtype=torch.float64)))
    optimizer = thalweg.Muon([W], lr=0.02, weight_decay=0.0)
    for expected in by_hand.RULES["Muon"]().points:
        W.grad = W.detach().clone()
        optimizer.step()
        assert W.diagonal().tolist() == pytest.approx(expected, abs=0.01)  # ours iterates in bfloat16


def test_all_six_have_a_table_and_a_plain_loop():
    assert set(by_hand.RULES) == {"SGD", "momentum", "RMSprop", "Adam", "AdamW", "Muon"}
    assert set(FILES) == {f"{name}.py" for name in PAIRS}
    for name in by_hand.RULES:
        assert f"<!-- made: by hand {name} -->" in STORY


@pytest.mark.parametrize("page", made.pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_what_is_made_from_the_code_is_as_the_code_makes_it(page):
    text = page.read_text(encoding="utf-8")
    version = ".".join(torch.__version__.split(".")[:2])
    if "made: mistakes" in text and not re.search(rf"torch[ （(]*{re.escape(version)}\b", text):
        pytest.skip("another version of torch, whose messages are others")
    assert made.filled(text, made.language_of(page)) == text, "run make docs-pictures, or python -m docs.generator.made"


def test_a_part_that_is_out_of_date_is_seen():
    text = "<!-- made: by hand SGD -->\n| old |\n<!-- /made -->"
    assert made.filled(text) != text
    with pytest.raises(KeyError):
        made.filled("<!-- made: nothing -->\n<!-- /made -->")


def test_ends_that_captions_state_are_those_of_the_pictures():
    pictures = ROOT / "docs" / "images" / "story"
    ends = {
        (file, name): end
        for file in ("valley", "valley-tilted")
        for name, end in re.findall(
            r">(\w+), lr [\d.e-]+: ends ([\d.e-]+) above", (pictures / f"{file}.svg").read_text(encoding="utf-8")
        )
    }
    caption = re.search(r"!\[In the turned valley: (.*?)\]", STORY)[1]
    for (file, name), end in ends.items():
        if file == "valley-tilted":
            assert re.search(rf"{name}(?: ends)? {re.escape(end)}\b", caption), (name, end)
    assert f"ends {ends['valley', 'SGD']} above its lowest point" in STORY
    assert f"ends {ends['valley', 'momentum']} above]" in STORY
    assert float(ends["valley-tilted", "RMSprop"]) > float(ends["valley-tilted", "SGD"])
