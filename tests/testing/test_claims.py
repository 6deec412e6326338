"""Every claim holds for a rule that has the property and fails for one that has not."""

import pytest
import torch

from thalweg.testing import Case, Failure, claims, examine


class Tilted(torch.optim.SGD):
    """SGD whose first rows move faster: which row is which matters."""

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            rows = torch.arange(1, p.shape[0] + 1, dtype=p.dtype)
            p.sub_(0.01 / rows.view(-1, *[1] * (p.ndim - 1)) * p.grad)


NO_DECAY = {"weight_decay": 0.0}
HAS = [
    ("Adam", claims.blind_to_scale("weight", eps=0.0)),
    ("LARS", claims.blind_to_scale("tensor")),
    ("Muon", claims.blind_to_scale("tensor")),
    ("SignSGD", claims.blind_to_scale("all")),
    ("SGD", claims.linear(momentum=0.9)),
    ("SGDP", claims.in_units_of_gradients(weight_decay=0.0)),
    ("Adam", claims.blind_to_place()),
    ("LAMB", claims.in_units_of_weights(**NO_DECAY, eps=0.0)),
    ("Adam", claims.each_weight_alone()),
    ("LAMB", claims.blind_to_order("weights")),
    ("Muon", claims.blind_to_order("rows")),
    ("Muon", claims.keeps_rotations("matrix", rounding=0.05)),  # it multiplies in bfloat16
    ("SGD", claims.keeps_rotations("space", momentum=0.9)),
    ("Lion", claims.equal_steps()),
    ("Adamax", claims.bounded(1.0)),
    ("Rprop", claims.signs_only()),
    ("Lion", claims.memory(1.0)),
    ("Adam", claims.right_where_adam_is_wrong(amsgrad=True, betas=(0.0, 0.1))),
]
LACKS = [
    ("SGD", claims.blind_to_scale("all"), "where all gradients are multiplied by a number"),
    ("LARS", claims.blind_to_scale("weight"), "where the gradient of each weight is multiplied by a number"),
    ("SGD", claims.blind_to_scale("tensor"), "where the gradient of each tensor is multiplied by a number"),
    ("Adam", claims.linear(), "does not lead where"),
    ("LARS", claims.linear(), "does not lead where"),
    ("SGDP", claims.linear(delta=2.0), "does not lead where"),
    ("Adam", claims.in_units_of_gradients(), "elsewhere than four times the learning rate"),
    ("LARS", claims.blind_to_place(), "from another place"),
    ("SGDW", claims.blind_to_place(), "from another place"),
    ("Adam", claims.in_units_of_weights(), "are not twice as large"),
    ("LAMB", claims.each_weight_alone(), "depend on others of their tensor"),
    ("Muon", claims.blind_to_order("weights"), "it is not blind to the order of weights"),
    (Tilted, claims.blind_to_order("rows"), "it is not blind to the order of rows and columns"),
    ("Adam", claims.keeps_rotations("matrix"), "it is not turning with"),
    ("Muon", claims.keeps_rotations("space"), "it is not turning with"),
    ("Grams", claims.equal_steps(**NO_DECAY), "steps are not lr long"),
    ("Adam", claims.bounded(1.0, betas=(0.5, 0.9)), "a weight moved by"),
    ("SGD", claims.bounded(100.0), "a weight moved by"),
    ("Signum", claims.signs_only(), "sizes matter"),
    ("Adam", claims.memory(1.0), "it keeps 2 numbers for each weight"),
    ("Adam", claims.right_where_adam_is_wrong(betas=(0.0, 0.1)), "it went up"),
]  # fmt: skip


def case_of(optimizer):
    matrices = {"shapes": [(7, 5), (4, 6)]}
    return Case(optimizer, **matrices)


def row_id(value):
    return value.words if isinstance(value, claims.Claim) else None


@pytest.mark.parametrize(("optimizer", "claim"), HAS, ids=row_id)
def test_holds_for_a_rule_that_has_it(optimizer, claim):
    claim.test(case_of(optimizer), {"backend": "eager", **claim.options})


@pytest.mark.parametrize(("optimizer", "claim", "message"), LACKS, ids=row_id)
def test_fails_for_a_rule_that_lacks_it(optimizer, claim, message):
    backend = {"backend": "eager"} if isinstance(optimizer, str) else {}
    with pytest.raises(Failure, match=message):
        claim.test(case_of(optimizer), {**backend, **claim.options})


def test_a_rule_that_stands_still_has_no_invariance():
    for claim in (claims.blind_to_scale(), claims.blind_to_place(), claims.linear(), claims.keeps_rotations()):
        with pytest.raises(Failure, match="does not move at all"):
            claim.test(case_of("SGD"), {"lr": 0.0, "backend": "eager"})


def test_a_claim_of_a_case_is_a_trial_of_its_own():
    claimed = [claims.blind_to_scale(eps=0.0), claims.linear()]
    report = examine(Case("AdamW", claims=claimed, backends=["eager"]), ["has_the_property_that_it_claims"])
    assert [o.verdict for o in report.outcomes] == ["holds", "fails"]
    assert report.outcomes[0].trial.id.endswith("-blind to the scale of each weight's gradient-eager")


@pytest.mark.parametrize("make", [claims.blind_to_scale, claims.blind_to_order, claims.keeps_rotations])
def test_another_kind_is_refused(make):
    with pytest.raises(ValueError, match="of='layer'"):
        make("layer")


def test_a_bound_is_nearly_met():
    """By the Cauchy-Schwarz inequality, m² ≤ v (1 − β₁)² / (1 − β₂) Σ (β₁²/β₂)ᵏ."""
    given, most = {"backend": "eager", "betas": (0.5, 0.9)}, 0.5 / (0.1 * (1 - 0.25 / 0.9)) ** 0.5
    claims.bounded(most).test(case_of("Adam"), given)
    with pytest.raises(Failure, match="more than"):
        claims.bounded(0.8 * most).test(case_of("Adam"), given)


def test_every_claim_is_tried_both_ways():
    public = {n for n, f in vars(claims).items() if getattr(f, "__annotations__", {}).get("return") == "Claim"}
    public = {n for n in public if not n.startswith("_")}
    for table in (HAS, LACKS):
        tests = {row[1].test.__qualname__.split(".")[0] for row in table}
        assert tests - {"_equivariant"} | {"blind_to_order", "keeps_rotations"} == public
