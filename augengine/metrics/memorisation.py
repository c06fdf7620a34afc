"""Synthetic and training label maps in, each synthetic map's nearest training neighbour by Dice out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from augengine.errors import DataError

MEMORISED_ABOVE = 0.98


@dataclass(frozen=True)
class MemorisedShare:
    """How many of the synthetic maps repeat a training map.

    Attributes:
        share: memorised ÷ maps; NaN where there are none.
        memorised: maps whose nearest training map is closer than the threshold.
        maps: synthetic maps that hold anything.
        empty: synthetic maps that hold nothing; they say nothing about memory.
        threshold: Dice above which a map counts as memorised.
    """

    share: float
    memorised: int
    maps: int
    empty: int
    threshold: float


def nearest_training_dice(
    synthetic: np.ndarray, training: np.ndarray, chunk: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar training map of every synthetic map, by mean Dice over the regions that either map holds.

    Args:
        synthetic: bool (N, R, *spatial).
        training: bool (M, R, *spatial).
        chunk: maps per matrix product; memory is 2 · chunk · voxels of float32, whatever N and M.

    Returns:
        Dice (N,) float64 and index into `training` (N,) int64; NaN and −1 for an empty synthetic map.

    Raises:
        DataError: no training map, or regions or voxels that differ.
    """
    if not len(training) or synthetic.shape[1:] != training.shape[1:]:
        raise DataError(
            "training maps have the synthetic ones' regions and grid",
            found=f"{training.shape} beside {synthetic.shape}",
            next_step="prepare both alike",
        )
    best, nearest = np.full(len(synthetic), -1.0), np.full(len(synthetic), -1)
    for start in range(0, len(synthetic), chunk):
        mine = slice(start, start + chunk)
        for other in range(0, len(training), chunk):
            scores = _mean_dice(synthetic[mine], training[other : other + chunk])
            columns = scores.argmax(axis=1)
            highest = np.take_along_axis(scores, columns[:, None], axis=1)[:, 0]
            closer = highest > best[mine]
            best[mine] = np.where(closer, highest, best[mine])
            nearest[mine] = np.where(closer, columns + other, nearest[mine])
    empty = ~synthetic.reshape(len(synthetic), -1).any(axis=1)
    return np.where(empty, np.nan, best), np.where(empty, -1, nearest)


def memorised_share(values: np.ndarray, threshold: float = MEMORISED_ABOVE) -> MemorisedShare:
    """Count the maps whose nearest training Dice (N,) exceeds the threshold; NaN marks an empty map."""
    found = values[~np.isnan(values)]
    memorised = int((found > threshold).sum())
    share = memorised / found.size if found.size else float("nan")
    return MemorisedShare(share, memorised, int(found.size), int(values.size - found.size), threshold)


def _mean_dice(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) from bool (n, R, *spatial) and (m, R, *spatial); 0 where both maps are empty."""
    total, regions = np.zeros((len(a), len(b))), np.zeros((len(a), len(b)))
    for r in range(a.shape[1]):
        # Counts up to 2^24 voxels are exact in float32, and its matrix product is the fast one.
        x, y = (m[:, r].reshape(len(m), -1).astype(np.float32) for m in (a, b))
        sizes = x.sum(axis=1)[:, None] + y.sum(axis=1)
        total += 2 * (x @ y.T) / np.maximum(sizes, 1)
        regions += sizes > 0
    return np.asarray(total / np.maximum(regions, 1))
