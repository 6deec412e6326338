"""Looking at a model touches nothing that other threads use."""

import random
import threading
import warnings

import numpy
import pytest
import torch
from torch import nn

import thalweg
from tests.groups import models
from tests.groups.test_roles import IDX, X
from thalweg.groups import roles

#: how each way of looking is come by
WAYS = {
    "trace": lambda: roles(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))),
    "sample": lambda: roles(models.Gpt(), IDX),
    "made-up input": lambda: roles(models.Gpt()),
    "compiled part": lambda: roles(nn.Sequential(torch.compile(nn.Linear(4, 4), backend="eager"), nn.Linear(4, 2)), X),
    "shapes": lambda: on_shapes(models.Gpt(), IDX),
}


def on_shapes(model, sample):
    from thalweg.groups.flow import Known
    from thalweg.groups.running import on_shapes

    return on_shapes(model, sample, Known(), "shapes", guesses=True)


def in_threads(*functions):
    """All at once; what one of them raises is raised."""
    failed = []

    def tried(function):
        try:
            function()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=tried, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def state_of_the_process():
    """What of torch and Python belongs to all threads, and ways of looking at a model have been known to change."""
    from torch.fx import _symbolic_trace
    from torch.utils import _python_dispatch

    patched = [vars(nn.Module)[name] for name in ("__call__", "__getattr__")]
    flags = [value for name, value in vars(_python_dispatch).items() if name.startswith("_is_in")]
    stance = getattr(torch._dynamo.eval_frame, "_stance", None)
    return (
        patched,
        flags,
        stance,
        _symbolic_trace._is_fx_tracing_flag,
        list(warnings.filters),
    )


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_while_a_model_is_looked_at_nothing_of_the_process_is_changed(way):
    """Looked at from a layer in the middle of the pass."""
    before, inside = state_of_the_process(), []
    plain = nn.Linear.forward
    lookers = []

    class Looks(nn.Tanh):
        def forward(self, x):
            lookers.append(threading.Thread(target=lambda: inside.append(state_of_the_process())))
            lookers[-1].start()
            lookers[-1].join()
            return super().forward(x)

    roles(nn.Sequential(nn.Linear(4, 4), Looks(), nn.Linear(4, 2)))
    way()
    assert all(one == before for one in (*inside, state_of_the_process()))
    assert inside
    assert nn.Linear.forward is plain


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_threads_that_look_leave_modules_whole_and_one_that_runs_undisturbed(way):
    model, x = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), torch.ones(1, 2)

    def run():
        for _ in range(200):
            y = model(x)
            assert type(y) is torch.Tensor
            assert y.device.type == "cpu"

    in_threads(*(lambda: [way() for _ in range(4)] for _ in range(3)), run)
    assert type(model(x)) is torch.Tensor


def test_threads_build_muon_each_for_its_own_model():
    built = []

    def build():
        for _ in range(5):
            built.append(thalweg.Muon(models.mlp(), lr=0.01))

    in_threads(build, build, build)
    assert len({str(one) for one in built}) == 1
    assert len(built) == 15


def test_what_another_thread_draws_meanwhile_stays_drawn():
    """A model that draws nothing is no reason to put a random state back."""
    drawn = []

    class Draws(nn.Linear):
        def forward(self, x):
            thread = threading.Thread(target=lambda: drawn.append(torch.rand(1)))
            thread.start()
            thread.join()
            return super().forward(x)

    torch.manual_seed(0)
    roles(nn.Sequential(Draws(4, 4), nn.Linear(4, 2)), X)
    assert drawn
    assert torch.rand(1) not in drawn


def test_no_random_number_of_python_or_numpy_is_drawn():
    states = random.getstate(), numpy.random.get_state()[1].tolist()
    for way in WAYS.values():
        way()
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == states
