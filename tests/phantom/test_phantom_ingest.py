"""What the phantom writes is what the readers read: both ways to a sample agree voxel by voxel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from augengine.errors import ConfigError
from augengine.io.labels import SCHEMES
from augengine.io.layouts import open_layout
from augengine.io.sources import SourceOptions
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.phantom.write import write
from augengine.phantom.write_duke import write_duke_subject
from augengine.prepare import Preparation, prepare
from augengine.records import Sample

WHOLE = Preparation(slices=False)


def read_all(root: Path, layout: str, options: SourceOptions) -> list[Sample]:
    reader, listing = open_layout(root, layout, options)
    sources = [source for entry in listing.entries for source in reader.scan(entry).sources]
    assert all(s.error is None for s in sources)
    return [prepare(reader.read(s).sample, WHOLE)[0] for s in sources]


@pytest.mark.parametrize("layout", ["duke-classic", "duke-descriptive"])
def test_duke(tmp_path: Path, layout: str) -> None:
    cohort = Cohort(subjects=9, seed=4, matrix=64, slices=4, siemens_fraction=0.5, lesion_fraction=0.5)
    write(cohort, tmp_path, layout)  # type: ignore[arg-type]
    found = read_all(tmp_path, "duke", SourceOptions())
    assert len(found) == 9
    for i, sample in enumerate(found):
        direct = prepare(cohort.scan(i), WHOLE)[0]
        assert (sample.subject_id, sample.volume_id) == (direct.subject_id, direct.volume_id)
        assert sample.acquisition == direct.acquisition
        assert dict(sample.labels) == dict(direct.labels)
        assert np.array_equal(sample.image, direct.image)
        assert np.array_equal(sample.label, direct.label)
        assert np.allclose(sample.affine, direct.affine, atol=1e-3)
        assert sample.intensity_range == direct.intensity_range


@pytest.mark.parametrize("layout", ["brats2021", "brats2023"])
def test_brats(tmp_path: Path, layout: str) -> None:
    cohort = BrainCohort(subjects=2, seed=4, matrix=64, slices=16)
    write(cohort, tmp_path, layout)  # type: ignore[arg-type]
    found = read_all(tmp_path, layout, SourceOptions(labels=dict(SCHEMES[layout]), scheme=layout))
    for i, sample in enumerate(found):
        direct = prepare(cohort.scan(i), WHOLE)[0]
        assert sample.channels == direct.channels
        assert np.array_equal(sample.image, direct.image)
        assert sample.label is not None
        assert direct.label is not None
        for name, code in sample.labels.items():
            assert np.array_equal(sample.label == code, direct.label == direct.labels[name]), name


def test_duke_names_end_at_999(tmp_path: Path) -> None:
    cohort = Cohort(subjects=1000, matrix=32, slices=1)
    assert cohort.scan(999).subject_id == "Breast_MRI_1000"
    with pytest.raises(ConfigError, match="three digits"):
        write_duke_subject(cohort, 999, tmp_path)
