"""The rank of GaLore and APOLLO."""

import pytest

import thalweg
from tests.cases import distance, parameters, walk

RULES = pytest.mark.parametrize("rule", [thalweg.GaLore, thalweg.APOLLO])


@RULES
def test_one_direction_is_a_rank(rule):
    """APOLLO-Mini has it."""
    params, others = parameters([(4, 6)]), parameters([(4, 6)])
    walk(rule(params, lr=0.1, rank=1), params, 3)
    walk(rule(others, lr=0.1, rank=2), others, 3)
    assert distance(params, others) > 1e-3
    assert distance(params, parameters([(4, 6)])) > 1e-3


@RULES
@pytest.mark.parametrize("rank", [0, -1, 1.5, True])
def test_no_direction_is_none(rule, rank):
    with pytest.raises(ValueError, match=f"rank={rank}"):
        rule(parameters([(4, 6)]), lr=0.1, rank=rank)
