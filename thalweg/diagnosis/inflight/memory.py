"""How much memory a training takes."""

from __future__ import annotations

import os
import sys

import torch


def allocated(device: torch.device) -> int:
    """Bytes that are allocated on a GPU, or that the process takes; 0 where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    if sys.platform == "win32":
        return 0
    try:
        with open("/proc/self/statm", "rb") as pages:
            return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
