"""Processes with a process group, which do one thing after another: starting them takes longer than most things do."""

from __future__ import annotations

import atexit
import datetime
import functools
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

#: seconds that something may take, and after which a rank that waits for another says so
PATIENCE = 300


class RankError(AssertionError):
    """Something failed on a rank; the message has its traceback."""


class Ranks:
    """Processes that share a process group of gloo.

    Args:
        size: how many.
        folder: an empty one, for the file by which they meet.
    """

    def __init__(self, size: int, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, str(folder / "store"), there), daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call a function, of a module that can be imported, on each rank, and give what each returned.

        Raises:
            RankError: if it failed on any rank, or one does not answer.
        """
        for pipe in self.pipes:
            pipe.send((function, args))
        answers = []
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(PATIENCE):
                raise RankError(f"rank {rank} does not answer within {PATIENCE} seconds")
            answers.append(pipe.recv())
        failed = [f"rank {rank}:\n{said}" for rank, (fine, said) in enumerate(answers) if not fine]
        if failed:
            raise RankError("\n".join(failed))
        return [value for _, value in answers]

    def close(self) -> None:
        """End the processes."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(PATIENCE)


def _serve(rank: int, size: int, store: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=PATIENCE)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=patience)
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            break
        try:
            pipe.send((True, function(*args)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()


@functools.cache
def shared(size: int) -> Ranks:
    """So many processes that everybody in this process shares; they end with it."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    ranks = Ranks(size, Path(folder.name))

    def end() -> None:
        ranks.close()
        folder.cleanup()

    atexit.register(end)
    return ranks
