"""An image, its lesion and its foreground in; how bright the lesion is beside its surroundings out.

Faint lesions are what a segmenter misses first, so the ratio tells before any training which patients will be hard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

from augengine.errors import DataError
from augengine.metrics.overlap import check_masks

RING_VOXELS = (2, 6)
"""Where the ring begins and ends, in voxels from the lesion."""


def ring_around(lesion: np.ndarray, foreground: np.ndarray, width: tuple[int, int] = RING_VOXELS) -> np.ndarray:
    """The surroundings of a lesion: farther than `width[0]` and at most `width[1]` voxels away, within the foreground.

    Distance is counted in steps to the next voxel along an axis. The first voxels are left out, since a lesion's border
    is never drawn exactly.

    Args:
        lesion, foreground: bool (H, W) or (H, W, D), of one shape.
        width: where the ring begins and ends.

    Returns:
        bool, as the masks; empty where there is no lesion.

    Raises:
        DataError: masks of other types or of two shapes.
    """
    check_masks(lesion, foreground)
    if not lesion.any():
        return np.zeros_like(lesion)
    near, far = (binary_dilation(lesion, iterations=steps) for steps in width)
    return np.asarray(far & ~near & foreground)


def lesion_to_ring_ratio(
    image: np.ndarray, lesion: np.ndarray, foreground: np.ndarray, width: tuple[int, int] = RING_VOXELS
) -> float:
    """Median intensity inside a lesion over the median in the ring around it: 1 is a lesion that cannot be seen.

    The ratio means something where 0 is no signal, so give intensities as stored and not z-scored ones. A slice of a
    volume may be given alone; the ring then lies in its plane.

    Args:
        image: (H, W) or (H, W, D), one channel, any number type, with 0 as no signal.
        lesion: bool, same shape.
        foreground: bool, same shape: where there is tissue.
        width: where the ring begins and ends, in voxels from the lesion.

    Returns:
        The ratio; NaN where there is no lesion or no ring, or where the ring's median is not above 0.

    Raises:
        DataError: masks that are not bool, or shapes that differ.

    >>> image = np.full((24, 24), 100.0)
    >>> lesion = np.zeros((24, 24), bool)
    >>> lesion[9:15, 9:15] = True
    >>> image[lesion] = 150
    >>> lesion_to_ring_ratio(image, lesion, np.ones((24, 24), bool))
    1.5
    """
    if image.shape != lesion.shape:
        raise DataError(
            "an image and its lesion have one shape",
            found=f"{image.shape} and {lesion.shape}",
            next_step="give one channel, and resample one of the two",
        )
    ring = ring_around(lesion, foreground, width)
    if not ring.any():
        return math.nan
    around = float(np.median(image[ring]))
    return float(np.median(image[lesion])) / around if around > 0 else math.nan


@dataclass(frozen=True)
class Contrast:
    """How bright the lesions of a patient are beside their surroundings, over all rows of the patient.

    The mean over rows of the logarithm of `lesion_to_ring_ratio`, weighed by lesion voxels. Rings lie within a row:
    slices are mostly thicker than wide and may have gaps between them. It adds up over rows read anywhere in any order.

    Attributes:
        log_sums: of each channel, sum over rows of the logarithm times lesion voxels.
        voxels: sum of these, of rows where the lesion has a ring in every channel.
    """

    log_sums: tuple[float, ...]
    voxels: float = 0.0

    @classmethod
    def of(cls, image: np.ndarray, lesion: np.ndarray, foreground: np.ndarray) -> Contrast:
        """Of one row.

        Args:
            image: (C, *) with 0 as no signal.
            lesion, foreground: bool (*).
        """
        ratios = [lesion_to_ring_ratio(channel, lesion, foreground) for channel in image]
        voxels = float(lesion.sum())
        if not voxels or not all(ratio > 0 for ratio in ratios):
            return cls((0.0,) * len(ratios))
        return cls(tuple(math.log(ratio) * voxels for ratio in ratios), voxels)

    def merge(self, other: Contrast) -> Contrast:
        """That of both parts of a patient's rows."""
        sums = (a + b for a, b in zip(self.log_sums, other.log_sums, strict=True))
        return Contrast(tuple(sums), self.voxels + other.voxels)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Of each channel: 1 is a lesion that cannot be seen; NaN where no row has a lesion with a ring."""
        return tuple(math.exp(total / self.voxels) if self.voxels else math.nan for total in self.log_sums)
