"""Arguments of the functions of matrices that cannot be right: each error names the argument and what is allowed."""

import pytest
import torch

from thalweg.linalg import eigenbasis, inverse_root, newton_schulz, orthogonal_factors, polar_factor

I3 = torch.eye(3)
WRONG = {
    "integers": (lambda: newton_schulz(I3.int()), "G='Tensor of torch.int32': expected real floating point numbers"),
    "complex": (lambda: orthogonal_factors([I3.cfloat()]), r"Gs\[0\]='Tensor of torch.complex64'"),
    "negative steps": (lambda: newton_schulz(I3, steps=-1), "steps=-1: expected an integer of at least 0"),
    "steps in text": (lambda: orthogonal_factors([I3], steps="5"), "steps='5': expected an integer of at least 0"),
    "dtype in quotes": (lambda: newton_schulz(I3, dtype="float32"), "dtype='float32': .* Write torch.float32"),
    "dtype of integers": (lambda: newton_schulz(I3, dtype=torch.int8), "dtype=torch.int8: expected a floating point"),
    "negative eps": (lambda: inverse_root(I3, 4.0, eps=-1.0), "eps=-1.0: expected a number of at least 0"),
    "a root of 0": (lambda: inverse_root(I3, 0.0), "p=0.0: expected a number above 0"),
    "no square": (lambda: eigenbasis(torch.ones(2, 3)), "A=Tensor of shape .2, 3.: expected a square matrix"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_an_error_names_the_argument_its_value_and_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("function", [polar_factor, eigenbasis, lambda A: inverse_root(A, 4.0)])
def test_what_is_not_finite_gives_nan(function):
    assert function(torch.full((3, 3), torch.inf)).isnan().all()
