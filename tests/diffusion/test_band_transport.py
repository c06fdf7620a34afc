"""Band transport: quantiles of the target's pool, band by band, and nothing that is not there."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.diffusion.band_transport import ENDS_MM, LEVELS, BandTable, levels, matched, transport
from augengine.diffusion.local_features import FEATURES, body, local_features

SPACING = (1.0, 1.0)


def table(found: np.ndarray) -> BandTable:
    """Of rows that do not know where in the slab they lie."""
    return BandTable.of(found, nowhere(found))


def nowhere(found: np.ndarray) -> np.ndarray:
    return np.full(len(found), np.nan)


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
    found = transport(own, table(own), table(own))
    assert np.abs(found - own[:, 0]).mean() < 0.01


def test_it_goes_where_the_pool_of_other_anatomies_lies() -> None:
    source, truth = features(0), features(0, 0.4)
    pool = BandTable.mean([table(features(seed, 0.4)) for seed in range(1, 6)])
    found = transport(source, table(source), pool)
    before, after = (np.sqrt(np.mean((x - truth[:, 0]) ** 2)) for x in (source[:, 0], found))
    assert after < 0.5 * before


def test_matched_intensities_have_the_targets_quantiles() -> None:
    source, target = features(0)[:, 0], table(features(1, 0.4))
    found = matched(source, nowhere(source), levels(source, nowhere(source)), target)
    assert np.abs(np.quantile(found, LEVELS) - target.intensity[0]).mean() < 0.002
    assert (np.diff(found[np.argsort(source)]) >= 0).all()


def test_the_share_at_full_scale_survives_the_match() -> None:
    values = features(1)[:, 0]
    clipped = features(1)
    clipped[:, 0] = np.minimum(values, np.quantile(values, 0.9))
    source = features(0)[:, 0]
    found = matched(source, nowhere(source), levels(source, nowhere(source)), table(clipped))
    assert np.mean(found >= found.max() - 1e-6) == pytest.approx(0.1, abs=0.01)


def test_what_sets_a_scan_apart_from_others_of_its_setting_stays() -> None:
    """Twice the detail and half the brightness of others: so it would have been under the other setting, too."""
    usual, other = table(features(0)), table(features(0, 0.4))
    assert_alike(other.as_one(usual, usual), other)
    harder = BandTable(usual.depth, 2 * usual.bands, 0.5 * usual.intensity)
    found = other.as_one(harder, usual)
    spread = [np.ptp(t.bands[1:, 0][:, [20, 180]], axis=-1) for t in (found, other, usual)]
    assert spread[0] == pytest.approx(spread[1] + spread[2], rel=1e-5)
    middle = len(LEVELS) // 2
    assert 0.5 < found.intensity[0, middle] / other.intensity[0, middle] < 0.8  # brightness follows in part
    assert (np.diff(found.intensity, axis=-1) >= 0).all()
    assert (np.diff(found.bands, axis=-1) >= 0).all()


def assert_alike(a: BandTable, b: BandTable) -> None:
    assert np.allclose(a.bands, b.bands, atol=1e-6)
    assert np.allclose(a.intensity, b.intensity, atol=1e-6)


def test_a_table_needs_voxels() -> None:
    with pytest.raises(ValueError, match="needs voxels"):
        table(np.empty((0, len(FEATURES)), np.float32))


def test_where_rows_know_their_place_each_is_matched_to_the_level_of_its_depth_in_the_slab() -> None:
    """A slab that is half as bright at its ends, and another one twice as bright there: each end gets the other's."""
    rng = np.random.default_rng(0)
    slab_mm = np.repeat(ENDS_MM, 400)
    level = np.repeat([0.5, 0.6, 0.8, 1.0, 1.0], 400)
    anatomy, other = rng.uniform(0.2, 1, (2, len(slab_mm)))
    source, pool = anatomy * level, features(1)[: len(slab_mm)]
    slab_of_pool = np.resize(slab_mm, len(pool))
    pool[:, 0] = (other / level)[: len(pool)]
    found = matched(source, slab_mm, levels(source, slab_mm), BandTable.of(pool, slab_of_pool))
    assert np.abs(found - anatomy / level).mean() < 0.06
    over_all = matched(source, nowhere(source), levels(source, nowhere(source)), table(pool))
    assert np.abs(over_all - anatomy / level).mean() > 0.2
    assert np.abs(matched(source, slab_mm, levels(source, slab_mm), BandTable.of(pool, nowhere(pool)))).max() < 2.1


def test_a_thin_slab_has_its_middle_where_it_has_no_such_depth() -> None:
    values, slab_mm = np.r_[np.full(50, 0.2), np.full(50, 0.7)], np.repeat([2.5, 12.5], 50)
    found = levels(values, slab_mm)
    assert found[1:, 500].tolist() == pytest.approx([0.2, 0.7, 0.7, 0.7, 0.7])
