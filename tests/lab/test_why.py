"""What a watched run says of a contestant: numbers against computations by hand, words against numbers."""

import pytest
import torch
from torch import nn

import thalweg
from tests.lab.tasks.small import write_small
from thalweg.lab import why
from thalweg.lab.observed import observing
from thalweg.lab.plan import plan
from thalweg.lab.search import Setting
from thalweg.schedule import Scheduler, linear

USUAL, SMALL, LARGE = "adamw(lr=3e-3)", "adamw(lr=1e-6)", "adamw(lr=10.0)"


def test_the_numbers_of_a_run_are_what_they_are_by_hand():
    """Of gradient descent on g·w the update is lr·g at every step."""
    model = nn.Linear(8, 8, bias=False)
    g, lr, steps = torch.randn(8, 8), 0.1, 60
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with observing(model, optimizer, None, steps, {"weight": "hidden"}) as seen:
        for _ in range(steps):
            (model.weight * g).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    first = lr * g.norm() / before.norm()
    assert seen.values("early", "hidden", "update")[0] == pytest.approx(float(first), rel=1e-4)
    assert seen.values("early", "hidden", "step") == pytest.approx([float(lr * g.norm() / 8)] * 40, rel=1e-3)
    assert seen.values("middle", "hidden", "cosine") == pytest.approx([1.0] * 2, abs=1e-5)
    assert seen.values("late", "hidden", "turn") == pytest.approx([1.0] * 18, abs=1e-4)
    assert seen.values("early", "head", "update") == []
    assert seen.clipped == 0.0


def test_numbers_are_those_at_the_peak_of_the_schedule():
    model, steps = nn.Linear(8, 8, bias=False), 100
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = Scheduler(optimizer, linear(steps))
    with observing(model, optimizer, scheduler, steps, {"weight": "hidden"}) as seen:
        for _ in range(steps):
            model.weight.sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    moved = seen.values("early", "hidden", "step") + seen.values("late", "hidden", "step")
    assert moved == pytest.approx([0.1] * len(moved), rel=1e-2)


def test_the_share_of_clipped_steps_is_that_of_gradients_above_the_bound():
    model, steps = nn.Linear(4, 4, bias=False), 60
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with observing(model, optimizer, None, steps, {"weight": "hidden"}) as seen:
        for step in range(steps):
            (model.weight.sum() * (1.0 if step % 4 else 10.0)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
    assert seen.clipped == pytest.approx(0.25)


@pytest.fixture(scope="module")
def entered(tmp_path_factory):
    """A plan with recipes of which one makes tiny and one huge steps."""
    path = write_small(tmp_path_factory.mktemp("why"))
    made = plan(path, optimizers=(USUAL, SMALL, LARGE), baseline=USUAL, seeds=2, steps=60, jobs=1)
    return {c.label: made.first(c, Setting(c.centre, 1.0, 0.0)) for c in made.contestants}


def test_small_and_large_steps_are_called_so_beside_those_of_tuned_runs(entered):
    found = why.reasons(list(entered.values()))
    assert found.seconds > 0
    assert not found.left_out
    said = {label: one["said"] for label, one in found.of.items()}
    assert [("as usual" in text, "is small" in text, "is large" in text) for text in said.values()] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    assert all("tuned runs of AdamW by" in text for text in said.values())
    assert all(one["steps"] == why.LEAST for one in found.of.values())


def test_a_look_leaves_the_generators_and_the_key_of_a_run_as_they_were(entered):
    spec = entered[USUAL]
    key = spec.key
    first = why.look(spec)
    assert why.look(spec) == first
    assert spec.key == key


def test_what_cannot_be_watched_is_left_out_with_the_reason(entered, monkeypatch):
    monkeypatch.setattr(thalweg.AdamW, "fused_into_backward", True, raising=False)
    found = why.reasons(list(entered.values())[:1])
    assert not found.of
    (text,) = found.left_out.values()
    assert "with a step of its own" in text
