"""A scan and its lesions in; signal, tissue and body of the place that a lesion lies in, or is laid into, out.

All intensities count from 0, no signal. Legend: C channels, `*` spatial axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from augengine.body import body_mask
from augengine.geometry import background
from augengine.masks import foreground

# A voxel between these shares of the median of the body's own is tissue: neither fluid or bone, nor fat.
TISSUE = (0.55, 1.5)
_BACKGROUND_MM = 10.0  # standard deviation of the window that a background is the mean of
_LEAST_SHARE = 0.05  # of that window that is tissue


@dataclass(frozen=True, eq=False)
class Scene:
    """What a new lesion is laid into.

    Attributes:
        signal: float64 (C, *), intensities above no signal.
        tissue: bool (C, *), where each channel shows tissue without a lesion.
        body: bool (*).
        spacing_mm: voxel size along each axis.
    """

    signal: np.ndarray
    tissue: np.ndarray
    body: np.ndarray
    spacing_mm: tuple[float, ...]

    @classmethod
    def of(cls, image: np.ndarray, lesions: np.ndarray, spacing_mm: Sequence[float]) -> Scene:
        """The scene of an image (C, *) with the lesions (*) that it shows."""
        air = background(image).reshape(-1, *[1] * (image.ndim - 1))
        signal = (image - air).astype(np.float64)
        body = body_mask(image) & foreground(image)  # the second is exact where air is one value, else everything
        free = body & ~lesions
        planes = []
        for channel in signal:
            middle = float(np.median(channel[free])) if free.any() else 0.0
            low, high = (share * middle for share in TISSUE)
            planes.append(free & (channel > low) & (channel < high) if middle > 0 else np.zeros_like(free))
        return cls(signal, np.stack(planes), body, tuple(spacing_mm))

    @property
    def common_tissue(self) -> np.ndarray:
        """bool (*): what half of the channels at least show as tissue."""
        return np.asarray(self.tissue.mean(axis=0) >= 0.5)

    @property
    def body_size(self) -> float:
        """Of the body, mm² in a slice and mm³ in a volume."""
        return float(self.body.sum() * np.prod(self.spacing_mm))

    @property
    def roughness(self) -> float:
        """How unlike the body's voxels are: median absolute deviation over median, mean of the channels.

        A slice through the brain is smoother than one through the face or the skull's base.
        """
        found = []
        for channel in self.signal:
            values = channel[self.body]
            middle = float(np.median(values)) if values.size else 0.0
            found.append(float(np.median(np.abs(values - middle))) / middle if middle > 0 else np.inf)
        return float(np.mean(found))

    def brightness(self, intensity_range: Sequence[tuple[float, float]]) -> float:
        """Median of the body over the volume's upper end, mean of the channels; a slice of noise has next to none."""
        found = [
            float(np.median(channel[self.body])) / high if self.body.any() and high > 0 else 0.0
            for channel, (_, high) in zip(self.signal, intensity_range, strict=True)
        ]
        return float(np.mean(found))

    def local_background(self, channel: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean of nearby tissue (*), and bool (*) where there is enough of it."""
        share = self._smooth(self.tissue[channel].astype(np.float64), _BACKGROUND_MM)
        mean = self._smooth(self.signal[channel] * self.tissue[channel], _BACKGROUND_MM) / np.maximum(share, 1e-3)
        return mean, share > _LEAST_SHARE

    def _smooth(self, plane: np.ndarray, sigma_mm: float) -> np.ndarray:
        return smooth(plane, sigma_mm, self.spacing_mm)


def smooth(plane: np.ndarray, sigma_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """A Gaussian of `sigma_mm` over `plane` (*)."""
    return np.asarray(gaussian_filter(plane, [sigma_mm / s for s in spacing_mm], mode="nearest"))


def field(rng: np.random.Generator, shape: Sequence[int], sigma_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """A smooth random field (*) with mean 0 and standard deviation 1."""
    noise = smooth(rng.standard_normal(tuple(shape)), sigma_mm, spacing_mm)
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9))
