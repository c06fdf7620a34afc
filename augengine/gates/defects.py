"""Known defects to plant in a good row, each a pure function: a case and a generator in, the damaged case out.

A defect that a row cannot show (a swap without two labels) returns None.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter, uniform_filter

from augengine.body import body_mask
from augengine.gates.base import Case, present
from augengine.records import Sample

Defect = Callable[[Case, np.random.Generator], Case | None]

MIN_LABEL_VOXELS = 8


def void(case: Case, rng: np.random.Generator) -> Case | None:
    """A ball without signal, 5–8% of the frame in radius, in what shows some (of a local edit: in its region)."""
    image = case.after.image
    signal = uniform_filter(np.abs(case.before.image).max(axis=0), 3)
    tissue = case.within(binary_erosion(signal > 0.25 * np.percentile(signal, 99.5)))
    places = np.argwhere(tissue)
    if not len(places):
        return None
    centre = places[rng.integers(len(places))]
    radius_mm = rng.uniform(0.05, 0.08) * min(_extent_mm(case.after)[:2])
    grid = np.indices(signal.shape).T.astype(np.float64)
    distance = np.linalg.norm((grid - centre) * case.after.spacing_mm[: signal.ndim], axis=-1).T
    return _with(case, image=np.where(distance <= radius_mm, min(0.0, float(image.min())), image).astype(np.float32))


def shifted_label(case: Case, rng: np.random.Generator) -> Case | None:
    """The label map moved in plane by 5–10% of the frame, in any direction."""
    label = case.after.label
    if label is None or not label.any():
        return None
    angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.1)
    offset = np.round(share * np.array(label.shape[:2]) * (np.cos(angle), np.sin(angle))).astype(int)
    moved = np.zeros_like(label)
    source, target = zip(*(_overlap(n, int(o)) for n, o in zip(label.shape, offset, strict=False)), strict=True)
    moved[target] = label[source]
    return _with(case, label=moved)


def swapped_label(case: Case, rng: np.random.Generator) -> Case | None:
    """Two labels of the row exchanged for each other."""
    if case.after.label is None:
        return None
    names = [name for name, mask in present(case.after).items() if np.count_nonzero(mask) >= MIN_LABEL_VOXELS]
    if len(names) < 2:
        return None
    a, b = (case.after.labels[names[n]] for n in rng.permutation(len(names))[:2])
    label = case.after.label
    return _with(case, label=np.where(label == a, b, np.where(label == b, a, label)).astype(np.uint8))


def checkerboard(case: Case, rng: np.random.Generator) -> Case | None:
    """Every second voxel brighter, the others darker, by 5–10% of the range within the body (or the region)."""
    mask = case.within(body_mask(case.before.image))
    if case.before.intensity_range is None or not mask.any():
        return None
    low, high = np.asarray(case.before.intensity_range).T.reshape(2, -1, *[1] * mask.ndim)
    sign = 1 - 2 * (np.indices(mask.shape).sum(axis=0) % 2)
    pattern = rng.uniform(0.05, 0.1) * (high - low) * sign * mask
    return _with(case, image=(case.after.image + pattern).astype(np.float32))


def blur(case: Case, rng: np.random.Generator) -> Case | None:
    """A Gaussian of 1–2 voxels over the image (of a local edit: over what its region shows)."""
    image, sigma = case.after.image, rng.uniform(1, 2)
    blurred = gaussian_filter(image, (0,) + (sigma,) * (image.ndim - 1), mode="nearest")
    return _with(case, image=blurred if case.region is None else np.where(case.region, blurred, image))


def duplicate(case: Case, rng: np.random.Generator) -> Case | None:
    """The source's pixels returned as the output."""
    return _with(case, image=case.before.image.copy())


DEFECTS: dict[str, Defect] = {
    defect.__name__: defect for defect in (void, shifted_label, swapped_label, checkerboard, blur, duplicate)
}


def _with(case: Case, **changes: np.ndarray) -> Case:
    return Case(case.before, case.after.replace(**changes), case.region, case.kept)


def _extent_mm(sample: Sample) -> list[float]:
    return [n * mm for n, mm in zip(sample.image.shape[1:], sample.spacing_mm, strict=False)]


def _overlap(size: int, offset: int) -> tuple[slice, slice]:
    """Where a move by `offset` voxels takes its values from and puts them."""
    return slice(max(0, -offset), size - max(0, offset)), slice(max(0, offset), size - max(0, -offset))
