"""An image in, the mask of the body out: what stands off from the air's noise, and all that lies behind the skin."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import (
    binary_closing,
    binary_erosion,
    binary_fill_holes,
    gaussian_filter1d,
    generate_binary_structure,
    label,
    uniform_filter,
)

# Widths of the means that are compared with the air, in voxels, and how much of the border the wider one smears.
WINDOWS = {3: 0, 5: 2}
BINS, AIR_BELOW, VALLEY = 256, 0.35, 0.15
ROUNDING = 1e-9
# Skin that noise breaks up is closed over gaps of so many voxels on either side; smaller pieces than this are ghosts.
CLOSED, LEAST_PIECE = 2, 0.05


def body_mask(image: np.ndarray) -> np.ndarray:
    """Bool mask (*) of what is not air in (C, *), in each plane of the first two axes with its holes filled.

    Air is 0, or the one value that a channel has all along its rim, as z-scored images have. Where it holds noise, the
    body is what lies above the foot of the noise's peak in the histogram (a weak tissue, such as saturated fat, can be
    as dark as single voxels of noise: means over 5 voxels tell them apart); else, what lies above 5 % of the robust
    maximum. Cavities that the body encloses belong to it.
    """
    rim = np.concatenate([image[:, [0, -1]].reshape(len(image), -1), image[:, :, [0, -1]].reshape(len(image), -1)], 1)
    air = np.where(np.ptp(rim, axis=1) == 0, rim[:, 0], 0).reshape(-1, *[1] * (image.ndim - 1))
    signal = np.abs(image - air).max(axis=0).astype(np.float64)
    found = np.zeros(signal.shape, bool)
    for width, smeared in WINDOWS.items():
        smooth = uniform_filter(signal, width)
        above = smooth > _air_below(smooth, signal)
        found |= binary_erosion(above, iterations=smeared) if smeared else above
    planes = found.reshape(*found.shape[:2], -1)
    return np.stack([_behind_skin(planes[..., k]) for k in range(planes.shape[2])], axis=-1).reshape(found.shape)


def _air_below(smooth: np.ndarray, signal: np.ndarray) -> float:
    """The value that tells air from body in local means of a signal, both (*)."""
    top = float(np.percentile(smooth, 99.5))
    rounding = ROUNDING * float(signal.max())
    if top <= rounding:  # an almost empty image, whose local means are the rounding of running sums
        return rounding
    bins = (smooth[smooth > 0] * (BINS / top)).astype(np.int64)
    counts = gaussian_filter1d(np.bincount(bins[bins < BINS], minlength=BINS).astype(float), 2)
    peak = int(counts[: int(AIR_BELOW * BINS)].argmax())
    feet = np.flatnonzero(counts[peak:] <= VALLEY * counts[peak])
    foot = (peak + int(feet[0])) * top / BINS if len(feet) else 0.0
    dark = signal[(smooth > 0) & (smooth < foot)]
    # Magnitudes of noise spread widely (Rayleigh: their 5th percentile is .27 of the median, several coils: up to .6);
    # a dark tissue of an image without air does not.
    noise = dark.size > 0 and np.percentile(dark, 5) < 0.7 * np.median(dark)
    return max(0.05 * top, foot if noise else 0.0)


def _behind_skin(plane: np.ndarray) -> np.ndarray:
    """bool (I, J): gaps in the outline closed, holes filled, small pieces left out."""
    room = CLOSED + 1
    closed = binary_closing(np.pad(plane, room), generate_binary_structure(2, 2), iterations=CLOSED)
    whole = binary_fill_holes(closed[room:-room, room:-room])
    pieces, count = label(whole)
    if count < 2:
        return np.asarray(whole)
    sizes = np.bincount(pieces.ravel())[1:]
    return np.isin(pieces, 1 + np.flatnonzero(sizes >= LEAST_PIECE * sizes.max()))
