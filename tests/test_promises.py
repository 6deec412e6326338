"""What each kind of extension costs: each is defined here as a stranger would, and the package is not touched.

The files that it takes within the project: a rule three (its class, a line in `optim/__init__.py`, a row in
`tests/cases.py`), a transform two (its class in a file of its family, a row in `tests/ir/test_transforms.py`), an
operation one, a schedule two (its class, its name in `schedule/__init__.py`), a task two (its class, a line in
`lab/tasks/__init__.py`; of a user's own one, its file), a backend three (its module, its name in
`runtime/backends/select.py` and in the annotation of `Optimizer.backend`, which type checkers read).
"""

import dataclasses
import math
import sys
from types import ModuleType
from typing import Annotated

import pytest
import torch
from torch import Tensor

import thalweg
from tests.fixtures import needs_compiler
from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline
from thalweg import testing
from thalweg.explain import explain, formula
from thalweg.ir import ops
from thalweg.lab import race as racing
from thalweg.lab import workers
from thalweg.lab.plan import plan
from thalweg.lab.store import Store
from thalweg.rule import Optimizer, Transform, count, hyper, state
from thalweg.runtime.backends import eager, select
from thalweg.schedule import Scheduler, Shape, cosine, schedules


class Promised(Optimizer):
    """A mean of gradients, without the bias of its first steps."""

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="step size")
    beta: float = hyper(default=0.9, within="[0, 1)", doc="β, share of the mean that is kept")
    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")

    @staticmethod
    def direction(p, g, s, h):
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - h.beta)
        return s.exp_avg / (1 - h.beta**h.step)


RULE = """
import torch
from torch import Tensor
from thalweg.rule import Optimizer, hyper, state

class Mean(Optimizer):
    "The mean of gradients."

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="step size")
    exp_avg: Tensor = state(doc="m, mean of gradients")

    @staticmethod
    def direction(p, g, s, h):
        s.exp_avg = torch.lerp(s.exp_avg, g, 0.1)
        return s.exp_avg
"""


def test_a_rule_is_a_class_which_passes_the_suite_and_explains_itself():
    testing.check(Promised, learns=0.3)  # raises what does not hold
    told = explain(Promised)
    assert "β" in told.formula.unicode
    assert "exp_avg" in {kept.name for kept in told.kept}


def test_a_rule_in_a_file_is_raced(tmp_path, monkeypatch, few_trials):
    monkeypatch.setattr(workers, "Pool", Inline)
    (tmp_path / "mean.py").write_text(RULE, encoding="utf-8")
    store = Store(str(tmp_path / "runs.db"))
    try:
        entries = ["adamw", f"{tmp_path / 'mean.py'}:Mean"]
        made = plan(write_small(tmp_path), optimizers=entries, seeds=2, steps=20, jobs=1)
        assert racing.race(made, store)["comparisons"][0]["challenger"] == "mean"
    finally:
        store.close()


class halve(Transform):  # noqa: N801 - it reads as a word in a list
    """A share of the gradient."""

    share: float = hyper(default=0.5, within="(0, ∞)", doc="ρ, share")

    @staticmethod
    def before(p, g, s, h):
        return h.share * g


@pytest.mark.parametrize("backend", ["eager", "foreach", pytest.param("cpu", marks=needs_compiler)])
def test_a_transform_is_a_class(backend):
    ends = []
    for lr, listed in ((0.5, []), (1.0, [halve()])):
        p = torch.nn.Parameter(torch.linspace(-2, 2, 12))
        p.grad = p.detach().flip(0)
        optimizer = thalweg.SGD([p], lr=lr, transforms=listed, backend=backend)
        optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends)
    assert "ρ" in explain(optimizer).formula.unicode


SOFTPLUS = ops.Op(
    "softplus", torch.nn.functional.softplus, lambda x: math.log1p(math.exp(x)), "log1p{f}(EXP({0}))",
    "log1p(tl.exp({0}))", r"\operatorname{{softplus}}({0})", flops=20,
)  # fmt: skip


class Softened(Optimizer):
    """A direction of one new operation."""

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="step size")

    @staticmethod
    def direction(p, g, s, h):
        return SOFTPLUS(g)


@needs_compiler
def test_an_operation_is_a_row(monkeypatch):
    for table in (ops.ROWS, ops.BY_NAME):  # both are made of the rows
        monkeypatch.setitem(table, "softplus", SOFTPLUS)
    ends = []
    for backend in ("eager", "foreach", "cpu"):
        p = torch.nn.Parameter(torch.linspace(-2, 2, 12))
        p.grad = p.detach().flip(0)
        Softened([p], backend=backend).step()
        ends.append(p.detach())
    for end in ends:
        torch.testing.assert_close(end, ends[0])
    assert "softplus" in formula(Softened).latex
    with pytest.raises(TypeError, match="softplus takes 1 argument and is given 2"):  # as its row says
        SOFTPLUS(p, p)


@dataclasses.dataclass(frozen=True)
class Halving(Shape):
    """Half as much after each ``every`` steps."""

    every: Annotated[int, "[1, ∞)"]

    def __call__(self, step):
        return 0.5 ** (step // self.every)


def test_a_schedule_is_a_class(monkeypatch):
    assert "halving" not in schedules()  # a stranger's
    monkeypatch.setattr(Halving, "__module__", "thalweg.schedule.halving")
    assert schedules()["halving"] is Halving  # the project's: it is in the list where it is defined
    optimizer = thalweg.SGD([torch.nn.Parameter(torch.zeros(2))], lr=1.0)
    scheduler = Scheduler(optimizer, cosine(4).then(Halving(2)))
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[4:] == [1.0, 1.0, 0.5, 0.5]
    with pytest.raises(ValueError, match="every=0: expected an integer of at least 1"):
        Halving(0)


def test_a_task_is_a_class_in_a_file(tmp_path, monkeypatch, few_trials):
    monkeypatch.setattr(workers, "Pool", Inline)
    store = Store(str(tmp_path / "runs.db"))
    try:
        result = racing.race(plan(write_small(tmp_path), optimizers=["adamw", "sgd"], seeds=2, steps=20, jobs=1), store)
        assert result["task"]["name"] == "small"
    finally:
        store.close()


def test_a_backend_is_a_module_and_its_name(monkeypatch):
    module = ModuleType("thalweg.runtime.backends.mine")
    served = []

    def prepare(batch):
        served.append(len(batch.params))
        return eager.prepare(batch)

    module.refusal, module.prepare = eager.refusal, prepare
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(select, "BACKENDS", ("mine", *select.BACKENDS))
    choices = thalweg.AdamW.setup["backend"]
    widened = dataclasses.replace(choices, within=("mine", *choices.within))
    monkeypatch.setitem(thalweg.AdamW.setup, "backend", widened)
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer = thalweg.AdamW(params)
    optimizer.step()
    assert served == [2]
    assert "mine" in repr(optimizer)
    thalweg.AdamW(params, backend="mine").step()
    assert served == [2, 2]
