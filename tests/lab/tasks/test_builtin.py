"""Every built-in task keeps the contract."""

import dataclasses
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.lab.tasks.idx import write_fashion
from thalweg import groups
from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks import TASKS, check, get_task, task_table
from thalweg.lab.tasks.fashion_cnn import VARIABLE
from thalweg.lab.tasks.fingerprint import digest


@pytest.fixture(params=TASKS)
def task(request, tmp_path, monkeypatch):
    if request.param == "fashion-cnn":
        write_fashion(tmp_path)
        monkeypatch.setenv(VARIABLE, str(tmp_path))
    return get_task(request.param)


def _first(task, seed, count=3):
    stream = task.batches(seed)
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(name, marks=pytest.mark.slow(reason="trains a network of text or pictures, twice"))
        if name in ("bytes-gpt", "bytes-lstm", "fashion-cnn")
        else name
        for name in TASKS
    ],
    indirect=True,
)
def test_check_finds_nothing_wrong_and_repeats_and_leaves_the_global_generator_alone(task):
    before = torch.get_rng_state()
    probe, again = check(task), check(type(task)())
    assert torch.equal(torch.get_rng_state(), before)
    # how many batches were looked at depends on how busy the machine is
    assert replace(probe, seen=probe.seen[:2]) == replace(again, seen=again.seen[:2])
    assert len(probe.fingerprint) == 64
    assert probe.parameters == sum(p.numel() for p in task.model(0).parameters())


def test_a_seed_fixes_weights_and_batches_whatever_came_before(task):
    weights, stream = digest(task.model(3).state_dict()), digest(_first(task, 3))
    torch.rand(7)
    task.model(4)
    assert digest(task.model(3).state_dict()) == weights
    assert digest(_first(task, 3)) == stream


def test_stored_runs_of_the_gpt_began_with_these_weights():
    """The first values follow from the order in which the model draws them."""
    model = get_task("bytes-gpt").model(0)
    found = [*model.blocks[1].qkv.weight[0, :3].tolist(), model.head.weight[-1, -1].item()]
    assert found == pytest.approx([0.0171002224, -0.00890814513, -0.000645730237, 0.00554317748], rel=1e-5)


def test_another_seed_gives_other_batches_and_weights(task):
    assert digest(_first(task, 0)) != digest(_first(task, 1))
    if not task.name.startswith("ravine"):  # starts at zero
        assert digest(task.model(0).state_dict()) != digest(task.model(1).state_dict())


def test_batches_differ_from_one_another_and_have_the_declared_size(task):
    batches = _first(task, 0)
    assert len({digest(batch) for batch in batches}) == len(batches)
    for batch in batches:
        assert len(batch if isinstance(batch, torch.Tensor) else batch[0]) == task.batch_size


def test_held_out_examples_are_not_trained_on(task):
    if not hasattr(task, "examples"):
        pytest.skip("no fixed set of examples")
    split = task.examples()
    train = {row.numpy().tobytes() for row in split.x}
    assert not any(row.numpy().tobytes() in train for row in split.held_x)


def test_an_evaluation_leaves_no_trace_and_does_not_depend_on_the_mode(task):
    model = task.model(0)
    model.train()
    list(model.modules())[-1].eval()
    modes = [module.training for module in model.modules()]
    weights, random = digest(model.state_dict()), torch.get_rng_state()
    first = task.evaluate(model)
    assert [module.training for module in model.modules()] == modes
    assert digest(model.state_dict()) == weights
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())
    torch.rand(3)
    assert task.evaluate(model.eval()) == first
    assert not any(module.training for module in model.modules())


def test_a_few_steps_lower_the_held_out_loss(task):
    model = task.model(0)
    before = task.evaluate(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2 if task.name.startswith("ravine") else 2e-3)
    for _, batch in zip(range(20), task.batches(0), strict=False):
        task.loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert task.evaluate(model) < before


def test_the_output_layer_is_found_by_running_the_sample(task):
    found = groups.roles(task.model(0), task.sample(), head=task.head)
    heads = [role.name for role in found if role.kind == "head"]
    last = [role.name for role in found if role.parameter.ndim >= 2][-1:]
    assert heads == ([] if task.name.startswith("ravine") else last)


def test_data_names_a_source_and_a_hash(task):
    data = task.data()
    assert data["source"]
    if not task.name.startswith("ravine"):
        assert len(data["sha256"]) == 64


def test_the_table_says_what_the_tasks_say():
    rows = {row["name"]: row for row in task_table()}
    assert rows.keys() == TASKS.keys()
    for name, row in rows.items():
        assert row["steps"] == TASKS[name].steps
        assert row["seconds_per_run"] > 0
        assert row["good_for"]
        assert row["title"].endswith(".")
        assert row["parameters"] > 1000


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ThalwegError, match="no task 'byte-gpt'; did you mean bytes-gpt"):
        get_task("byte-gpt")


@pytest.mark.slow(reason="a process that imports torch")
def test_no_data_are_read_when_the_tasks_are_imported():
    code = "import sys, thalweg.lab.tasks; sys.exit('sklearn' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_probe_is_a_plain_value():
    assert [field.name for field in dataclasses.fields(check(get_task("ravine")))] == [
        "parameters",
        "initial_loss",
        "fingerprint",
        "content",
        "files",
        "evaluation_noise",
        "on_cpu",
        "seen",
    ]
