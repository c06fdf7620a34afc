"""The contact sheet: one row per subject, with or without a truth, and a clear error without rows."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import pytest
from builders import slice_sample, write_samples

from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.store import Store
from augengine.records import Provenance, Sample
from augengine.report.contact_sheet import contact_sheet, upright


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


def test_no_rows_is_an_error(tmp_path: Path) -> None:
    data = Store(write_samples(tmp_path, [slice_sample(1)]))
    with pytest.raises(DataError, match="no accepted row to show"):
        contact_sheet(data, dataset_files(data), data, [])


def test_upright_puts_anterior_on_top_and_the_patients_right_at_the_left() -> None:
    image = slice_sample(1).image[0]
    image[:] = 0
    image[-1, -1] = 1  # the most right, most anterior voxel
    assert upright(image)[0, 0] == 1
