"""Radiomics features of images whose statistics are known."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.metrics.radiomics import DISTANCES, FIRST_ORDER, TEXTURES, radiomics_features

GLCM = [f"{t}{d}" for t in TEXTURES for d in DISTANCES]


def described(image: np.ndarray) -> dict[str, float]:
    return dict(zip([*FIRST_ORDER, *GLCM], radiomics_features(image[None, None].astype(np.float32))[0], strict=True))


def stripes(period: int, *shape: int) -> np.ndarray:
    """0.5 and 1 in turn along the first axis."""
    row = 0.5 + 0.5 * ((np.arange(shape[0]) // period) % 2)
    return np.broadcast_to(row.reshape(-1, *[1] * (len(shape) - 1)), shape)


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 4)])
def test_two_levels_by_hand(shape: tuple[int, ...]) -> None:
    """0.5 and 1 fall into bins 12 and 20. At distance 1, every pair across rows differs by 8 and none along them does:
    three directions of four cross rows, so contrast is 3/4 · 64 and dissimilarity 3/4 · 8. At 2 only the diagonals
    differ, whose nearest pixel is one row on: 2/4 · 64, and their correlation is −1 against 1 of the others.
    """
    found = described(stripes(1, *shape))
    assert found["mean"] == pytest.approx(0.75)
    assert found["sd"] == pytest.approx(0.25)
    assert (found["entropy"], found["uniformity"]) == pytest.approx((1, 0.5))
    assert (found["skewness"], found["kurtosis"]) == pytest.approx((0, -2), abs=1e-5)
    assert found["contrast1"] == pytest.approx(48)
    assert found["dissimilarity1"] == pytest.approx(6)
    assert found["contrast2"] == pytest.approx(32)
    assert found["correlation2"] == pytest.approx(0, abs=1e-2)


def test_air_counts_for_nothing() -> None:
    small = np.zeros((48, 48))
    small[8:40, 8:40] = stripes(2, 32, 32)
    large = np.zeros((96, 96))
    large[40:72, 8:40] = stripes(2, 32, 32)
    assert radiomics_features(small[None, None]) == pytest.approx(radiomics_features(large[None, None]), abs=1e-9)


def test_features_tell_smooth_from_rough_at_equal_histograms() -> None:
    rough, smooth = described(stripes(1, 32, 32)), described(stripes(8, 32, 32))
    assert [rough[n] for n in FIRST_ORDER] == pytest.approx([smooth[n] for n in FIRST_ORDER])
    assert rough["contrast1"] > 3 * smooth["contrast1"]


def test_an_empty_image_has_no_features() -> None:
    assert not radiomics_features(np.zeros((1, 2, 16, 16), np.float32)).any()
