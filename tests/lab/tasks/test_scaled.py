"""Tasks at another size, and with other batches."""

import pickle
from itertools import islice

import pytest
import torch

from tests.lab.tasks.small import write_small
from thalweg._base.errors import ThalwegError
from thalweg.lab.contestants import parse
from thalweg.lab.plan import plan
from thalweg.lab.run import execute
from thalweg.lab.search import Setting
from thalweg.lab.tasks import AS_IT_IS, TASKS, TaskScale, get_task, template
from thalweg.lab.tasks.scaled import scalable

SCALABLE = [name for name in TASKS if scalable(get_task(name))]


def count(task):
    return sum(p.numel() for p in task.model(0).parameters())


def test_the_language_models_the_cnn_and_the_perceptron_can_be_scaled():
    assert {"bytes-gpt", "bytes-lstm", "digits", "digits-cnn"} <= set(SCALABLE)


@pytest.mark.parametrize("name", SCALABLE)
@pytest.mark.parametrize("size", [0.5, 2, 4, 16])
def test_a_model_has_about_so_many_times_the_parameters(name, size):
    near = 0.25 if size < 1 else 0.1
    assert count(get_task(name, TaskScale(size))) == pytest.approx(size * count(get_task(name)), rel=near)


@pytest.mark.parametrize("name", SCALABLE)
def test_at_size_1_it_is_the_task_itself_to_the_last_bit(name):
    assert get_task(name, AS_IT_IS).name == name
    ones = [get_task(name).model(5), type(get_task(name)).model(get_task(name), 5, 1)]
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in ones), strict=True))


def test_a_batch_has_so_many_times_the_examples():
    task = get_task("digits", TaskScale(batch=4))
    assert task.batch_size == 256
    assert {len(x) for x, _ in islice(task.batches(0), 3)} == {256}
    with pytest.raises(ValueError, match=r"^--batches=0.01: expected multiples that keep a batch of 64 whole"):
        get_task("digits", TaskScale(batch=0.01))


def test_a_task_that_takes_no_size_is_refused_with_its_line(tmp_path):
    with pytest.raises(ThalwegError, match=r"small.py:\d+\); `thalweg task new --scalable`"):
        get_task(write_small(tmp_path), TaskScale(2))


def test_the_example_that_takes_a_size_grows_with_it_and_is_the_other_at_size_1(tmp_path):
    paths = [tmp_path / "plain.py", tmp_path / "sized.py"]
    for path, sized in zip(paths, (False, True), strict=True):
        path.write_text(template(sized))
    plain, sized = (get_task(str(path)).model(3).state_dict() for path in paths)
    assert all(torch.equal(plain[name], sized[name]) for name in plain)
    task = get_task(str(paths[1]), TaskScale(4))
    assert count(task) == pytest.approx(4 * count(get_task(str(paths[1]))), rel=0.4)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": float("inf")}, {"batch": -1}])
def test_a_scale_is_positive(wrong):
    with pytest.raises(ValueError, match="multiples above 0"):
        TaskScale(**wrong)


def test_each_scale_has_runs_of_its_own_and_they_travel():
    made = {size: plan("digits", optimizers=["adamw(lr=1e-3)"], baseline="adamw(lr=1e-3)", seeds=2, steps=20, jobs=1,
                       scale=TaskScale(size)) for size in (1, 2)}  # fmt: skip
    specs = {size: one.spec(parse("adamw(lr=1e-3)"), Setting(1e-3), seed=0, steps=20) for size, one in made.items()}
    assert specs[1].key != specs[2].key
    assert made[1].probe.content != made[2].probe.content
    run = execute(pickle.loads(pickle.dumps(specs[2])), "tune")
    assert run["task"] == "digits-x2"
    assert run["state_bytes"] == pytest.approx(8 * 2 * count(get_task("digits")), rel=0.15)
