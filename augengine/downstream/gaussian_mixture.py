"""Training rows in; the same anatomy with every tissue's intensity drawn anew from a Gaussian of its own, out.

After SynthSeg (Billot et al. 2023), which draws images from label maps alone: mixture, blur, bias field, gamma. Where
few tissues are labelled, the rest of the body is first divided into clusters by intensity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.ndimage import gaussian_filter, zoom

from augengine import __version__
from augengine.gates import body_mask
from augengine.intensity import denormalise, normalise
from augengine.records import Provenance, Sample
from augengine.rng import digest

CLUSTERS = 5
MOST_POINTS = 5000
DEVIATION = 0.14
"""Largest standard deviation within a tissue, of intensities from 0 to 1: SynthSeg's 35 of 255."""
BLUR_PX = 0.8
BIAS, BIAS_CELLS = 0.3, 4
GAMMA_SD = 0.3


def mixtures(rows: Sequence[Sample], copies: int, rng: np.random.Generator) -> Iterator[Sample]:
    """`copies` rows for each row; labels stay."""
    for copy in range(copies):
        for row in rows:
            made = mixture(normalise(row), tissues(row, rng), rng)
            plan = {"params": {"clusters": CLUSTERS}, "donors": [], "replicate": copy}
            provenance = Provenance(
                output_id=digest("gmm", row.sample_id, copy, length=24),
                parent_id=row.sample_id,
                policy="gmm",
                policy_digest=digest("gmm", 1),
                edit="gmm",
                plan=plan,
                engine_version=__version__,
            )
            yield row.replace(image=denormalise(made, row), provenance=provenance)


def tissues(row: Sample, rng: np.random.Generator) -> np.ndarray:
    """int64 (*): 0 is air, then one number for each label, then one for each cluster of what has no label.

    Clusters are k-means of all channels, so that they follow visible borders.
    """
    label = np.zeros(row.image.shape[1:], np.uint8) if row.label is None else row.label
    _, found = np.unique(np.append(0, label), return_inverse=True)
    out = found[1:].reshape(label.shape).astype(np.int64)
    rest = body_mask(row.image) & (label == 0)
    points = np.ascontiguousarray(normalise(row)[:, rest].T, np.float64)
    if len(points) >= CLUSTERS:
        some = points[rng.choice(len(points), min(len(points), MOST_POINTS), replace=False)]
        centres, _ = kmeans2(some, CLUSTERS, minit="++", seed=rng)
        distances = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
        out[rest] = out.max() + 1 + distances.argmin(axis=1)
    return out


def mixture(image: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image drawn anew from a map of tissues.

    Args:
        image: float32 (C, *), normalised; of air (tissue 0) it is kept, of the rest only the shape is taken.
        tissue: int64 (*).
        rng: draws all of it.

    Returns:
        float32 (C, *).
    """
    count, body = int(tissue.max()) + 1, tissue > 0
    out = np.empty_like(image)
    for n in range(len(image)):
        mean, sd = rng.uniform(0, 1, count), rng.uniform(0, DEVIATION, count)
        drawn = mean[tissue] + sd[tissue] * rng.standard_normal(tissue.shape)
        drawn = gaussian_filter(drawn, rng.uniform(0, BLUR_PX))
        cells = rng.normal(0, rng.uniform(0, BIAS), (BIAS_CELLS,) * tissue.ndim)
        field = zoom(cells, [side / BIAS_CELLS for side in tissue.shape], order=1, grid_mode=True, mode="nearest")
        drawn = np.clip(drawn * np.exp(field), 0, None) ** np.exp(rng.normal(0, GAMMA_SD))
        out[n] = np.where(body, drawn, image[n])
    return out
