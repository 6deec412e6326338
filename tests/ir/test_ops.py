"""Every row of the table means the same on the host, in torch, over lists and in C."""

import pytest
import torch

from thalweg.rule import Optimizer, hyper, ops

POSITIVE = ("sqrt", "rsqrt", "log", "log1p", "pow")
ON_THE_HOST = {"lerp": (2,), "add_scaled": (2,), "addcmul": (3,), "addcdiv": (3,)}  # arguments that are numbers
ROWS = [row for row in ops.ROWS.values() if row.name != "float32"]


def rule_of(row):
    """A rule whose direction is one operation of g, p and a number."""
    arity = row.arity

    class Rule(Optimizer):
        """One operation."""

        lr: float = hyper(default=1.0, within="[0, ∞)")
        number: float = hyper(default=0.3, within="(-∞, ∞)")

        @staticmethod
        def direction(p, g, s, h):
            x, y = (torch.abs(g) + 0.5, torch.abs(p) + 0.5) if row.name in POSITIVE else (g, p)
            tensors = [x, y, x * y]
            numbers = ON_THE_HOST.get(row.name, ())
            plain = row(*(h.number if i in numbers else tensors[i % 3] for i in range(arity)))
            if arity == 1:
                return plain
            mixed = row(*(h.number if i in (*numbers, arity - 1) else tensors[i % 3] for i in range(arity)))
            turned = (
                row(*(h.number if i in (*numbers, 0) else tensors[i % 3] for i in range(arity))) if arity == 2 else 0.0
            )
            return plain * g + mixed * g * 2.0 + turned * g * 4.0

    return Rule


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_backends_agree_on_every_row(row):
    rule = rule_of(row)
    grads = [torch.randn(4, 3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)]
    ends = []
    for backend in ("eager", "foreach", "cpu"):
        generator = torch.Generator().manual_seed(1)
        params = [torch.nn.Parameter(torch.randn(g.shape, dtype=torch.float64, generator=generator)) for g in grads]
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        rule(params, backend=backend).step()
        ends.append(params)
    for other in ends[1:]:
        torch.testing.assert_close([p.detach() for p in other], [p.detach() for p in ends[0]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_numbers_mean_what_tensors_mean(row):
    numbers = [0.7, 1.3, 0.2, 0.4][: row.arity]
    tensors = [
        x if i in ON_THE_HOST.get(row.name, ()) else torch.tensor(x, dtype=torch.float64) for i, x in enumerate(numbers)
    ]
    assert float(row(*numbers)) == pytest.approx(float(row(*tensors)), rel=1e-12)


SPECIAL = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-40, -1.5]


@pytest.mark.parametrize(
    "name", ["maximum", "minimum", "sign", "where", "gt", "le", "ne", "div", "sqrt", "cbrt", "reciprocal", "abs"]
)
def test_nan_and_infinity_keep_their_meaning_in_c(name):
    row = ops.ROWS[name]

    class Rule(Optimizer):
        """One operation, and nothing that would hide what it gives."""

        lr: float = hyper(default=-1.0, within="(-∞, ∞)")

        @staticmethod
        def direction(p, g, s, h):
            return row(*[g, g * 0.5 + 0.25, -g][: row.arity])

    ends = []
    for backend in ("eager", "cpu"):
        p = torch.nn.Parameter(torch.zeros(7 * 7))
        p.grad = torch.tensor(SPECIAL).repeat(7)
        Rule([p], backend=backend).step()
        ends.append(p.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (-1.0, 0.0), (1.0, -0.0), (0.0, 0.0)])
def test_a_quotient_by_zero_is_ieees(a, b):
    expected = (torch.tensor(a) / torch.tensor(b)).item()
    assert ops.div(a, b) == expected or (expected != expected and ops.div(a, b) != ops.div(a, b))


def test_reductions_in_eager():
    x = torch.arange(12.0).view(3, 2, 2)
    assert ops.tensor_mean(x).item() == x.mean().item()
    torch.testing.assert_close(ops.row_norm(x).flatten(), x.flatten(1).norm(dim=1))
    assert ops.row_mean(x).shape == (3, 1, 1)
    assert ops.row_mean(torch.ones(4)).shape == (1,)
    assert ops.row_norm(torch.tensor(-2.0)).item() == 2


def test_the_cube_root_is_precise_for_numbers_of_every_size():
    class Root(Optimizer):
        """The cube root alone."""

        lr: float = hyper(default=-1.0, within="(-∞, ∞)")

        @staticmethod
        def direction(p, g, s, h):
            return ops.cbrt(g)

    sizes = torch.logspace(-44.5, 38.5, 20_000, dtype=torch.float64).float()
    for backend, within in (("cpu", 4e-7), ("foreach", 1e-5)):  # torch's power has 1/3 in float32
        p = torch.nn.Parameter(torch.zeros(40_000))
        p.grad = torch.cat([sizes, -sizes])
        Root([p], backend=backend).step()
        torch.testing.assert_close(p.detach().double() ** 3, p.grad.double(), rtol=within, atol=0)
    assert ops.cbrt(-8.0) == -2.0


def test_the_exponential_is_precise_wherever_it_is_a_number():
    class Power(Optimizer):
        """The exponential alone."""

        lr: float = hyper(default=-1.0, within="(-∞, ∞)")

        @staticmethod
        def direction(p, g, s, h):
            return torch.exp(g)

    p = torch.nn.Parameter(torch.zeros(40_000))
    ends = torch.tensor([float("inf"), -float("inf"), float("nan"), -0.0, 88.72, 88.73, 200.0, -103.9, -103.98, -200.0])
    p.grad = torch.cat([torch.linspace(-110, 95, 40_000 - len(ends)), ends])
    Power([p], backend="cpu").step()
    exact = torch.exp(p.grad.double()).float()
    torch.testing.assert_close(p.detach(), exact, rtol=1.3e-7, atol=1.5e-45, equal_nan=True)
