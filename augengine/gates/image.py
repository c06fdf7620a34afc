"""Gates about the image alone: structure, change, range, holes, sharpness, repeating patterns, locality, duplicates."""

from __future__ import annotations

import hashlib
import math
from typing import ClassVar

import numpy as np
from scipy.ndimage import binary_erosion, binary_opening, uniform_filter

from augengine.body import body_mask
from augengine.gates.base import Case, Gate, RealPair, Tools
from augengine.metrics.structure import structure_term
from augengine.records import Sample

PERIODS = (2, 4)


def image_digest(sample: Sample) -> str:
    """Digest of the pixels, for `Duplicate`."""
    return hashlib.sha256(sample.image.tobytes()).hexdigest()  # processors have instructions for it


class StructureSsim(Gate):
    """Mean |structure| term of SSIM inside the body, 0…1: are the edges where they were?

    The luminance and contrast terms are left out and the sign is dropped, because another acquisition may
    brighten, darken or invert a tissue without moving it. Windows of 7 voxels; Wang et al. 2004, eq. 10.
    """

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        return structure_term(case.before.image, case.after.image, body_mask(case.before.image))


class OutOfRange(Gate):
    """Fraction of voxels outside −0.5…3 on the normalised scale (10th percentile 0, 99th 1 of the source volume).

    Where a channel of the source reaches lower, as air does if ranges are those of tissue alone, that is its bound.
    """

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        before, after = case.normalised()
        low = np.minimum(-0.5, before.min(axis=tuple(range(1, before.ndim)), keepdims=True))
        return float(((after < low) | (after > 3)).mean())


class Changed(Gate):
    """Mean absolute difference in the body (of a local edit: in its region), in units of the source's range."""

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        before, after = case.normalised()
        mask = body_mask(case.before.image) if case.region is None else case.region
        return float(np.abs(after - before)[:, mask].mean()) if mask.any() else math.nan


class VoidFraction(Gate):
    """Fraction of the source's body (of a local edit: in its region) that lost its signal: holes.

    A voxel is void if every channel shows less than a quarter of the mean signal of the voxels around it that looked
    alike in the source (and lie outside a local edit's region). So neither a tissue that another acquisition darkens
    as a whole nor a coil's shading is a hole, and what was one in the source or is
    less than 3 voxels across does not count. The body's outer voxel is left out, since it holds part air.
    """

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        body = binary_erosion(body_mask(case.before.image))
        place = case.within(body)
        if not place.any():
            return math.nan
        look = case.before.image.mean(axis=0)
        old, _ = _voids(case.before.image, look, body, None)
        new, judged = _voids(case.after.image, look, body, case.region)
        if not (judged & place).any():
            return math.nan
        solid = binary_opening(new & ~old & place, np.ones((3,) * place.ndim))
        return float(np.count_nonzero(solid) / np.count_nonzero(place))


def _voids(
    image: np.ndarray, look: np.ndarray, body: np.ndarray, region: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """bool (*) twice: where an image has no signal, and where any is to be expected."""
    signal = np.stack([uniform_filter(c, 3) for c in image.astype(np.float64)])
    signal -= np.percentile(signal, 0.5, axis=tuple(range(1, signal.ndim)), keepdims=True)
    normal = _around_alike(signal, look, body, region)
    bright = normal > 0.05 * np.percentile(signal[:, body], 99.5)
    judged = bright.any(axis=0)
    return ((signal < 0.25 * normal) | ~bright).all(axis=0) & judged, judged


def _around_alike(signal: np.ndarray, look: np.ndarray, body: np.ndarray, region: np.ndarray | None) -> np.ndarray:
    """Mean signal (C, *) of the voxels of the body and not of the region that are near and of like intensity.

    A joint bilateral filter (Petschnigg et al. 2004) with a box of 30% of the frame, widened by the region, for
    space and eight quantiles of `look` (*) for intensity. 0 where there is no such voxel.
    """
    size = [int(0.3 * n) for n in body.shape]
    known = body if region is None else body & ~region
    if region is not None and region.any():
        size = [n + int(np.ptp(places)) for n, places in zip(size, np.nonzero(region), strict=True)]
    kind = np.searchsorted(np.quantile(look[body], np.arange(1, 8) / 8), look)
    normal = np.zeros_like(signal)
    for k in range(8):
        mine = (kind == k) & known
        weight = uniform_filter(mine.astype(np.float64), size)
        for channel, out in zip(signal, normal, strict=True):
            found = uniform_filter(channel * mine, size) / np.maximum(weight, 1e-12)
            out[kind == k] = np.where(weight > 1e-9, found, 0)[kind == k]
    return normal


class Locality(Gate):
    """Largest absolute difference outside the declared region, in units of the source's range; 0 is the only bound."""

    comparison: ClassVar[RealPair] = "itself"

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        if case.region is None or case.region.all():
            return 0.0
        before, after = case.normalised()
        return float(np.abs(after - before)[:, ~case.region].max())


class Sharpness(Gate):
    """Amount of fine detail relative to the source's; below 1 blurred, above 1 noisy or ringing.

    Detail is what a 3-voxel mean takes away, relative to the deviation in the same place, so that more contrast is
    not taken for more detail. A local edit is compared with the untouched body around it.
    """

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        body = binary_erosion(body_mask(case.before.image), iterations=2)
        here, there = case.within(body), body if case.region is None else body & ~case.region
        if min(np.count_nonzero(here), np.count_nonzero(there)) < 9:
            return math.nan
        source = _detail(case.before.image, there)
        return _detail(case.after.image, here) / source if source else math.nan


def _inner(image: np.ndarray) -> np.ndarray:
    """bool (*): the body without its skin, whose edge every method keeps."""
    return np.asarray(binary_erosion(body_mask(image), iterations=4))


def _detail(image: np.ndarray, mask: np.ndarray) -> float:
    # The median: a few strong edges would hide how the rest of the tissue has changed.
    detail = np.median(np.abs(fine(image)[:, mask]), axis=1)
    return float((detail / np.maximum(image[:, mask].std(axis=1, dtype=np.float64), 1e-12)).mean())


def fine(image: np.ndarray) -> np.ndarray:
    """What a 3-voxel mean takes away from (C, *), float64."""
    wide = image.astype(np.float64)
    return np.asarray(wide - uniform_filter(wide, (1,) + (3,) * (image.ndim - 1)))


class DetailStructure(Gate):
    """Mean |structure| term of SSIM of the fine detail alone, inside the body, 0…1: is it the source's own?

    What a network paints anew from noise may be as sharp as the source and lie somewhere else. Two independent noises
    have .11; a scan and the same scan in another contrast nearly 1.
    """

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        return structure_term(fine(case.before.image), fine(case.after.image), case.within(_inner(case.before.image)))


class Checkerboard(Gate):
    """Share of fine detail that repeats with a period of 2 or 4 voxels, 0…1: what strided up-sampling leaves behind.

    The share of variance between the phases of the grid (ω², free of the bias of few voxels). Neither noise nor
    anatomy knows the grid, so it is next to 0 in any scan at any contrast.
    """

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        mask = case.within(body_mask(case.before.image))
        values = fine(case.after.image)[:, mask]
        if values.shape[1] < 4 * PERIODS[0] ** mask.ndim:
            return math.nan
        # A few strong edges would drown the pattern: they count as much as other detail.
        limit = 4 * np.median(np.abs(values), axis=1, keepdims=True)
        values = values.clip(-limit, limit)
        places = np.argwhere(mask).T
        found = [_phase_share(values, _phase(places, p)) for p in PERIODS if values.shape[1] >= 4 * p**mask.ndim]
        return max(found)


def _phase(places: np.ndarray, period: int) -> np.ndarray:
    """Number of each voxel's place (D, N) within a cell of `period` voxels a side."""
    return np.asarray(np.ravel_multi_index(tuple(places % period), (period,) * len(places)))


def _phase_share(values: np.ndarray, phase: np.ndarray) -> float:
    """ω² of values (C, N) by phase (N,), the largest of the channels."""
    counts = np.bincount(phase)
    counts = counts[counts > 0]
    shares = []
    for x in values - values.mean(axis=1, keepdims=True):
        sums = np.bincount(phase, x)
        between, total = float((sums[np.bincount(phase) > 0] ** 2 / counts).sum()), float((x**2).sum())
        error = (total - between) / (len(x) - len(counts))
        shares.append(max(0.0, (between - (len(counts) - 1) * error) / (total + error)) if total else 0.0)
    return max(shares)


class Duplicate(Gate):
    """1 if the pixels are those of the source or of a row that was kept from the same unit before, else 0."""

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        if case.after.image.tobytes() == case.before.image.tobytes():
            return 1.0
        return float(bool(case.kept) and image_digest(case.after) in case.kept)
