"""One channel of a slice in; what surrounds every voxel of the body, as numbers that know no place or side, out.

All features are isotropic (in millimetres) and take from within the body alone: a mirrored image has the mirrored
features, one moved by whole voxels the moved ones. No coordinate and no statistic of the whole image is among them,
so that a learner cannot look up which scanner, which side or which slice it sees. Volumes are looked at slice by slice,
each beside its neighbours: slices are mostly several times as thick as voxels are wide, and memory holds one at a time.
Legend: `*` two or three spatial axes, H, W of a slice, N voxels of the body in C order, F features, S scales.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy import ndimage

# Normalised intensity that is added before a logarithm is taken: about the noise of a scan.
FLOOR = 0.02
SCALES_MM = (1.5, 3.0, 6.0, 12.0, 25.0)
EDGES_MM = (0.8, 2.0, 4.0)
SPREADS_MM = (2.0, 5.0)
WINDOWS_MM = (5.0, 11.0, 21.0)
DEEPEST_MM = 60.0
# How far away the slices lie that a slice is compared with, and the Gaussians in whose means.
APART_MM = 5.0
BESIDE_MM = (1.0, 3.0, 12.0)
_PRESENT = 0.05  # share of a Gaussian within the body from which on a neighbour counts
BODY_LEVEL = 0.12
CLIPPED_SHARE, CLIPPED_VOXELS = 5e-4, 6
_BOXES = 3
_LARGE = 3.0  # voxels, from which on a Gaussian is three boxes (Wells 1986)

FEATURES = (
    "intensity",
    "log_intensity",
    *(f"log_over_mean_{s:g}mm" for s in SCALES_MM),
    *(f"log_mean_{s:g}mm_over_next" for s in SCALES_MM[:-1]),
    "log_mean_3mm",
    "log_mean_12mm",
    *(f"gradient_{s:g}mm" for s in EDGES_MM),
    *(f"blob_{s:g}mm" for s in EDGES_MM[:2]),
    *(f"spread_{s:g}mm" for s in SPREADS_MM),
    *(f"log_over_{end}_{w:g}mm" for w in WINDOWS_MM for end in ("maximum", "minimum")),
    "depth_mm",
    *(f"log_neighbours_{s:g}mm_over_own" for s in BESIDE_MM),
    "has_neighbours",
)
NEIGHBOURS = len(BESIDE_MM) + 1
"""The last features, which are of the neighbour slices; 0 where there is none."""
_FINE = len(EDGES_MM) + len(EDGES_MM[:2]) + len(SPREADS_MM) + 2 * len(WINDOWS_MM)
_PLACE = {name: n for n, name in enumerate(FEATURES)}


def body(image: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """bool (*): where a normalised image (C, *), 0 in air and 1 at its bright end, shows a body, holes filled.

    A channel counts where its mean within about a millimetre of its slice is above `BODY_LEVEL`. Gaps in a slice, such
    as airways and cortical bone, belong to the body.
    """
    shown = np.zeros(image.shape[1:], bool)
    for channel in image:
        shown |= _smooth(np.maximum(channel, 0), 1.0, (*spacing_mm[:2], math.inf)) > BODY_LEVEL
    return filled(shown)


def filled(mask: np.ndarray) -> np.ndarray:
    """bool (*): gaps of up to two voxels closed, then holes filled, slice by slice of the last axis in volumes."""
    planes = mask[..., None] if mask.ndim == 2 else mask
    padded = np.pad(planes, ((3, 3), (3, 3), (0, 0)))
    closed = ndimage.binary_closing(padded, ndimage.generate_binary_structure(2, 1)[..., None], iterations=2)
    found = np.stack([ndimage.binary_fill_holes(closed[..., k]) for k in range(closed.shape[2])], axis=-1)
    found = found[3:-3, 3:-3] | planes
    return np.asarray(found[..., 0] if mask.ndim == 2 else found)


def local_features(
    image: np.ndarray, where: np.ndarray, spacing_mm: Sequence[float], of_bands: bool = False
) -> np.ndarray:
    """float32 (N, F - `NEIGHBOURS`) of one channel (H, W) of a normalised slice, in the order of `FEATURES`.

    Args:
        image: normalised intensity; below 0 counts as 0.
        where: bool (H, W), the body: values beyond it count for nothing.
        spacing_mm: voxel size along each axis.
        of_bands: only those that `band_transport` asks for; the others, which take most of the time, are 0.
    """
    if not where.any():
        return np.empty((0, len(FEATURES) - NEIGHBOURS), np.float32)
    spacing_mm = tuple(spacing_mm)[:2]
    box = (
        slice(int((rows := np.flatnonzero(where.any(axis=1))).min()), int(rows.max()) + 1),
        slice(int((columns := np.flatnonzero(where.any(axis=0))).min()), int(columns.max()) + 1),
    )
    inside = where[box]
    mask = inside.astype(np.float32)
    a = np.where(inside, np.maximum(image[box], 0), 0).astype(np.float32)
    spreads_mm = () if of_bands else SPREADS_MM
    weight = {s: np.maximum(_smooth(mask, s, spacing_mm), 1e-3) for s in (*SCALES_MM, *spreads_mm)}
    mean = {s: _smooth(a, s, spacing_mm) / weight[s] for s in SCALES_MM}
    log = {s: np.log(m + FLOOR) for s, m in mean.items()}
    own = np.log(a + FLOOR)
    found = [a, own]
    found += [own - log[s] for s in SCALES_MM]
    found += [log[s] - log[t] for s, t in pairwise(SCALES_MM)]
    found += [log[3.0], log[12.0]]
    found += [np.zeros_like(a)] * _FINE if of_bands else _fine(a, inside, mean, weight, spacing_mm)
    found.append(np.minimum(_depth_mm(where, box, spacing_mm), DEEPEST_MM))
    return np.stack([plane[inside] for plane in found], axis=-1).astype(np.float32)


def _fine(
    a: np.ndarray,
    inside: np.ndarray,
    mean: Mapping[float, np.ndarray],
    weight: Mapping[float, np.ndarray],
    spacing_mm: Sequence[float],
) -> list[np.ndarray]:
    """Edges, blobs, spreads and extremes."""
    mask, over = inside.astype(np.float32), mean[6.0] + FLOOR
    smooth = {s: _smooth(a, s, spacing_mm) for s in {*EDGES_MM, *(1.6 * s for s in EDGES_MM[:2])}}
    found = [_gradient(smooth[s], s, spacing_mm) / over for s in EDGES_MM]
    found += [(smooth[s] - smooth[1.6 * s]) / over for s in EDGES_MM[:2]]
    deviation = (a - mean[1.5]) ** 2 * mask
    found += [np.sqrt(np.maximum(_smooth(deviation, s, spacing_mm) / weight[s], 0)) / over for s in SPREADS_MM]
    near = _smooth(a, 0.8, spacing_mm) / np.maximum(_smooth(mask, 0.8, spacing_mm), 1e-3)
    for w in WINDOWS_MM:
        size = [max(3, int(w / d) | 1) if d < w else 1 for d in spacing_mm]
        highest = ndimage.maximum_filter(near * mask, size, mode="constant", cval=0)
        lowest = ndimage.minimum_filter(np.where(inside, near, 9), size, mode="constant", cval=9).clip(0, 2)
        # Where the window slides off an extreme value the feature would jump.
        even = np.maximum(_smooth(mask, w / 4, spacing_mm), 1e-3)
        for end in (highest, lowest):
            found.append(np.log((a + FLOOR) / (_smooth(end * mask, w / 4, spacing_mm) / even + FLOOR)))
    return found


def blurred(image: np.ndarray, where: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """float32 (S, 2, H, W) of one channel: Gaussians of `BESIDE_MM` of the body's intensity, and of the body."""
    spacing_mm = tuple(spacing_mm)[:2]
    # Three boxes in a row would lose what the first takes beyond the edge.
    margin = [math.ceil(3 * max(BESIDE_MM) / d) + _BOXES for d in spacing_mm]
    inner = tuple(slice(m, m + n) for m, n in zip(margin, where.shape, strict=True))
    mask = np.pad(where.astype(np.float32), [(m, m) for m in margin])
    a = np.pad(np.where(where, np.maximum(image, 0), 0).astype(np.float32), [(m, m) for m in margin])
    return np.stack([np.stack([_smooth(x, s, spacing_mm)[inner] for x in (a, mask)]) for s in BESIDE_MM])


def neighbour_features(where: np.ndarray, own: np.ndarray, beside: Sequence[np.ndarray]) -> np.ndarray:
    """float32 (N, `NEIGHBOURS`): how bright the body is in neighbour slices, beside this one; 0 where none shows any.

    Args:
        where: bool (H, W), the body of this slice.
        own, beside: `blurred` of it, and of its neighbours.
    """
    found, known = [], np.ones(np.count_nonzero(where), bool)
    for mine, theirs in zip(own[:, :, where], np.sum([other[:, :, where] for other in beside], axis=0), strict=True):
        there = theirs[1] > _PRESENT
        ratio = np.log(theirs[0] / np.maximum(theirs[1], _PRESENT) + FLOOR)
        ratio -= np.log(mine[0] / np.maximum(mine[1], 1e-3) + FLOOR)
        found.append(np.where(there, ratio, 0))
        known &= there
    return np.stack([*found, known], axis=-1).astype(np.float32)


def brightened(features: np.ndarray, factor: float) -> np.ndarray:
    """A copy of (N, F) as of the same image times `factor`; all but four features do not depend on it."""
    found = features.copy()
    found[:, _PLACE["intensity"]] *= factor
    for name in ("log_intensity", "log_mean_3mm", "log_mean_12mm"):
        value = np.maximum(np.exp(found[:, _PLACE[name]]) - FLOOR, 0)
        found[:, _PLACE[name]] = np.log(value * factor + FLOOR)
    return found


def at_full_scale(values: np.ndarray) -> bool:
    """True if a scan is clipped: of the values (N,) of its body more than chance allows have the largest."""
    if not len(values):
        return False
    count = int(np.count_nonzero(values >= values.max() - 5e-4 * abs(values.max())))
    return count >= CLIPPED_VOXELS and count > CLIPPED_SHARE * len(values)


def _depth_mm(where: np.ndarray, box: tuple[slice, slice], spacing_mm: Sequence[float]) -> np.ndarray:
    """Distance to the skin; the edge of the image is no skin."""
    grown = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
    inner = tuple(slice(s.start - g.start, s.stop - g.start) for s, g in zip(box, grown, strict=True))
    if where[grown].all():
        return np.full(where.shape, DEEPEST_MM)[box]
    return np.asarray(ndimage.distance_transform_edt(where[grown], sampling=spacing_mm))[inner]


def _gradient(smooth: np.ndarray, sigma_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """Magnitude of the change per `sigma_mm`, by central differences."""
    total = np.zeros_like(smooth)
    for axis, d in enumerate(spacing_mm):
        if d > 2 * sigma_mm or smooth.shape[axis] < 2:
            continue  # the blur does not reach the next voxel
        change = ndimage.correlate1d(smooth, [-0.5, 0, 0.5], axis, mode="nearest")
        total += (change * (sigma_mm / d)) ** 2
    return np.asarray(np.sqrt(total))


def _smooth(x: np.ndarray, sigma_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """`x` (*) float32 blurred by a Gaussian; beyond the edge lies 0."""
    found = np.asarray(x, np.float32)
    for axis, d in enumerate(spacing_mm[: x.ndim]):
        sigma = sigma_mm / d
        if sigma < 0.2 or found.shape[axis] == 1:
            continue
        if sigma < _LARGE:
            found = ndimage.gaussian_filter1d(found, sigma, axis, mode="constant", truncate=3.5)
        else:
            for width in _box_widths(sigma):
                found = ndimage.uniform_filter1d(found, width, axis, mode="constant")
    return found


def _box_widths(sigma: float) -> list[int]:
    """Odd widths of three boxes whose variances add up to about that of a Gaussian (Kovesi 2010)."""
    ideal = math.sqrt(12 * sigma**2 / _BOXES + 1)
    low = int(ideal) if int(ideal) % 2 else int(ideal) - 1
    count = (12 * sigma**2 - _BOXES * low**2 - 4 * _BOXES * low - 3 * _BOXES) / (-4 * low - 4)
    return [low if n < round(count) else low + 2 for n in range(_BOXES)]
