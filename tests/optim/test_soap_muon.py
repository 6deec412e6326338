"""What is SOAP-Muon's own: it is Muon's iteration of SOAP's step."""

import pytest
import torch

import thalweg
from tests.cases import parameters, walk
from tests.groups import models

#: enough stable steps for an orthogonal factor
EXACT = {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 40, "weight_decay": 0.0}


def moved(cls, shape, steps=4, **options):
    """How far the last of some steps moves a matrix."""
    params = parameters([shape])
    optimizer = cls(params, **{"lr": 1.0, **options})
    walk(optimizer, params, steps - 1)
    before = params[0].detach().clone()
    walk(optimizer, params, 1, start=steps - 1)
    return before - params[0].detach()


@pytest.mark.parametrize("shape", [(6, 6), (4, 9)])
@pytest.mark.parametrize("kl", [False, True])
def test_a_step_is_the_orthogonal_factor_of_soaps(shape, kl):
    U = moved(thalweg.SOAP, shape, weight_decay=0.0, kl=kl)
    found = moved(thalweg.SOAPMuon, shape, adjust_lr_fn=None, kl=kl, **EXACT)
    left, _, right = torch.linalg.svd(U, full_matrices=False)
    assert (found - left @ right).norm() / (left @ right).norm() < 0.05


def test_its_length_is_that_of_muons_scale():
    one, other = (
        moved(cls, (9, 4), adjust_lr_fn="match_rms_adamw", **EXACT) for cls in (thalweg.SOAPMuon, thalweg.Muon)
    )
    torch.testing.assert_close(one.norm(), other.norm(), rtol=0.05, atol=0)


def test_a_model_is_sorted_as_muon_sorts_it():
    one, other = (cls(models.Gpt(), lr=0.02) for cls in (thalweg.SOAPMuon, thalweg.Muon))
    for a, b in zip(one.param_groups, other.param_groups, strict=True):
        assert (a["param_names"], a["use_muon"]) == (b["param_names"], b["use_muon"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ns_coefficients": (4.0, 1.0, 1.0)}, "ns_coefficients"),
        ({"adjust_lr_fn": "other"}, "adjust_lr_fn='other': expected one of None, 'original', 'match_rms_adamw'"),
        ({"adjust_lr_fn": lambda m, n: -1.0}, "adjust_lr_fn=.*numbers above 0"),
    ],
)
def test_bad_values_get_one_error(options, message):
    with pytest.raises(ValueError, match=message):
        thalweg.SOAPMuon(parameters([(3, 3)]), **options)
