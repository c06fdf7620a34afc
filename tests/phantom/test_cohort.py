"""A cohort follows from its description, and its truths are true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from augengine.commands.phantom import phantom_command
from augengine.errors import ConfigError, DataError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.phantom.protocols import GE, SIEMENS, is_fat_saturated
from augengine.phantom.write import prepared, read_cohort, true_counterfactual, write
from augengine.pipeline.phantom import shard_cohort
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation

COHORT = Cohort(subjects=12, seed=5, matrix=64, slices=4)


def test_description_survives_json() -> None:
    again = Cohort.model_validate(json.loads(COHORT.model_dump_json()))
    assert again == COHORT
    with pytest.raises(ValidationError):
        Cohort(subject=3)  # type: ignore[call-arg]


def test_subjects_do_not_depend_on_the_size_of_the_cohort() -> None:
    larger = COHORT.model_copy(update={"subjects": 500})
    assert larger.acquisition(3) == COHORT.acquisition(3)
    assert larger.scan(3).image.tobytes() == COHORT.scan(3).image.tobytes()


def test_names_and_their_inverse() -> None:
    assert COHORT.subject_id(0) == "Breast_MRI_001"
    assert [COHORT.index_of(COHORT.subject_id(i)) for i in range(12)] == list(range(12))
    for wrong in ("Breast_MRI_013", "Breast_MRI_000", "Breast_MRI_1", "someone"):
        with pytest.raises(DataError, match="not of this phantom cohort"):
            COHORT.index_of(wrong)
    with pytest.raises(DataError, match="use 0 to 11"):
        COHORT.scan(12)


def test_truth_under_the_scans_own_parameters_is_the_same_scan_but_for_noise() -> None:
    scan = COHORT.scan(2)
    truth = COHORT.truth(scan.subject_id, scan.acquisition)
    assert truth.volume_id != scan.volume_id
    assert np.array_equal(truth.label, scan.label)
    assert not np.array_equal(truth.image, scan.image)
    clean = COHORT.truth(scan.subject_id, scan.acquisition, noise=False).image
    inside = scan.label > 0
    assert np.corrcoef(clean[0][inside], scan.image[0][inside])[0, 1] > 0.9
    # The coil sits where it sat: what differs after smoothing is noise, without a slope.
    smooth, smooth_clean = (ndimage.gaussian_filter(v[0] * inside, (4, 4, 0)) for v in (scan.image, clean))
    ratio = (smooth / np.maximum(smooth_clean, 1e-3))[inside]
    assert ratio.std() < 0.02 * ratio.mean()
    other = COHORT.truth(scan.subject_id, COHORT.acquisition(3), noise=False)
    assert np.array_equal(other.label, scan.label)
    assert other.acquisition == COHORT.acquisition(3)


def test_shares_are_obeyed() -> None:
    cohort = Cohort(subjects=400, siemens_fraction=0.5, no_fat_saturation_fraction=0.25)
    drawn = [cohort.acquisition(i) for i in range(400)]
    assert np.mean([a.manufacturer == SIEMENS for a in drawn]) == pytest.approx(0.5, abs=0.08)
    assert np.mean([is_fat_saturated(a) for a in drawn]) == pytest.approx(0.75, abs=0.07)
    assert {a.manufacturer for a in drawn} == {GE, SIEMENS}
    habits = Cohort(subjects=400, siemens_fraction=0.5, no_fat_saturation_fraction={GE: 0.0, SIEMENS: 0.5})
    shares = {GE: [], SIEMENS: []}
    for acquisition in map(habits.acquisition, range(400)):
        shares[acquisition.manufacturer].append(is_fat_saturated(acquisition))
    assert (np.mean(shares[GE]), np.mean(shares[SIEMENS])) == (1.0, pytest.approx(0.5, abs=0.1))
    with pytest.raises(ValueError, match="unknown manufacturer 'Philips'"):
        Cohort(no_fat_saturation_fraction={"Philips": 0.5})
    ill = Cohort(subjects=8, matrix=64, slices=4, lesion_fraction=1.0)
    assert all(ill.anatomy(i).lesion is not None for i in range(8))


def test_parameters_that_vary_alone() -> None:
    plain = Cohort(subjects=300, siemens_fraction=0.5)
    alone = plain.model_copy(update={"independent": {"echo_time_ms": (1.0, 4.0), "flip_angle_deg": (5.0, 30.0)}})
    drawn = [alone.acquisition(i) for i in range(300)]
    echo, flip = (np.array([getattr(a, name) for a in drawn]) for name in ("echo_time_ms", "flip_angle_deg"))
    for values, (low, high) in ((echo, (1.0, 4.0)), (flip, (5.0, 30.0))):
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high
    siemens = np.array([a.manufacturer == SIEMENS for a in drawn])
    assert np.abs(np.corrcoef([echo, flip, siemens]) - np.eye(3)).max() < 0.2
    coupled = [plain.acquisition(i).repetition_time_ms for i in range(300)]
    assert [a.repetition_time_ms for a in drawn] == coupled  # what has no range is drawn as ever
    assert "independent" not in plain.model_dump()
    with pytest.raises(ValueError, match="the range of echo_time_ms rises from above 0, found 4 to 1"):
        Cohort(independent={"echo_time_ms": (4.0, 1.0)})


def test_prepared_slices_and_their_counterfactual() -> None:
    preparation = Preparation(size=48, drop_end_slices=1)
    slices = prepared(COHORT, 0, preparation)
    assert [s.slice_index for s in slices] == [1, 2]
    assert slices[0].image.shape == (1, 48, 48)
    target = COHORT.acquisition(1)
    truth = true_counterfactual(COHORT, slices[1], target, preparation)
    assert truth.slice_index == 2
    assert truth.acquisition == target
    assert np.array_equal(truth.label, slices[1].label)
    with pytest.raises(DataError, match="no such slice"):
        true_counterfactual(COHORT, slices[1].replace(slice_index=3), target, preparation)


def test_small_brain_volumes_shard_as_isotropic_blocks(tmp_path: Path) -> None:
    cohort = BrainCohort(subjects=3, seed=5, matrix=48, slices=32, labels="tissue")
    shard_cohort(cohort, str(tmp_path), Preparation(slices=False), actors=INLINE)
    store = Store(str(tmp_path))
    samples = list(iter_samples(store, dataset_files(store)))
    assert {s.subject_id for s in samples} == {cohort.subject_id(i) for i in range(3)}
    for sample in samples:
        assert sample.image.shape == (4, 48, 48, 32)
        assert sample.slice_index is None
        assert max(sample.spacing_mm) < 1.05 * min(sample.spacing_mm)
        whole = cohort.scan(cohort.index_of(sample.subject_id))
        assert np.array_equal(sample.image, whole.image)
        assert np.array_equal(sample.label, whole.label)
        assert dict(sample.labels) == dict(whole.labels)


def test_breasts_have_no_tissue_labels_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        phantom_command("breast-shards", out=str(tmp_path / "out"), labels="tissue")
    assert "--labels: only brains have tissue labels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cohort_files_and_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no phantom cohort here"):
        read_cohort(tmp_path)
    (tmp_path / "cohort.json").write_text('{"kind": "knee"}')
    with pytest.raises(DataError, match="not a cohort description"):
        read_cohort(tmp_path)
    with pytest.raises(ConfigError, match="brain: brats2021"):
        write(BrainCohort(subjects=1), tmp_path, "duke-classic")
    write(COHORT, tmp_path / "one", "duke-classic", subjects=[0])
    assert read_cohort(tmp_path / "one") == COHORT
