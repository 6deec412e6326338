"""One optimizer on one work: everyone who takes part is built, takes turns, and becomes rows."""

from __future__ import annotations

import dataclasses
import gc
from typing import Any

import torch

from thalweg.bench import entrants, peers, torchs
from thalweg.bench.ceiling import Ceiling
from thalweg.bench.entrants import Entrant
from thalweg.bench.passes import passes_of
from thalweg.bench.result import BenchRow
from thalweg.bench.turns import Times, TurnTaker, ratio, reason, take_turns
from thalweg.bench.works import Shape, Work

CEILING, TORCH = "ceiling", "torch"

#: seconds of a rival's first step beyond which there is no other
PATIENCE = 5.0


@dataclasses.dataclass(frozen=True)
class BenchCase:
    """What is measured side by side.

    Attributes:
        optimizer: its name.
        work: the tensors.
        backends: what ``backend=`` is, in turn; one that ``"auto"`` has chosen already is not run again.
        dtype: of the parameters, as torch names it.
        settings: arguments other than the defaults.
        twin: whether torch's of the same name takes part.
        peers: the libraries that take part.
        seconds, least, most: how long each steps, as :func:`thalweg.bench.turns.take_turns` takes them.
        threads: of the ceiling; torch's number is set already.
    """

    optimizer: str
    work: Work
    backends: tuple[str, ...]
    dtype: str = "float32"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    twin: bool = True
    peers: tuple[str, ...] = ()
    seconds: float = 0.5
    least: int = 3
    most: int = 50
    threads: int = 1

    @property
    def setting(self) -> str:
        """The arguments as they are written."""
        return ", ".join(f"{k}={v!r}" for k, v in self.settings.items())


def measure(case: BenchCase) -> list[BenchRow]:
    """The rows of a case, one for each backend; what fails is a row or a note, never an exception."""
    dtype = getattr(torch, case.dtype)
    mine, failed = _ours(case, dtype)
    steppers: dict[str, TurnTaker] = {**mine}
    notes: list[str] = []
    if mine:
        steppers = {**_ceiling(case, mine, notes), **steppers, **_others(case, dtype, notes)}
    rivals = {name: s for name, s in steppers.items() if isinstance(s, Entrant) and name not in mine}
    once = {name: s.first for name, s in rivals.items() if s.first > PATIENCE}
    turns = {name: s for name, s in steppers.items() if name not in once}
    gc.collect()
    gc.disable()  # while the clock runs
    try:
        times = take_turns(turns, case.seconds, case.least, case.most, device=case.work.device)
    finally:
        gc.enable()
    times.update({name: Times([seconds]) for name, seconds in once.items()})
    notes += [f"{name}: its first step alone, of {seconds:.0f} s" for name, seconds in once.items()]
    notes += [f"{name}: {t.error}" for name, t in times.items() if t.error and name not in mine]
    return [_row(case, backend, entrant, steppers, times, notes) for backend, entrant in mine.items()] + failed


def nothing(case: BenchCase, note: str) -> BenchRow:
    """The row of what did not run, and why."""
    return {
        "optimizer": case.optimizer, "backend": None, "work": case.work.name, "dtype": case.dtype,
        "state_dtype": str(case.settings.get("state_dtype") or case.dtype).removeprefix("torch."),
        "setting": case.setting, "ms": None, "spread": None, "samples": 0, "host_ms": None, "device_ms": None,
        "ceiling_ms": None, "ceiling_fraction": None, "bytes_per_param": None,
        "vs_torch": None, "torch_ms": None, "torch_host_ms": None, "torch_device_ms": None,
        "torch_kind": None, "vs_peers": {},
        "first_step_cold": None, "first_step_warm": None, "constructor": None, "first_step_megabytes": None,
        "torch_first_step": None, "torch_constructor": None, "torch_first_step_megabytes": None,
        "state_bytes_per_param": None, "note": note,
    }  # fmt: skip


def _ours(case: BenchCase, dtype: torch.dtype) -> tuple[dict[str, Entrant], list[BenchRow]]:
    """The optimizer on each backend, warm, by the backend that runs; and the rows of those that failed."""
    ready: dict[str, Entrant] = {}
    failed = []
    for backend in case.backends:
        if backend in ready:
            continue
        try:
            entrant = entrants.ours(case.optimizer, case.work.load(dtype), backend, case.settings)
            entrant.warm()
            ready.setdefault(entrants.backend_of(entrant.optimizers[0]), entrant)
        except Exception as error:  # a row of its own, and the next one gets its turn
            failed.append(nothing(case, f"backend={backend!r}: {reason(error)}"))
    return ready, failed


def _ceiling(case: BenchCase, mine: dict[str, Entrant], notes: list[str]) -> dict[str, TurnTaker]:
    """The kernel with the reads and writes of the plan: the compiled backend's where it runs."""
    try:
        entrant = next((mine[name] for name in entrants.COMPILED if name in mine), None) or next(iter(mine.values()))
        parts: list[tuple[Any, Any]] = []
        for optimizer in entrant.optimizers:
            parts += [(passes_of(part), part_shapes(part, optimizer)) for part in optimizer.plan().parts]
        ceiling = Ceiling(parts, case.threads, case.work.device)
        if not ceiling.bytes:
            notes.append("no ceiling: the plan moves no bytes")
            return {}
        ceiling.step()
        return {CEILING: ceiling}
    except Exception as error:
        notes.append(f"no ceiling: {reason(error)}")
        return {}


def part_shapes(part: Any, optimizer: Any) -> list[Shape]:
    """The shapes that a part of the plan walks: its group's; where the group has several parts, tensors of one size."""
    shapes = [tuple(p.shape) for p in optimizer.param_groups[part.group]["params"]]
    if (len(shapes), sum(torch.Size(s).numel() for s in shapes)) == (part.tensors, part.elements):
        return shapes
    return [(part.elements // max(1, part.tensors),)] * part.tensors


def _others(case: BenchCase, dtype: torch.dtype, notes: list[str]) -> dict[str, TurnTaker]:
    """Torch's twin and the peers."""
    found: dict[str, TurnTaker] = {}
    try:
        clip = "clip_global_norm" in case.settings
        entrant = torchs.torchs(case.optimizer, case.work, dtype, clip) if case.twin else None
        if entrant is not None:
            found[TORCH] = entrant
    except Exception as error:
        notes.append(f"torch: {reason(error)}")
    for library in case.peers:
        try:
            found[library] = peers.peer(library, case.optimizer, case.work, dtype, case.settings)
        except Exception as error:
            notes.append(f"{library}: {reason(error)}")
    return found


def _row(
    case: BenchCase,
    backend: str,
    entrant: Entrant,
    steppers: dict[str, TurnTaker],
    times: dict[str, Times],
    notes: list[str],
) -> BenchRow:
    mine, none = times[backend], Times()
    ceiling, twin, torch_s = times.get(CEILING, none), times.get(TORCH, none), steppers.get(TORCH)
    against = {name: ratio(times[name], mine) for name in case.peers if name in times}
    kernel = steppers.get(CEILING)
    row: BenchRow = {
        **nothing(case, "; ".join(([mine.error] if mine.error else []) + notes)),
        "backend": backend,
        "ms": mine.ms,
        "spread": mine.spread,
        "samples": len(mine.seconds),
        "host_ms": mine.host_ms,
        "device_ms": mine.device_ms,
        "ceiling_ms": ceiling.device_ms or ceiling.ms,
        "ceiling_fraction": ratio(ceiling, mine, on_device=True),
        "bytes_per_param": kernel.bytes / case.work.numel if isinstance(kernel, Ceiling) else None,
        "vs_torch": ratio(twin, mine),
        "torch_ms": twin.ms,
        "torch_host_ms": twin.host_ms,
        "torch_device_ms": twin.device_ms,
        "torch_kind": torch_s.kind if isinstance(torch_s, Entrant) else None,
        "vs_peers": {name: value for name, value in against.items() if value},
        "state_bytes_per_param": entrants.state_bytes(entrant),
    }
    if "state_dtype" not in case.settings:
        row["state_dtype"] = entrants.state_dtype(entrant) or row["state_dtype"]
    return row
