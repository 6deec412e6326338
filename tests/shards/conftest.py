import pytest
import torch.distributed as dist

from tests.shards.ranks import Ranks


@pytest.fixture(scope="session")
def two(tmp_path_factory):
    """Two processes that all tests of a session share."""
    if not dist.is_available():
        pytest.skip("torch without torch.distributed")
    ranks = Ranks(2, tmp_path_factory.mktemp("two"))
    yield ranks
    ranks.close()
