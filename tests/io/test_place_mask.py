"""Masks on their image's grid: grids that are one, headers that were lost, what is cut off, and what is unknown."""

from pathlib import Path

import numpy as np
import pytest
from mri_files import block, write_nifti
from reading import read_all, scanned

from augengine.errors import DataError
from augengine.io.folders import NiftiReader
from augengine.io.labels import Mask, place_mask
from augengine.io.sources import SourceOptions
from augengine.pipeline.ingest import ingest
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation, prepare

LABELS = {"lesion": 1, "cyst": 2}
IMAGE = np.array([[-1.0, 0, 0, 45], [0, 1, 0, -50], [0, 0, 3, -40], [0, 0, 0, 1]])
SHAPE = (90, 100, 30)


def turned(angle: float, shift: float = 0.0) -> np.ndarray:
    return np.array([[1, -angle, 0, shift], [angle, 1, 0, -shift], [0, 0, 1, shift], [0, 0, 0, 1]]) @ IMAGE


def border() -> np.ndarray:
    edge = np.ones(SHAPE, np.uint8)
    edge[1:-1, 1:-1, 1:-1] = 0
    return edge


@pytest.mark.parametrize(("angle", "shift", "noted"), [(0, 0, False), (1e-4, 0, False), (3e-4, 0.02, True)])
def test_grids_within_a_tenth_of_a_voxel_are_one(angle: float, shift: float, noted: bool) -> None:
    label, watch = place_mask(Mask(border(), turned(angle, shift)), SHAPE, IMAGE, LABELS)
    np.testing.assert_array_equal(label, border())
    assert bool(watch.notes) == noted


def test_a_mask_turned_by_more_is_resampled_in_place() -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[30:60, 30:60, 10:20] = 1
    label, watch = place_mask(Mask(mask, turned(0.05)), SHAPE, IMAGE, LABELS)
    assert "resampled into the image grid" in watch.notes[0]
    np.testing.assert_allclose(label.sum(), mask.sum(), rtol=0.02)
    expected = np.linalg.inv(IMAGE) @ turned(0.05) @ [44.5, 44.5, 14.5, 1]
    np.testing.assert_allclose(np.argwhere(label).mean(0), expected[:3], atol=0.1)


def test_axes_that_run_the_other_way_lose_nothing() -> None:
    flipped = IMAGE @ np.array([[-1, 0, 0, 89], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    label, watch = place_mask(Mask(border()[::-1], flipped), SHAPE, IMAGE, LABELS, max_loss=0)
    np.testing.assert_array_equal(label, border())
    assert watch.uncovered is None


@pytest.mark.parametrize("lost", ["mask", "image"])
def test_a_lost_header_is_refused_or_stated(tmp_path: Path, lost: str) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:60, 20:80, 5:25] = 1
    write_nifti(tmp_path / "p.nii.gz", block(SHAPE), np.eye(4) if lost == "image" else IMAGE)
    write_nifti(tmp_path / "p_seg.nii.gz", mask, np.eye(4) if lost == "mask" else IMAGE)
    reader = NiftiReader(tmp_path, SourceOptions(labels=LABELS))
    with pytest.raises(DataError, match=rf"header of the {lost} states none but the identity.*--mask-grid image"):
        reader.read(scanned(reader)[0])
    (volume,) = read_all(NiftiReader(tmp_path, SourceOptions(labels=LABELS, mask_grid="image")))
    np.testing.assert_array_equal(volume.sample.label, mask)
    assert any("voxel by voxel" in note for note in volume.notes)
    believed = NiftiReader(tmp_path, SourceOptions(labels=LABELS, mask_grid="header"))
    with pytest.raises(DataError, match=r"may be lost|must overlap"):  # most of it lies elsewhere, if both are right
        believed.read(scanned(believed)[0])


def test_a_mask_without_any_header(tmp_path: Path) -> None:
    write_nifti(tmp_path / "p.nii", block())
    write_nifti(tmp_path / "p_seg.nii", (block() > 500).astype(np.uint8), coded=False)
    reader = NiftiReader(tmp_path, SourceOptions(labels=LABELS))
    with pytest.raises(DataError, match=r"must state where its voxels lie.*--mask-grid image"):
        reader.read(scanned(reader)[0])
    (volume,) = read_all(NiftiReader(tmp_path, SourceOptions(labels=LABELS, mask_grid="image")))
    np.testing.assert_array_equal(volume.sample.label, block() > 500)
    write_nifti(tmp_path / "p_seg.nii", np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(DataError, match="needs masks of the image's shape"):
        read_all(NiftiReader(tmp_path, SourceOptions(labels=LABELS, mask_grid="image")))


def test_what_lies_outside_of_the_image_is_noted_and_then_refused() -> None:
    def placed(outside: int, max_loss: float = 0.1) -> list[str]:
        mask = np.zeros((40, 20, 10), np.uint8)
        mask[20 - outside : 40 - outside, 5:10, 2:4] = 1
        mask[30, 12, 5] = 2
        affine = np.diag([1.0, 1, 3, 1])
        affine[0, 3] = -20  # the image begins at mask voxel 20
        return place_mask(Mask(mask, affine), (20, 20, 10), np.diag([1.0, 1, 3, 1]), LABELS, max_loss)[1].notes

    assert len(placed(0)) == 1
    assert placed(1)[1] == (
        "label 'lesion': 5% of 600 mm3 lost by resampling onto the image's grid (outside of the field of view)"
    )
    assert placed(2)[1].startswith("label 'lesion': 10%")
    with pytest.raises(DataError, match=r"of label 'lesion' at most 10% may be lost; found 15% of 600 mm3"):
        placed(3)
    assert placed(3, 0.2)[1].startswith("label 'lesion': 15%")


def test_a_small_lesion_of_a_fine_mask_stays_in_its_slice() -> None:
    mask = np.zeros((36, 30, 18), np.uint8)
    mask[10, 16, 8] = 1  # away from the middle of the coarse voxel, where nearest neighbour looks
    mask[21:30, 3:9, 3:9] = 2
    fine, coarse = np.eye(4), np.diag([3.0, 3, 3, 1])
    fine[:3, 3] = -1
    label, watch = place_mask(Mask(mask, fine), (12, 10, 6), coarse, LABELS)
    np.testing.assert_array_equal(np.argwhere(label == 1), [[3, 5, 2]])
    assert "1 voxels of labels that resampling onto the image's grid would take from a slice were kept" in watch.notes


def test_slices_beyond_the_mask_have_no_label_and_are_not_healthy(tmp_path: Path) -> None:
    write_nifti(tmp_path / "p.nii", block(), np.diag([1.0, 1, 3, 1]))
    above = np.diag([1.0, 1, 3, 1])
    above[2, 3] = 6
    write_nifti(tmp_path / "p_seg.nii", (block() > 600).astype(np.uint8)[..., 2:5], above)
    (volume,) = read_all(NiftiReader(tmp_path, SourceOptions(labels=LABELS)))
    rows = prepare(volume.sample, Preparation(), watch=volume.watch)
    assert [row.label is None for row in rows] == [True, True, False, False, False, True]
    assert all(bool(row.labels) == (row.label is not None) for row in rows)
    np.testing.assert_array_equal(rows[3].label, block()[..., 3] > 600)
    assert volume.watch is not None
    assert "50% of the image lie beyond the mask; 3 slices wholly, they have no label" in volume.watch.notes
    with pytest.raises(DataError, match=r"a volume row must cover its image; found 50%"):
        prepare(volume.sample, Preparation(slices=False), watch=volume.watch)


def test_losses_of_all_steps_add_up_in_an_ingest(tmp_path: Path) -> None:
    """A tenth may go: 7 % with the mask's grid and 8 % with the end slices is too much, each alone is not."""
    mask = np.zeros((40, 20, 40), np.uint8)
    mask[20:36, 5:15, 0:12] = 1
    mask[10:18, 5:15, 2] = mask[10:16, 5:15, 3] = 1  # before the image begins
    affine = np.diag([1.0, 1, 3, 1])
    affine[0, 3] = -20
    write_nifti(tmp_path / "in" / "p.nii", block((20, 20, 40)), np.diag([1.0, 1, 3, 1]))
    write_nifti(tmp_path / "in" / "p_seg.nii", mask, affine)
    assert (mask[:20].sum() / mask.sum(), mask[..., 0].sum() / mask.sum()) == pytest.approx((0.068, 0.078), abs=1e-3)

    def outcome(drop: int, bound: float) -> str:
        (found,) = ingest(
            tmp_path / "in",
            str(tmp_path / f"out{drop}{bound}"),
            actors=INLINE,
            options=SourceOptions(labels=LABELS, max_label_loss=bound),
            preparation=Preparation(drop_end_slices=drop),
        )["sources"]
        assert found["rows"] == (0 if found["reason"] else 40 - 2 * drop)
        return str(found["reason"] or "; ".join(found["notes"]))

    assert "7% of 6180 mm3 lost by resampling onto the image's grid (outside" in outcome(0, 0.1)
    assert "found 15% of 6180 mm3 lost, the last of it by --drop-end-slices" in outcome(1, 0.1)
    assert "8% of 6180 mm3 lost by --drop-end-slices" in outcome(1, 0.2)
