"""A stranger's transform of ten lines is compiled, tested, explained and raced; nothing else has to know of it."""

import contextlib
import copy
import io
import itertools
import pickle
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import thalweg
from tests.cases import distance, parameters
from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline
from thalweg.explain import explain
from thalweg.ir.trace import trace
from thalweg.lab import race as racing
from thalweg.lab import workers
from thalweg.lab.plan import plan
from thalweg.lab.store import Store
from thalweg.rule import Transform, count, hyper, number, ops, state
from thalweg.testing import Case, Failure, claims
from thalweg.testing.suite import trials
from thalweg.testing.verdicts import NotApplicable
from thalweg.transforms import clip_global_norm, grokfast, hyperball, trust_ratio

SHAPES = [(7, 5), (5,), (3, 2, 2), (), (0, 4)]
TRITON = [] if torch.cuda.is_available() or not find_spec("triton") else ["triton"]  # there its interpreter
BACKENDS = pytest.mark.parametrize("backend", ["eager", "foreach", "cpu", *TRITON])
#: for what is decided before a backend sees it: the interpreter is slow
WITHOUT_TRITON = pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])


class Tame(Transform):
    """Bound each element of the gradient by a multiple of its own usual size."""

    tame: float | None = hyper(default=3.0, within="(0, ∞)", off=None, doc="κ, bound in usual sizes")
    tame_beta: float = hyper(default=0.9, within="[0, 1)", doc="share of the usual size that is kept")
    tame_usual: torch.Tensor = state(doc="σ, usual size of g", signed=False)

    @staticmethod
    def before(p, g, s, h):
        s.tame_usual = torch.lerp(s.tame_usual, torch.abs(g), ops.maximum(1 - h.tame_beta, h.first))
        return ops.maximum(ops.minimum(g, h.tame * s.tame_usual), -h.tame * s.tame_usual)


class Even(Transform):
    """Give each tensor's direction a root mean square of ``even``."""

    even: float = hyper(default=0.2, within="(0, ∞)", doc="ρ, root mean square of u")

    @staticmethod
    def after(p, g, u, q, s, h):
        return h.even * u / ops.sqrt(ops.tensor_mean(u * u) + 1e-12)


class TamedAdamW(thalweg.AdamW, transforms=[Tame(2.0)]):
    """AdamW without spikes."""


class Plain(torch.optim.AdamW):
    """The same by hand."""

    def __init__(self, params, lr=1e-3, tame=2.0, tame_beta=0.9):
        super().__init__(params, lr=lr)
        for group in self.param_groups:
            group.setdefault("tame", tame)
            group.setdefault("tame_beta", tame_beta)

    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                g, mine = torch.view_as_real(p.grad) if p.is_complex() else p.grad, self.state[p]
                usual = mine.get("usual", g.abs())
                mine["usual"] = group["tame_beta"] * usual + (1 - group["tame_beta"]) * g.abs()
                g.copy_(torch.maximum(torch.minimum(g, group["tame"] * mine["usual"]), -group["tame"] * mine["usual"]))
        kept = {p: mine.pop("usual") for p, mine in self.state.items() if "usual" in mine}
        super().step()
        for p, usual in kept.items():
            self.state[p]["usual"] = usual


def gradients(params, step):
    generator = torch.Generator().manual_seed(step)
    scale = 10.0 if step % 3 == 2 else 1.0
    return [scale * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype) for p in params]


def walk(optimizer, params, steps):
    for step in steps:
        for p, g in zip(params, gradients(params, step), strict=True):
            p.grad = g
        optimizer.step()
    return params


def end(listed, backend="auto", dtype=torch.float64, steps=6, make=thalweg.AdamW, **flags):
    params = parameters(SHAPES, dtype)
    optimizer = make(params, lr=0.01, backend=backend, transforms=listed, **flags)
    return walk(optimizer, params, range(steps)), optimizer


# -- what it does ----------------------------------------------------------------------------------------------------


@BACKENDS
def test_it_does_what_it_does_by_hand(backend):
    params, _ = end([Tame(2.0)], backend)
    theirs = parameters(SHAPES)
    assert distance(params, walk(Plain(theirs, lr=0.01), theirs, range(6))) < 1e-12
    assert distance(params, end([], backend)[0]) > 1e-4


@BACKENDS
@pytest.mark.parametrize("kept", [{"state_dtype": "bfloat16"}, {"state_dtype": "int8"}, {"master": "split8"}], ids=str)
def test_its_states_are_kept_in_every_format(backend, kept):
    dtype = torch.bfloat16 if "master" in kept else torch.float32
    params, optimizer = end([Tame(2.0)], backend, dtype, **kept)
    eager, _ = end([Tame(2.0)], "eager", dtype, **kept)
    usual = optimizer.state[params[0]]["tame_usual"]
    assert usual.dtype == {"bfloat16": torch.bfloat16, "int8": torch.uint8}.get(kept.get("state_dtype"), torch.float32)
    assert distance(params, eager) < (0.02 if dtype == torch.bfloat16 else 1e-5)
    assert optimizer.state[params[0]].keys() >= ({"tame_usual_scale"} if kept.get("state_dtype") == "int8" else set())


@BACKENDS
def test_what_comes_after_the_direction(backend):
    params, _ = end([Even(0.5)], backend, steps=1, weight_decay=0.0)
    for p, before in zip(params, parameters(SHAPES), strict=True):
        if p.numel():
            assert (p - before).square().mean().sqrt().item() == pytest.approx(0.01 * 0.5, rel=1e-6)


@WITHOUT_TRITON
def test_they_act_in_the_order_of_the_list_next_to_the_direction(backend):
    one, two = clip_global_norm(1.0), grokfast(5.0)
    ends = [end(listed, backend)[0] for listed in ([one, two], [two, one])]
    assert distance(*ends) > 1e-4
    keywords, _ = end([], backend, clip_global_norm=1.0, grokfast=5.0)
    assert distance(ends[0], keywords) == 0  # the order of the built-in ones
    assert distance(ends[0], end([two], backend, clip_global_norm=1.0)[0]) == 0  # those of keywords come before
    last = [row.detach() for row in end([Even(0.5), trust_ratio()], backend, weight_decay=0.1)[0]]
    assert distance(last, end([Even(0.5)], backend, weight_decay=0.1, trust_ratio=True)[0]) == 0
    assert distance(last, end([trust_ratio(), Even(0.5)], backend, weight_decay=0.1)[0]) > 1e-5


def test_a_rule_without_states_and_one_by_shape_take_it():
    for make in (thalweg.SGD, thalweg.Lion, thalweg.Adafactor, thalweg.ScheduleFreeAdamW):
        ends = [end([Tame(2.0)], backend, make=make)[0] for backend in ("eager", "foreach", "cpu")]
        assert distance(ends[0], ends[1]) < 1e-10
        assert distance(ends[0], ends[2]) < 1e-10


# -- groups and schedules --------------------------------------------------------------------------------------------


def test_a_schedule_changes_its_numbers_without_a_new_trace():
    params, optimizer = end([Tame(2.0)])
    before = trace.cache_info().misses
    for factor in (1.5, 1.2):
        optimizer.param_groups[0]["tame"] = factor
        walk(optimizer, params, [1])
    assert trace.cache_info().misses == before
    optimizer.param_groups[0]["tame"] = None
    assert "tame_usual" not in str(optimizer.plan())
    walk(optimizer, params, [1])
    assert trace.cache_info().misses == before + 1


def test_groups_have_values_of_their_own_and_one_that_is_off_keeps_nothing():
    a, b = parameters([(4, 3)]), parameters([(4, 3)])
    optimizer = thalweg.AdamW([{"params": a}, {"params": b, "tame": None}], transforms=[Tame(2.0)])
    walk(optimizer, [*a, *b], range(3))
    assert "tame_usual" in optimizer.state[a[0]]
    assert "tame_usual" not in optimizer.state[b[0]]
    alone = parameters([(4, 3)])
    assert distance(b, walk(thalweg.AdamW(alone), alone, range(0))) > 0
    with pytest.raises(ValueError, match=r"tame=-1.0: expected a number in \(0, ∞\)"):
        optimizer.add_param_group({"params": parameters([(2,)]), "tame": -1.0})
    with pytest.raises(TypeError, match="did you mean tame_beta"):
        optimizer.add_param_group({"params": parameters([(2,)]), "tame_bata": 0.5})


# -- what is wrong ---------------------------------------------------------------------------------------------------


class Lr(Transform):
    """Has a name that every rule has."""

    lr: float = hyper(default=1.0)


class Mean(Transform):
    """Has a state that Adam has."""

    mean: float = hyper(default=1.0)
    exp_avg: torch.Tensor = state()


class Usual(Transform):
    """Has a state that Tame has."""

    usual: float = hyper(default=1.0)
    tame_usual: torch.Tensor = state()


WRONG = [
    ([Tame], r"expected transforms, such as \[clip_global_norm\(1.0\)\] .*\. Write Tame\(tame…\)"),
    (Tame(2.0), r"Tame\(2.0\): expected a list"),
    ("grokfast", "'grokfast': expected a list"),
    ([torch.nn.ReLU()], r"a module, ReLU: .*ReLU\(\) is not one"),
    ([Tame(2.0), Tame(1.0)], "expected each once: Tame is there twice"),
    ([Lr()], "names that nobody else has: 'lr' is of Lr and of (AdamW|Mine)"),
    ([Mean()], "names that nobody else has: 'exp_avg' is of Mean and of (AdamW|Mine)"),
    ([Tame(2.0), Usual()], "names that nobody else has: 'tame_usual' is of Usual and of Tame"),
]


@pytest.mark.parametrize(("listed", "said"), WRONG)
def test_a_wrong_list_is_refused(listed, said):
    with pytest.raises(ValueError, match=f"transforms=.*{said}"):
        thalweg.AdamW(parameters(SHAPES), transforms=listed)
    with pytest.raises(ValueError, match=f"transforms=.*{said}"):
        type("Mine", (thalweg.AdamW,), {}, transforms=listed)


def test_what_is_said_twice_or_in_the_wrong_place_is_refused():
    params = parameters(SHAPES)
    with pytest.raises(
        ValueError, match=r"clip_global_norm=2.0: expected it once: transforms=\[clip_global_norm\(1.0\)"
    ):
        thalweg.AdamW(params, clip_global_norm=2.0, transforms=[clip_global_norm(1.0)])
    with pytest.raises(ValueError, match=r"grokfast_alpha=0.5: expected it once"):
        thalweg.AdamW(params, grokfast_alpha=0.5, transforms=[grokfast(1.0)])
    with pytest.raises(TypeError, match="AdamW has no 'transforms' in a parameter group: it is one for all groups"):
        thalweg.AdamW([{"params": params, "transforms": [Tame()]}])
    with pytest.raises(ValueError, match="none of trust_ratio: trust_ratio=True is a part of LAMB"):
        thalweg.LAMB(params, transforms=[trust_ratio()])
    with pytest.raises(ValueError, match="none of hyperball: hyperball=False is a part of ScheduleFreeSGD"):
        thalweg.ScheduleFreeSGD(params, transforms=[hyperball()])
    with pytest.raises(ValueError, match="Tame is there twice"):
        TamedAdamW(params, transforms=[Tame()])
    with pytest.raises(ValueError, match=r"tame=-1.0: expected a number in \(0, ∞\)"):
        Tame(-1.0)
    with pytest.raises(TypeError, match=r"clip_global_norm\(\): expected clip_global_norm, bound of ‖g‖ over all"):
        clip_global_norm()
    with pytest.raises(TypeError, match="Tame has no argument 'tame_bata'; did you mean tame_beta"):
        Tame(2.0, tame_bata=0.5)
    assert (
        thalweg.AdamW(params, clip_global_norm=None, transforms=[clip_global_norm(1.0)]).param_groups[0][
            "clip_global_norm"
        ]
        == 1.0
    )


def declared(body, **more):
    """A transform with one hyperparameter and one state."""
    annotations = {"mine": float, "mine_mean": torch.Tensor}
    members = {"mine": hyper(default=1.0, off=0), "mine_mean": state(), "__annotations__": annotations}
    return type("Mine", (Transform,), {**members, "before": staticmethod(body), "__module__": __name__, **more})


def misspelt(p, g, s, h):
    s.mine_men = g
    return g


def of_the_rule(p, g, s, h):
    s.exp_avg = g
    return g


def unknown(p, g, s, h):
    return h.mini * g


def nothing(p, g, s, h):
    s.mine_mean = g


def outside(p, g, s, h):
    return torch.fft.fft(g)


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (misspelt, AttributeError, "Mine: s.mine_men is no state that it declares; did you mean mine_mean"),
        (of_the_rule, AttributeError, "Mine: s.exp_avg is no state that it declares; there are: mine_mean"),
        (unknown, AttributeError, "Mine: h.mini is no hyperparameter that it declares; did you mean .*mine"),
        (nothing, TypeError, "nothing gave None: expected it to return what it made"),
        (outside, TypeError, r"test_own_transforms\.py:\d+: a rule cannot use 'fft_fft'"),
    ],
)
def test_what_is_wrong_in_a_function_is_said_by_the_constructor(body, error, said):
    with pytest.raises(error, match=said):
        thalweg.AdamW(parameters(SHAPES), transforms=[declared(body)()])


def test_what_a_class_may_not_declare():
    with pytest.raises(TypeError, match=r"Mine.mine: off=1.0: expected 0, None or False"):
        declared(misspelt, mine=hyper(default=2.0, off=1.0))
    with pytest.raises(TypeError, match=r"Mine.mine_mean: expected number\(\): count\(\) is of rules"):
        declared(misspelt, mine_mean=count())


def test_one_alone_may_make_the_step():
    def step(p, u, q, s, h):
        return p - u

    with pytest.raises(ValueError, match="hyperball and Mine: expected one of them"):
        thalweg.AdamW(parameters(SHAPES), hyperball=True, transforms=[declared(_as_it_is, step=staticmethod(step))()])


def _as_it_is(p, g, s, h):
    s.mine_mean = g
    return g


def test_what_sums_over_all_tensors_cannot_be_fused_into_backward():
    optimizer = thalweg.AdamW(parameters(SHAPES), transforms=[clip_global_norm(1.0)])
    with pytest.raises(ValueError, match=r"clip_global_norm=1.0: expected None: it needs all gradients at once"):
        optimizer.fuse_into_backward()


# -- copies and checkpoints ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
@pytest.mark.parametrize("make", [thalweg.AdamW, TamedAdamW], ids=lambda make: make.__name__)
def test_a_copy_goes_on_as_the_optimizer_would_have(make, copied):
    listed = [Even(0.5)] if make is TamedAdamW else [Even(0.5), Tame(2.0)]
    params, optimizer = end(listed, make=make)
    twin = copied(optimizer)
    theirs = twin.param_groups[0]["params"]
    assert repr(twin) == repr(optimizer)
    assert distance(walk(optimizer, params, range(6, 9)), walk(twin, theirs, range(6, 9))) == 0


@WITHOUT_TRITON
@pytest.mark.parametrize("kept", [{}, {"state_dtype": "int8"}], ids=str)
def test_it_goes_on_in_a_checkpoint(backend, kept):
    whole, _ = end([Tame(2.0)], backend, torch.float32, steps=6, **kept)
    params, optimizer = end([Tame(2.0)], backend, torch.float32, steps=3, **kept)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh = thalweg.AdamW(params, lr=1.0, backend=backend, transforms=[Tame(7.0, tame_beta=0.5)], **kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh.load_state_dict(saved)
    assert fresh.param_groups[0]["tame"] == 2.0
    assert distance(whole, walk(fresh, params, range(3, 6))) == 0


def test_a_checkpoint_of_another_list_is_refused_or_said():
    params, optimizer = end([Tame(2.0), clip_global_norm(1.0)])
    saved = optimizer.state_dict()
    plain = thalweg.AdamW(params)
    with pytest.raises(
        ValueError, match=r"with transforms=\['Tame'\].*it has none\. Build it with transforms=\[Tame\]"
    ):
        plain.load_state_dict(saved)
    assert not plain.state
    listed = thalweg.AdamW(params, transforms=[Tame(2.0)])
    listed.load_state_dict(saved)
    assert listed.param_groups[0]["clip_global_norm"] == 1.0
    with pytest.warns(UserWarning, match=r"saved without transforms=\['Tame'\]: they begin with the next step"):
        listed.load_state_dict(end([])[1].state_dict())
    assert listed.param_groups[0]["tame"] == 2.0
    walk(listed, params, range(2))
    torchs = torch.optim.AdamW(params)
    walk(torchs, params, range(2))
    with pytest.raises(ValueError, match="no tame_usual"):
        listed.load_state_dict(torchs.state_dict())


# -- what is said of it ----------------------------------------------------------------------------------------------


def test_repr_plan_and_formula_show_it():
    _, optimizer = end([Tame(2.0)], "foreach")
    assert repr(optimizer).startswith("AdamW with Tame (backend: foreach, as asked)")
    assert "tame=2.0, tame_beta=0.9" in repr(optimizer)
    plan = str(optimizer.plan())
    assert "tame_usual 8" in plan
    assert plan.count("pass") == 1
    for told in (explain(optimizer), explain(TamedAdamW)):
        assert "σₜ" in told.formula.unicode
        assert "min" in told.formula.unicode
        assert [(k.name, k.symbol) for k in told.kept if k.name == "tame_usual"] == [("tame_usual", "σ")]
        assert {"tame", "tame_beta"} <= {setting.name for setting in told.settings}
        assert told.cost.state_bytes == 12
        assert told.lineage[-2:] in (("Adam", "AdamW"), ("AdamW", "TamedAdamW"))
    assert explain(thalweg.AdamW).formula.unicode == explain(end([])[1]).formula.unicode
    assert repr([Tame(), Tame(tame=2.0), grokfast(2.0), grokfast(2.0, 0.5), hyperball(), hyperball("all")]) == (
        "[Tame(3.0), Tame(2.0), grokfast(2.0), grokfast(2.0, grokfast_alpha=0.5), hyperball(), hyperball('all')]"
    )
    assert Tame(2.0) == Tame(tame=2.0) != Tame(3.0)


def test_a_class_has_it_by_a_keyword_of_its_own():
    assert TamedAdamW.hypers["tame"].default == 2.0
    tight, loose = (TamedAdamW(parameters(SHAPES), tame=tame) for tame in (0.5, 9.0))
    assert (tight.param_groups[0]["tame"], loose.param_groups[0]["tame"]) == (0.5, 9.0)
    mine = parameters(SHAPES)
    walk(TamedAdamW(mine, lr=0.01), mine, range(6))
    assert distance(mine, end([Tame(2.0)])[0]) == 0

    class Both(TamedAdamW, transforms=[Even()]):
        """Two."""

    assert [t.__name__ for t in Both.listed] == ["Tame", "Even"]


# -- it is tested and raced ------------------------------------------------------------------------------------------

CASE = Case(
    TamedAdamW, Plain, [{"tame": 1.0}, {"tame_beta": 0.5}], claims=[claims.blind_to_place(weight_decay=0.0)],
    exempt={"every_hyperparameter_is_tried": "those of AdamW are tried there"}, drop_in=False,
)  # fmt: skip
LISTED = Case(thalweg.AdamW, Plain, options={"transforms": (Tame(2.0),)}, drop_in=False, name="listed")


def run(case, only=()):
    """Run the trials; how many apply."""
    ran = 0
    for trial in trials(case, only):
        with contextlib.suppress(NotApplicable):
            trial.run()
            ran += 1
    return ran


FEW = ("equals_its_reference_for_100_steps", "every_flag_changes_the_path", "every_backend_takes_the_same_path")


def test_the_suite_takes_an_optimizer_with_it():
    assert run(CASE, FEW) > 12
    assert run(LISTED, FEW) > 5
    with pytest.raises(Failure, match="leaves its reference at step"):
        run(Case(TamedAdamW, torch.optim.AdamW, drop_in=False), FEW)


def test_it_passes_the_whole_suite():
    assert run(CASE) > 60


OWN = """
import torch
import thalweg
from thalweg.rule import Transform, hyper, ops, state

class Tame(Transform):
    tame: float = hyper(default=3.0, within="(0, ∞)", doc="κ, bound in usual sizes")
    tame_usual: torch.Tensor = state(doc="σ, usual size of g", signed=False)

    @staticmethod
    def before(p, g, s, h):
        s.tame_usual = torch.lerp(s.tame_usual, torch.abs(g), ops.maximum(0.1, h.first))
        return ops.maximum(ops.minimum(g, h.tame * s.tame_usual), -h.tame * s.tame_usual)

class Tamed(thalweg.AdamW, transforms=[Tame(2.0)]):
    "AdamW without spikes."
"""


def test_it_is_raced_from_a_file(tmp_path, monkeypatch, few_trials):
    monkeypatch.setattr(workers, "Pool", Inline)
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    entries = ("adamw", f"tamed={tmp_path}/own.py:Tamed(tame=1.0)")
    made = plan(write_small(tmp_path), optimizers=entries, seeds=2, steps=20, jobs=1)
    store = Store(str(tmp_path / "runs.db"))
    result = racing.race(made, store)
    store.close()
    assert [c["label"] for c in result["contestants"]] == ["adamw", "tamed"]
    adamw, tamed = (
        [r["final_loss"] for r in result["runs"] if r["optimizer"] == label] for label in ("adamw", "tamed")
    )
    assert adamw[0] != tamed[0]


# -- and nothing else ------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1] / "thalweg"


def test_a_built_in_one_is_its_class_and_a_row_of_the_table():
    """Its names stand in its own file; those that are keywords also in the two lists of keywords."""
    files = {path: path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}
    keywords = {"ir/transforms/__init__.py", "engine/optimizer.py"}
    for kind in (grokfast, thalweg.transforms.orthograd, thalweg.transforms.gradient_noise):
        names = (kind.__name__, *kind.hypers, *kind.states)
        found = {str(path.relative_to(ROOT)) for path, text in files.items() if any(name in text for name in names)}
        assert found - {"transforms.py"} == {"ir/transforms/gradients.py", *keywords}


def test_numbers_are_kept_of_it_too():
    class Waning(Transform):
        """Count less on later gradients."""

        waning: float = hyper(default=1.0, off=0)
        waning_steps: torch.Tensor = number(doc="steps so far")

        @staticmethod
        def before(p, g, s, h):
            s.waning_steps = s.waning_steps + 1
            return g / s.waning_steps**h.waning

    ends = [end([Waning()], backend, make=thalweg.SGD)[0] for backend in ("eager", "foreach", "cpu")]
    assert all(distance(a, b) < 1e-12 for a, b in itertools.pairwise(ends))
