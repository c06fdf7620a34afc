"""Two open BIDS data sets of the spinal cord, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_files import found, unused

from augengine.geometry import same_grid
from augengine.io.layouts import open_layout
from augengine.io.sources import SourceOptions
from augengine.io.walk import walk
from augengine.pipeline.ingest_plan import plan_ingest

GREY = {"labels": {"grey": 1}, "mask": "*_gmseg-manual.nii.gz"}
# Scanner: vendor, model, and TR, TE (ms), flip angle (degrees) of acq-MToff and acq-T1w, copied from the sidecars.
SCANNERS = {
    "chiba750": ("GE", "DISCOVERY_MR750", (35, 4, 9), (15, 4, 15)),
    "mgh": ("Siemens", "TrioTim", (35, 3.5, 9), (15, 3.5, 15)),
    "tokyoIngenia": ("Philips", "Ingenia_CX", (57, 2.001, 9), (15, 2.001, 15)),
}


@pytest.fixture
def b1(real_data: Path) -> Path:
    return present(real_data / "B1_spine_generic_one_volunteer")


@pytest.fixture
def b2(real_data: Path) -> Path:
    return present(real_data / "B2_gm_challenge")


def present(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is absent")
    return folder


def test_both_acquisitions_of_all_scanners(b1: Path) -> None:
    volumes = found(b1)
    assert len(volumes) == 22
    assert [v.error for v in volumes.values()] == [None] * 22
    assert {v.acquisition.field_strength_t for v in volumes.values()} == {3}
    assert {v.acquisition.manufacturer for v in volumes.values()} == {"GE", "Siemens", "Philips"}
    for scanner, (vendor, model, off, t1w) in SCANNERS.items():
        for name, values in (("acq-MToff_MTS", off), ("acq-T1w_MTS", t1w)):
            got = volumes[f"sub-{scanner}_{name}"].acquisition
            assert (got.manufacturer, got.model) == (vendor, model)
            assert (got.repetition_time_ms, got.echo_time_ms, got.flip_angle_deg) == values
    assert sum(len(v.files) for v in volumes.values()) + len(unused(b1)) == sum(1 for _ in walk(b1))


@pytest.mark.parametrize(("name", "flip"), [("acq-T1w_MTS", 15), ("acq-MToff_MTS", 9)])
def test_a_channel_by_its_acquisition(b1: Path, name: str, flip: float) -> None:
    volumes = found(b1, channels={"t1": name})
    assert len(volumes) == 11
    assert {v.acquisition.flip_angle_deg for v in volumes.values()} == {flip}
    scaled = {scanner: v.notes for scanner, v in volumes.items() if v.notes}
    assert {name: v.acquisition.manufacturer for name, v in volumes.items() if v.notes} == dict.fromkeys(
        scaled, "Philips"
    )
    # Of one Philips session the two scans differ by 7 % in floating-point values; of others nobody says what they are.
    assert [("times" in notes[0], len(notes)) for notes in scaled.values()].count((True, 1)) == 1
    assert all("times" in notes[0] or "no sidecar says" in notes[0] for notes in scaled.values())


def test_both_as_channels_of_one_volume(b1: Path) -> None:
    volumes = found(b1, channels={"pd": "acq-MToff_MTS", "t1": "acq-T1w_MTS"})
    assert len(volumes) == 11
    assert {(v.acquisition.flip_angle_deg, v.error) for v in volumes.values()} == {(None, None)}
    reader, _ = open_layout(b1, "auto", SourceOptions(channels={"pd": "acq-MToff_MTS", "t1": "acq-T1w_MTS"}))
    source = volumes["sub-mgh"]
    stored = [nib.load(b1 / file).get_fdata() for file in source.spec["channels"].values()]
    np.testing.assert_allclose(reader.read(source).sample.image, stored)


def test_eleven_scanners_are_one_person(b1: Path) -> None:
    """The table names no person: a pattern that all paths match does."""
    apart = plan_ingest(b1, "auto", SourceOptions(public_ids=True), inline=True)
    assert len(set(apart.splits)) == 11
    options = SourceOptions(public_ids=True, subject="^sub", site_column="institution_id")
    plan = plan_ingest(b1, "auto", options, inline=True)
    assert list(plan.splits) == ["sub"]
    assert len({s.site for s in plan.sources}) == 11
    files = plan.files()
    assert (files["found"], files["used"], sum(files["unused"].values())) == (47, 45, 2)


def test_grey_matter_lies_on_its_own_run(b2: Path) -> None:
    volumes = found(b2, **GREY)
    assert len(volumes) == 10
    masked = {name for name, v in volumes.items() if v.spec["mask"]}
    assert masked == {name for name in volumes if "_run-1_" in name}
    assert {name for name in volumes if "_run-2_" in name} == {
        "sub-9604_run-2_T2starw",
        "sub-9709Ses1_run-2_T2starw",
    }
    reader, _ = open_layout(b2, "bids", SourceOptions(public_ids=True, **GREY))
    for name, source in volumes.items():
        label = reader.read(source).sample.label
        if name not in masked:
            assert label is None
            continue
        subject = name.partition("_")[0]
        path = b2 / f"derivatives/labels/{subject}/anat/{subject}_run-1_T2starw_gmseg-manual.nii.gz"
        assert source.spec["mask"] == path.relative_to(b2).as_posix()
        mask, image = nib.load(path), nib.load(b2 / source.spec["channels"]["T2starw"])
        assert label is not None
        assert label.sum() == (mask.get_fdata() == 1).sum() > 0
        if same_grid(mask.shape, mask.affine, image.shape, image.affine):
            np.testing.assert_array_equal(label, mask.get_fdata())


def test_files_of_b2_are_used_or_named(b2: Path) -> None:
    plan = plan_ingest(b2, "auto", SourceOptions(public_ids=True, site_column="Site", **GREY), inline=True)
    files = plan.files()
    assert (files["found"], files["used"], files["failed"]) == (59, 10 + 10 + 8 + 1, 0)
    left = unused(b2, **GREY)
    for mask in ("gmseg", "seg"):
        assert left[f"derivatives/labels/sub-10328/anat/sub-10328_run-1_T2starw_{mask}-manual.json"] == (
            "describes a derivative that is not here"
        )
    assert sum(reason.startswith("made from an image") for reason in left.values()) == 8
    assert {s.site for s in plan.sources} == {"UCL", "NWU", "Philips", "Juntendo", "Milan", "CEITEC"}
    assert {s.acquisition.field_strength_t for s in plan.sources} == {1.5, 3}


def test_sessions_in_the_name_of_the_subject_are_one_person_by_pattern(b2: Path) -> None:
    """sub-10062Ses1 and sub-10062Ses2: two subjects to BIDS, one person."""
    apart = plan_ingest(b2, "auto", SourceOptions(public_ids=True), inline=True)
    assert apart.splits["sub-10062Ses1"] != apart.splits["sub-10062Ses2"]
    plan = plan_ingest(b2, "auto", SourceOptions(public_ids=True, subject=r"(sub-\d+)"), inline=True)
    assert set(plan.splits) == {"sub-9418", "sub-9584", "sub-9604", "sub-9669", "sub-9709", "sub-10062"}


def test_two_masks_of_b2_are_for_the_user_to_choose(b2: Path) -> None:
    volumes = found(b2, labels={"cord": 1}, mask="*seg-manual.nii.gz")
    errors = {name: v.error for name, v in volumes.items() if v.error}
    assert set(errors) == {name for name in volumes if "_run-1_" in name}
    assert all("found gmseg-manual, seg-manual; choose with --mask" in str(error) for error in errors.values())
