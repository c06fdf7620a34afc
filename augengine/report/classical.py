"""Classical baselines for contrast transfer: histograms pooled per protocol in, matched images out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from augengine.gates import body_mask
from augengine.intensity import normalise
from augengine.phantom.protocols import is_fat_saturated
from augengine.records import Acquisition, Sample
from augengine.rng import generator

QUANTILES = np.linspace(0, 1, 513)
VOXELS_PER_SLICE = 2000

Group = tuple[str, float, bool]


def protocol_group(acquisition: Acquisition) -> Group:
    """Manufacturer, field strength (T, rounded) and fat saturation: scans of one group look alike."""
    return (
        acquisition.manufacturer or "",
        round(acquisition.field_strength_t or 0, 1),
        is_fat_saturated(acquisition),
    )


@dataclass(frozen=True)
class PooledHistograms:
    """Quantiles of normalised body intensities, pooled over the training slices of each protocol group."""

    quantiles: Mapping[Group, np.ndarray]

    @classmethod
    def fit(cls, samples: Iterable[Sample], seed: int = 0) -> PooledHistograms:
        """One pass over training samples; keeps at most 2,000 voxels of a slice."""
        values: dict[Group, list[np.ndarray]] = {}
        for sample in samples:
            body = normalise(sample)[:, body_mask(sample.image)].ravel()
            rng = generator(seed, "pooled-histogram", sample.sample_id)
            kept = body if len(body) <= VOXELS_PER_SLICE else rng.choice(body, VOXELS_PER_SLICE, replace=False)
            values.setdefault(protocol_group(sample.acquisition), []).append(kept)
        return cls({group: np.quantile(np.concatenate(v), QUANTILES) for group, v in values.items()})

    def match(self, sample: Sample, target: Acquisition) -> np.ndarray | None:
        """The normalised image with body intensities mapped onto the target group's; None for an unseen group."""
        wanted = self.quantiles.get(protocol_group(target))
        if wanted is None:
            return None
        image, mask = normalise(sample), body_mask(sample.image)
        body = image[:, mask]
        ranks = np.searchsorted(np.sort(body.ravel()), body, side="left") / max(body.size - 1, 1)
        matched = image.copy()
        matched[:, mask] = np.interp(ranks, QUANTILES, wanted)
        return matched.astype(np.float32)
