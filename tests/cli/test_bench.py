"""`thalweg bench`: its table, its files, and what it refuses."""

import io
import json

import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from thalweg.bench import peers, rows, works
from thalweg.bench.first_step import FirstStep, FirstSteps
from thalweg.bench.machine import machine
from thalweg.bench.rows import BenchCase
from thalweg.cli.app import app
from thalweg.cli.bench import show

FIRST = FirstSteps(FirstStep(0.1, 0.5, 6.0), FirstStep(0.01, 0.25, 5.0), FirstStep(2.5, 2.6, 155.0))
TINY = ["bench", "--scale", "0.002", "--budget", "1e-6", "--optimizers", "adamw,rmsprop"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setattr("thalweg.bench.benchmark.first_steps", lambda *_: FIRST)
    monkeypatch.setattr(peers, "installed", lambda: ({}, {"timm": "ImportError: old"}))


def run(*arguments):
    return CliRunner().invoke(app, arguments)


def test_table_json_and_picture(tmp_path):
    result = run(*TINY, "--json", "b.json", "--plot", "b.png")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "b.json").read_text())
    assert {row["optimizer"] for row in written["rows"]} == {"AdamW", "RMSprop"}
    assert written["whole_step"]
    for words in (
        "gpt: a GPT-2",
        "scalars: 50,000",
        "whole step",
        "(fused)",
        "0.50, 0.25 s",
        "0.01, 2.50 s",
        "5, 155 MB",
        "timm is installed but",
    ):
        assert words in result.output
    assert max(map(len, result.output.splitlines())) <= 110
    with Image.open(tmp_path / "b.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10


@pytest.mark.parametrize("width", [80, 110])
def test_a_narrow_screen_drops_no_names(width):
    """A GPU's rows have two columns more."""
    work = works.work("gpt", 0.001)
    row = rows.nothing(BenchCase("ScheduleFreeAdamW", work, (), settings={"clip_global_norm": 1.0}), "")
    times = {"ms": 0.946, "spread": 0.226, "host_ms": 0.845, "device_ms": 0.255, "ceiling_fraction": 0.91}
    row |= {**times, "backend": "triton + torch", "vs_torch": 2.08, "torch_kind": "clip_grad_norm_ + fused"}
    row |= {"first_step_cold": 1.84, "first_step_warm": 0.59, "state_bytes_per_param": 0.0257}
    console = Console(width=width, record=True, file=io.StringIO())
    show(
        console,
        {"command": "", "machine": machine(1), "complete": True, "rows": [row], "whole_step": [], "changing": []},
    )
    table = console.export_text().split("gpt:")[1]
    assert "optimizer" in table
    assert "Schedule" in table


@pytest.mark.parametrize("width", [80, 110])
def test_steps_that_change_have_a_table_and_a_legend(width):
    step = {"optimizer": "AdamW", "situation": "one missing", "backend": "cpu", "torch_kind": "fused", "note": "odd"}
    step |= {"ms": 1.5, "spread": 0.25, "longest": 14.0, "torch_ms": 3.0, "torch_spread": 0.5, "torch_longest": 1.4}
    steps = [{**step, "vs_torch": 2.0, "vs_compiled": None}]
    console = Console(width=width, record=True, file=io.StringIO())
    show(
        console,
        {"command": "", "machine": machine(1), "complete": True, "rows": [], "whole_step": [], "changing": steps},
    )
    text = console.export_text()
    for words in ("1.50 ± 0.25", "2 (fused)", "14", "one missing: of 1,000 tensors", "AdamW, one missing: odd"):
        assert words in text
    assert "compiled" not in text  # nobody asked


def test_json_alone_on_standard_output():
    result = run(*TINY, "--works", "small", "--backends", "eager", "--json", "-")
    assert json.loads(result.stdout)["rows"][0]["backend"] == "eager"
    assert "AdamW" in result.stderr


def test_without_matplotlib_the_install_command_is_named_before_anything_runs(monkeypatch):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "matplotlib" else find(name, *a))
    monkeypatch.setattr("thalweg.cli.bench.measure", lambda *_, **__: pytest.fail("it ran"))
    result = run(*TINY, "--plot", "b.png")
    assert result.exit_code == 1
    assert (
        result.stderr
        == "Error: --plot needs matplotlib of thalweg[plot], which is not installed: pip install matplotlib\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--optimizers", "adamw,rmsprp"], "no optimizer 'rmsprp'; did you mean rmsprop"),
        (["--works", "smal"], "no work 'smal'; did you mean small"),
        (["--backends", "cpuu"], "no backend 'cpuu'; did you mean cpu"),
        (["--budget", "quik"], "no budget 'quik'; did you mean quick"),
        (["--budget", "-1"], "budget='-1': expected quick, full, or seconds above 0"),
        (["--threads", "0"], "threads=0: expected an integer of at least 1"),
        (["--dtype", "int8"], "no dtype 'int8'"),
        (["--json", "no/such.json"], "cannot write no/such.json"),
        (["--plot", "b.doc"], "cannot write b.doc: a picture ends in .png, .svg or .pdf"),
    ],
)
def test_what_is_typed_wrongly_is_refused_with_one_line(arguments, words, monkeypatch):
    monkeypatch.setattr("thalweg.bench.benchmark._do", lambda *_: pytest.fail("it ran"))
    result = run("bench", *arguments)
    assert result.exit_code == 1, result.output
    assert words in result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
