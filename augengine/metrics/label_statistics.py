"""Synthetic and held-out label maps in; Kolmogorov–Smirnov distances of size, pieces and place, and nesting, out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.stats import ks_2samp

AXES = "ijk"


@dataclass(frozen=True)
class Distance:
    """Two-sample Kolmogorov–Smirnov: the largest gap between two distribution functions, 0…1, and its p-value.

    The p-value holds for independent maps: one per subject on the real side. A small one says that the samples
    differ, a large one only that `maps` maps (synthetic, real) do not show it.
    """

    statistic: float
    p: float
    maps: tuple[int, int]


def label_distances(synthetic: np.ndarray, real: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, Distance]]:
    """Region to quantity (`volume`, `components`, `centre_i` …) to distance.

    Args:
        synthetic: bool (N, R, *spatial).
        real: bool (M, R, *spatial), one map per subject.
        names: of the R regions.
    """
    out = {}
    for r, name in enumerate(names):
        ours, theirs = (_quantities(maps[:, r]) for maps in (synthetic, real))
        out[name] = {what: _distance(ours[what], theirs[what]) for what in theirs}
    return out


def nested_share(maps: np.ndarray) -> float:
    """Share of maps (N, R, *spatial) in which every region lies within the one before it."""
    flat = maps.reshape(*maps.shape[:2], -1)
    inside = [~(flat[:, inner] & ~flat[:, outer]).any(1) for outer, inner in itertools.pairwise(range(flat.shape[1]))]
    return float(np.all(inside, axis=0).mean()) if inside else 1.0


def _quantities(masks: np.ndarray) -> dict[str, np.ndarray]:
    """Values per map; an empty region has volume 0, no pieces and no place (it is left out there)."""
    sides = masks.shape[1:]
    held = [m for m in masks if m.any()]
    centres = np.array([(np.argwhere(m).mean(0) + 0.5) / sides for m in held]).reshape(-1, len(sides))
    connected = np.ones((3,) * len(sides))
    return {
        "volume": masks.reshape(len(masks), -1).mean(1),
        "components": np.array([ndimage.label(m, connected)[1] for m in masks]),
        **{f"centre_{axis}": centres[:, d] for d, axis in zip(range(len(sides)), AXES, strict=False)},
    }


def _distance(a: np.ndarray, b: np.ndarray) -> Distance:
    if not (len(a) and len(b)):
        return Distance(math.nan, math.nan, (len(a), len(b)))
    found = ks_2samp(a, b)
    return Distance(float(found.statistic), float(found.pvalue), (len(a), len(b)))
