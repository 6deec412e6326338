"""Processes with a process group, which do one thing after another: starting them takes longer than most things do."""

from __future__ import annotations

import atexit
import datetime
import faulthandler
import multiprocessing
import os
import signal
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
    """Something failed on a rank; the message has its traceback, or tells how the rank died."""


class Ranks:
    """Processes that share a process group of gloo.

    Args:
        size: how many.
        folder: an empty one, for the file by which they meet.
    """

    def __init__(self, size: int, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.usable = True  #: until a rank dies or does not answer
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
            RankError: if it failed on any rank, or one dies or does not answer; no rank can be used after these.
        """
        try:
            for pipe in self.pipes:
                pipe.send((function, args))
            answers = [self._answer(rank) for rank in range(len(self.pipes))]
        except (OSError, EOFError):
            self.usable = False
            raise RankError(f"{self._deaths()}; what it wrote to stderr tells where it was") from None
        failed = [f"rank {rank}:\n{said}" for rank, (fine, said) in enumerate(answers) if not fine]
        if failed:
            raise RankError("\n".join(failed))
        return [value for _, value in answers]

    def _answer(self, rank: int) -> Any:
        if not self.pipes[rank].poll(PATIENCE):
            self.usable = False
            raise RankError(f"rank {rank} does not answer within {PATIENCE} seconds")
        return self.pipes[rank].recv()

    def _deaths(self) -> str:
        """Which ranks are dead, and what ended them."""
        for process in self.processes:  # one that has closed its pipe may not have ended yet
            process.join(1)
        codes = [(rank, process.exitcode) for rank, process in enumerate(self.processes)]
        dead = [f"rank {rank} died of {_cause(code)}" for rank, code in codes if code is not None]
        return ", ".join(dead) or "a rank closed its pipe"

    def close(self) -> None:
        """End the processes."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            if not self.usable:  # it may wait for the dead
                process.kill()
            process.join(PATIENCE)


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _serve(rank: int, size: int, store: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    faulthandler.enable()
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
    os._exit(0)  # a thread of gloo that frees a tensor of Python while the interpreter ends would abort the process


_living: dict[int, Ranks] = {}


def shared(size: int) -> Ranks:
    """So many processes that everybody in this process shares and that end with it; new ones where one has died."""
    if size in _living and _living[size].usable:
        return _living[size]
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    ranks = _living[size] = Ranks(size, Path(folder.name))

    def end() -> None:
        ranks.close()
        folder.cleanup()

    atexit.register(end)
    return ranks
