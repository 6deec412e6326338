"""Hooks and the profiler see our steps as they see those of torch, though a step without them is not wrapped."""

import threading

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import thalweg
from tests.fixtures import give, tensors


def stepped():
    params = tensors((3,))
    optimizer = thalweg.AdamW(params)
    give(params, 0)
    optimizer.step()
    return optimizer


def test_the_profiler_names_a_step():
    optimizer = stepped()
    with torch.profiler.profile() as profile:
        optimizer.step()
    assert "Optimizer.step#AdamW.step" in {event.key for event in profile.key_averages()}


@pytest.mark.parametrize(
    "register",
    [
        lambda optimizer, hook: optimizer.register_step_pre_hook(hook),
        lambda optimizer, hook: optimizer.register_step_post_hook(hook),
        lambda optimizer, hook: register_optimizer_step_pre_hook(hook),
        lambda optimizer, hook: register_optimizer_step_post_hook(hook),
    ],
    ids=["before", "after", "before all", "after all"],
)
def test_a_hook_is_called_from_when_it_is_registered_until_it_is_removed(register):
    optimizer, seen = stepped(), []
    handle = register(optimizer, lambda *given: seen.append(given[0]))
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert seen == [optimizer]


def test_a_subclass_with_a_step_of_its_own_is_hooked_once():
    class Mine(thalweg.AdamW):
        def step(self, closure=None):
            return super().step(closure)

    params, seen = tensors((3,)), []
    optimizer = Mine(params)
    give(params, 0)
    optimizer.register_step_post_hook(lambda *given: seen.append(1))
    optimizer.step()
    assert seen[:1] == [1]


def test_a_profiler_of_all_threads_names_a_step_of_another_thread():
    optimizer = stepped()
    everywhere = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with torch.profiler.profile(experimental_config=everywhere) as profile:
        thread = threading.Thread(target=optimizer.step)
        thread.start()
        thread.join()
    assert "Optimizer.step#AdamW.step" in {event.key for event in profile.key_averages()}
