"""SLURM as an executor, through submitit: a job for each run."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.lab.cluster.address import Resources
from thalweg.lab.setting import setting

#: jobs that are handed to SLURM at the same time, which has a queue of its own
SLOTS = 32
#: minutes of a job where the user does not say
MINUTES = "60"
#: how often it is looked whether a job has ended
POLL_SECONDS = 0.5


def options(text: str) -> dict[str, str]:
    """``partition=gpu,time=30`` as names and values, which are those of sbatch.

    Raises:
        ValueError: for anything else.
    """
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.replace("-", "").isalnum() or not value:
            raise bad_argument("--slurm", text, "NAME=VALUE,… with sbatch's names, as in partition=gpu,time=30")
        found[name] = value
    return found


class SlurmCluster:
    """SLURM's jobs, as an executor. A job that is preempted is queued again with the same run.

    Args:
        given: of sbatch, such as ``{"partition": "gpu", "time": "30"}`` (minutes, or H:M:S).
        resources: of each job.
        folder: where jobs and their answers lie, which all nodes and this machine see; only the user may read it.
        how: ``slurm``, or to try it without, processes of this machine (``local``), or this process (``debug``).

    Attributes:
        slots: how many jobs are handed to SLURM at the same time.
        memory: not known; SLURM ends a job that takes more than it asked for.
        notes: what is to be said of it once.

    Raises:
        ThalwegError: if submitit or SLURM's commands are missing.
    """

    def __init__(
        self,
        given: dict[str, str],
        resources: Resources = Resources(),  # noqa: B008  # frozen
        folder: Path = Path("runs/slurm"),
        how: Literal["slurm", "local", "debug"] = "slurm",
    ) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise ThalwegError(
                "--cluster slurm needs submitit of thalweg[slurm], which is not installed: pip install submitit"
            )
        import submitit

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # a job's file holds the store's address
        try:
            self._submitit = submitit.AutoExecutor(folder.resolve(), cluster=how)
        except RuntimeError as error:
            raise ThalwegError(
                "--cluster slurm: this machine has no command srun, so it is no part of a SLURM cluster; start the "
                "race on a login node"
            ) from error
        self._submitit.update_parameters(**_parameters(given, resources))
        self.slots, self.memory, self.notes = SLOTS, math.inf, list[str]()
        self._jobs: dict[Future[Any], Any] = {}
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Queue a job that calls it."""
        future: Future[Any] = Future()
        try:
            job = self._submitit.submit(RequeuedCall(function), *arguments)
        except Exception as error:
            raise ThalwegError(f"--cluster slurm: sbatch refuses the job: {_said(error)}") from error
        future.set_running_or_notify_cancel()
        self._jobs[future] = job
        return future

    def everywhere(self, function: Callable[..., Any], /, *arguments: Any) -> list[Future[Any]]:
        """In one job: which nodes there will be is not known before."""
        return [self.submit(function, *arguments)]

    def on(self, device: str) -> dict[str, str]:
        """Versions and hardware of the node that a first job is given.

        Raises:
            ThalwegError: if it does not come back.
        """
        try:
            found: dict[str, str] = self.submit(setting_of, device).result()
        except ThalwegError:
            raise
        except Exception as error:
            raise ThalwegError(f"--cluster slurm: the first job failed: {_said(error)}") from error
        return found

    def close(self) -> None:
        """Cancel what is queued or runs."""
        self._over.set()
        for job in list(self._jobs.values()):
            with contextlib.suppress(Exception):
                job.cancel(check=False)

    def _watch(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            for future, job in list(self._jobs.items()):
                if job.done():
                    del self._jobs[future]
                    _pass_on(job, future)


class RequeuedCall:
    """A call that SLURM may stop and queue again, with what it began with."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        """The call."""
        return self.function(*arguments)

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit queues in its place."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def setting_of(device: str) -> dict[str, str]:
    """What a node says it is."""
    return setting(device)


def _parameters(given: dict[str, str], resources: Resources) -> dict[str, Any]:
    cpus = max(1, round(resources.cpus))
    if resources.gpus % 1:
        raise bad_argument("--gpus", resources.gpus, "whole devices under SLURM")
    others = {name: value for name, value in given.items() if name not in ("time", "partition")}
    known = {"name": "thalweg", "cpus_per_task": cpus, "slurm_time": given.get("time", MINUTES)}
    if "partition" in given:
        known["slurm_partition"] = given["partition"]
    if resources.gpus:
        known["gpus_per_node"] = int(resources.gpus)
    return {**known, "slurm_additional_parameters": others}


def _pass_on(job: Any, future: Future[Any]) -> None:
    """A job that failed has lost its run; what the run itself raises is part of its answer."""
    try:
        value = job.result()
    except BaseException as error:  # the race asks again
        future.set_exception(error if isinstance(error, Exception) else RuntimeError(str(error)))
    else:
        future.set_result(value)


def _said(error: Exception) -> str:
    """The last line of what a command said."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1]
