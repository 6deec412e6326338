"""Batches of matrices of one shape: each is computed once, in its place, and none alone where there are several."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.linalg.batching import by_shape


@given(st.lists(st.integers(1, 3), max_size=20), st.integers(0, 30))
def test_batches_are_even_and_none_is_of_one(widths, limit):
    matrices = [torch.full((2, width), float(i)) for i, width in enumerate(widths)]
    sizes = {}

    def function(X):
        sizes.setdefault(X.shape[-1], []).append(1 if X.ndim == 2 else len(X))
        return X + 1

    found = by_shape(function, matrices, limit)
    assert all(torch.equal(y, x + 1) for x, y in zip(matrices, found, strict=True))
    for width, given_ in sizes.items():
        assert sum(given_) == widths.count(width)
        if limit >= 4 * width and sum(given_) > 1:
            assert min(given_) >= 2
            assert max(given_) - min(given_) <= 1
