"""How much memory a training takes."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def allocated(device: torch.device) -> int:
    """Bytes that are allocated on a GPU, or that the process takes; 0 where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    pages = Path("/proc/self/statm")
    return int(pages.read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0
