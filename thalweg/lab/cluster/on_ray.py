"""Ray as an executor: with resources for each run, on the nodes of one class."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import torch

from thalweg._base.errors import ThalwegError
from thalweg.lab.cluster import address as addresses
from thalweg.lab.cluster.address import Resources
from thalweg.lab.pool import default_jobs
from thalweg.lab.setting import setting

#: so long a node may take to say what it is: its first worker imports torch
ANSWER_SECONDS = 300.0
#: how often a node is asked what it is, if its worker is lost
ASKED = 4
#: how often nodes are started here: Ray waits half a minute for each, which a busy machine may exceed
START_ATTEMPTS = 3
#: of a node that is started here; runs leave next to nothing in it
OBJECT_STORE_BYTES = 80 * 2**20
#: before Ray is imported: nothing is sent to anybody, the environment of a run without a GPU stays as it is, and a busy
#: machine has a minute to start a node
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "60",
}


class RayCluster:
    """Ray's nodes, as an executor.

    Args:
        address: ``auto``, ``ray://HOST:PORT``, ``HOST:PORT``, or ``local:N``, which starts N nodes here.
        resources: of each run.

    Attributes:
        slots: how many runs fit at the same time.
        memory: bytes for each of them on the machine that has least.
        notes: what is to be said of it once.

    Raises:
        ThalwegError: if Ray is missing, nobody answers, or no node has the resources.
    """

    def __init__(self, address: str, resources: Resources = Resources()) -> None:  # noqa: B008  # frozen
        count = addresses.nodes_here(address)
        _require_ray()
        self._here: Any = None
        self.slots, self.memory, self.notes = 0, math.inf, list[str]()
        self._left_out: list[str] = []
        self._resources = resources
        try:
            self._connect(address, count)
            self._slots_of = {node: slots for node, slots in self._nodes().items() if slots}
            self.memory = self._memory_of_a_run()
            if not self._slots_of:
                raise ThalwegError(self._too_small(address))
            self.slots = sum(self._slots_of.values())
        except BaseException:
            self.close()
            raise

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Call it on a node that has room."""
        options: dict[str, Any] = {"num_cpus": self._resources.cpus, "num_gpus": self._resources.gpus}
        if self._left_out:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self._left_out)})"}
        return self._call(function, arguments, options)

    def everywhere(self, function: Callable[..., Any], /, *arguments: Any) -> list[Future[Any]]:
        """Call it on each node that takes part."""
        return [self._on(node, function, *arguments) for node in self._slots_of if node not in self._left_out]

    def on(self, device: str) -> dict[str, str]:
        """Versions and hardware of its nodes; those of another class than most are left out, which is noted.

        Raises:
            ThalwegError: if a node does not answer, or all have gone away.
        """
        asked = {node: self._on(node, setting_of, device) for node in self._slots_of}
        answers = {node: self._answer(node, future) for node, future in asked.items()}
        found = {node: answer for node, answer in answers.items() if answer}
        gone = [node for node in asked if node not in found]
        if not found:
            raise ThalwegError(f"all {len(gone)} nodes of the cluster went away when they were asked; start it again")
        mine = setting(device)
        by_class = Counter[tuple[tuple[str, str], ...]]()
        for node, theirs in found.items():
            by_class[tuple(sorted(theirs.items()))] += self._slots_of[node]
        chosen = mine if mine in found.values() else dict(by_class.most_common(1)[0][0])
        other = [node for node, theirs in found.items() if theirs != chosen]
        self._left_out = [*other, *gone]
        self.slots = sum(slots for node, slots in self._slots_of.items() if node not in self._left_out)
        if other:
            self.notes.append(f"{len(other)} of {len(found)} nodes take no part: {_unlike(chosen, found[other[0]])}")
        if gone:
            self.notes.append(f"{len(gone)} of {len(asked)} nodes have gone away, and take no part")
        return chosen

    def close(self) -> None:
        """Let go of it; the nodes that were started here are ended."""
        import ray

        with contextlib.suppress(Exception):
            ray.shutdown()
        if self._here is not None:
            self._here.shutdown()
            self._here = None

    def _connect(self, address: str, count: int) -> None:
        import ray

        if not count and address != "auto":
            addresses.reachable(address)
        with _signals_kept():
            try:
                if count:
                    self._here = _started(count)
                    address = self._here.address
                ray.init(address=address, logging_level="ERROR", log_to_driver=False)
            except Exception as error:  # Ray raises plain ones too
                if not isinstance(error, ConnectionError | RuntimeError | ImportError | TimeoutError) and not count:
                    raise
                raise ThalwegError(_not_there(address, count, error)) from error

    def _nodes(self) -> dict[str, int]:
        """How many runs each living node has room for."""
        import ray

        return {node["NodeID"]: self._room(node["Resources"]) for node in ray.nodes() if node["Alive"]}

    def _memory_of_a_run(self) -> float:
        """The least of any machine; nodes that were started on one machine share its memory."""
        import ray

        slots, memory = Counter[str](), dict[str, float]()
        for node in ray.nodes():
            if count := self._slots_of.get(node["NodeID"], 0):
                machine = node["NodeManagerHostname"]
                slots[machine] += count
                memory[machine] = max(memory.get(machine, 0.0), node["Resources"].get("memory", math.inf))
        return min((memory[machine] / count for machine, count in slots.items()), default=math.inf)

    def _room(self, there: Mapping[str, float]) -> int:
        room = [there.get("CPU", 0.0) / self._resources.cpus]
        if self._resources.gpus:
            gpus = there.get("GPU", 0.0)
            share = self._resources.gpus
            room.append(gpus * math.floor(1 / share) if share < 1 else gpus / share)
        return math.floor(min(room) + 1e-9)

    def _too_small(self, address: str) -> str:
        wanted = f"{self._resources.cpus:g} cores" + (
            f" and {self._resources.gpus:g} GPUs" * bool(self._resources.gpus)
        )
        import ray

        largest = [
            f"{max((node['Resources'].get(kind, 0.0) for node in ray.nodes() if node['Alive']), default=0.0):g} {name}"
            for kind, name in (("CPU", "cores"), ("GPU", "GPUs"))
        ]
        return (
            f"--cluster {address}: no node has the {wanted} that a run asks for; a node has at most "
            f"{' and '.join(largest)}. Lower --cpus or --gpus"
        )

    def _on(self, node: str, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        return self._call(function, arguments, {"num_cpus": 0, "scheduling_strategy": there, "max_retries": ASKED - 1})

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Future[Any]:
        """Runs go without Ray's own retries: the race counts what was lost, and asks again."""
        import ray

        future: Future[Any] = ray.remote(**{"max_retries": 0, **options})(function).remote(*arguments).future()
        return future

    def _answer(self, node: str, future: Future[Any]) -> dict[str, str] | None:
        """What a node says; None if it is gone, which Ray itself may not know yet."""
        from ray.exceptions import NodeDiedError, TaskUnschedulableError, WorkerCrashedError

        try:
            found: dict[str, str] = future.result(ANSWER_SECONDS)
        except TimeoutError:
            raise ThalwegError(f"the node {node[:8]} did not answer within {ANSWER_SECONDS:g} s") from None
        except ModuleNotFoundError as error:
            raise ThalwegError(
                f"the node {node[:8]} has no package {error.name!r}: install thalweg[lab,ray] there"
            ) from error
        except (NodeDiedError, TaskUnschedulableError, WorkerCrashedError):
            return None
        return found


def setting_of(device: str) -> dict[str, str]:
    """What a node says it is."""
    return setting(device)


def _unlike(chosen: Mapping[str, str], other: Mapping[str, str]) -> str:
    names = [name for name in sorted(chosen.keys() | other.keys()) if chosen.get(name) != other.get(name)]
    return ", ".join(f"{name} is {other.get(name)}, not {chosen.get(name)}" for name in names)


def _not_there(address: str, count: int, error: Exception) -> str:
    why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    if count:
        return f"--cluster local:{count}: the nodes did not start ({why}). Try fewer, or when this machine does less"
    return (
        f"--cluster {address}: Ray does not connect ({why}). `ray start --head` starts a cluster and says its address; "
        "--cluster local:2 starts two nodes here"
    )


def _require_ray() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if importlib.util.find_spec("ray") is None:
        raise ThalwegError("--cluster needs Ray of thalweg[ray], which is not installed: pip install 'ray[client]'")


def _started(count: int) -> Any:
    """Nodes on this machine, which share its cores; again where one took longer than Ray waits."""
    from ray.cluster_utils import Cluster

    for attempt in range(1, START_ATTEMPTS + 1):
        cluster = Cluster(shutdown_at_exit=True)
        try:
            for number in range(count):
                cluster.add_node(**_node(number, count))
        except Exception:
            cluster.shutdown()
            if attempt == START_ATTEMPTS:
                raise
        else:
            break
    return cluster


def _node(number: int, count: int) -> dict[str, Any]:
    return {
        "num_cpus": max(1, default_jobs() // count),
        "num_gpus": 0 if number else torch.cuda.device_count(),
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM, by which a race is stopped cleanly."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # in another thread nothing was taken
            signal.signal(signal.SIGTERM, before)
