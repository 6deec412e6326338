"""Collectives among the ranks of a mesh."""

import pytest
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from thalweg.shards.exchange import Exchange


@pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")
def test_a_process_group_that_was_begun_again_is_taken():
    found = []
    for _ in range(2):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            exchange = Exchange(init_device_mesh("cpu", (1,)), (0,))
            found.append(exchange.gather([1.0, 2.0]))
        finally:
            dist.destroy_process_group()
    assert found == [[[1.0, 2.0]]] * 2
