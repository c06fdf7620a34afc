"""The contact sheet: one row per subject, with or without a truth, and a clear error without rows."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from builders import lesion_sample, slice_sample, write_samples

from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.store import Store
from augengine.records import Provenance, Sample
from augengine.report import contact_sheet as module
from augengine.report.contact_sheet import contact_sheet, most_changed, named_place, plane, upright


def edited(source: Sample) -> Sample:
    provenance = Provenance(f"out-{source.sample_id}", source.sample_id, "p", "d", "acquisition", {})
    return source.replace(image=source.image[:, ::-1].copy(), provenance=provenance)


def draw(tmp_path: Path, subjects: int, truth: bool) -> tuple[int, int]:
    sources = [slice_sample(s, i) for s in range(subjects) for i in range(4)]
    data = Store(write_samples(tmp_path / "data", sources, per_file=100))
    out = Store(write_samples(tmp_path / "out", [edited(s) for s in sources], per_file=100))
    path = contact_sheet(data, dataset_files(data), out, dataset_files(out), truth=normalise if truth else None)
    picture = matplotlib.image.imread(path)
    assert picture[..., :3].std() > 0.1, "the picture is empty"
    return picture.shape[:2]


def test_size_follows_subjects_and_truth(tmp_path: Path) -> None:
    small, tall = draw(tmp_path / "a", 1, False), draw(tmp_path / "b", 3, False)
    wide = draw(tmp_path / "c", 3, True)
    assert tall[0] == 3 * small[0]
    assert wide[1] * 3 == tall[1] * 5
    assert draw(tmp_path / "d", 20, False)[0] == 6 * small[0]


def test_the_channel_and_the_slice_that_changed_most_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = lesion_sample(1, at_mm=(-8.0, 0.0, 4.0), size=12, voxel_mm=8.0)
    image = source.image.copy()
    image[1, :, :, 4] += 200
    image[0, 5, 5, 7] += 900
    provenance = Provenance("out", source.sample_id, "p", "d", "tumor_removal", {})
    after = source.replace(image=image, provenance=provenance)
    place = most_changed(normalise(after) - normalise(source))
    assert place == (1, 4)
    assert named_place(source, place) == "flair, slice 4"
    assert np.array_equal(plane(after.image, place), image[1, :, :, 4])
    assert most_changed(np.array([[[0.0]], [[-3.0]], [[2.0]]])) == (1,)
    assert named_place(lesion_sample(1), (1,)) == "flair"
    shown: list[np.ndarray] = []
    monkeypatch.setattr(module, "upright", lambda picture: shown.append(picture) or picture)
    data, out = Store(write_samples(tmp_path / "data", [source])), Store(write_samples(tmp_path / "out", [after]))
    contact_sheet(data, dataset_files(data), out, dataset_files(out), truth=normalise)
    expected = [normalise(s)[1, :, :, 4] for s in (source, after, after)]
    assert len(shown) == 5
    for picture, wanted in zip(shown, expected, strict=False):
        np.testing.assert_array_equal(picture, wanted)


def test_no_rows_is_an_error(tmp_path: Path) -> None:
    data = Store(write_samples(tmp_path, [slice_sample(1)]))
    with pytest.raises(DataError, match="no accepted row to show"):
        contact_sheet(data, dataset_files(data), data, [])


def test_upright_puts_anterior_on_top_and_the_patients_right_at_the_left() -> None:
    image = slice_sample(1).image[0]
    image[:] = 0
    image[-1, -1] = 1  # the most right, most anterior voxel
    assert upright(image)[0, 0] == 1
