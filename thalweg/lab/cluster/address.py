"""``--cluster``: where a race's runs are made, as the user says it."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from thalweg._base.errors import ThalwegError, bad_argument

#: so long an address may take to answer at all
PATIENCE_SECONDS = 5.0

ALLOWED = "auto, ray://HOST:PORT, HOST:PORT, local:N (N nodes started here), or slurm"


class Cluster(Protocol):
    """Where runs are made, beyond what an executor is.

    Attributes:
        slots: how many runs it makes at the same time.
        memory: bytes for each of them on the node that has least; infinite where it is not known.
        notes: what is to be said of it once.
    """

    slots: int
    memory: float
    notes: list[str]

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """As any executor."""

    def everywhere(self, function: Callable[..., Any], /, *arguments: Any) -> list[Future[Any]]:
        """The same on each node that takes part."""

    def on(self, device: str) -> dict[str, str]:
        """Versions and hardware of its nodes, of one class; see :func:`thalweg.lab.setting.setting`."""

    def close(self) -> None:
        """Let go of it; what was started here is ended."""


@dataclass(frozen=True)
class Resources:
    """What one run is given.

    Attributes:
        cpus: cores, or a share of one.
        gpus: devices, or a share of one.
    """

    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not self.cpus > 0:
            raise bad_argument("--cpus", self.cpus, "cores for each run, above 0")
        if not self.gpus >= 0:
            raise bad_argument("--gpus", self.gpus, "GPUs for each run, 0 or more; 0.25 lets four runs share one")


def nodes_here(address: str) -> int:
    """N of ``local:N``; 0 for any other address.

    Raises:
        ValueError: for what is no address.
    """
    if address in ("auto", "slurm"):
        return 0
    if found := re.fullmatch(r"local:(\d+)", address):
        if int(found[1]) < 1:
            raise bad_argument("--cluster", address, "local:N with at least 1 node")
        return int(found[1])
    if not re.fullmatch(r"(ray://)?(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", address):
        raise bad_argument("--cluster", address, ALLOWED)
    return 0


def reachable(address: str) -> None:
    """Whether anybody listens there, found out in seconds.

    Raises:
        ThalwegError: if not.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ThalwegError(
            f"--cluster {address}: nobody answers there ({reason}). `ray start --head` starts a cluster and says its "
            "address; --cluster local:2 starts two nodes here"
        ) from error
