"""`thalweg list` and `thalweg explain`: what they print, write and refuse."""

import json
import sys
import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner

import thalweg
from tests.processes import python
from thalweg.cli.app import app
from thalweg.explain import formula
from thalweg.explain.columns import width
from thalweg.lab.contestants import CONTESTANTS
from thalweg.registry import optimizers, wrappers

MINE = '''
import torch
import thalweg
from thalweg.rule import Optimizer, hyper, state


class Halved(Optimizer):
    """Half of the mean gradient. Nothing else.

    Parent: Signum. Adds: a half.
    """

    lr: float = hyper(default=0.1, within="[0, ∞)", doc="step size")
    momentum: float = hyper(default=0.9, within="[0, 1)", doc="β, share that is kept")
    mean: torch.Tensor = state(doc="m, mean of gradients")

    @staticmethod
    def direction(p, g, s, h):
        s.mean = torch.lerp(s.mean, g, 1 - h.momentum)
        return 0.5 * s.mean
'''


def run(*arguments):
    return CliRunner().invoke(app, arguments)


def printed(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments):
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if line]
    return line.removeprefix("Error: ")


@pytest.fixture(scope="module")
def listed():
    return json.loads(printed("list", "--json"))


def test_json_has_every_optimizer_and_wrapper(listed):
    assert [one["name"] for one in listed["optimizers"]] == list(optimizers())
    assert [one["name"] for one in listed["wrappers"]] == list(wrappers())


def test_json_tells_of_each_what_programs_need(listed):
    for one in listed["optimizers"]:
        assert one["reference"], one
        assert one["paper"].startswith("https://"), one
        assert one["idea"], one
        assert one["family"], one
        assert one["parent"] is None or one["parent"] in optimizers()
        assert set(one["backends"]) <= {"triton", "cpu", "foreach", "eager"}
        assert one["backends"], one
        assert one["bytes_per_param"] >= 0
        assert set(one["flags"]) <= set(optimizers()[one["name"]].hypers)
    adamw = next(one for one in listed["optimizers"] if one["name"] == "AdamW")
    assert adamw == {
        "name": "AdamW", "reference": "torch.optim.AdamW", "paper": "https://arxiv.org/abs/1711.05101",
        "family": "adam", "parent": "Adam", "idea": adamw["idea"], "flags": ["weight_decay", "amsgrad"],
        "backends": ["triton", "cpu", "foreach", "eager"], "bytes_per_param": 8, "passes": 1,
        "moved_bytes_per_param": 28, "flops_per_param": 15, "lr": 1e-3,
    }  # fmt: skip


def test_without_a_twin_in_torch_the_reference_is_the_paper(listed):
    lion = next(one for one in listed["optimizers"] if one["name"] == "Lion")
    assert lion["reference"].startswith("Chen et al. 2023")
    assert "algorithm 2" in lion["reference"]


def test_the_table_names_everyone_once():
    lines = printed("list").splitlines()
    for name in (*optimizers(), *wrappers()):
        assert sum(line.split()[:1] == [name] for line in lines) == 1, name


@pytest.mark.parametrize(("pattern", "shown", "hidden"), [
    ("adamw", {"AdamW", "NAdamW"}, {"SGD", "Adam"}),
    ("sign", {"Lion", "Tiger", "SignSGD"}, {"Adam"}),  # a family, and a part of a name
    ("*lion", {"Lion"}, {"Tiger"}),
    ("lookahead", {"Lookahead"}, {"SGD"}),
])  # fmt: skip
def test_a_pattern_keeps_some(pattern, shown, hidden):
    names = {line.split()[0] for line in printed("list", pattern).splitlines() if line.strip()}
    assert shown <= names
    assert not hidden & names


@pytest.mark.parametrize("columns", [80, 110])
def test_in_a_pipe_it_is_as_wide_as_columns_says_and_further_lines_stand_below_the_first(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = printed("list").splitlines()
    assert max(map(width, lines)) <= columns
    named = {*optimizers(), *wrappers()}
    families = {optimizers()[name].__module__.rpartition(".")[2] for name in optimizers()}
    begun = {line.split()[0] for line in lines[3:] if line[:1].strip()}
    assert begun - named - families == {"wrappers:"}


def test_the_heads_of_the_columns_stand_above_the_numbers():
    first, heads, _, family, sgd, *_ = printed("list").splitlines()
    assert first.strip() == "bytes per parameter: kept as state, and moved in a step"
    assert family.split()[0] == "sgd"
    for head, number in (("state", "0"), ("moved", "12")):
        end = heads.index(head) + len(head)
        assert sgd[:end].endswith(f" {number}")


def test_a_pattern_that_keeps_none_is_refused():
    assert "no optimizer or family has 'xyz' in its name" in refused("list", "xyz")


def test_the_tree_has_a_line_for_each():
    lines = [line.strip("│├└─ ") for line in printed("list", "--tree").splitlines()]
    assert lines[0].startswith("SGD  ")
    for name in optimizers():
        assert sum(line.split()[:1] == [name] for line in lines) == 1, name


def test_the_picture_is_written(tmp_path):
    printed("list", "--picture", str(tmp_path / "tree.svg"))
    text = (tmp_path / "tree.svg").read_text(encoding="utf-8")
    assert ET.fromstring(text).tag.endswith("svg")
    assert "Muon" in text


def test_a_picture_that_is_no_svg_is_refused(tmp_path):
    assert "name it FILE.svg" in refused("list", "--picture", str(tmp_path / "tree.png"))
    assert "cannot write" in refused("list", "--picture", str(tmp_path / "no" / "tree.svg"))


def test_the_list_in_chinese():
    text = printed("list", "--zh")
    assert "随机梯度下降" in text
    assert "套在任何优化器外面" in text


@pytest.mark.parametrize("columns", [60, 80, 110])
@pytest.mark.parametrize("how", [(), ("--tree",)], ids=["table", "tree"])
def test_the_list_in_chinese_is_cut_between_characters_and_not_at_punctuation(monkeypatch, columns, how):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = [line.strip(" │├└─") for line in printed("list", "--zh", *how).splitlines()]
    assert not [line for line in lines if line[:1] in tuple("，。；：、）")]
    assert not [line for line in lines if line[-1:] in ("（", "“")]
    assert not {"SAM", "EMA", "Mechanic"} & {line.split()[-1] for line in lines if len(line.split()) > 1}


def test_explain_prints_the_page():
    text = printed("explain", "adam-w")
    for part in ("AdamW\n", "pₜ = (1 − γ λ) pₜ₋₁ − γ uₜ", "https://arxiv.org/abs/1711.05101"):
        assert part in text


def test_explain_takes_forms_of_a_rule():
    assert "uₜ = gₜ + μ bₜ" in printed("explain", "sgd", "--with", "momentum=0.9", "--with", "nesterov=True")
    assert "‖∇ₜ‖" in printed("explain", "sgd", "--with", "clip_norm=1.0")


@pytest.mark.parametrize("name", CONTESTANTS)
def test_explain_knows_whoever_races(name):
    assert CONTESTANTS[name].optimizer in printed("explain", name)


def test_explain_shows_a_contestant_as_it_races():
    text = printed("explain", "Momentum")
    assert text.startswith("momentum, as it races: SGD(momentum=0.9, nesterov=True)\n\nMomentum\n")
    assert "pₜ = pₜ₋₁ − γ bₜ" in text
    assert "uₜ = gₜ + μ bₜ" in printed("explain", "nesterov")
    assert "AdamW(betas=(0.9, 0.95), state_dtype='int8')" in printed("explain", "adamw-int8")
    assert printed("explain", "momentum", "--zh").startswith("momentum，参赛时即 SGD(")
    assert "races" not in printed("explain", "adamw")


@pytest.mark.parametrize(("arguments", "words"), [
    (["adamv"], "no optimizer 'adamv'; did you mean"),
    (["momentun"], "did you mean momentum"),
    (["lookahed"], "did you mean lookahead"),
    (["adamw", "--with", "nesterov"], "--with nesterov: expected NAME=VALUE"),
    (["adamw", "--with", "nesterov=True"], "AdamW has no hyperparameter 'nesterov'"),
    (["adamw", "--with", "lrr=1"], "AdamW has no hyperparameter 'lrr'; did you mean lr"),
    (["adamw", "--with", "lr=-1"], "lr=-1: expected a number in [0, ∞)"),
    (["lbfgs", "--latex"], "LBFGS overrides the whole step"),
    (["none.py:Rule"], "cannot read none.py"),
    (["thalweg.optim.adam:Nadamm"], "thalweg.optim.adam has no optimizer class 'Nadamm'"),
])  # fmt: skip
def test_explain_refuses_with_one_line(arguments, words):
    assert words in refused("explain", *arguments)


def test_explain_gives_latex_and_json():
    assert printed("explain", "lion", "--latex").strip() == formula(thalweg.Lion).latex
    found = json.loads(printed("explain", "lion", "--json"))
    assert found["formula"] == formula(thalweg.Lion).unicode
    assert found["lineage"] == ["SGD", "SignSGD", "Signum", "Lion"]
    assert [h["symbol"] for h in found["hyperparameters"]][:2] == ["γ", "β₁, β₂"]
    assert found["state"] == [{"name": "exp_avg", "symbol": "m", "doc": "mean of gradients"}]


def test_explain_in_chinese_has_chinese_text():
    text = printed("explain", "muon", "--zh")
    for part in ("公式", "超参数", "正交因子", "优点"):
        assert part in text


def test_a_class_of_the_users_is_explained_from_its_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE, encoding="utf-8")
    text = printed("explain", f"{path}:Halved")
    for part in (
        "Half of the mean gradient.",
        "mₜ = β mₜ₋₁ + (1 − β) gₜ",
        "uₜ = 0.5 mₜ",
        "└ Halved: a half.",
        "4 bytes of state",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("text", "words"),
    [("class Halved(:\n", "mine.py:1: invalid syntax"), ("class Halved: ...\n1 / 0\n", "mine.py:2: ZeroDivisionError")],
)
def test_a_file_of_the_users_that_cannot_be_run_is_refused_with_its_line(tmp_path, text, words):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert words in refused("explain", f"{path}:Halved")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user's, in the working folder."""
    package = tmp_path / f"package_{tmp_path.name}"  # no other test has imported one of that name
    package.mkdir()
    (package / "mine.py").write_text(MINE, encoding="utf-8")
    (package / "wrong.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return package.name


def test_a_class_of_the_users_is_explained_from_a_package_in_the_working_folder(package):
    assert "uₜ = 0.5 mₜ" in printed("explain", f"{package}.mine:Halved")
    assert f"cannot read {package}.wrong: ZeroDivisionError" in refused("explain", f"{package}.wrong:Halved")


def test_measured_speed_is_shown_where_there_is_a_measurement(tmp_path):
    row = {
        "optimizer": "AdamW",
        "work": "large",
        "backend": "cpu",
        "ms": 12.5,
        "ceiling_fraction": 0.93,
        "vs_torch": 1.1,
    }
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"rows": [row, {**row, "optimizer": "SGD"}]}))
    text = printed("explain", "adamw", "--bench", str(path))
    assert text.count("measured") == 1
    assert "large (cpu): 12.5 ms a step, 0.93 of the ceiling, 1.1 × torch" in text
    path.write_text("[]")
    assert "is no result of `thalweg bench --json`" in refused("explain", "adamw", "--bench", str(path))


def test_the_command_is_imported_without_torch():
    assert python("import sys, thalweg.cli.list; print('torch' in sys.modules)").strip() == "False"
