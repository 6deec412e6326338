"""What the table of cases does not show of factored and low-rank states."""

import pytest
import torch

import thalweg
from tests.cases import distance, parameters, walk
from thalweg.native import row_column
from thalweg.optim import factored

PAPER = {"added_eps": True, "eps": (1e-30, 1e-3)}


def test_the_two_readings_of_adafactor_differ_only_by_where_eps_stands():
    ours, theirs = parameters([(7, 5)]), parameters([(7, 5)])
    walk(thalweg.Adafactor(ours, eps=(1e-30, 1e-3)), ours, 20)
    walk(thalweg.Adafactor(theirs, **PAPER), theirs, 20)
    assert distance(ours, theirs) < 1e-10


def test_state_of_a_matrix_is_a_row_and_a_column():
    params = parameters([(64, 32)], torch.float32)
    assert thalweg.Adafactor(params).plan().parts[0].state_bytes == 4 * (64 + 32) / (64 * 32)
    assert thalweg.SM3(params, momentum=0.0).plan().parts[0].state_bytes == 4 * (64 + 32) / (64 * 32)


@pytest.mark.parametrize("name", ["Adafactor", "CAME", "SM3"])
def test_vectors_are_stepped_by_kernels_alone(name):
    matrices, vectors = getattr(thalweg, name)(parameters([(4, 3), (3,), ()], torch.float32)).plan().parts
    assert matrices.leaves
    assert not vectors.leaves


@pytest.mark.parametrize("name", ["Adafactor", "CAME", "SM3"])
def test_complex_parameters_are_refused(name):
    with pytest.raises(ValueError, match="real tensors"):
        getattr(thalweg, name)(parameters([(3, 3)], torch.complex128))


def test_vectors_of_low_rank_optimizers_go_to_adamw():
    params = parameters([(6, 4), (4,)])
    optimizer = thalweg.GaLore(params, rank=2)
    assert [group["rank"] for group in optimizer.param_groups] == [2, None]
    with pytest.raises(ValueError, match="real matrices"):
        thalweg.APOLLO([{"params": params, "rank": 2}])
    with pytest.raises(ValueError, match="rank=0"):
        thalweg.GaLore(params, rank=0)


@pytest.mark.parametrize("name", ["Adafactor", "CAME", "SM3"])
@pytest.mark.parametrize("small", [0, 1 << 14])
@pytest.mark.parametrize("in_c", [True, False])
def test_matrices_alone_or_many_at_once_in_c_or_in_torch_take_the_same_path(name, small, in_c, monkeypatch):
    shapes = [(7, 5), (7, 5), (40, 30), (30, 40), (3, 8, 9), (2, 3, 4, 4), (5,), (5,), (9,), (), (4, 0)]
    ours, theirs = parameters(shapes), parameters(shapes)
    walk(getattr(thalweg, name)(ours), ours, 5)
    monkeypatch.setattr(factored, "SMALL", small)
    if not in_c:
        monkeypatch.setattr(row_column, "_functions", lambda x: None)
    walk(getattr(thalweg, name)(theirs), theirs, 5)
    assert distance(ours, theirs) < 1e-12


CONVOLUTIONS = [(8, 6, 3, 3), (16, 9, 1, 1), (5, 3, 7, 7), (6, 4, 5), (7, 3, 2, 33)]


@pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
@pytest.mark.parametrize("eps", [(None, 1e-3), (1e-2, 1e-3), (0.0, 1e-3)])
def test_adafactor_of_convolutions_is_that_of_torch(backend, eps):
    ours, theirs = parameters(CONVOLUTIONS), parameters(CONVOLUTIONS)
    walk(thalweg.Adafactor(ours, eps=eps, backend=backend), ours, 10)
    walk(torch.optim.Adafactor(theirs, eps=eps, foreach=False), theirs, 10)
    assert distance(ours, theirs) < 1e-12


@pytest.mark.parametrize("name", ["Adafactor", "CAME", "SM3"])
def test_convolutions_in_another_order_of_memory_take_the_same_path(name):
    ours, theirs = (parameters(CONVOLUTIONS[:3]) for _ in range(2))
    for p in ours:
        p.data = p.data.to(memory_format=torch.channels_last)
    for params, backend in ((ours, "cpu"), (theirs, "eager")):
        walk(getattr(thalweg, name)(params, backend=backend), params, 5)
    assert distance(ours, theirs) < 1e-12


@pytest.mark.parametrize("name", ["Adafactor", "CAME"])
def test_a_row_of_zeros_leaves_no_matrix_without_numbers(name):
    ours = parameters([(6, 3, 3, 3), (40, 30)], torch.float32)
    optimizer = getattr(thalweg, name)(ours)
    for p in ours:
        p.grad = torch.ones_like(p)
        p.grad[0] = 0.0
        p.grad[1] = 1e-20
    optimizer.step()
    assert all(p.isfinite().all() for p in ours)
