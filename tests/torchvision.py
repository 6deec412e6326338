"""Two operators that a torchvision built for another torch lacks, so that it loads: transformers and timm import it.

To be imported where they are, also in processes that tests start.
"""

import contextlib
import importlib.util

import torch

if importlib.util.find_spec("torchvision"):
    LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # it has them
            LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
