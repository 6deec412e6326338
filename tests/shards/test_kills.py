"""A rank that dies: every other ends with an error within the timeout, and the checkpoint before resumes."""

import datetime
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from tests.shards.models import fsdp, net, optimizer_of
from tests.shards.test_checkpoints import steps

#: seconds
TIMEOUT = 20
RANKS = 3
#: how often some rank dies; THALWEG_KILLS asks for more
KILLS = int(os.environ.get("THALWEG_KILLS", "2"))


def _live(rank, folder, kills, queue):
    """Make steps; this one dies before a step, or within one, between two collectives."""
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=TIMEOUT)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS, timeout=patience)
    model = fsdp(net())
    optimizer = optimizer_of("Muon", model, {"lr": 0.02})
    steps(model, optimizer, [1])
    weights, states = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": states}, checkpoint_id=f"{folder}/checkpoint")
    Path(folder, f"saved {rank}").touch()
    who, within = kills
    if rank == who:
        while not all(Path(folder, f"saved {other}").exists() for other in range(RANKS)):
            time.sleep(0.01)  # who ends earlier can end the others' save, which is not what is asked here
        if not within:
            os._exit(1)
        swap = dist.all_to_all_single
        left = [within]

        def dying(*args, **more):
            left[0] -= 1
            if not left[0]:
                os._exit(1)
            return swap(*args, **more)

        dist.all_to_all_single = dying
    params = list(model.parameters())
    for p in params:
        p.grad = torch.ones_like(p.detach())
    start = time.monotonic()
    try:
        optimizer.step()
        queue.put((rank, "no error", 0.0))
    except Exception as error:
        queue.put((rank, f"{type(error).__name__}: {error}", time.monotonic() - start))
    queue.close()
    queue.join_thread()
    os._exit(0)


def resume(folder):
    model = net(1)
    optimizer = optimizer_of("Muon", model, {"lr": 0.02})
    weights, states = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": states}, checkpoint_id=f"{folder}/checkpoint", no_dist=True)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=states)
    return steps(model, optimizer, [2])


@pytest.mark.ranks
@pytest.mark.parametrize("kill", range(KILLS))
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_the_others_are_told(tmp_path, kill):
    draws = random.Random(kill)
    who, within = draws.randrange(RANKS), (0, 2, 1)[kill % 3]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    given = str(tmp_path), (who, within), queue
    processes = [context.Process(target=_live, args=(rank, *given), daemon=True) for rank in range(RANKS)]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=100) for _ in range(RANKS - 1)]
    for process in processes:
        process.join(30)
    assert {rank for rank, *_ in answers} == set(range(RANKS)) - {who}
    for _, said, seconds in answers:
        assert said.startswith("ExchangeError: step(): rank"), said
        assert "Another process has ended" in said
        assert seconds < TIMEOUT + 10
    alone = net()
    optimizer = optimizer_of("Muon", alone, {"lr": 0.02})
    expected = steps(alone, optimizer, [1, 2])
    assert all(map(torch.equal, expected, resume(str(tmp_path))))
