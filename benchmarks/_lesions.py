"""What the tables of lesions share: the referee's eye, the row's prompt and seed, and the level of voids."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from _generators import LESION, Row, batches

from augengine.diffusion.checkpoint import Model
from augengine.diffusion.segmentation import probabilities

CLASSES = {
    "csf": ("csf",),
    "grey_matter": ("grey_matter",),
    "white_matter": ("white_matter",),
    "tumour": LESION,
}
TUMOUR = len(CLASSES)


def segmented(referee: Model, images: np.ndarray) -> np.ndarray:
    """Class numbers (B, I, J): 0 background, then `CLASSES`."""
    out = []
    for part in batches(list(images)):
        with torch.no_grad():
            found = probabilities(referee.spec, referee.network(torch.from_numpy(np.stack(part))))
        out.append(torch.cat([1 - found.sum(1, keepdim=True), found], dim=1).argmax(1).numpy())
    return np.concatenate(out)


def seeds(chosen: list[Row]) -> list[int]:
    """One per row, from its name."""
    return [zlib.crc32(r.sample.sample_id.encode()) for r in chosen]


def void_level(healthy: list[Row]) -> float:
    """The intensity that one in a thousand healthy brain pixels stays below in all channels: less is a void."""
    brightest = [r.truth.max(axis=0)[r.brain] for r in healthy if r.truth is not None]
    return float(np.quantile(np.concatenate(brightest), 0.001))


def stack(rows: list[Row], name: str) -> torch.Tensor:
    """One attribute of the rows as a batch."""
    return torch.from_numpy(np.stack([getattr(r, name) for r in rows]))
