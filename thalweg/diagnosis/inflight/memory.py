"""How much memory a training takes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch


def allocated(device: torch.device) -> int:
    """Bytes that are allocated on a GPU, or that the process takes; 0 where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    pages = Path("/proc/self/statm")
    if sys.platform == "win32" or not pages.exists():
        return 0
    return int(pages.read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
