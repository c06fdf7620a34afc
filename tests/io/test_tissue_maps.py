"""BraTS cases whose label map names tissue and tumour, and those of which one channel is wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mri_files import block, write_nifti
from reading import scanned

from augengine.errors import AugengineError
from augengine.io.labels import parse_labels
from augengine.io.layouts import open_layout
from augengine.io.sources import SourceOptions
from augengine.io.tissue import SCHEMES
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.write_brats import write_brats_subject
from augengine.pipeline.ingest_plan import plan_ingest

CASE, SHAPE = "BraTS2021_00000", (12, 10, 6)


def write_case(root: Path, tissue: np.ndarray | None, name: str = "synthseg") -> None:
    for n, channel in enumerate(("t1", "t1ce", "t2", "flair")):
        write_nifti(root / CASE / f"{CASE}_{channel}.nii.gz", block(seed=n))
    tumour = np.zeros(SHAPE, np.uint8)
    tumour[0], tumour[1] = 4, 2
    write_nifti(root / CASE / f"{CASE}_seg.nii.gz", tumour)
    if tissue is not None:
        write_nifti(root / CASE / f"{CASE}_{name}.nii.gz", tissue)


def options(**changes: object) -> SourceOptions:
    labels, scheme = parse_labels("brats2021")
    return SourceOptions(**{"labels": labels, "scheme": scheme, **changes})  # type: ignore[arg-type]


def test_tissues_join_the_tumour_and_never_cover_it(tmp_path: Path) -> None:
    tissue = np.zeros(SHAPE, np.int16)
    tissue[1:4], tissue[4], tissue[5], tissue[6] = 2, 2035, 24, 16
    write_case(tmp_path, tissue)
    reader, _ = open_layout(tmp_path, "auto", options(tissue="synthseg=*_SynthSeg.nii.gz"))
    (source,) = scanned(reader)
    volume = reader.read(source)
    label, codes = volume.sample.label, dict(volume.sample.labels)
    assert codes == {"necrosis": 1, "oedema": 2, "enhancing": 4, "csf": 5, "grey_matter": 6, "white_matter": 7}
    assert label is not None
    assert label[:, 0, 0].tolist() == [4, 2, 7, 7, 6, 5, 7, *[0] * 5]
    assert f"{CASE}/{CASE}_synthseg.nii.gz" in source.files
    assert plan_ingest(tmp_path, "auto", options(tissue="synthseg=*_synthseg.*"), inline=True).files()["unused"] == {}


def test_a_scan_with_left_and_right_of_every_structure_names_three_tissues() -> None:
    codes = [code for tissue in SCHEMES["synthseg"].values() for code in tissue]
    assert len(codes) == len(set(codes))
    assert {2, 3, 4, 16, 17, 24, 41, 42, 43, 60} <= set(codes)


@pytest.mark.parametrize(
    ("tissue", "says"),
    [
        ("synthseg", "give SCHEME=PATTERN"),
        ("synthsge=*_synthseg.nii.gz", "did you mean 'synthseg'"),
        ("fast=*_pveseg.nii.gz", "--tissue must match a file"),
        ("fast=*_synthseg.nii.gz", r"codes of fast; found code\(s\) \[24\]"),
        ("synthseg=*_frac.nii.gz", "must hold whole codes"),
    ],
)
def test_maps_that_cannot_be_meant_are_refused(tmp_path: Path, tissue: str, says: str) -> None:
    write_case(tmp_path, np.full(SHAPE, 24, np.int16))
    write_nifti(tmp_path / CASE / f"{CASE}_frac.nii.gz", np.full(SHAPE, 0.5, np.float32))
    with pytest.raises(AugengineError, match=says):  # noqa: PT012
        reader, _ = open_layout(tmp_path, "auto", options(tissue=tissue))
        reader.read(*scanned(reader))


def test_a_case_without_its_map_fails_alone(tmp_path: Path) -> None:
    write_case(tmp_path, np.full(SHAPE, 24, np.int16))
    other = "BraTS2021_00001"
    for path in (tmp_path / CASE).iterdir():
        if "synthseg" not in path.name:
            target = tmp_path / other / path.name.replace(CASE, other)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    reader, _ = open_layout(tmp_path, "auto", options(tissue="synthseg=*_synthseg.nii.gz"))
    assert [source.error is None for source in scanned(reader)] == [True, False]


def test_one_channel_alone(tmp_path: Path) -> None:
    write_case(tmp_path, None)
    reader, listing = open_layout(tmp_path, "auto", options(channels={"flair": "*"}))
    (source,) = scanned(reader)
    sample = reader.read(source).sample
    assert sample.channels == ("flair",)
    np.testing.assert_array_equal(sample.image[0], block(seed=3))
    assert set(listing.unused.values()) == {"a channel that --channels does not name"}
    with pytest.raises(AugengineError, match="unknown channel 'flare'"):
        open_layout(tmp_path, "auto", options(channels={"flare": "*"}))


def test_the_phantom_writes_maps_that_are_read_back(tmp_path: Path) -> None:
    cohort = BrainCohort(subjects=1, seed=4, matrix=48, slices=12, labels="tissue")
    write_brats_subject(cohort, 0, tmp_path)
    reader, _ = open_layout(tmp_path, "auto", options(tissue="synthseg=*_synthseg.nii.gz"))
    (source,) = scanned(reader)
    read, true = reader.read(source).sample, cohort.scan(0)
    assert read.label is not None
    assert true.label is not None
    flipped = read.label[::-1, ::-1]
    for name in ("csf", "grey_matter", "white_matter", "oedema"):
        assert np.array_equal(flipped == read.labels[name], true.label == true.labels[name]), name
