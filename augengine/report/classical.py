"""Classical baselines for contrast transfer: histograms pooled per protocol in, matched images out.

None of them is fitted on pairs, which no real data set has: all use the intensities of training scans of the target's
protocol group and the image itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from augengine.acquisition_terms import field_strength_t, manufacturer
from augengine.body import body_mask
from augengine.intensity import normalise
from augengine.phantom.protocols import is_fat_saturated
from augengine.records import Acquisition, Sample
from augengine.rng import generator

QUANTILES = np.linspace(0, 1, 513)
VOXELS_PER_SLICE = 2000
GAMMAS = np.geomspace(1 / 8, 8, 97)
BODY, REST = "body", "rest"

Group = tuple[str, float, bool]


def protocol_group(acquisition: Acquisition) -> Group:
    """Manufacturer, nominal field strength (T) and fat saturation: scans of one group look alike."""
    return (
        manufacturer(acquisition.manufacturer or ""),
        field_strength_t(acquisition.field_strength_t or 0.0),
        is_fat_saturated(acquisition),
    )


@dataclass(frozen=True)
class PooledHistograms:
    """Quantiles of normalised intensities, pooled over the training slices of each protocol group.

    `by_tissue` has a histogram for every label and one for the unlabelled rest of the body; else one for the body.
    """

    quantiles: Mapping[tuple[Group, str], np.ndarray]
    by_tissue: bool = False

    @classmethod
    def fit(cls, samples: Iterable[Sample], seed: int = 0, by_tissue: bool = False) -> PooledHistograms:
        """One pass over training samples; keeps at most 2,000 voxels of a slice's body or tissue."""
        values: dict[tuple[Group, str], list[np.ndarray]] = {}
        for sample in samples:
            image = normalise(sample)
            for name, mask in _places(sample, by_tissue).items():
                found = image[:, mask].ravel()
                rng = generator(seed, "pooled-histogram", sample.sample_id, *([name] if by_tissue else []))
                if len(found) > VOXELS_PER_SLICE:
                    found = rng.choice(found, VOXELS_PER_SLICE, replace=False)
                values.setdefault((protocol_group(sample.acquisition), name), []).append(found)
        pooled = {key: np.concatenate(v) for key, v in values.items()}
        return cls({key: np.quantile(v, QUANTILES) for key, v in pooled.items() if len(v)}, by_tissue)

    def match(self, sample: Sample, target: Acquisition) -> np.ndarray | None:
        """The normalised image, each place's intensities mapped by rank onto the target group's.

        None for a group that no training scan was of; a tissue that none of its scans showed stays as it is.
        """
        group = protocol_group(target)
        if group not in {known for known, _ in self.quantiles}:
            return None
        matched = normalise(sample)
        for name, mask in _places(sample, self.by_tissue).items():
            wanted = self.quantiles.get((group, name))
            if wanted is not None and mask.any():
                matched[:, mask] = np.interp(_ranks(matched[:, mask]), QUANTILES, wanted)
        return matched.astype(np.float32)

    def gamma(self, sample: Sample, target: Acquisition) -> np.ndarray | None:
        """The normalised image to one power: that by which its body's quantiles come nearest to the target group's.

        Least squares over `GAMMAS`; values below 0 keep their sign. None for an unseen group.
        """
        wanted = self.quantiles.get((protocol_group(target), BODY))
        if wanted is None:
            return None
        image, mask = normalise(sample), body_mask(sample.image)
        own = np.quantile(image[:, mask], QUANTILES)
        errors = [((_power(own, g) - wanted) ** 2).sum() for g in GAMMAS]
        matched = image.copy()
        matched[:, mask] = _power(image[:, mask], float(GAMMAS[np.argmin(errors)]))
        return matched


def _places(sample: Sample, by_tissue: bool) -> dict[str, np.ndarray]:
    body = body_mask(sample.image)
    if not by_tissue or sample.label is None:
        return {BODY: body}
    named = {name: sample.label == code for name, code in sample.labels.items()}
    return {**named, REST: body & (sample.label == 0)}


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.sort(values.ravel()), values, side="left") / max(values.size - 1, 1)


def _power(values: np.ndarray, exponent: float) -> np.ndarray:
    return np.asarray(np.sign(values) * np.abs(values) ** exponent)
