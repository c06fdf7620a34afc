"""A scan and a lesion's shape in; the scan's own pixels, made as bright as the lesion is beside its surroundings, out.

No network paints here: a lesion is what multiplies the local background. All intensities count from 0, no signal.
Legend: C channels, `*` spatial axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt

from augengine import masks
from augengine.lesion_scene import Scene, field, smooth

# Standard deviations of Gaussians, in mm: what is large in a lesion, and its soft border.
_LARGE_MM, BORDER_MM = 5.0, 2.3
_KEPT_TEXTURE = 0.8  # of a donor's fine structure
_LOG = 1.6  # the recipient's own structure is cut at this logarithm of its ratio to the background


def donor_texture(log_ratio: np.ndarray, lesion: np.ndarray, gain: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """A donor's log ratio (C, *) in its new place: what is large in it times `gain`, most of its fine structure kept.

    Args:
        lesion: bool (*), where the lesion lies now.
        gain: below 1 makes the lesion fainter, above 1 brings it out.
    """
    inside = lesion.astype(np.float64)
    weight = np.maximum(smooth(inside, _LARGE_MM, spacing_mm), 1e-3)
    large = np.stack([smooth(plane * inside, _LARGE_MM, spacing_mm) / weight for plane in log_ratio])
    return np.asarray(gain * large + _KEPT_TEXTURE * (log_ratio - large))


def drawn_texture(
    rng: np.random.Generator, contrast: np.ndarray, lesion: np.ndarray, dark_core: bool, spacing_mm: Sequence[float]
) -> np.ndarray:
    """A log ratio (C, *) of `contrast` (C, *) with smooth and with fine heterogeneity; one field for all channels.

    Args:
        lesion: bool (*).
        dark_core: the inner half of the lesion, by depth, is a cyst: between a third of its surroundings and as they.
    """
    shape = lesion.shape
    uneven = rng.uniform(0.03, 0.15) * field(rng, shape, 8.0, spacing_mm) + 0.06 * field(rng, shape, 2.0, spacing_mm)
    values = contrast + uneven
    if dark_core and lesion.any():
        depth = distance_transform_edt(lesion, sampling=list(spacing_mm))
        values = np.where(depth > 0.5 * depth.max(), rng.uniform(-1.0, 0.1), values)
    return np.asarray(values)


def laid_into(
    scene: Scene, lesion: np.ndarray, texture: np.ndarray, own: float, border_mm: float = BORDER_MM
) -> np.ndarray:
    """The signal (C, *) with a lesion in it; what lies outside `reach` of it is the scene's own.

    Args:
        lesion: bool (*).
        texture: log ratio (C, *) to the local background.
        own: share of the recipient's own structure, as log ratio, that shines through.
        border_mm: standard deviation of the lesion's soft border.
    """
    made = scene.signal.copy()
    where = reach(lesion, border_mm, scene.spacing_mm)
    alpha = smooth(binary_dilation(lesion).astype(np.float64), border_mm, scene.spacing_mm).clip(0, 1) * where
    for c, channel in enumerate(scene.signal):
        around, known = scene.local_background(c)
        ratio = np.log(np.clip(channel / np.maximum(around, 1e-12), np.exp(-_LOG), np.exp(_LOG)))
        painted = around * np.exp(texture[c] + own * ratio)
        weight = alpha * known
        made[c] = channel * (1 - weight) + painted * weight
    return made


def reach(lesion: np.ndarray, border_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """bool (*): the voxels that a lesion with a soft border may change."""
    return masks.dilate(lesion, 3 * border_mm + max(spacing_mm), spacing_mm)
