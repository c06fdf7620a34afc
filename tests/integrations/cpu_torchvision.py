"""Let torchvision be imported beside a torch of another build (its wheel of PyPI beside torch for CPUs alone).

Two of its operators are then not there, which its import takes for granted; nnU-Net only needs the import.
"""

from __future__ import annotations

import importlib.util

import torch

if importlib.util.find_spec("torchvision") is not None and not torch.cuda.is_available():
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
