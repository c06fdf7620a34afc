"""Names that look like several scans of one patient: found, kept in one split, told; and names that do not."""

from pathlib import Path

import pytest
from mri_files import block, write_nifti

from augengine.io.sources import Source, SourceOptions
from augengine.io.time_points import time_points
from augengine.pipeline.ingest_plan import plan_ingest
from augengine.report.console import console
from augengine.report.ingest_report import print_hint


def sources(*paths: str) -> list[Source]:
    """One subject per path, named by it."""
    names = [p.removesuffix(".nii") for p in paths]
    return [Source(n, n, n, {"files": [p]}, participant=n) for n, p in zip(names, paths, strict=True)]


def groups(*paths: str) -> set[frozenset[str]]:
    found: dict[str, set[str]] = {}
    for subject, patient in time_points(sources(*paths), SourceOptions()).patients.items():
        found.setdefault(patient, set()).add(subject)
    return {frozenset(group) for group in found.values()}


@pytest.mark.parametrize(
    "names",
    [
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001_21", "UPENN-GBM-00002_11", "UPENN-GBM-00002_21"),
        ("p1_ses-1", "p1_ses-2", "p2_ses-1", "p2_ses-2"),
        ("p1/visit1", "p1/visit2", "p2/visit1", "p2/visit2"),
        ("7-20190214", "7-20200101", "8-20190214", "8-20200303"),
        ("A01_pre", "A01_post", "A02_pre", "A02_post"),
        (
            "PatientID_0003/Timepoint_1/x_t1n",
            "PatientID_0003/Timepoint_2/x_t1n",
            "PatientID_0004/Timepoint_1/x_t1n",
            "PatientID_0004/Timepoint_5/x_t1n",
        ),
        (
            "Patient-001/week-000-1/CT1",
            "Patient-001/week-044/CT1",
            "Patient-002/week-000-2/CT1",
            "Patient-002/week-012/CT1",
        ),
        (
            "data2/Y_01/2015-02-10/FLAIR",
            "data2/Y_01/2015-05-10/FLAIR",
            "data2/Y_02/2015-02-10/FLAIR",
            "data2/Y_02/2016-02-10/FLAIR",
        ),
        ("YG_01_2015-02-10", "YG_01_2015-05-10", "YG_02_2015-02-10", "YG_02_2016-02-10"),
        ("sub001_ses1_t1", "sub001_ses2_flair", "sub002_ses1_t1", "sub002_ses2_t1"),
        ("U-0004_nifti/a", "U-0004_FU003d_nifti/b", "U-0005_nifti/c", "U-0005_FU001d_nifti/d"),
        ("U-0004_brain", "U-0004_FU003d_brain", "U-0005_brain", "U-0005_FU001d_brain"),
    ],
)
def test_scans_of_one_patient(names: tuple[str, ...]) -> None:
    files = [f"{name}.nii" for name in names]
    assert groups(*files) == {frozenset(names[:2]), frozenset(names[2:])}
    assert groups(*files, "X99.nii") == {frozenset(names[:2]), frozenset(names[2:])}


def test_contrasts_of_one_scan() -> None:
    assert groups("ann_t1.nii", "ann_flair.nii", "bob_t1.nii", "bob_t2w.nii") == {
        frozenset({"ann_t1", "ann_flair"}),
        frozenset({"bob_t1", "bob_t2w"}),
    }


@pytest.mark.parametrize(
    "names",
    [
        [f"case_{n:03d}" for n in range(30)],
        [f"site{s}_{n:03d}" for s in (1, 2) for n in range(12)],
        [f"TCGA-{s:02d}-{n:04d}" for s in range(9) for n in range(3)],
        [f"Breast_MRI_{n:03d}" for n in range(9)],
        [f"BraTS20_Training_{n:03d}" for n in range(9)],
        [f"sub-{n:02d}" for n in range(9)],
        [f"2021_{n:03d}" for n in range(9)],
        [f"IXI{n:03d}-Guys-{n + 800:04d}" for n in range(9)],
        ["p1_1"],
        [f"site{s}/{n:03d}" for s in (1, 2, 3) for n in range(9)],
        [f"batch-{s:02d}/case{n:03d}" for s in range(9) for n in range(4)],
        [f"p{n:02d}/t1" for n in range(9)],
        [f"case{n}_brain" for n in range(9)],
    ],
)
def test_names_that_are_cases_of_their_own(names: list[str]) -> None:
    assert groups(*[f"{n}.nii" for n in names]) == set()
    assert time_points(sources(*[f"{n}.nii" for n in names]), SourceOptions()).hint is None


@pytest.mark.parametrize(
    ("paths", "pattern"),
    [
        (("G-001_11.nii", "G-001_21.nii", "G-002_11.nii"), r"G-\d+"),
        (("p9/visit1.nii", "p9/visit2.nii", "p10/visit1.nii", "p10/visit2.nii"), r"p\d+"),
    ],
)
def test_the_hint_names_a_pattern_that_does_it(tmp_path: Path, paths: tuple[str, ...], pattern: str) -> None:
    for n, path in enumerate(paths):
        write_nifti(tmp_path / path, block(seed=n))
    plan = plan_ingest(tmp_path, "auto", SourceOptions(public_ids=True), inline=True)
    assert f"state --subject '{pattern}' to make them one subject" in str(plan.hint)
    with console.capture() as shown:
        print_hint(plan.hint)
    assert "look like" in shown.get()
    told = plan_ingest(tmp_path, "auto", SourceOptions(public_ids=True, subject=pattern), inline=True)
    assert told.hint is None
    assert len({s.subject_id for s in told.sources}) == 2
    assert len({s.volume_id for s in told.sources}) == len(paths)


def test_scans_that_look_like_one_patient_share_a_split(tmp_path: Path) -> None:
    for patient in range(10):
        for visit in (11, 21, 31):
            write_nifti(tmp_path / f"UPENN-GBM-{patient:05d}_{visit}.nii", block((3, 3, 2)))
    for seed in range(5):
        plan = plan_ingest(tmp_path, "auto", SourceOptions(), split_seed=seed, inline=True)
        assert len(plan.splits) == 30  # subjects stay apart, with ids of their own
        by_patient: dict[str, set[str]] = {}
        for source in plan.sources:
            by_patient.setdefault(source.entry[:15], set()).add(plan.splits[source.subject_id])
        assert all(len(splits) == 1 for splits in by_patient.values())
        assert {split for splits in by_patient.values() for split in splits} == {"train", "val", "test"}
