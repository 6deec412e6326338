"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from thalweg._base.version import __version__
from thalweg.bench import peers


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Processor, memory, versions and how busy the machine was at the start; the GPU where the work is there."""
    modules, broken = peers.installed()
    return {
        "processor": _from("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": _memory(),
        "cache_mb": _last_cache(),
        "gpu": _gpu() if device == "cuda" else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "thalweg": __version__,
        "peers": {name: peers.version(name) for name in modules},
        "peers_broken": broken,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def in_words(found: dict[str, Any]) -> str:
    """One line for a reader."""
    parts = [found["gpu"]] if found["gpu"] else []
    parts += [f"{found['processor']} ({found['vector']})", f"{found['threads']} of {found['cores']} cores"]
    if found["cache_mb"]:
        parts.append(f"{found['cache_mb']:g} MB last-level cache")
    if found["memory_gb"]:
        parts.append(f"{found['memory_gb']:g} GB")
    parts.append(f"torch {found['torch']}")
    if found["load"] is not None:
        parts.append(f"load {found['load']:g}")
    return ", ".join(parts)


def _gpu() -> str:
    about = torch.cuda.get_device_properties(0)
    return f"{about.name}, {about.multi_processor_count} multiprocessors, {about.total_memory / 1e9:.0f} GB"


def _from(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def _memory() -> float | None:
    if sys.platform == "win32":
        return None
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    return float(round(size / 1e9, 1))


def _last_cache() -> float | None:
    """Size of the outermost cache of the first core, in MB."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="utf-8").strip()
        sizes.append(int(text[:-1]) * {"K": 1024, "M": 1024**2}.get(text[-1], 1) / 2**20)
    return max(sizes, default=None)
