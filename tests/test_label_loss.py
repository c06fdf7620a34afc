"""What preparation takes of a label: measured per label and step, noted, refused above the bound."""

import numpy as np
import pytest

from augengine.errors import DataError
from augengine.label_loss import LabelWatch, keep_vanished, label_volumes
from augengine.prepare import Preparation, prepare
from augengine.records import Sample

LABELS = {"rim": 1, "core": 2}


def volume(label: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 3.0)) -> Sample:
    image = np.random.default_rng(7).normal(100, 20, (1, *label.shape)).astype(np.float32)
    return Sample(
        image=image,
        affine=np.diag([*spacing, 1.0]),
        channels=("t1",),
        subject_id="s",
        volume_id="v",
        label=label,
        labels=LABELS,
    )


def prepared(label: np.ndarray, max_loss: float = 0.1, **settings: object) -> tuple[list[Sample], list[str]]:
    sample = volume(label)
    watch = LabelWatch.of(label, sample.affine, LABELS, max_loss)
    return prepare(sample, Preparation(**settings), watch=watch), watch.notes


def box(*places: tuple[slice, ...], shape: tuple[int, ...] = (40, 40, 10)) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    for code, place in enumerate(places, 1):
        label[place] = code
    return label


def test_volumes_are_mm3_of_each_code() -> None:
    found = label_volumes(box(np.s_[:4, :5, :2], np.s_[9:10, 9:10, 9:10]), np.diag([2.0, 1, 3, 1]))
    assert found[1] == pytest.approx(4 * 5 * 2 * 6)
    assert found[2] == pytest.approx(6)
    assert found[3:].sum() == 0


def test_end_slices_that_hold_a_label_are_noted_and_refused_with_the_flag() -> None:
    label = box(np.s_[10:20, 10:20, 31:40], shape=(40, 40, 40))
    assert prepared(label)[1] == []
    rows, notes = prepared(label, 0.12, drop_end_slices=1)
    assert notes == ["label 'rim': 11% of 2700 mm3 lost by --drop-end-slices"]
    assert len(rows) == 38
    with pytest.raises(DataError, match=r"label 'rim' at most 10%.*the last of it by --drop-end-slices.*--max-label"):
        prepared(label, 0.1, drop_end_slices=1)


def test_a_tissue_loses_what_end_slices_were_asked_for() -> None:
    tissue = box(np.s_[5:35, 5:35, :], np.s_[10:20, 10:20, 6:10])
    with pytest.raises(DataError, match=r"label 'core' at most 40% may be lost; found 50%"):
        prepared(tissue, 0.1, drop_end_slices=2)
    tissue[10:20, 10:20, 5] = 2
    _, notes = prepared(tissue, 0.1, drop_end_slices=2)
    assert [n[:20] for n in notes] == ["label 'rim': 40% of ", "label 'core': 40% of"]


def test_a_label_that_goes_whole_is_refused_however_small() -> None:
    label = box(np.s_[5:35, 5:35, 1:9], np.s_[3:4, 3:4, 9:10])
    with pytest.raises(DataError, match=r"'core'.*100% of 3 mm3"):
        prepared(label, 0.9, drop_end_slices=1)
    assert len(prepared(label, 1.0, drop_end_slices=1)[0]) == 8


def test_a_crop_counts_apart_from_resampling() -> None:
    label = box(np.s_[2:22, 10:20, 2:6])
    with pytest.raises(DataError, match=r"\(outside of the field of view\)"):
        prepared(label, size=20, spacing_mm=1.0)  # keeps columns 10 to 29 of 40
    rows, notes = prepared(label, 0.5, size=20, spacing_mm=1.0)
    assert notes == ["label 'rim': 40% of 2400 mm3 lost by --size/--spacing-mm (outside of the field of view)"]
    assert sum(int((row.label == 1).sum()) for row in rows if row.label is not None) == 12 * 10 * 4


def test_resampling_keeps_volumes_and_every_slice() -> None:
    label = box(np.s_[7:31, 9:28, 2:8], np.s_[18:19, 17:18, 8:9])
    rows, notes = prepared(label, 0.02, spacing_mm=4.0)
    has = [bool((row.label == 2).any()) for row in rows if row.label is not None]
    assert has == [False] * 8 + [True, False]
    assert sum(int((row.label == 1).sum()) for row in rows if row.label is not None) * 48 == pytest.approx(
        np.count_nonzero(label == 1) * 3, rel=0.02
    )
    assert notes == []
    (whole,), _ = prepared(label, 0.02, slices=False, spacing_mm=4.0)
    assert set(np.unique(whole.label)) == {0, 1, 2}


def test_without_a_watch_nothing_is_refused() -> None:
    rows = prepare(volume(box(np.s_[0:2, 0:2, 0:1])), Preparation(drop_end_slices=3))
    assert not any(row.label.any() for row in rows if row.label is not None)


def test_a_vanished_code_gets_the_voxel_of_its_largest_share() -> None:
    before = np.zeros((8, 8, 2), np.uint8)
    before[0:2, 0:2, 0] = 1  # four centres in one coarse voxel
    before[4, 4, 0] = before[5, 7, 0] = 1
    before[4:6, 4, 1] = 2
    coarse = np.diag([4.0, 4, 1, 1])
    coarse[:2, 3] = 1.5
    kept, given = keep_vanished(before, np.eye(4), np.zeros((2, 2, 2), np.uint8), coarse, (2,))
    np.testing.assert_array_equal(kept[..., 0], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(kept[..., 1], [[0, 0], [0, 2]])
    assert given == 2
    same, none = keep_vanished(before, np.eye(4), kept, coarse, (2,))
    np.testing.assert_array_equal(same, kept)
    assert none == 0


def test_the_last_voxel_of_another_code_is_not_taken() -> None:
    before = np.zeros((4, 4, 1), np.uint8)
    before[:2, :2] = 1
    before[0, 0] = 2
    coarse = np.diag([4.0, 4, 1, 1])
    coarse[:2, 3] = 1.5
    kept, given = keep_vanished(before, np.eye(4), np.ones((1, 1, 1), np.uint8), coarse, (2,))
    assert (int(kept[0, 0, 0]), given) == (1, 0)
