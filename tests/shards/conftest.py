import pytest
import torch.distributed as dist

from tests.shards.ranks import Ranks


def pytest_collection_modifyitems(config, items):
    """The wide matrix runs where it is asked for: ``make ranks``."""
    if "ranks" in config.option.markexpr:
        return
    kept = [item for item in items if not item.get_closest_marker("ranks")]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("ranks")])
        items[:] = kept


def _ranks(size, tmp_path_factory):
    if not dist.is_available():
        pytest.skip("torch without torch.distributed")
    ranks = Ranks(size, tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def two(tmp_path_factory):
    """Two processes that all tests of a session share."""
    yield from _ranks(2, tmp_path_factory)


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    """Three of them."""
    yield from _ranks(3, tmp_path_factory)


@pytest.fixture(scope="session")
def four(tmp_path_factory):
    """Four of them."""
    yield from _ranks(4, tmp_path_factory)
