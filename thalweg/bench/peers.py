"""The peers: the same optimizer from other installed libraries, and torch's under `torch.compile`."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from thalweg.bench import torchs
from thalweg.bench.entrants import SETTINGS, Entrant
from thalweg.bench.turns import reason
from thalweg.bench.works import Work
from thalweg.ir.fields import is_number
from thalweg.registry import optimizers

#: import name of each library and where its optimizers are
LIBRARIES = {
    "pytorch_optimizer": "pytorch_optimizer",
    "heavyball": "heavyball",
    "timm": "timm.optim",
    "bitsandbytes": "bitsandbytes.optim",
    "torchao": "torchao.optim",
}
COMPILED = "torch.compile"
#: who compiles at the first step: a part of the bench only where it is asked to wait
COMPILING = (COMPILED, "heavyball", "torchao")
#: the most tensors that those are given: their time grows with them, to many minutes at 2,000
COMPILE_AT_MOST = 500

#: what peers call an argument of ours
CALLED = {"precondition_frequency": ("preconditioning_compute_steps",), "max_precond_dim": ("max_precondition_dim",)}

#: what pytorch_optimizer reads in the groups of GaLore and APOLLO, which are AdamW where it is missing
RANKED = ("rank", "update_proj_gap", "scale")


@functools.cache
def installed() -> tuple[dict[str, Any], dict[str, str]]:
    """The libraries that import, as modules, and of those that are there but do not import the reason."""
    modules, broken = {}, {}
    for name, path in LIBRARIES.items():
        if importlib.util.find_spec(name) is None:
            continue
        try:
            modules[name] = importlib.import_module(path)
        except Exception as error:  # a library that does not fit this torch raises anything
            broken[name] = reason(error)
    return modules, broken


def version(name: str) -> str:
    """Of a library that is installed; empty where it does not say."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def optimizer_class(module: Any, name: str) -> Any:
    """The library's own class of that name (case and underscores aside), or None."""
    wanted = name.lower().replace("_", "")
    for key in dir(module):
        if key.lower().replace("_", "") == wanted:
            cls = getattr(module, key)
            if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and torchs.twin(name) is not cls:
                return cls
    return None


def with_settings(name: str, settings: Mapping[str, Any]) -> str:
    """What other libraries call an optimizer of ours with these arguments: ``AdamW8bit``."""
    return f"{name}8bit" if settings.get("state_dtype") == "int8" else name


def peers(name: str, compiled: bool) -> list[str]:
    """Who has an optimizer of that name here; those that compile only with ``compiled``."""
    found = [library for library, module in installed()[0].items() if optimizer_class(module, name) is not None]
    found += [COMPILED] if torchs.twin(name) is not None else []
    return [library for library in found if compiled or library not in COMPILING]


def peer(library: str, name: str, work: Work, dtype: torch.dtype, settings: Mapping[str, Any] | None = None) -> Entrant:
    """The peer's optimizer over a fresh load, warm; ``settings`` are arguments of ours beyond the defaults.

    Raises:
        Exception: whatever the peer raises; ValueError where it would compile for too long.
    """
    if library in COMPILING and len(work.shapes) > COMPILE_AT_MOST:
        raise ValueError(f"not compiled for {len(work.shapes):,} tensors, which takes many minutes")
    if library == COMPILED:
        entrant = _compiled(name, work, dtype)
    else:
        cls = optimizer_class(installed()[0][library], with_settings(name, settings or {}))
        load = work.load(dtype)
        entrant = Entrant(
            load, [cls(load.params, **_settings(name, inspect.signature(cls).parameters, settings or {}))], library
        )
    if library in COMPILING:  # at the first step, and again at the second, which has states
        for _ in range(2):
            entrant.prepare()
            entrant.step()
    entrant.warm()
    return entrant


def _settings(name: str, takes: Mapping[str, inspect.Parameter], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a peer do our work: our numbers where it takes them, no momentum or decay where ours has none."""
    cls: Any = optimizers()[name]
    ours = {h.name: h.default for h in cls.hypers.values() if _is_numbers(h.default)}
    given = {"momentum": 0.0, "weight_decay": 0.0, **ours, "lr": 1e-3, **SETTINGS.get(name, {}), **settings}
    called = {theirs: given[k] for k, names in CALLED.items() if k in given for theirs in names}
    by_name = {
        k: v for k, v in {**called, **given}.items() if k == "lr" or (k in takes and _alike(takes[k].default, v))
    }
    return {**by_name, **{k: given[k] for k in RANKED}, "projection_type": "std"} if "rank" in given else by_name


def _is_numbers(value: Any) -> bool:
    """Whether it is a number, or several."""
    return is_number(value) or (isinstance(value, (tuple, list)) and bool(value) and all(map(is_number, value)))


def _alike(theirs: Any, ours: Any) -> bool:
    """Whether both are a number, or as many numbers."""
    several = isinstance(theirs, (tuple, list)), isinstance(ours, (tuple, list))
    return _is_numbers(theirs) and several[0] == several[1] and (not several[0] or len(theirs) == len(ours))


def _compiled(name: str, work: Work, dtype: torch.dtype) -> Entrant:
    load = work.load(dtype)
    cls = torchs.twin(name)
    optimizers = torchs.build(cls, name, load, torchs.compilable(cls))
    torch._dynamo.reset()  # the last row's kernels do not count against this one's limit

    def step() -> None:
        for optimizer in optimizers:
            optimizer.step()

    return Entrant(load, optimizers, COMPILED, step=torch.compile(step))
