"""A user's file: it is loaded and checked, and each mistake in it is answered with its line and what was expected."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from thalweg._base.errors import ThalwegError
from thalweg.lab.cluster import luggage
from thalweg.lab.plan import plan
from thalweg.lab.tasks import Task, check, get_task, imports, template

GOOD = """\
import torch
from torch import nn
from thalweg.lab.tasks import Task

class Mine(Task):
    \"\"\"A line.\"\"\"

    name = "mine"
    steps = 40
    batch_size = 4

    def model(self, seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 1))

    def batches(self, seed):
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield torch.randn(4, 3, generator=generator)

    def loss(self, model, batch):
        return model(batch).square().mean()

    def evaluate(self, model):
        model.eval()
        with torch.no_grad():
            value = model(torch.ones(2, 3)).square().mean().item()
        model.train()
        return value
"""


@pytest.fixture
def write(tmp_path):
    """Write GOOD with parts replaced, as a file; what is replaced must be there."""

    def write(*changes, name="mine.py"):
        text = GOOD
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def refused(path, line, *words):
    """What `get_task` and `check` say of a file: one line, with its place and these words in turn."""
    with pytest.raises(ThalwegError) as caught:
        check(get_task(path))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}:{line}: ") if line else path in text
    assert re.search(".*".join(map(re.escape, words)), text), text


def line_of(path, part):
    """The number of the first line of a file that holds `part`."""
    with open(path) as file:
        return next(number for number, line in enumerate(file, 1) if part in line)


def test_a_good_file_is_loaded_and_checked(write):
    task = get_task(write())
    assert isinstance(task, Task)
    assert task.title == "A line."
    probe = check(task)
    assert probe.parameters == 3 * 5 + 5 + 5 + 1
    torch.rand(3)
    assert probe == check(task)


def test_a_file_is_run_once_as_long_as_it_stays_the_same(write):
    path = write()
    assert get_task(path) is get_task(path)
    first = get_task(path)
    write(("steps = 40", "steps = 41"))
    assert get_task(path) is not first
    assert get_task(path).steps == 41


@pytest.mark.parametrize("title", ["  ", ""])
def test_a_blank_docstring_gives_the_name_as_title(write, title):
    assert get_task(write(("A line.", title))).title == "mine"


def test_sparse_gradients_serve(write):
    net = "nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 1))"
    path = write(
        ("nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 1))", net),
        ("torch.randn(4, 3, generator", "torch.randint(5, (4, 3), generator"),
        ("torch.ones(2, 3)", "torch.ones(2, 3, dtype=torch.long)"),
    )
    assert check(get_task(path)).parameters == 5 * 3 + 3 + 1


def test_a_function_may_return_the_task(write):
    path = write()
    with open(path, "a") as file:
        file.write("\nclass Other(Mine):\n    steps = 50\n\ndef task():\n    return Other()\n")
    assert check(get_task(path)).parameters == 26
    assert get_task(path).steps == 50


def test_a_common_base_class_is_no_second_task(write):
    path = write()
    with open(path, "a") as file:
        file.write("\nclass Longer(Mine):\n    steps = 50\n")
    assert get_task(path).steps == 50


def test_an_imported_task_is_not_a_task_of_the_file(write):
    path = write(("import torch\n", "import torch\nfrom thalweg.lab.tasks.digits import Digits\n"))
    assert get_task(path).name == "mine"


def test_neighbours_may_be_imported_even_late(write, tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("WIDTH = 7\n")
    path = write(
        (
            "        torch.manual_seed(seed)\n",
            "        from neighbour_of_mine import WIDTH\n        torch.manual_seed(seed)\n",
        ),
        ("5)", "WIDTH)"),
        ("(5,", "(WIDTH,"),
    )
    assert check(get_task(path)).parameters == 3 * 7 + 7 + 7 + 1


@pytest.mark.slow(reason="a process that imports torch")
def test_a_file_may_be_called_like_a_module_of_the_standard_library(write, tmp_path):
    path = write(name="copy.py")
    code = (
        "import sys, thalweg.lab.tasks as tasks\n"
        f"tasks.check(tasks.get_task({path!r}))\n"
        "for name in ('copy', 'colorsys'): sys.modules.pop(name, None)\n"
        "import copy, colorsys\n"
        "sys.exit(not hasattr(copy, 'deepcopy') or not hasattr(colorsys, 'rgb_to_hls'))\n"
    )
    (tmp_path / "colorsys.py").write_text("")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_dataclasses_and_a_relative_path_serve(write, tmp_path, monkeypatch):
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    head += "@dataclass\nclass Width:\n    of: int = 5\n"
    write(("import torch\n", head + "import torch\n"), ("5)", "Width().of)"))
    monkeypatch.chdir(tmp_path)
    assert check(get_task("mine.py")).parameters == 26


def test_the_example_runs_as_it_is(tmp_path):
    path = tmp_path / "copy.py"
    path.write_text(template())
    task = get_task(str(path))
    probe = check(task)
    model = task.model(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _, batch in zip(range(task.steps), task.batches(0), strict=False):
        task.loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert task.evaluate(model) < 0.5 * probe.initial_loss


# what cannot be loaded


def test_a_missing_file(tmp_path):
    refused(str(tmp_path / "none.py"), None, "there is no file", "thalweg task new")


def test_a_folder(tmp_path):
    with pytest.raises(ThalwegError, match="cannot read the task file"):
        get_task(f"{tmp_path}/")


def test_a_syntax_error(write):
    refused(write(("    steps = 40", "    steps = = 40")), 9, "invalid syntax", "steps = = 40")


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes(b"x = 1\n\xff\xfe\n")
    with pytest.raises(ThalwegError, match=r"mine\.py"):
        get_task(str(path))
    path.write_bytes(b"x = 1\0\n")
    with pytest.raises(ThalwegError, match=r"mine\.py"):
        get_task(str(path))


def test_an_error_at_import(write):
    refused(write(("import torch\n", "import torch\nx = {}\nx['a']\n")), 3, "KeyError", "'a'")


def test_an_import_that_fails_inside_a_library(write):
    refused(write(("import torch\n", "import torch\ntorch.eye(-1)\n")), 2, "RuntimeError")


def test_a_missing_package(write):
    refused(write(("import torch\n", "import torch\nimport no_such_package\n")), 2, "No module named 'no_such_package'")


def test_a_file_that_leaves(write):
    refused(write(("import torch\n", "import torch\nimport sys\nsys.exit(2)\n")), 3, "SystemExit", "__main__")


ARGUMENTS = """\
import argparse
import torch
parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int, default=7)
{more}
WIDTH = parser.parse_args().width
"""


def test_a_file_that_reads_its_arguments_finds_none_of_ours(write, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["thalweg", "race", "mine.py", "--width", "9"])
    path = write(("import torch\n", ARGUMENTS.format(more="")), ("5)", "WIDTH)"), ("(5,", "(WIDTH,"))
    assert check(get_task(path)).parameters == 3 * 7 + 7 + 7 + 1
    assert sys.argv[0] == "thalweg"


def test_a_file_that_needs_arguments_is_told_where_to_read_them(write):
    needed = ARGUMENTS.format(more="parser.add_argument('--data', required=True)")
    refused(write(("import torch\n", needed)), 6, "SystemExit: 2", "if __name__ == '__main__':")


@pytest.fixture
def in_a_package(write, tmp_path):
    """The task in a package within a package, both of names that no other test has, with a neighbour of its own."""
    folder = tmp_path / f"outer_{tmp_path.name}".replace("-", "_") / "inner"
    folder.mkdir(parents=True)
    for one in (folder, folder.parent):
        (one / "__init__.py").write_text("")
    (folder / "widths.py").write_text("from ..more import WIDTH\n")
    (folder.parent / "more.py").write_text("WIDTH = 7\n")
    relative = ("import torch\n", "import torch\nfrom .widths import WIDTH\n")
    written = Path(write(relative, ("5)", "WIDTH)"), ("(5,", "(WIDTH,")))
    return written.rename(folder / "mine.py")


def test_relative_imports_serve_in_a_package_and_are_part_of_the_code(in_a_package):
    assert check(get_task(str(in_a_package))).parameters == 3 * 7 + 7 + 7 + 1
    before = imports.code(str(in_a_package))
    (in_a_package.parents[1] / "more.py").write_text("WIDTH = 8\n")
    assert imports.code(str(in_a_package)) != before


def test_the_files_of_a_package_travel_under_their_names(in_a_package):
    packed = luggage.packed(plan(str(in_a_package), optimizers=["adamw(lr=1e-2)"], baseline="adamw(lr=1e-2)", jobs=1))
    outer = in_a_package.parents[1].name
    places = ["__init__.py", "inner/__init__.py", "inner/mine.py", "inner/widths.py", "more.py"]
    assert [place for place, _ in packed.files] == [f"{outer}/{place}" for place in places]
    assert packed.roots[0].place == f"{outer}/inner/mine.py"
    assert packed.roots[0].code == imports.code(str(in_a_package))


def test_a_relative_import_outside_of_a_package_is_told_what_is_missing(write):
    refused(write(("import torch\n", "import torch\nfrom .widths import WIDTH\n")), 2, "put an empty __init__.py there")


def test_no_task(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("x = 1\n")
    refused(str(path), 1, "found no task", "subclass of thalweg.lab.tasks.Task", "function task()")


def test_two_tasks(write):
    path = write()
    with open(path, "a") as file:
        file.write("\n" + GOOD.replace("class Mine", "class Second"))
    refused(path, GOOD.count("\n") + 6, "found 2 tasks, Mine and Second")


def test_a_function_that_returns_something_else(write):
    path = write()
    with open(path, "a") as file:
        file.write("\ndef task():\n    return Mine\n")
    refused(path, line_of(path, "def task"), "task() returned ", "Task")


def test_a_function_or_constructor_that_fails(write):
    path = write(("    def model", "    def __init__(self):\n        self.x = 1 / 0\n\n    def model"))
    refused(path, line_of(path, "1 / 0"), "ZeroDivisionError")


# what is declared wrongly


@pytest.mark.parametrize("method", ["model", "batches", "loss", "evaluate"])
def test_a_missing_method(write, method):
    refused(write((f"    def {method}(", f"    def not_{method}(")), 5, f"Mine has no {method}", f"def {method}(self, ")


@pytest.mark.parametrize("variable", ["name", "steps", "batch_size"])
def test_a_missing_variable(write, variable):
    refused(write((f"    {variable} =", f"    not_{variable} =")), 5, f"Mine has no {variable}", "expected")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("steps = 40", "steps = 0", 9),
        ("steps = 40", "steps: int = 40.0", 9),
        ("steps = 40", "steps = True", 9),
        ("batch_size = 4", "batch_size = '4'", 10),
        ("batch_size = 4", "batch_size = 4; fixed = {'seeds'}", 10),
        ("batch_size = 4", "batch_size = 4; fixed = 'batches'", 10),
        ('name = "mine"', "name = 7", 8),
        ('name = "mine"', "name = 'a/b'", 8),
        ('name = "mine"', "name = ''", 8),
    ],
)
def test_a_variable_that_is_wrong(write, old, new, line):
    refused(write((old, new)), line, f"found {new.replace(': int', '').rpartition('; ')[-1]}", "expected")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def model(self, seed)", "def model(self)"),
        ("def batches(self, seed)", "def batches(self, seed, more)"),
        ("def loss(self, model, batch)", "def loss(model, batch)"),
        ("def evaluate(self, model)", "def evaluate(self, model, *, data)"),
    ],
)
def test_a_method_with_another_signature(write, old, new):
    path = write((old, new))
    refused(path, line_of(path, new), f"found {new}", f"expected {old}")


def test_more_arguments_with_defaults_are_fine(write):
    check(get_task(write(("def model(self, seed)", "def model(self, seed, width=5)"))))


# what does not do what it should

WRONG = {  # what: the changes, the method to blame, words of the answer
    "no module": (
        [("return nn.Sequential", "return [nn.Sequential"), ("1))", "1))]")],
        *("model", "returned a list", "torch.nn.Module"),
    ),
    "no parameters": (
        [("nn.Linear(3, 5)", "nn.ReLU()"), ("nn.Linear(5, 1)", "nn.ReLU()")],
        *("model", "without trainable parameters"),
    ),
    "seed drawn": ([("torch.manual_seed(seed)", "torch.seed()")], "model", "other weights for the same seed"),
    "one model for all seeds": (
        [("torch.manual_seed(seed)", "torch.manual_seed(0)")],
        *("model", "the same weights for the seeds 0 and 1", "fixed = {'model'}"),
    ),
    "one order for all seeds": (
        [(".manual_seed(seed)\n        while", ".manual_seed(0)\n        while")],
        *("batches", "the same batches for the seeds 0 and 1", "fixed = {'batches'}"),
    ),
    "fixed and yet not": (
        [("    batch_size = 4", "    batch_size = 4\n    fixed = {'batches'}")],
        *("batches", "gave other batches for another seed", "fixed = {'batches'}"),
    ),
    "nothing varies": (
        [
            ("    batch_size = 4", "    batch_size = 4\n    fixed = {'batches', 'model'}"),
            ("torch.manual_seed(seed)", "torch.manual_seed(0)"),
            (".manual_seed(seed)\n        while", ".manual_seed(0)\n        while"),
            ("nn.Dropout(0.5)", "nn.ReLU()"),
        ],
        *("model", "the losses of the seeds 0 and 1 are equal"),
    ),
    "other batches from the third on": (
        [
            ("import torch\n", "import itertools\nimport torch\n"),
            ("while True:", "for count in itertools.count():\n            if count == 2: generator.seed()"),
        ],
        *("batches", "from number 3 on"),
    ),
    "batches of another size": ([("batch_size = 4", "batch_size = 5")], "batches", "batches of 4", "batch_size = 5"),
    "unseeded numpy": (
        [("return model(batch)", "import numpy as np\n        return np.random.default_rng().random() * model(batch)")],
        *("loss", "not the same for the same seed", "at step 0"),
    ),
    "unseeded from the fifth step on": (
        [
            (
                "return model(batch)",
                "import os\n        model.calls = getattr(model, 'calls', 0) + 1\n"
                "        return (1 + (model.calls > 4) * int.from_bytes(os.urandom(3))) * model(batch)",
            )
        ],
        *("loss", "not the same for the same seed", "at step 4"),
    ),
    "nan at a later step": (
        [
            (
                "return model(batch)",
                "model.calls = getattr(model, 'calls', 0) + 1\n"
                "        return (float('nan') if model.calls == 4 else 1.0) * model(batch)",
            )
        ],
        *("loss", "is nan at step 3"),
    ),
    "a list": (
        [("while True:", "return [1]\n        while True:"), ("yield", "_ =")],
        *("batches", "returned a list", "iterator"),
    ),
    "one epoch": ([("while True:", "for _ in range(30):")], "batches", "ended after 30 batches", "while True", "40"),
    "one batch": ([("while True:", "for _ in range(1):")], "batches", "ended after 1 batch", "while True"),
    "other batches": (
        [(".manual_seed(seed)\n        while", "; generator.seed()\n        while")],
        *("batches", "other batches"),
    ),
    "a vector": ([(".mean()\n\n", "\n\n")], "loss", "returned a tensor of shape (4, 1)", "dimensions"),
    "a float": ([(".mean()\n\n", ".mean().item()\n\n")], "loss", "returned a float"),
    "nan": ([(".mean()\n\n", ".mean() * float('nan')\n\n")], "loss", "is nan at step 0"),
    "detached": ([(".mean()\n\n", ".mean().detach()\n\n")], "loss", "has no gradient"),
    "elsewhere": ([("model(batch)", "batch.requires_grad_()")], "loss", "no gradient to any parameter"),
    "bad gradient": ([("model(batch).square()", "(model(batch) * 0).sqrt()")], "loss", "0.weight", "not finite"),
    "a tensor": ([(".mean().item()", ".mean()")], "evaluate", "returned a tensor of shape ()", "item()"),
    "nothing": ([("        return value", "")], "evaluate", "returned None"),
    "infinite": ([("return value", "return float('inf')")], "evaluate", "returned inf"),
    "random": ([("torch.ones(2, 3)", "torch.randn(2, 3)")], "evaluate", "is not deterministic", "then", "eval mode"),
    "dropout": (
        [("        model.eval()\n", ""), ("        model.train()\n", "")],
        *("evaluate", "is not deterministic"),
    ),
    "a part left in eval": (
        [("        model.train()\n", "        model.train()\n        model[1].eval()\n")],
        *("evaluate", "changed the mode of 1"),
    ),
    "left frozen": (
        [("        model.train()\n", "        model.train()\n        model[0].requires_grad_(False)\n")],
        *("evaluate", "changed requires_grad of 0.weight"),
    ),
    "left with gradients": (
        [("        model.train()\n", "        model.train()\n        model(torch.ones(2, 3)).mean().backward()\n")],
        *("evaluate", "changed the gradient of 0.weight"),
    ),
    "left in eval": ([("        model.train()\n", "")], "evaluate", "left the model in eval mode"),
    "batch statistics": (
        [("nn.Dropout(0.5)", "nn.BatchNorm1d(5)"), ("        model.eval()\n", "")],
        *("evaluate", "depends on the model's mode"),
    ),
    "trains": (
        [("        return value", "        model[0].weight.data[0, 0] = 1.0\n        return 0.5")],
        *("evaluate", "changed the model"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_method_that_returns_the_wrong_thing(write, case):
    changes, method, *words = WRONG[case]
    path = write(*changes)
    refused(path, line_of(path, f"def {method}"), method, *words)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("torch.manual_seed(seed)", "torch.manual_seed(seed % 4)", "model gave the same weights for the seeds 0 and 4"),
        ("().manual_seed(seed)", "().manual_seed(seed % 4)", "batches gave the same batches for the seeds 0 and 4"),
    ],
)
def test_two_seeds_of_a_race_that_are_one(write, old, new, says):
    task = get_task(write((old, new)))
    check(task)
    check(task, seeds=range(4))
    with pytest.raises(ThalwegError, match=says):
        check(task, seeds=range(5))


def test_seeds_that_differ_from_the_third_batch_on_are_two(write):
    path = write(
        ("while True:", "for count in itertools.count():\n            if count == 2: generator.manual_seed(seed)"),
        ("().manual_seed(seed)", "().manual_seed(0)"),
        ("import torch", "import itertools\nimport torch"),
    )
    check(get_task(path), seeds=range(3))


ACCEPTED = {  # what looks like a mistake and is none
    "random numbers from the seeded generators": [
        ("        torch.manual_seed(seed)\n", ""),
        ("import torch\n", "import random\nimport numpy as np\nimport torch\n"),
        ("return model(batch)", "return (np.random.rand() + random.random() + torch.rand(())) * model(batch)"),
    ],
    "one order that is declared": [
        (".manual_seed(seed)\n        while", ".manual_seed(0)\n        while"),
        ("    batch_size = 4", "    batch_size = 4\n    fixed = {'batches'}"),
    ],
    "one model and one order, but dropout": [
        ("torch.manual_seed(seed)", "torch.manual_seed(0)"),
        (".manual_seed(seed)\n        while", ".manual_seed(0)\n        while"),
        ("    batch_size = 4", "    batch_size = 4\n    fixed = frozenset({'batches', 'model'})"),
        ("return nn.Sequential", "net = nn.Sequential"),
        ("\n    def batches", "        torch.manual_seed(seed)\n        return net\n\n    def batches"),
    ],
    "a small last batch of an epoch": [("torch.randn(4, 3", "torch.randn(torch.randint(1, 5, ()).item(), 3")],
    "examples along the second dimension": [
        ("torch.randn(4, 3", "torch.randn(7, 4, 3"),
    ],
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_looks_like_a_mistake_and_is_none(write, case):
    path = write(*ACCEPTED[case])
    assert check(get_task(path)) == check(get_task(path))


def test_an_evaluation_that_hardly_differs_is_accepted_and_its_noise_is_known(write):
    path = write(("return value", "return value * (1 + 1e-5 * torch.rand(()).item())"))
    probe = check(get_task(path))
    assert 0 < probe.evaluation_noise <= 1.1e-5 * probe.initial_loss
    assert check(get_task(write())).evaluation_noise == 0


@pytest.mark.parametrize(
    ("old", "new", "method"),
    [
        ("nn.Linear(3, 5)", "nn.Linear(3, -5)", "model"),
        ("torch.randn(4, 3", "torch.randn(4, 'x'", "batches"),
        ("model(batch).square()", "model(batch.T).square()", "loss"),
        ("torch.ones(2, 3)", "torch.ones(3, 2)", "evaluate"),
    ],
)
def test_an_exception_is_blamed_on_the_users_line(write, old, new, method):
    path = write((old, new))
    refused(path, line_of(path, new), f"in {method}: ", "Error: ")


def test_an_exception_in_a_sample_or_data(write):
    path = write(("    def loss", "    def sample(self):\n        return torch.ones(2, 9)\n\n    def loss"))
    refused(path, None, "in sample", "RuntimeError")
    path = write(("    def loss", "    def data(self):\n        return {}['x']\n\n    def loss"))
    refused(path, line_of(path, "['x']"), "in data", "KeyError")
