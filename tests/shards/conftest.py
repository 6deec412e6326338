import sys

import pytest
import torch.distributed as dist

from thalweg.testing import ranks


def pytest_collection_modifyitems(config, items):
    """The wide matrix runs where it is asked for: ``make ranks``."""
    if "ranks" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("ranks")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _shared(size):
    if not dist.is_available():
        pytest.skip("torch without torch.distributed")
    if sys.platform == "win32":
        pytest.skip("gloo that meets in a file")
    return ranks.shared(size)


@pytest.fixture
def two():
    """Two processes that all tests of a session share, as long as both live."""
    return _shared(2)


@pytest.fixture
def three():
    """Three of them."""
    return _shared(3)


@pytest.fixture
def four():
    """Four of them."""
    return _shared(4)
