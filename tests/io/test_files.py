"""NIfTI and NRRD folders: pairing, grids, masks, codes, and damaged files."""

from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from mri_files import block, write_nifti
from reading import scanned

from augengine.errors import ConfigError, DataError
from augengine.io.folders import NiftiReader, NrrdReader
from augengine.io.labels import parse_labels
from augengine.io.nifti import read_nifti
from augengine.io.nrrd import read_nrrd
from augengine.io.sources import Source, SourceOptions
from augengine.prepare import Preparation, prepare
from augengine.records import Sample


def sources(root: Path, reader_class: type = NiftiReader, **options: object) -> tuple[NiftiReader, list[Source]]:
    reader = reader_class(root, SourceOptions(**options))
    return reader, scanned(reader)


def read_all(root: Path, reader_class: type = NiftiReader, **options: object) -> list[tuple[Sample, list[str]]]:
    reader, found = sources(root, reader_class, **options)
    assert [s.error for s in found] == [None] * len(found)
    volumes = [reader.read(s) for s in found]
    return [(v.sample, list(v.notes)) for v in volumes]


def test_slope_dtype_and_affine_are_nibabels(tmp_path: Path) -> None:
    data = block().astype(np.int16)
    affine = np.array([[0, -2.0, 0, 10], [0, 0, 3.0, -4], [1.0, 0, 0, 7], [0, 0, 0, 1]])
    image = nib.Nifti1Image(data, affine)
    image.header.set_slope_inter(0.25, -3)
    nib.save(image, tmp_path / "scaled.nii.gz")
    stored = np.asanyarray(nib.load(tmp_path / "scaled.nii.gz").dataobj)
    found, found_affine, _ = read_nifti(tmp_path / "scaled.nii.gz")
    np.testing.assert_allclose(found, stored)
    np.testing.assert_allclose(found_affine, affine)
    write_nifti(tmp_path / "whole.nii", data)
    assert read_nifti(tmp_path / "whole.nii")[0].dtype == np.int16


def test_refused_files(tmp_path: Path) -> None:
    write_nifti(tmp_path / "5d.nii", np.zeros((4, 4, 4, 1, 2), np.float32))
    write_nifti(tmp_path / "4d1.nii", block()[..., None])
    write_nifti(tmp_path / "uncoded.nii", block(), coded=False)
    write_nifti(tmp_path / "cut.nii.gz", block())
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "cut.nii.gz").read_bytes()[:500])
    (tmp_path / "text.nii").write_text("this is text")
    for name, message in {
        "5d.nii": "one 3D volume",
        "uncoded.nii": "sform or qform",
        "cut.nii.gz": "damaged",
        "text.nii": "damaged",
        "absent.nii": "missing",
    }.items():
        with pytest.raises(DataError, match=message):
            read_nifti(tmp_path / name)
    assert read_nifti(tmp_path / "4d1.nii")[0].shape == (12, 10, 6)


def test_nan_is_refused_when_prepared(tmp_path: Path) -> None:
    data = block().astype(np.float32)
    data[0, 0, 0] = np.nan
    write_nifti(tmp_path / "a.nii", data)
    ((sample, _),) = read_all(tmp_path)
    with pytest.raises(DataError, match="1 NaN"):
        prepare(sample, Preparation())


def test_pairs_by_suffix_and_ids(tmp_path: Path) -> None:
    for name in ("p1", "p2_image", "p3"):
        write_nifti(tmp_path / f"{name}.nii.gz", block())
    write_nifti(tmp_path / "p2_label.nii.gz", (block() > 500).astype(np.uint8))
    write_nifti(tmp_path / "p3_seg.nii.gz", (block() > 700).astype(np.float32))
    write_nifti(tmp_path / "p4_mask.nii.gz", (block() > 700).astype(np.float32))
    with pytest.raises(ConfigError, match="meaning of their codes"):
        sources(tmp_path)
    reader, found = sources(tmp_path, labels={"lesion": 1}, public_ids=True)
    assert [s.subject_id for s in found] == ["p1", "p2", "p3", "p4"]
    assert "missing: image" in str(found[3].error)
    labels = [reader.read(s).sample.label for s in found[:3]]
    assert labels[0] is None
    np.testing.assert_array_equal(labels[1], block() > 500)
    np.testing.assert_array_equal(labels[2], block() > 700)
    assert all(s.subject_id.startswith("sub-") for s in sources(tmp_path, labels={"lesion": 1})[1])


def test_channels_in_folders_and_in_one_folder(tmp_path: Path) -> None:
    for n, case in enumerate(("a", "b")):
        for k, name in enumerate(("t1", "t2")):
            data = block(seed=10 * n + k)
            write_nifti(tmp_path / "folders" / case / f"x_{name}.nii.gz", data)
            write_nifti(tmp_path / "flat" / f"{case}_{name}.nii.gz", data)
    channels = {"t2": "*_t2.nii.gz", "t1": "*_t1.nii.gz"}
    for folder in ("folders", "flat"):
        found = read_all(tmp_path / folder, channels=channels, public_ids=True)
        assert [s.subject_id for s, _ in found] == ["a", "b"]
        for n, (sample, _) in enumerate(found):
            assert sample.channels == ("t2", "t1")
            np.testing.assert_array_equal(sample.image[0], block(seed=10 * n + 1))
            np.testing.assert_array_equal(sample.image[1], block(seed=10 * n))
    (tmp_path / "flat" / "b_t1.nii.gz").unlink()
    errors = [s.error for s in sources(tmp_path / "flat", channels=channels)[1]]
    assert errors[0] is None
    assert "missing: t1" in str(errors[1])


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "x_t1.nii", block())
    write_nifti(tmp_path / "x_t2.nii", block(), np.diag([1.0, 1, 1, 1]))
    with pytest.raises(DataError, match="one grid"):
        read_all(tmp_path, channels={"t1": "*_t1.nii", "t2": "*_t2.nii"})


def test_masks_on_other_grids(tmp_path: Path) -> None:
    image = block((12, 12, 6))
    write_nifti(tmp_path / "a.nii", image, np.eye(4))
    # The same lesion on a finer grid, half a voxel off by its own affine.
    mask = np.zeros((24, 24, 6), np.uint8)
    mask[4:8, 6:12, 1:3] = 1
    fine = np.diag([0.5, 0.5, 1, 1])
    fine[:2, 3] = -0.25
    write_nifti(tmp_path / "a_seg.nii", mask, fine)
    ((sample, notes),) = read_all(tmp_path, labels={"lesion": 1})
    expected = np.zeros((12, 12, 6), np.uint8)
    expected[2:4, 3:6, 1:3] = 1
    np.testing.assert_array_equal(sample.label, expected)
    assert "resampled" in notes[0]
    write_nifti(tmp_path / "a_seg.nii", mask, np.eye(4))  # another shape, the same geometry: one header is wrong
    with pytest.raises(DataError, match="one shape"):
        read_all(tmp_path, labels={"lesion": 1})
    fine[:3, 3] = 500
    write_nifti(tmp_path / "a_seg.nii", mask, fine)
    with pytest.raises(DataError, match="overlap"):
        read_all(tmp_path, labels={"lesion": 1})


def test_schemes_are_parsed() -> None:
    assert parse_labels("brats2024-ped") == (
        {"enhancing": 1, "non_enhancing": 2, "cyst": 3, "oedema": 4},
        "brats2024-ped",
    )
    assert parse_labels("lesion=1, cyst=3") == ({"lesion": 1, "cyst": 3}, None)
    for bad in ("brats2022", "lesion=0", "lesion=1,lesion=2", "a=x"):
        with pytest.raises(ConfigError, match="label"):
            parse_labels(bad)


def nrrd_file(path: Path, data: np.ndarray, space: str = "left-posterior-superior") -> None:
    directions = np.array([[2.0, 0, 0], [0, -0.5, 0], [0, 0, 3.0]])
    nrrd.write(str(path), data, {"space": space, "space directions": directions, "space origin": [10.0, 20.0, -5.0]})


def test_nrrd_spaces(tmp_path: Path) -> None:
    for space, signs in {"left-posterior-superior": (-1, -1), "right-anterior-superior": (1, 1)}.items():
        nrrd_file(tmp_path / "a.nrrd", block(), space)
        data, affine, _ = read_nrrd(tmp_path / "a.nrrd")
        np.testing.assert_array_equal(data, block())
        expected = [[2 * signs[0], 0, 0, 10 * signs[0]], [0, -0.5 * signs[1], 0, 20 * signs[1]], [0, 0, 3, -5]]
        np.testing.assert_allclose(affine[:3], expected)
    nrrd.write(str(tmp_path / "bare.nrrd"), block())
    with pytest.raises(DataError, match="space"):
        read_nrrd(tmp_path / "bare.nrrd")
    (tmp_path / "cut.nrrd").write_bytes((tmp_path / "a.nrrd").read_bytes()[:400])
    with pytest.raises(DataError, match="damaged"):
        read_nrrd(tmp_path / "cut.nrrd")


def test_real_nrrd(real_data: Path) -> None:
    found = read_all(real_data / "A5_pyradiomics", NrrdReader, labels={"lesion": 1}, public_ids=True)
    assert {s.subject_id: int(s.label.sum()) for s, _ in found if s.label is not None} == {
        "brain1": 4137,
        "brain2": 453,
        "breast1": 143,
    }
    affine = next(s for s, _ in found if s.subject_id == "brain1").affine
    np.testing.assert_allclose(affine[:3, 3], (99.609375, -99.609375, -78))
    np.testing.assert_allclose(np.diag(affine)[:3], (-0.78125, 0.78125, 6.5))


def test_real_nifti(real_data: Path) -> None:
    ((ms, _),) = read_all(
        real_data / "A3_ms_patient19_mni",
        labels={"lesion": 1},
        mask="GOLD_*",
        channels={"t1": "T1_*", "t1c": "T1POST_*", "t2": "T2_*", "flair": "FLAIR_*"},
    )
    assert ms.label is not None
    assert ms.image.shape == (4, 182, 218, 182)
    assert int(ms.label.sum()) == 49769
    lesions, tissue = ms.image[3][ms.label == 1], ms.image[3][(ms.label == 0) & (ms.image[3] > 20)]
    assert np.median(lesions) > np.percentile(tissue, 80)  # lesions are bright on FLAIR: mask and image agree
