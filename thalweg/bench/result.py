"""What a benchmark hands out: plain data, ready for JSON."""

from __future__ import annotations

from typing import Any, TypedDict


class BenchRow(TypedDict):
    """One optimizer on one backend and one work. Times are medians of interleaved steps; None: `note` says why."""

    optimizer: str
    #: what ran most of the elements, " + torch" where torch runs whole tensors in between; None where nothing ran
    backend: str | None
    work: str
    dtype: str
    #: of the largest state tensor
    state_dtype: str
    #: arguments that are not the defaults, as they are written in the constructor
    setting: str
    #: milliseconds of a step, the interquartile range, and of how many steps
    ms: float | None
    spread: float | None
    samples: int
    #: on a GPU: of `ms`, until `step()` returned; and what the GPU takes for a step that it is told in good time
    host_ms: float | None
    device_ms: float | None
    #: milliseconds that the same reads and writes take, and that over `ms` (on a GPU over `device_ms`)
    ceiling_ms: float | None
    ceiling_fraction: float | None
    #: bytes that a step reads and writes for each parameter, by the optimizer's plan
    bytes_per_param: float | None
    #: torch's time over ours, above 1 where ours is faster; torch's time, and in which form it is fastest
    vs_torch: float | None
    torch_ms: float | None
    torch_host_ms: float | None
    torch_device_ms: float | None
    torch_kind: str | None
    #: the same against each peer that ran
    vs_peers: dict[str, float]
    #: seconds from constructor to the end of the first step in a fresh process: empty cache of kernels, filled cache
    first_step_cold: float | None
    first_step_warm: float | None
    #: of these, with the filled cache, in the constructor; and megabytes by which the process grew
    constructor: float | None
    first_step_megabytes: float | None
    #: the same of torch's
    torch_first_step: float | None
    torch_constructor: float | None
    torch_first_step_megabytes: float | None
    state_bytes_per_param: float | None
    note: str


class WholeStep(TypedDict):
    """Forward, backward, step and zero_grad of a small GPT, with ours and with torch's optimizer in turn."""

    optimizer: str
    backend: str | None
    torch_kind: str | None
    parameters: int
    tokens: int
    ms: float | None
    spread: float | None
    torch_ms: float | None
    torch_spread: float | None
    vs_torch: float | None
    note: str


class ChangingStep(TypedDict):
    """A step before which something has changed, with ours and with torch's optimizer in turn."""

    optimizer: str
    #: of :data:`thalweg.bench.changing.SITUATIONS`
    situation: str
    backend: str | None
    torch_kind: str | None
    #: milliseconds of a step, and the interquartile range; where not all steps are alike, of the mean of a period
    ms: float | None
    spread: float | None
    #: the longest step of a period over its median, where not all are alike
    longest: float | None
    torch_ms: float | None
    torch_spread: float | None
    torch_longest: float | None
    #: torch's time over ours, above 1 where ours is faster; and that of torch's under `torch.compile`, where asked for
    vs_torch: float | None
    vs_compiled: float | None
    note: str


class BenchResult(TypedDict):
    """All of it."""

    command: str
    machine: dict[str, Any]
    #: False where Ctrl-C ended it
    complete: bool
    rows: list[BenchRow]
    whole_step: list[WholeStep]
    changing: list[ChangingStep]
