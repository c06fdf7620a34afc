"""An edited image and its source in, SSIM, multi-scale SSIM and structure-only SSIM out, of each row on its own.

SSIM and MS-SSIM of a volume are means over its slices along the last axis; structure-only SSIM sees all axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from augengine.body import body_mask
from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.metrics.partial import Pair, SubjectMeans
from augengine.metrics.structure import structure_term

WINDOW = 11
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM (Wang et al. 2004) of normalised (C, *spatial), with a dynamic range of 1: 10th to 99th percentile.

    Gaussian windows of 11 pixels; either side of a slice has at least that many, or `DataError`.
    """
    one, other = _tensors(a, b)
    return float(structural_similarity_index_measure(one, other, data_range=1.0))


def ms_ssim(a: np.ndarray, b: np.ndarray) -> tuple[str, float]:
    """MS-SSIM (Wang et al. 2003) with as many of its five scales as the image has room for.

    Returns:
        A name that tells the number of scales, such as `ms_ssim_3`, since values of different numbers do not
        compare, and the value. With fewer scales the weights of the finest are scaled to a sum of 1.
    """
    one, other = _tensors(a, b)
    scales = max(n for n in range(1, 6) if n == 1 or _room(a.shape[1:3], n))
    weights = tuple(w / sum(WEIGHTS[:scales]) for w in WEIGHTS[:scales])
    value = multiscale_structural_similarity_index_measure(one, other, betas=weights, data_range=1.0)
    return f"ms_ssim_{scales}", float(value)


class SimilarityMeasure:
    """Edited rows with their sources in, patient-level means of `ssim`, `ms_ssim_<scales>`, `structure_ssim` out.

    Both images of a pair are on the source's intensity scale.
    """

    def __call__(self, pairs: Sequence[Pair]) -> SubjectMeans:
        """Sums over the rows; a row without its source, or of another shape, is a `DataError`."""
        return SubjectMeans.of((pair.sample.subject_id, self._row(pair)) for pair in pairs)

    def _row(self, pair: Pair) -> dict[str, float]:
        sample, parent = pair
        if parent is None or parent.image.shape != sample.image.shape:
            raise DataError(
                "similarity compares an edited row with its source, of the same shape",
                where=sample.sample_id,
                next_step="give the folder that was augmented",
            )
        before, after = normalise(parent), normalise(parent.replace(image=sample.image))
        name, value = ms_ssim(before, after)
        structure = structure_term(parent.image, sample.image, body_mask(parent.image))
        return {"ssim": ssim(before, after), name: value, "structure_ssim": structure}


def _room(shape: Sequence[int], scales: int) -> bool:
    """True if the coarsest scale still holds a window; the last bound is torchmetrics' own."""
    smallest = min(shape)
    return smallest >> (scales - 1) >= WINDOW and smallest // (scales - 1) ** 2 >= WINDOW and smallest >= 2**scales


def _tensors(a: np.ndarray, b: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as slices, float64 (K, C, I, J): in float32 the variance of a bright, flat window would be rounding."""
    if a.shape != b.shape or a.ndim not in (3, 4) or min(a.shape[1:3]) < WINDOW:
        raise DataError(
            f"similarity needs two images of one shape with slices of {WINDOW} x {WINDOW} pixels or more",
            found=f"{a.shape} and {b.shape}",
        )
    one, other = (np.moveaxis(x[..., None] if x.ndim == 3 else x, -1, 0) for x in (a, b))
    return torch.from_numpy(one.astype(np.float64)), torch.from_numpy(other.astype(np.float64))
