"""BraTS of every year: names, channel order, label schemes that are stated and checked."""

from pathlib import Path

import numpy as np
import pytest
from mri_files import block, write_nifti
from reading import scanned

from augengine.errors import ConfigError, DataError
from augengine.io.labels import parse_labels
from augengine.io.layouts import detect, open_layout
from augengine.io.sources import SourceOptions
from augengine.records import Sample

OLD, NEW = ("t1", "t1ce", "t2", "flair"), ("t1n", "t1c", "t2w", "t2f")
CASES = {
    "brats2020": ("BraTS20_Training_001", "_", OLD, ".nii", "brats2020", (1, 2, 4)),
    "brats2021": ("BraTS2021_00000", "_", OLD, ".nii.gz", "brats2021", (1, 2, 4)),
    "brats2023": ("BraTS-MEN-00004-000", "-", NEW, ".nii.gz", "brats2023", (1, 2, 3)),
    "brats2024-gli": ("BraTS-GLI-02064-100", "-", NEW, ".nii.gz", "brats2024-gli", (1, 2, 3, 4)),
}  # fmt: skip


def write_case(root: Path, year: str, codes: tuple[int, ...] | None = None, mask_name: str | None = None) -> str:
    case, separator, suffixes, end, _, own = CASES[year]
    for n, suffix in enumerate(suffixes):
        write_nifti(root / case / f"{case}{separator}{suffix}{end}", block(seed=n))
    label = np.zeros((12, 10, 6), np.uint8)
    for n, code in enumerate(codes or own):
        label[n] = code
    write_nifti(root / case / (mask_name or f"{case}{separator}seg{end}"), label)
    return case


def options(scheme: str) -> SourceOptions:
    labels, name = parse_labels(scheme)
    return SourceOptions(labels=labels, scheme=name)


def read(root: Path, layout: str, scheme: str) -> Sample:
    reader, _ = open_layout(root, layout, options(scheme))
    (source,) = scanned(reader)
    assert source.error is None
    return reader.read(source).sample


@pytest.mark.parametrize("year", CASES)
def test_every_year(tmp_path: Path, year: str) -> None:
    case = write_case(tmp_path / "download" / "Training", year)
    sample = read(tmp_path, "auto", CASES[year][4])
    assert sample.subject_id == case
    assert sample.channels == ("t1", "t1c", "t2", "flair")
    for n in range(4):
        np.testing.assert_array_equal(sample.image[n], block(seed=n))
    assert sample.label is not None
    assert (sample.label[2] == sample.labels["enhancing"]).all()
    assert ("cavity" in sample.labels) == (year == "brats2024-gli")


def test_case_355_of_2020(tmp_path: Path) -> None:
    write_case(tmp_path, "brats2020", mask_name="W39_1998.09.19_Segm.nii")
    label = read(tmp_path, "brats2020", "brats2020").label
    assert label is not None
    assert set(np.unique(label)) == {0, 1, 2, 4}


def test_code_4_under_the_wrong_scheme_is_an_error(tmp_path: Path) -> None:
    write_case(tmp_path, "brats2023", codes=(1, 2, 4))
    with pytest.raises(DataError, match=r"code\(s\) \[4\]"):
        read(tmp_path, "brats2023", "brats2023")
    write_case(tmp_path / "old", "brats2021", codes=(1, 2, 3))
    with pytest.raises(DataError, match=r"code\(s\) \[3\]"):
        read(tmp_path / "old", "brats2021", "brats2021")


def test_the_scheme_must_be_stated_and_belong_to_the_layout(tmp_path: Path) -> None:
    write_case(tmp_path, "brats2021")
    with pytest.raises(ConfigError, match="label scheme"):
        open_layout(tmp_path, "brats2021", SourceOptions())
    with pytest.raises(ConfigError, match="state --labels brats2021"):
        open_layout(tmp_path, "brats2021", options("brats2024-gli"))
    write_case(tmp_path / "new", "brats2024-gli")
    with pytest.raises(ConfigError, match="named alike"):
        detect(tmp_path / "new", SourceOptions())


def test_missing_channel_and_validation_case(tmp_path: Path) -> None:
    case = write_case(tmp_path, "brats2021")
    (tmp_path / case / f"{case}_seg.nii.gz").unlink()
    sample = read(tmp_path, "brats2021", "brats2021")
    assert sample.label is None
    assert not sample.labels
    (tmp_path / case / f"{case}_t2.nii.gz").unlink()
    reader, _ = open_layout(tmp_path, "brats2021", options("brats2021"))
    assert "missing: t2" in str(scanned(reader)[0].error)
