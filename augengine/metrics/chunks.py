"""A network over many images, a few at a time, such that no row depends on how many there are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

CHUNK = 8


def chunked(run: Callable[[Tensor], Tensor], device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Every chunk of slices has `CHUNK` rows, the last one padded: how many there are then changes no bit of a row."""

    @torch.no_grad()
    def features(images: np.ndarray) -> np.ndarray:
        rows, size = [], CHUNK if images.ndim == 4 else 1
        for start in range(0, len(images), size):
            chunk = images[start : start + size]
            padded = np.concatenate([chunk, np.repeat(chunk[-1:], size - len(chunk), axis=0)])
            found = run(torch.from_numpy(np.ascontiguousarray(padded, np.float32)).to(device))
            rows.append(found[: len(chunk)].float().cpu().numpy())
        return np.concatenate(rows)

    return features
