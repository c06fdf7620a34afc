"""Band transport: quantiles of the target's pool, band by band, and nothing that is not there."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.diffusion.band_transport import LEVELS, BandTable, matched, transport
from augengine.diffusion.local_features import FEATURES, body, local_features

SPACING = (1.0, 1.0)


def features(seed: int, power: float = 1.0) -> np.ndarray:
    """Of one random anatomy, its brightness to a power: fat at the rim, glands within."""
    rng = np.random.default_rng(seed)
    i, j = np.mgrid[:64, :64] - 32 + rng.uniform(-3, 3, (2, 1, 1))
    image = 0.9 * (i**2 + j**2 < 26**2) - 0.5 * (i**2 + (j - 4) ** 2 < rng.uniform(10, 16) ** 2)
    where = body(image[None].astype(np.float32), SPACING)
    image = (np.maximum(image, 0) ** power * (1 + 0.05 * rng.normal(size=image.shape))).astype(np.float32)
    return local_features(image, where, SPACING)


def test_onto_its_own_table_a_scan_stays_as_it_is() -> None:
    own = features(0)
    found = transport(own, BandTable.of(own), BandTable.of(own))
    assert np.abs(found - own[:, 0]).mean() < 0.01


def test_it_goes_where_the_pool_of_other_anatomies_lies() -> None:
    source, truth = features(0), features(0, 0.4)
    pool = BandTable.mean([BandTable.of(features(seed, 0.4)) for seed in range(1, 6)])
    found = transport(source, BandTable.of(source), pool)
    before, after = (np.sqrt(np.mean((x - truth[:, 0]) ** 2)) for x in (source[:, 0], found))
    assert after < 0.5 * before


def test_matched_intensities_have_the_targets_quantiles() -> None:
    source, target = features(0)[:, 0], BandTable.of(features(1, 0.4))
    found = matched(source, np.quantile(source, LEVELS), target)
    assert np.abs(np.quantile(found, LEVELS) - target.intensity).mean() < 0.002
    assert (np.diff(found[np.argsort(source)]) >= 0).all()


def test_the_share_at_full_scale_survives_the_match() -> None:
    values = features(1)[:, 0]
    clipped = features(1)
    clipped[:, 0] = np.minimum(values, np.quantile(values, 0.9))
    source = features(0)[:, 0]
    found = matched(source, np.quantile(source, LEVELS), BandTable.of(clipped))
    assert np.mean(found >= found.max() - 1e-6) == pytest.approx(0.1, abs=0.01)


def test_a_table_needs_voxels() -> None:
    with pytest.raises(ValueError, match="needs voxels"):
        BandTable.of(np.empty((0, len(FEATURES)), np.float32))
