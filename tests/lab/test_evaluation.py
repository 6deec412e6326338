"""An evaluation that fails on good weights is the task's mistake; on weights that diverged it is the optimizer's."""

import re
from pathlib import Path

import pytest

from tests.lab.tasks.small import line_of, write_small
from tests.lab.test_run import spec_of
from thalweg._base.errors import ThalwegError
from thalweg.lab.run import execute


def _with_evaluation(folder, statement):
    path = Path(write_small(folder))
    path.write_text(path.read_text().replace("        return loss\n", f"        {statement}\n        return loss\n"))
    return str(path)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_not_finite_below_some_loss_ends_the_race_with_line_contestant_and_setting(tmp_path, value):
    path = _with_evaluation(tmp_path, f"if loss < 0.5: loss = float('{value}')")
    with pytest.raises(ThalwegError) as caught:
        execute(spec_of(path, steps=200, evaluations=10), "tune")
    text = str(caught.value)
    assert text.startswith(
        f"{path}:{line_of(path, 'def evaluate')}: evaluate returned {value} in a run of adamw, lr=0.01, "
    )
    assert re.search(r"multiplier=3\.0, weight_decay=0\.0, seed 5, after \d+ steps, where no weight exceeds \d", text)
    assert "the training loss is 0." in text


def test_an_exception_on_good_weights_ends_the_race_with_its_line(tmp_path):
    path = _with_evaluation(tmp_path, "assert loss > 0.5, 'too good'")
    with pytest.raises(ThalwegError) as caught:
        execute(spec_of(path, steps=200, evaluations=10), "tune")
    text = str(caught.value)
    assert text.startswith(f"{path}:{line_of(path, 'too good')}: in evaluate, a run of adamw, lr=0.01, ")
    assert text.endswith("AssertionError: too good")


def test_an_untrained_model_of_any_seed_must_have_a_loss(tmp_path):
    path = _with_evaluation(tmp_path, "if torch.initial_seed() == 5: loss = float('nan')")
    with pytest.raises(ThalwegError, match=r"evaluate returned nan .* after 0 steps"):
        execute(spec_of(path), "tune")


@pytest.mark.parametrize("statement", ["loss = loss if loss < 1e3 else float('nan')", "assert loss < 1e3"])
def test_weights_that_diverged_are_the_optimizers_mistake(tmp_path, statement):
    path = _with_evaluation(tmp_path, statement)
    run = execute(spec_of(path, "sgd", lr=1e4, steps=40, evaluations=40), "tune")
    assert run["status"] == "diverged"


def test_a_loss_that_is_above_the_limit_is_the_optimizers_mistake_even_at_ordinary_weights(tmp_path):
    """At the end of the warmup nothing has been stopped yet."""
    path = _with_evaluation(tmp_path, "loss = loss if loss < 3 else float('nan')")
    run = execute(spec_of(path, "sgd", lr=3.0, steps=100, evaluations=100), "tune")
    assert run["status"] == "diverged"


def test_what_an_evaluation_draws_changes_nothing_of_the_training(tmp_path):
    drawing = _with_evaluation(tmp_path, "import random, numpy; random.random(), numpy.random.rand(), torch.rand(3)")
    often, once = (execute(spec_of(drawing, evaluations=n), "tune") for n in (20, 1))
    assert often["final_loss"] == once["final_loss"]


@pytest.mark.parametrize(
    "draw", ["torch.rand(())", "__import__('numpy').random.rand()", "__import__('random').random()"]
)
def test_the_global_generators_are_at_the_seed_of_the_run(tmp_path, draw):
    path = write_small(tmp_path, f"y = y * {draw}")
    first, again, other = (execute(spec_of(path, seed=seed), "tune")["final_loss"] for seed in (5, 5, 6))
    assert first == again != other
