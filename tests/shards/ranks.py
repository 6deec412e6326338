"""Processes with a process group, which do one thing after another: starting them takes longer than most things do."""

import datetime
import multiprocessing
import traceback
import warnings

import torch
import torch.distributed as dist

#: seconds that something may take, and after which a rank that waits for another says so
PATIENCE = 120


class Ranks:
    """So many processes with gloo; ``run`` calls a function in each and gives what it returned."""

    def __init__(self, size, folder):
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, str(folder / "store"), there), daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def run(self, function, *args):
        """What each rank returned; an error of any is raised here."""
        for pipe in self.pipes:
            pipe.send((function, args))
        answers = []
        for rank, pipe in enumerate(self.pipes):
            assert pipe.poll(PATIENCE), f"rank {rank} does not answer"
            answers.append(pipe.recv())
        failed = [f"rank {rank}:\n{said}" for rank, (fine, said) in enumerate(answers) if not fine]
        assert not failed, "\n".join(failed)
        return [value for _, value in answers]

    def close(self):
        """End the processes."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(PATIENCE)


def _serve(rank, size, store, pipe):
    torch.set_num_threads(1)
    warnings.simplefilter("error", FutureWarning)
    patience = datetime.timedelta(seconds=PATIENCE)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=patience)
    while (asked := pipe.recv()) is not None:
        function, args = asked
        try:
            pipe.send((True, function(*args)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()
