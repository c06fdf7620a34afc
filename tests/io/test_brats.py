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
from augengine.pipeline.ingest_plan import plan_ingest
from augengine.records import Sample

OLD, NEW = ("t1", "t1ce", "t2", "flair"), ("t1n", "t1c", "t2w", "t2f")
CASES = {
    "brats2020": ("BraTS20_Training_001", "_", OLD, ".nii", "brats2020", (1, 2, 4)),
    "brats2021": ("BraTS2021_00000", "_", OLD, ".nii.gz", "brats2021", (1, 2, 4)),
    "brats2023": ("BraTS-MEN-00004-000", "-", NEW, ".nii.gz", "brats2023", (1, 2, 3)),
    "brats2023-ped": ("BraTS-PED-00002-000", "-", NEW, ".nii.gz", "brats2023-ped", (1, 2, 3)),
    "brats2024-gli": ("BraTS-GLI-02064-100", "-", NEW, ".nii.gz", "brats2024-gli", (1, 2, 3, 4)),
    "brats2024-met": ("BraTS-MET-00500-001", "-", NEW, ".nii.gz", "brats2024-met", (1, 2, 3, 4)),
    "brats2024-ssa": ("BraTS-SSA-00002-000", "-", NEW, ".nii.gz", "brats2024-ssa", (1, 2, 3)),
    "brats2024-ped": ("BraTS-PED-00001-000", "-", NEW, ".nii.gz", "brats2024-ped", (1, 2, 3, 4)),
}


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
def test_every_year_and_task(tmp_path: Path, year: str) -> None:
    case = write_case(tmp_path / "download" / "Training", year)
    sample = read(tmp_path, "auto", CASES[year][4])
    assert sample.volume_id == case
    assert sample.subject_id == (case.rsplit("-", 1)[0] if "-" in case else case)
    assert sample.channels == ("t1", "t1c", "t2", "flair")
    for n in range(4):
        np.testing.assert_array_equal(sample.image[n], block(seed=n))
    assert sample.label is not None
    enhancing = 0 if year == "brats2024-ped" else 2  # code 1 in children of 2024, else the third
    assert (sample.label[enhancing] == sample.labels["enhancing"]).all()
    assert ("cavity" in sample.labels) == (year in ("brats2024-gli", "brats2024-met"))


def test_radiotherapy_cases_have_one_channel_and_a_target_volume(tmp_path: Path) -> None:
    case = "BraTS-MEN-RT-0012-1"
    write_nifti(tmp_path / case / f"{case}_t1c.nii.gz", block())
    write_nifti(tmp_path / case / f"{case}_gtv.nii.gz", (block() > 800).astype(np.uint8))
    sample = read(tmp_path, "auto", "brats2024-men-rt")
    assert (sample.subject_id, sample.volume_id, sample.channels) == ("BraTS-MEN-RT-0012", case, ("t1c",))
    np.testing.assert_array_equal(sample.label, block() > 800)
    assert dict(sample.labels) == {"gtv": 1}


def test_time_points_of_a_patient_share_subject_and_split(tmp_path: Path) -> None:
    for patient in range(12):
        for time in (100, 101, 102):
            case = f"BraTS-GLI-{patient:05d}-{time}"
            for suffix in NEW:
                write_nifti(tmp_path / case / f"{case}-{suffix}.nii.gz", block((3, 3, 2)))
            write_nifti(tmp_path / case / f"{case}-seg.nii.gz", np.zeros((3, 3, 2), np.uint8))
    plan = plan_ingest(tmp_path, "auto", options("brats2024-gli"), inline=True)
    assert len({s.volume_id for s in plan.sources}) == 36
    assert {s.subject_id for s in plan.sources} == {f"BraTS-GLI-{p:05d}" for p in range(12)}
    assert {s.participant for s in plan.sources} == {s.subject_id for s in plan.sources}
    assert set(plan.splits) == {s.subject_id for s in plan.sources}
    assert plan.hint is None  # names were understood: nothing to ask


@pytest.mark.parametrize(("stated", "own"), [("brats2024-gli", "brats2024-ped"), ("brats2023", "brats2023-ped")])
def test_a_task_with_codes_of_its_own_refuses_another_scheme(tmp_path: Path, stated: str, own: str) -> None:
    write_case(tmp_path, "brats2024-ped", codes=(1, 2, 3))
    with pytest.raises(ConfigError, match=f"task PED, needs a label scheme.*state --labels {own}"):
        open_layout(tmp_path, "auto", options(stated))
    # Beside cases that the scheme belongs to, the others fail one by one.
    write_case(tmp_path, "brats2024-gli", codes=(1, 2, 3))
    found = {s.volume_id[6:9]: s.error for s in scanned(open_layout(tmp_path, "auto", options(stated))[0])}
    assert found["GLI"] is None
    assert f"ingest it apart: state --labels {own}" in str(found["PED"])


def test_a_task_without_a_known_scheme_takes_stated_codes(tmp_path: Path) -> None:
    case = "BraTS-GOAT-00001-000"
    for n, suffix in enumerate(NEW):
        write_nifti(tmp_path / case / f"{case}-{suffix}.nii.gz", block(seed=n))
    write_nifti(tmp_path / case / f"{case}-seg.nii.gz", (block() > 800).astype(np.uint8))
    with pytest.raises(ConfigError, match="none is known here: state its codes"):
        open_layout(tmp_path, "brats2024", options("brats2024-gli"))
    reader, _ = open_layout(tmp_path, "brats2024", SourceOptions(labels={"tumour": 1}))
    (source,) = scanned(reader)
    assert int((reader.read(source).sample.label == 1).sum()) == int((block() > 800).sum())


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
    with pytest.raises(ConfigError, match="state --labels brats2020 or brats2021"):
        open_layout(tmp_path, "brats2021", options("brats2024-gli"))
    write_case(tmp_path / "new", "brats2024-gli")
    with pytest.raises(ConfigError, match=r"named alike.*brats2024-ped.*or --layout brats2023 or brats2024"):
        detect(tmp_path / "new", SourceOptions())


def test_missing_channel_and_validation_case(tmp_path: Path) -> None:
    case = write_case(tmp_path, "brats2021")
    (tmp_path / case / f"{case}_seg.nii.gz").unlink()
    with pytest.raises(ConfigError, match="no volume of this data set has a mask"):
        open_layout(tmp_path, "brats2021", options("brats2021"))
    reader, _ = open_layout(tmp_path, "brats2021", SourceOptions())
    sample = reader.read(scanned(reader)[0]).sample
    assert sample.label is None
    assert not sample.labels
    other = tmp_path / "BraTS2021_00001"
    (tmp_path / case).rename(other)
    for file in other.iterdir():
        file.rename(other / file.name.replace("00000", "00001"))
    write_case(tmp_path, "brats2021")
    found = scanned(open_layout(tmp_path, "brats2021", options("brats2021"))[0])
    assert [s.notes for s in found] == [(), ("no mask was found",)]
    (tmp_path / case / f"{case}_t2.nii.gz").unlink()
    assert "missing: t2" in str(scanned(open_layout(tmp_path, "brats2021", options("brats2021"))[0])[0].error)


def test_a_channel_that_stands_there_twice_is_refused_and_other_files_named(tmp_path: Path) -> None:
    case = write_case(tmp_path, "brats2021")
    write_nifti(tmp_path / case / f"{case}_t1.nii", block(seed=9))
    write_nifti(tmp_path / case / f"{case}_brain.nii.gz", block())
    (tmp_path / case / "notes.txt").write_text("x")
    reader, listing = open_layout(tmp_path, "brats2021", options("brats2021"))
    (source,) = scanned(reader)
    assert "a file stands there twice, e.g. as .nii and .nii.gz: t1" in str(source.error)
    assert len(source.files) == 6
    assert {p.rsplit("/", 1)[1]: why for p, why in listing.unused.items()} == {
        f"{case}_brain.nii.gz": "no channel or mask of this layout",
        "notes.txt": "no image",
    }
