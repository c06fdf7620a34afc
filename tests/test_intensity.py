"""Normalised intensities: each channel on its own range, and back to the kind of numbers that it had."""

from __future__ import annotations

import numpy as np
import pytest
from builders import slice_sample

from augengine.errors import DataError
from augengine.intensity import denormalise, normalise
from augengine.records import IntensityRule, Sample

RANGES = ((10.0, 110.0), (-2.0, 2.0), (0.0, 30000.0))


def three(**changes: object) -> Sample:
    """Whole numbers without negatives; fractions with; whole numbers with."""
    rng = np.random.default_rng(3)
    image = np.stack(
        [
            rng.integers(0, 200, (16, 16)),
            rng.normal(0, 1, (16, 16)),
            rng.integers(-9000, 30000, (16, 16)),
        ]
    ).astype(np.float32)
    values = {"image": image, "channels": ("a", "b", "c"), "label": None, "intensity_range": RANGES}
    return slice_sample(1, **{**values, **changes})


def test_each_channel_is_on_its_own_range() -> None:
    sample = three()
    x = normalise(sample)
    assert x.dtype == np.float32
    for found, image, (low, high) in zip(x, sample.image, RANGES, strict=True):
        np.testing.assert_allclose(found, (image - low) / (high - low), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(denormalise(x, sample), sample.image, atol=1e-5)


def test_one_channel_is_scaled_as_it_ever_was() -> None:
    """To the last bit: models and figures of single sequences stand on it."""
    sample = slice_sample(1, intensity_range=((31.7, 702.3),))
    x, (low, high) = normalise(sample), (31.7, 702.3)
    assert x.tobytes() == ((sample.image - low) / (high - low)).astype(np.float32).tobytes()
    y = x * np.float32(1.1) - np.float32(0.1)
    expected = np.round((y.astype(np.float64) * (high - low) + low).clip(min=0))
    assert denormalise(y, sample).tobytes() == (expected + 0.0).astype(np.float32).tobytes()


def test_each_channel_keeps_its_own_kind_of_numbers() -> None:
    """Negative values or fractions of one channel are no licence for another."""
    sample = three()
    found = denormalise(normalise(sample) - 0.333, sample)
    assert found[0].min() == 0
    assert found[1].min() < -2
    assert found[2].min() < -5000
    for channel, whole in zip(found, (True, False, True), strict=True):
        assert (channel == np.round(channel)).all() == whole


def test_volumes_are_scaled_like_slices() -> None:
    sample = three()
    volume = sample.replace(image=np.repeat(sample.image[..., None], 3, axis=3), slice_index=None)
    np.testing.assert_array_equal(normalise(volume)[..., 2], normalise(sample))
    np.testing.assert_array_equal(
        denormalise(normalise(volume), volume)[..., 1], denormalise(normalise(sample), sample)
    )


def test_a_range_that_cannot_be_divided_by_is_named() -> None:
    with pytest.raises(DataError, match="range of channel 'b' must rise; found"):
        normalise(three(intensity_range=((0.0, 1.0), (2.0, 2.0), (0.0, 1.0))))
    with pytest.raises(DataError, match="needs an intensity range"):
        normalise(three(intensity_range=None))


@pytest.mark.parametrize("wrong", [(0.0, 1.0), ((0.0, 1.0),), ((0.0, 1.0, 2.0),) * 3])
def test_a_sample_has_a_pair_for_every_channel(wrong: object) -> None:
    with pytest.raises(DataError, match="a pair \\(low, high\\) for every channel"):
        three(intensity_range=wrong)


def test_a_rule_says_what_it_is() -> None:
    assert str(IntensityRule()) == "percentiles 10 and 99 of all voxels of each channel"
    rule = IntensityRule((0.0, 99.5), "nonzero", True)
    assert str(rule) == "percentiles 0 and 99.5 of nonzero voxels of all channels together"
    assert IntensityRule.from_dict(rule.to_dict()) == rule
    assert (IntensityRule().identity, rule.identity) == ([], [rule.to_dict()])
