"""The body mask: all of the patient and no air, in scans whose air is as bright as their weakest tissue."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from augengine.body import body_mask
from augengine.phantom.cohort import Cohort


def air(tissue: np.ndarray) -> np.ndarray:
    """bool (I, J): the largest connected place without tissue, two pixels away from it."""
    pieces, _ = ndimage.label(~ndimage.binary_dilation(tissue, iterations=2))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return pieces == sizes.argmax()


@pytest.mark.parametrize("saturated", [True, False])
def test_the_whole_breast_and_no_air(saturated: bool) -> None:
    cohort = Cohort(subjects=6, matrix=96, slices=6, seed=5, no_fat_saturation_fraction=0.0 if saturated else 1.0)
    for n in range(6):
        anatomy, image = cohort.anatomy(n), cohort.scan(n).image[..., 2]
        shares = sum(share for name, share in anatomy.fractions.items() if name != "lung")
        tissue = np.asarray(shares).reshape(96, 96, 6, 3).mean(-1)[..., 2] > 0.5
        found = body_mask(image)
        assert found[anatomy.tissue_label[..., 2] > 0].mean() > 0.99
        assert found[tissue].mean() > 0.93
        assert found[air(tissue)].mean() < 0.05


def test_cavities_and_gaps_in_the_skin_are_closed_and_ghosts_left_out() -> None:
    image = np.zeros((1, 40, 40), np.float32)
    image[0, 8:32, 8:32] = 100
    image[0, 16:24, 16:24] = 0  # a cavity
    image[0, 18:20, 24:32] = 0  # open to the outside through a slit
    image[0, 2:4, 36:38] = 100  # a ghost
    found = body_mask(image)
    assert found[10:30, 10:30].all()
    assert not found[2:4, 36:38].any()
    volume = np.stack([image, image], -1)
    assert np.array_equal(body_mask(volume)[..., 1], found) or body_mask(volume)[10:30, 10:30].all()


def test_a_slice_of_a_few_bright_pixels_is_read() -> None:
    """As above a head: local means of running sums are 1e-17 elsewhere, no signal."""
    image = np.zeros((1, 96, 96), np.float32)
    image[0, 40:43, 50:53] = np.linspace(0.3, 1.376, 9, dtype=np.float32).reshape(3, 3)
    found = body_mask(image)
    assert found[40:43, 50:53].all()
    found[34:49, 44:59] = False
    assert not found.any()


def test_an_image_without_air_is_all_body() -> None:
    dark = 100 + np.random.default_rng(0).normal(0, 4, (1, 48, 48)).astype(np.float32)
    dark[0, 30:40, 10:20] = 400
    assert body_mask(dark).all()


@pytest.mark.parametrize("name", ["sub-9709Ses1_run-1", "sub-9709Ses2_run-1", "sub-9584_run-1"])
def test_real_slices_whose_air_is_bright(real_data: Path, name: str) -> None:
    path = next((real_data / "B2_gm_challenge").glob(f"sub-*/anat/{name}_T2starw.nii.gz"))
    volume = np.asarray(nib.load(path).dataobj).astype(np.float32)
    image = volume[None, :, :, volume.shape[2] // 2]
    found = body_mask(image)
    corners = np.concatenate([found[:20, :20], found[-20:, :20], found[:20, -20:], found[-20:, -20:]])
    assert corners.mean() < 0.05  # above 5 % of the maximum: nearly all of them
    assert 0.2 < found.mean() < 0.6
    assert found[image[0] > np.percentile(image, 90)].mean() > 0.95
