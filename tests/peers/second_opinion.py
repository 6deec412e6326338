r"""A second opinion: our rules beside those of other libraries and of papers' authors, where they are installed.

Not among the tests that run by default. Install what you want to ask, then name the file::

    pip install optax pytorch_optimizer adabelief-pytorch adabound adamp came-pytorch dadaptation dog-optimizer \
        lion-pytorch madgrad prodigyopt qhoptim
    pytest tests/peers/second_opinion.py

Both walk 40 steps in float64 with the same hyperparameters, ε large enough that its place shows. Where a peer is known
to differ the reason stands in its row, and the test then asks that it does: the list cannot grow old unseen.
"""

import importlib
from dataclasses import dataclass, field
from typing import Any

import pytest

import thalweg
from tests.peers.optax_ import OverTorch
from thalweg.testing import distance, parameters
from thalweg.testing.walks import give

LR, EPS, STEPS = 0.01, {"eps": 1e-3}, 40
TINY = {"eps": 1e-12}  # where its place is known to differ, and something else is asked
SAME, OTHER = 1e-6, 4e-6  # of the way: rounding of those who compute in float32, and what is a difference


@dataclass(frozen=True)
class Opinion:
    """One rule of ours and somebody's of the same name.

    Attributes:
        rule: ours, in ``thalweg``.
        peer: where theirs is, ``module:name``; of optax a function.
        ours, theirs: hyperparameters with which both should be the same.
        differs: why they are not; empty if they must be.
        shapes: of the parameters.
    """

    rule: str
    peer: str
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    differs: str = ""
    shapes: tuple[tuple[int, ...], ...] = ((7, 5), (5,))

    @property
    def id(self) -> str:
        """As a test is named."""
        return f"{self.rule}-{self.peer.split(':')[0]}" + ("-differs" if self.differs else "")


def kozistr(rule, theirs=None, ours=None, name="", differs="", **more):
    """A row for the collection of many."""
    return Opinion(rule, f"pytorch_optimizer:{name or rule}", ours or {}, theirs or {}, differs, **more)


def optax(rule, name, theirs=None, ours=None, differs="", **more):
    """A row for JAX's library."""
    return Opinion(rule, f"optax:{name}", ours or {}, theirs or {}, differs, **more)


MATRIX = ((7, 5),)
#: whose covariances have no null space, where eigenvectors are anyone's
SQUARE = ((6, 6),)
THIRD = {"precondition_frequency": 3}
SUMS = {"betas": (0.0, 1.0), "grafting": None}
SCION = {"momentum": 0.1, "constraint": True}
QH = {**EPS, "betas": (0.9, 0.99), "nus": (0.7, 0.9)}
OPINIONS = [
    # papers' authors
    Opinion("AdaBound", "adabound:AdaBound", EPS, EPS),
    Opinion("AdaBound", "adabound:AdaBound", {**EPS, "amsbound": True}, {**EPS, "amsbound": True}),
    Opinion("AdaBelief", "adabelief_pytorch:AdaBelief", EPS, {**EPS, "rectify": False, "print_change_log": False}),
    Opinion("AdamP", "adamp:AdamP", {**EPS, "delta": 2.0}, {**EPS, "delta": 2.0}),
    Opinion("SGDP", "adamp:SGDP", {"delta": 2.0, "nesterov": True}, {"momentum": 0.9, "delta": 2.0, "nesterov": True}),
    Opinion("SGDP", "adamp:SGDP", {"delta": 2.0}, {"momentum": 0.9, "delta": 2.0},
            differs="without Nesterov it projects the buffer in place, which the paper does not"),
    Opinion("CAME", "came_pytorch:CAME"),
    Opinion("Lion", "lion_pytorch:Lion", {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    Opinion("MADGRAD", "madgrad:MADGRAD", TINY, TINY),
    Opinion("MADGRAD", "madgrad:MADGRAD", EPS, EPS, differs="it adds ε to the learning rate, too"),
    Opinion("QHM", "qhoptim.pyt:QHM", {"momentum": 0.9, "nu": 0.7}, {"momentum": 0.9, "nu": 0.7}),
    Opinion("QHAdam", "qhoptim.pyt:QHAdam", QH, QH),
    Opinion("Prodigy", "prodigyopt:Prodigy", {"d0": 1e-2}, {"d0": 1e-2}),
    Opinion("DAdaptAdam", "dadaptation:DAdaptAdam", {"d0": 1e-2}, {"d0": 1e-2}),
    Opinion("DAdaptSGD", "dadaptation:DAdaptSGD", {"d0": 1e-2}, {"d0": 1e-2}),
    Opinion("DoG", "dog:DoG", {"reps_rel": 1e-3}, {"reps_rel": 1e-3}),
    Opinion("LDoG", "dog:LDoG", {"reps_rel": 1e-3}, {"reps_rel": 1e-3}),
    # pytorch_optimizer
    kozistr("AdaBelief", EPS, EPS),
    kozistr("AdaBound", EPS, EPS),
    kozistr("Yogi", {}, {"initial_accumulator": 1e-6, "debias": True}, differs="its mean starts at 1e-6, too"),
    kozistr("QHAdam", QH, QH),
    kozistr("QHM", {"momentum": 0.9, "nu": 0.7}, {"momentum": 0.9, "nu": 0.7}),
    kozistr("AggMo", {}, {}),
    kozistr("diffGrad", TINY, TINY, name="DiffGrad"),
    kozistr("diffGrad", EPS, EPS, name="DiffGrad", differs="it adds ε before the root is corrected"),
    kozistr("Adan", EPS, {**EPS, "debias": True}),
    kozistr("Adan", EPS, EPS, differs="it corrects the means, as the authors' code; the paper begins them with g"),
    kozistr("ADOPT", EPS, EPS, differs="its bound t^(1/4) counts the step that only measures"),
    kozistr("AdEMAMix", EPS, EPS),
    kozistr("SimplifiedAdEMAMix", EPS, EPS, differs="it keeps a mean of gradients where the authors keep a sum"),
    kozistr("LaProp", TINY, TINY),
    kozistr("LaProp", EPS, EPS, differs="it adds ε before the root is corrected"),
    kozistr("MARS", TINY, {**TINY, "zero_start": True}, shapes=MATRIX),
    kozistr("MARS", EPS, EPS, shapes=MATRIX, differs="it adds ε before the root is corrected"),
    kozistr("Grams", EPS, EPS),
    kozistr("Lion"),
    kozistr("Tiger"),
    kozistr("LARS", {"weight_decay": 0.1}, {"weight_decay": 0.1}, shapes=MATRIX),
    kozistr("LARS", differs="vectors move by the plain gradient; here a group says so (trust_coefficient=None)"),
    kozistr("LAMB", EPS, {**EPS, "weight_decay": 0.0}, name="Lamb",
            differs="it divides by 1 − β₁ᵗ after the trust ratio, so that the first step is ten times as long"),
    kozistr("NovoGrad", {**EPS, "betas": (0.95, 0.98)}, {**EPS, "betas": (0.95, 0.98)}),
    kozistr("AdaMod", {**EPS, "betas": (0.9, 0.99, 0.9999)}, {**EPS, "betas": (0.9, 0.99), "gamma": 0.9999},
            differs="it has 1 − β₁ᵗ within the bounded step size, as the authors' code; the paper has it outside"),
    kozistr("SGDW", {"momentum": 0.9, "weight_decay": 0.1}, {"weight_decay": 0.1}),
    kozistr("SignSGD", {"momentum": 0.0}),
    kozistr("Signum", {"momentum": 0.9}, name="SignSGD"),
    kozistr("AccSGD"),
    kozistr("AdamP", {**TINY, "delta": 2.0}, {**TINY, "delta": 2.0}),
    kozistr("AdamP", {**EPS, "delta": 2.0}, {**EPS, "delta": 2.0}, differs="it adds ε before the root is corrected"),
    kozistr("SGDP", {"momentum": 0.9, "delta": 2.0}, {"delta": 2.0}),
    kozistr("StableAdamW", {**EPS, "kahan_sum": False}, EPS),
    kozistr("MADGRAD", TINY, TINY),
    kozistr("Fromage"),
    kozistr("Adai"),
    kozistr("CAME", {}, {}),
    kozistr("SM3", {"momentum": 0.9, "eps": 1e-3}, {"momentum": 0.9, "eps": 1e-3}),
    kozistr("Amos", differs="one v and b for a tensor, not for each row, and another guess of a matrix's scale"),
    kozistr("Prodigy", {"d0": 1e-2}, {"d0": 1e-2}),
    kozistr("DAdaptAdam", {"d0": 1e-2}, {"d0": 1e-2}),
    kozistr("DAdaptSGD", {"d0": 1e-2, "momentum": 0.0}, {"d0": 1e-2}),
    kozistr("RAdam", {**EPS, "betas": (0.9, 0.99)}, {**EPS, "betas": (0.9, 0.99)},
            differs="it stands still until the rectification begins"),
    kozistr("RAdam", {**EPS, "betas": (0.9, 0.99), "degenerated_to_sgd": True}, {**EPS, "betas": (0.9, 0.99)}),
    kozistr("Muon", {"group": {"use_muon": True}}, {"weight_decay": 0.0}, shapes=MATRIX),
    kozistr("NorMuon", {"group": {"use_muon": True}}, {"weight_decay": 0.0, "row_eps": 1e-10}, shapes=MATRIX),
    kozistr("AdaMuon", {"group": {"use_muon": True}}, {"weight_decay": 0.0, "nesterov": False, "second_eps": 1e-10},
            shapes=MATRIX, differs="it takes the momentum as it is, without the signs of the paper"),
    kozistr("SOAP", {"weight_decay": 0.0}, {"weight_decay": 0.0}, shapes=SQUARE),
    kozistr("SOAP", {**THIRD, "weight_decay": 0.0}, {**THIRD, "weight_decay": 0.0}, shapes=SQUARE),
    kozistr("SOAP", {}, {}, shapes=SQUARE, differs="it decays what the step has moved, and not at the first"),
    kozistr("Shampoo", {"matrix_eps": 1e-6}, {**SUMS, "eps": 1e-6, "precondition_frequency": 1}, shapes=MATRIX),
    kozistr("PSGDKron", name="Kron", shapes=MATRIX, differs="it draws its own random numbers"),
    *(kozistr("Scion", {**SCION, "norm_type": kind}, {"norm": norm}, "SCION", shapes=MATRIX)
      for norm, kind in (("sign", 4), ("column", 6), ("row", 7))),
    kozistr("Scion", {**SCION, "norm_type": 2}, {"norm": "spectral"}, "SCION", shapes=MATRIX,
            differs="it scales the factor in bfloat16"),
    # optax
    optax("SGD", "sgd", {"momentum": 0.9}, {"momentum": 0.9}),
    optax("SGD", "sgd", {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True}),
    optax("Adagrad", "adagrad", EPS, {**EPS, "initial_accumulator_value": 0.1}, differs="ε inside the root"),
    optax("RMSprop", "rmsprop", {**EPS, "decay": 0.99, "eps_in_sqrt": False}, EPS),
    optax("RMSprop", "rmsprop", {**EPS, "decay": 0.99}, EPS, differs="ε inside the root"),
    optax("Adam", "adam", EPS, EPS),
    optax("Adam", "amsgrad", EPS, {**EPS, "amsgrad": True}, differs="it keeps the largest v after its correction"),
    optax("AdamW", "adamw", {**EPS, "weight_decay": 0.1}, {**EPS, "weight_decay": 0.1}),
    optax("Adamax", "adamax", EPS, EPS),
    optax("Adadelta", "adadelta", EPS, EPS),
    optax("NAdamW", "nadamw", EPS, {**EPS, "next_correction": True, "weight_decay": 1e-4}),
    optax("NAdamW", "nadamw", EPS, {**EPS, "weight_decay": 1e-4}, differs="it corrects the mean as of the next step"),
    optax("RAdam", "radam", {**EPS, "b2": 0.99}, {**EPS, "betas": (0.9, 0.99)},
          differs="it adds ε after the root is corrected; torch before"),
    optax("AdaBelief", "adabelief", {**EPS, "eps_root": 1e-3}, EPS),
    optax("Yogi", "yogi", EPS, {**EPS, "debias": True, "initial_accumulator": 1e-6},
          differs="its mean starts at 1e-6, too"),
    optax("Adan", "adan", EPS, {**EPS, "debias": True},
          differs="it weighs the change of the gradient by 0.08 where the paper has 0.92"),
    optax("ADOPT", "contrib.adopt", EPS, EPS),
    optax("AdEMAMix", "contrib.ademamix", EPS, EPS),
    optax("SimplifiedAdEMAMix", "contrib.simplified_ademamix", EPS, EPS),
    optax("Lion", "lion", {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    optax("SignSGD", "sign_sgd"),
    optax("LAMB", "lamb", {**EPS, "weight_decay": 0.1}, {**EPS, "weight_decay": 0.1}),
    optax("LARS", "lars"),
    optax("LARS", "lars", {"weight_decay": 0.1}, {"weight_decay": 0.1},
          differs="it divides by the norm of g + λp; the paper by ‖g‖ + λ‖p‖"),
    optax("NovoGrad", "novograd", {**EPS, "b1": 0.95, "b2": 0.98}, {**EPS, "betas": (0.95, 0.98)}),
    optax("Fromage", "fromage"),
    optax("SM3", "sm3", {"momentum": 0.9}, {"momentum": 0.9, "eps": 1e-8}),
    optax("Rprop", "rprop", differs="each step is the one that it computed a step earlier"),
    optax("DoG", "contrib.dog", {"init_step": ("heuristic", 1e-3)}, {"reps_rel": 1e-3}),
    optax("DoWG", "contrib.dowg", differs="ε is added to the root, too, as in the authors' code"),
    optax("COCOB", "contrib.cocob", {}, {}),
    optax("Prodigy", "contrib.prodigy", {"estim_lr0": 1e-2}, {"d0": 1e-2, "use_bias_correction": True}),
    optax("Prodigy", "contrib.prodigy", {"estim_lr0": 1e-2}, {"d0": 1e-2}, differs="it always corrects for the start"),
    optax("Adafactor", "adafactor", {"min_dim_size_to_factor": 1}, {}),
    optax("Muon", "contrib.muon", {"weight_decay": 0.0}, {"weight_decay": 0.0}, shapes=MATRIX,
          differs="matrices are (in, out) there, and it multiplies in full precision"),
]  # fmt: skip

#: those whose lr is a share of what they find out
SHARES = ("Prodigy", "DAdaptAdam", "DAdaptSGD", "DoG", "LDoG", "DoWG", "COCOB")


def theirs_over(opinion, params, lr):
    """The peer's optimizer; skips where it is not installed."""
    module, name = opinion.peer.split(":")
    library = pytest.importorskip(module, reason=f"{module} is not installed")
    for part in name.split("."):
        library = importlib.import_module(f"{module}.contrib") if part == "contrib" else getattr(library, part)
    if module != "optax":
        theirs = dict(opinion.theirs)
        own = theirs.pop("group", None)
        return library([{"params": params, **own}] if own else params, lr=lr, **theirs)
    rate = {} if opinion.rule in ("DoG", "DoWG", "COCOB") else {"learning_rate": lr}
    return OverTorch(params, library(**rate, **opinion.theirs))


def apart(opinion):
    """How far both end from each other, as a share of the way."""
    lr = 1.0 if opinion.rule in SHARES else LR
    ours, theirs, start = (parameters(opinion.shapes) for _ in range(3))
    a, b = getattr(thalweg, opinion.rule)(ours, lr=lr, **opinion.ours), theirs_over(opinion, theirs, lr)
    for step in range(STEPS):
        for params, optimizer in ((ours, a), (theirs, b)):
            give(params, step)
            optimizer.step()
    return distance(ours, theirs) / distance(ours, start)


@pytest.mark.parametrize("opinion", OPINIONS, ids=lambda o: o.id)
def test_they_agree_or_differ_for_a_known_reason(opinion):
    share = apart(opinion)
    if opinion.differs:
        assert share > OTHER, f"it is the same now ({share:.1e} apart); it differed: {opinion.differs}"
    else:
        assert share < SAME, f"they end {share:.2g} of the way apart"
