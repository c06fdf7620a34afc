"""Removal measures on images of a few voxels, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augengine.errors import DataError
from augengine.metrics.removal import (
    Edited,
    IouCurve,
    diffmap_iou,
    gen_dice,
    local_variance_ratio,
    psnr,
    residual_floor,
    rmse,
    tumor_residual,
    void_fraction,
    voids,
)
from augengine.rng import generator

LESION = np.zeros((4, 4), bool)
LESION[1:3, 1:3] = True
NOTHING = np.zeros((4, 4), bool)


def test_residual_counts_the_lesion_only_and_every_voxel_once() -> None:
    seen = NOTHING.copy()
    seen[:2] = True  # 8 voxels, 2 of them in the lesion
    void = NOTHING.copy()
    void[1:3, 1] = True  # 1 of its voxels is called tumour, too
    assert tumor_residual(seen, LESION) == 0.5
    assert tumor_residual(seen, LESION, void) == 0.75
    assert tumor_residual(~NOTHING, LESION, ~NOTHING) == 1
    assert math.isnan(tumor_residual(seen, NOTHING))


def test_floor_leaves_the_real_lesion_out() -> None:
    alarms = NOTHING.copy()
    alarms[0] = True
    alarms[1:3, 1:3] = True
    region = NOTHING.copy()
    region[:2] = True
    assert residual_floor(alarms, region) == 6 / 8
    assert residual_floor(alarms, region, lesion=LESION) == 4 / 6


def test_void_is_dark_in_every_channel() -> None:
    image = np.full((2, 4, 4), 0.5, np.float32)
    image[:, 1, 1] = 0.01
    image[0, 1, 2] = 0.01  # bright in the other channel, as CSF is
    image[:, 0, 0] = 0.0
    assert voids(image, ~NOTHING).sum() == 2
    assert void_fraction(image, LESION) == 0.25
    assert math.isnan(void_fraction(image, NOTHING))


def test_variance_ratio_sees_blur_and_not_offset() -> None:
    noise = generator("variance").normal(0, 1, (2, 40, 40))
    left, right = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    left[4:36, 3:17], right[4:36, 23:37] = True, True
    image = noise.copy()
    image[:, :, :20] = noise[:, :, 20:] * 0.5 + 7
    assert local_variance_ratio(image, left, right) == pytest.approx(0.25, rel=1e-6)
    assert math.isnan(local_variance_ratio(np.ones((1, 40, 40)), left, right))


def test_diffmap_iou_by_hand() -> None:
    before = np.zeros((2, 4, 4), np.float32)
    after = before.copy()
    after[0, 1:3, 1] = 0.4  # mean over channels 0.2: half the lesion
    after[:, 0, 0] = -0.2, 0.2  # and one voxel beside it
    assert diffmap_iou(before, after, LESION, 0.15) == pytest.approx(2 / 5)
    assert diffmap_iou(before, after, LESION, 0.25) == 0
    assert math.isnan(diffmap_iou(before, after, NOTHING, 0.15))


def test_threshold_is_the_best_of_the_candidates() -> None:
    rng = generator("threshold")
    rows = []
    for _ in range(4):
        before = rng.normal(0, 0.05, (3, 4, 4))
        rows.append(Edited(before, before + rng.uniform(0.1, 0.6, (4, 4)) + 0.2 * LESION, LESION))
    rows.append(Edited(np.zeros((3, 4, 4)), np.ones((3, 4, 4)), NOTHING))
    candidates = np.linspace(0, 0.8, 33)
    means = [np.mean([diffmap_iou(*row, t) for row in rows[:4]]) for t in candidates]
    assert max(means) > min(means)
    assert IouCurve.of(rows, candidates).best == candidates[int(np.argmax(means))]
    split = IouCurve.of(rows[:1], candidates).merge(IouCurve.of(rows[1:], candidates))
    assert (split.rows, split.best) == (4, candidates[int(np.argmax(means))])
    with pytest.raises(DataError, match="lesion"):
        _ = IouCurve.of(rows[4:]).best


def test_a_change_of_just_the_threshold_counts() -> None:
    before = np.zeros((1, 4, 4))
    row = Edited(before, before + np.where(LESION, 0.5, 0.25), LESION)
    assert IouCurve.of([row], np.array([0.25, 0.5])).best == 0.5
    assert diffmap_iou(*row, 0.25) == 4 / 16


def test_errors_within_the_mask() -> None:
    a, b = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), np.float32)
    b[0, 1:3, 1:3] = 0.2
    b[:, 0, 0] = 9.0
    assert rmse(a, b, LESION) == pytest.approx(0.2 / math.sqrt(2))
    assert psnr(a, b, LESION) == pytest.approx(-20 * math.log10(0.2 / math.sqrt(2)))
    assert psnr(a, b, LESION, peak=2) == pytest.approx(psnr(a, b, LESION) + 20 * math.log10(2))
    assert psnr(a, a, LESION) == math.inf
    assert math.isnan(rmse(a, b, NOTHING))
    assert math.isnan(psnr(a, b, NOTHING))


def test_gen_dice_ignores_absent_classes() -> None:
    asked, found = np.array([1, 1, 2, 2, 0, 0]), np.array([1, 1, 2, 0, 0, 0])
    of = [np.stack([labels == code for code in (1, 2, 4)]) for labels in (found, asked)]
    assert gen_dice(*of) == pytest.approx((1 + 2 / 3) / 2)
    assert math.isnan(gen_dice(of[0][2:], of[1][2:]))
