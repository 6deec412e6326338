"""How a rule is cut into passes over memory."""

import pytest
import torch

import thalweg
from tests.fixtures import give, on_backends, tensors
from thalweg.ir.passes import plan
from thalweg.ir.trace import specialize
from thalweg.rule import Optimizer, hyper, ops, state


def matrix():
    return [torch.nn.Parameter(torch.ones(4, 4))]


def passes(optimizer, exact=True):
    """What each pass reads and writes."""
    cut = plan(specialize(type(optimizer), optimizer.param_groups[0]), exact)
    return [
        ({str(n.target) if n.op == "placeholder" else cut.home.get(n, n.name) for n in s.loads}, set(s.stores))
        for s in cut.stages
    ]


def test_a_pointwise_rule_is_one_pass():
    assert passes(thalweg.AdamW(matrix())) == [({"p", "g", "exp_avg", "exp_avg_sq"}, {"p", "exp_avg", "exp_avg_sq"})]
    assert passes(thalweg.SGD(matrix())) == [({"p", "g"}, {"p"})]


def test_global_clipping_reads_the_gradient_once_more():
    assert passes(thalweg.SGD(matrix(), clip_global_norm=1.0)) == [({"g"}, set()), ({"p", "g"}, {"p"})]


def test_a_trust_ratio_stores_states_at_once_and_reads_them_again():
    first, second = passes(thalweg.AdamW(matrix(), trust_ratio=True))
    assert first == ({"p", "g", "exp_avg", "exp_avg_sq"}, {"exp_avg", "exp_avg_sq"})
    assert second == ({"p", "exp_avg", "exp_avg_sq"}, {"p"})


def test_a_state_that_rounds_is_stored_last():
    first, second = passes(thalweg.AdamW(matrix(), trust_ratio=True), exact=False)
    assert first == ({"p", "g", "exp_avg", "exp_avg_sq"}, set())
    assert second == ({"p", "g", "exp_avg", "exp_avg_sq"}, {"p", "exp_avg", "exp_avg_sq"})


def test_a_norm_is_gathered_when_its_tensor_is_read_anyway():
    assert passes(thalweg.AdamW(matrix(), trust_ratio=True, clip_global_norm=1.0))[0] == ({"g"}, set())


def test_muons_factor_lies_between_two_passes():
    first, second = passes(thalweg.Muon(matrix()))
    assert first[0] == {"g", "momentum_buffer"}
    assert second == ({"p", "orthogonalize"}, {"p"})


class _Old(Optimizer):
    """Needs the old value of a state after a norm is known."""

    lr: float = hyper(default=0.1, within="[0, ∞)")
    last: torch.Tensor = state()

    @staticmethod
    def direction(p, g, s, h):
        old = s.last
        s.last = g
        return g - old / (1 + ops.tensor_norm(g))


def test_an_old_value_is_not_overwritten_before_its_last_reader():
    first, second = passes(_Old(matrix()))
    assert "last" not in first[1]
    assert second[1] == {"p", "last"}


@pytest.mark.parametrize("backend", ["foreach", "cpu"])
def test_an_old_value_is_what_the_rule_means(backend):
    ends = []
    for name in ("eager", backend):
        params = [torch.nn.Parameter(torch.ones(4, 4, dtype=torch.float64))]
        optimizer = _Old(params, backend=name)
        for step in range(4):
            params[0].grad = torch.full((4, 4), 1.0 + step, dtype=torch.float64)
            optimizer.step()
        ends.append(params[0].detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-13, atol=1e-13)


def test_the_report_counts_bytes_and_says_why():
    optimizer = thalweg.AdamW(matrix(), state_dtype="int8", backend="cpu")
    (part,) = optimizer.plan().parts
    assert part.backend == "cpu"
    assert part.state_bytes == pytest.approx(2 * (1 + 4 / 128))
    (one,) = part.passes
    assert one.bytes == pytest.approx(3 * 4 + 4 * (1 + 4 / 128))
    assert "as asked" in str(optimizer.plan())


def test_numbers_that_follow_from_sums_cost_no_pass_in_any_format():
    for exact in (True, False):
        (one, none) = passes(thalweg.Prodigy(matrix()), exact)
        states = {"p", "s", "exp_avg", "exp_avg_sq"}
        assert one == ({"g", "p0", *states}, states)
        assert none == (set(), set())


class _Rows(Optimizer):
    """Sums over rows of what is known of each row: of a sum, and of one that depends on a sum over rows."""

    lr: float = hyper(default=0.1, within="[0, ∞)")

    @staticmethod
    def direction(p, g, s, h):
        squares = ops.row_sum(g * g)
        total = ops.tensor_sum(squares)
        above = ops.tensor_sum(squares * ops.tensor_size(p) > total)
        return g * (1 + above) / ops.sqrt(total)


def test_sums_over_rows_of_what_is_known_take_no_pass():
    assert passes(_Rows(matrix())) == [({"g"}, set()), ({"p", "g"}, {"p"})]
    assert passes(thalweg.AdamP(matrix())) == [
        ({"p", "g", "exp_avg", "exp_avg_sq"}, {"exp_avg", "exp_avg_sq"}),
        ({"p", "exp_avg", "exp_avg_sq"}, {"p"}),
    ]


@on_backends
def test_sums_over_rows_are_the_rules(backend):
    ends = []
    for name in ("eager", backend):
        params = tensors((3, 5), (), (4,), (0, 3), (2, 3, 2), (1, 7), dtype=torch.float64)
        optimizer = _Rows(params, backend=name)
        for step in range(3):
            give(params, step)
            optimizer.step()
        ends.append(params)
    for mine, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
