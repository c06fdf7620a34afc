"""BIDS' inheritance principle, units, and values that cannot be what they claim to be."""

import json
from pathlib import Path
from typing import Any

import pytest
from bids_files import found, put, state, unused

from augengine.io.bids_sidecars import acquisition
from augengine.io.sources import Source

IMAGE = "sub-01/ses-a/anat/sub-01_ses-a_acq-x_run-1_T1w.nii.gz"
PLACES = [
    "T1w.json",
    "acq-x_T1w.json",
    "sub-01/sub-01_T1w.json",
    "sub-01/ses-a/sub-01_ses-a_T1w.json",
    "sub-01/ses-a/anat/sub-01_ses-a_acq-x_T1w.json",
    "sub-01/ses-a/anat/sub-01_ses-a_acq-x_run-1_T1w.json",
]
INAPPLICABLE = [
    "T2w.json",
    "acq-y_T1w.json",
    "run-2_T1w.json",
    "sub-02/sub-02_T1w.json",
    "sub-02/sub-01_T1w.json",
    "sub-01/ses-b/sub-01_ses-b_T1w.json",
    "sub-01/ses-a/anat/sub-01_ses-a_acq-x_run-1_echo-1_T1w.json",
    "sub-01/ses-a/func/sub-01_ses-a_T1w.json",
    "derivatives/T1w.json",
]


def image(root: Path) -> Source:
    (source,) = found(root).values()
    return source


@pytest.mark.parametrize("place", PLACES)
def test_each_legal_place_is_read_and_used(tmp_path: Path, place: str) -> None:
    put(tmp_path, IMAGE)
    state(tmp_path, place, {"EchoTime": 0.0042, "Manufacturer": "GE"})
    source = image(tmp_path)
    assert (source.acquisition.echo_time_ms, source.acquisition.manufacturer) == (4.2, "GE")
    assert source.spec["sidecars"] == [place]
    assert unused(tmp_path) == {}


@pytest.mark.parametrize("place", INAPPLICABLE)
def test_sidecars_of_other_images_are_not_read(tmp_path: Path, place: str) -> None:
    put(tmp_path, IMAGE)
    state(tmp_path, place, {"EchoTime": 0.0042})
    assert image(tmp_path).acquisition.echo_time_ms is None
    assert list(unused(tmp_path)) == [place]


def test_the_nearest_value_wins_key_by_key(tmp_path: Path) -> None:
    put(tmp_path, IMAGE)
    keys = ("EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "MagneticFieldStrength", "SliceThickness")
    nearest_first = [p for p in reversed(PLACES) if p != "acq-x_T1w.json"]
    for n, place in enumerate(nearest_first):
        state(tmp_path, place, dict.fromkeys(keys[n:], 0.1 * (n + 1)))
    got = image(tmp_path).acquisition
    stated = (
        got.echo_time_ms,
        got.repetition_time_ms,
        got.inversion_time_ms,
        got.flip_angle_deg,
        got.field_strength_t,
        got.slice_thickness_mm,
    )
    assert stated == pytest.approx((100, 100, 100, 0.1, 0.1, 0.1))  # all stand in the nearest one
    for n, place in enumerate(nearest_first):
        state(tmp_path, place, dict.fromkeys(keys[: n + 1], 0.1 * (n + 1)))
    got = image(tmp_path).acquisition
    stated = (
        got.echo_time_ms,
        got.repetition_time_ms,
        got.inversion_time_ms,
        got.flip_angle_deg,
        got.field_strength_t,
    )
    assert stated == pytest.approx((100, 200, 300, 0.4, 0.5))


def test_several_of_one_folder(tmp_path: Path) -> None:
    """The standard forbids them; the most specific one wins, and equals that disagree say nothing."""
    put(tmp_path, IMAGE)
    state(tmp_path, "T1w.json", {"EchoTime": 0.001, "FlipAngle": 8})
    state(tmp_path, "acq-x_T1w.json", {"EchoTime": 0.002})
    source = image(tmp_path)
    assert (source.acquisition.echo_time_ms, source.acquisition.flip_angle_deg) == (2, 8)
    assert source.notes == (
        "several sidecars of one folder apply, which BIDS forbids; the most specific one was taken",
    )
    state(tmp_path, "run-1_T1w.json", {"EchoTime": 0.003, "FlipAngle": 9})
    source = image(tmp_path)
    assert (source.acquisition.echo_time_ms, source.acquisition.flip_angle_deg) == (None, 9)
    assert source.notes[-1] == "two equally specific sidecars disagree on EchoTime; it was left out"


def test_images_with_sidecars_of_their_own_names_do_not_inherit_from_each_other(tmp_path: Path) -> None:
    put(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", {"EchoTime": 0.003, "FlipAngle": 9})
    put(tmp_path, "sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz", {"EchoTime": 0.004})
    put(tmp_path, "sub-01/anat/sub-01_run-2_T1w.nii.gz")
    volumes = found(tmp_path)
    stated = {n: (v.acquisition.echo_time_ms, v.acquisition.flip_angle_deg) for n, v in volumes.items()}
    assert stated == {
        "sub-01_T1w": (3, 9),
        "sub-01_ce-gadolinium_T1w": (4, None),
        "sub-01_run-2_T1w": (3, 9),
    }
    assert [v.notes for v in volumes.values()] == [
        (),
        (),
        ("the sidecar of another image applies, since it has none of its own",),
    ]


def test_a_shared_sidecar_is_used_once(tmp_path: Path) -> None:
    for run in (1, 2):
        put(tmp_path, f"sub-01/anat/sub-01_run-{run}_T1w.nii.gz")
    put(tmp_path, "sub-02/anat/sub-02_T1w.nii.gz")
    state(tmp_path, "T1w.json", {"EchoTime": 0.003})
    state(tmp_path, "sub-01/anat/sub-01_T1w.json", {"FlipAngle": 9})
    volumes = found(tmp_path)
    assert [v.acquisition.flip_angle_deg for v in volumes.values()] == [9, 9, None]
    assert {v.acquisition.echo_time_ms for v in volumes.values()} == {3}


def test_channels_have_their_own_sidecars(tmp_path: Path) -> None:
    put(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", {"EchoTime": 0.003, "FlipAngle": 9, "InversionTime": "0.9"})
    put(tmp_path, "sub-01/anat/sub-01_FLAIR.nii.gz", {"EchoTime": 0.1, "FlipAngle": 9})
    (source,) = found(tmp_path, channels={"t1": "T1w", "flair": "FLAIR"}).values()
    assert (source.acquisition.echo_time_ms, source.acquisition.flip_angle_deg) == (None, 9)
    assert source.notes == (
        "t1: InversionTime is not a number; it was left out (state it with --set inversion_time_ms=...)",
    )


@pytest.mark.parametrize(
    ("values", "field", "value", "note"),
    [
        ({"EchoTime": 0.00298}, "echo_time_ms", 2.98, ""),
        ({"EchoTime": [0.003, 0.003]}, "echo_time_ms", 3, ""),
        ({"EchoTime": [0.004, 0.008]}, "echo_time_ms", None, "EchoTime is a list of 2 values, and an image has one"),
        ({"EchoTime": 2.98}, "echo_time_ms", None, "EchoTime is 2.98, where a value above 0 and up to 1 s is credible"),
        ({"EchoTime": 0}, "echo_time_ms", None, "EchoTime is 0, where"),
        ({"EchoTime": -0.1}, "echo_time_ms", None, "EchoTime is -0.1, where"),
        ({"EchoTime": True}, "echo_time_ms", None, "EchoTime is not a number"),
        ({"EchoTime": "0.003"}, "echo_time_ms", None, "EchoTime is not a number"),
        ({"EchoTime": {"Value": 1}}, "echo_time_ms", None, "EchoTime is not a number"),
        ({"EchoTime": float("nan")}, "echo_time_ms", None, "EchoTime is not a number"),
        ({"EchoTime": None}, "echo_time_ms", None, ""),
        ({"EchoTime": "n/a"}, "echo_time_ms", None, ""),
        ({"RepetitionTime": 2300}, "repetition_time_ms", None, "RepetitionTime is 2300"),
        ({"RepetitionTimeExcitation": 0.0067}, "repetition_time_ms", 6.7, ""),
        ({"RepetitionTimeExcitation": 0.0067, "RepetitionTime": 2.3}, "repetition_time_ms", 6.7, "as BIDS asks of"),
        ({"RepetitionTimePreparation": 2.3}, "repetition_time_ms", None, "alone is no repetition time"),
        ({"RepetitionTimePreparation": 5, "RepetitionTime": 5}, "repetition_time_ms", 5000, ""),
        ({"MagneticFieldStrength": 15000}, "field_strength_t", None, "MagneticFieldStrength is 15000"),
        ({"MagneticFieldStrength": 0.055}, "field_strength_t", 0.055, ""),
        ({"FlipAngle": 361}, "flip_angle_deg", None, "FlipAngle is 361"),
        ({"Manufacturer": " Siemens "}, "manufacturer", "Siemens", ""),
        ({"Manufacturer": ""}, "manufacturer", None, ""),
        ({"Manufacturer": {"a": 1}}, "manufacturer", None, "Manufacturer is not text"),
        ({"ScanOptions": ["PFP", "FS"]}, "scan_options", "PFP\\FS", ""),
        ({"ScanOptions": "FS"}, "scan_options", "FS", ""),
    ],
)
def test_values_and_what_is_said_of_them(values: dict[str, Any], field: str, value: float | None, note: str) -> None:
    got, notes = acquisition(values)
    assert got.to_dict()[field] == value
    assert (note in notes[0] and len(notes) == 1) if note else notes == []


@pytest.mark.parametrize("text", ["{", "", "[1]", "3", '{"EchoTime": \xe9', '"x"', "[" * 100_000])
def test_a_sidecar_that_is_no_mapping_fails_its_image(tmp_path: Path, text: str) -> None:
    put(tmp_path, IMAGE)
    (tmp_path / PLACES[-1]).write_bytes(text.encode("latin-1"))
    assert str(image(tmp_path).error).startswith("a JSON sidecar must hold a mapping of names to values")


def test_a_byte_order_mark_and_a_key_that_stands_twice(tmp_path: Path) -> None:
    put(tmp_path, IMAGE)
    text = '{"EchoTime": 0.003, "FlipAngle": 9, "EchoTime": 0.004, "Units": 1, "Units": 2}'
    (tmp_path / PLACES[-1]).write_text(text, encoding="utf-8-sig")
    source = image(tmp_path)
    assert (source.acquisition.flip_angle_deg, source.acquisition.echo_time_ms) == (9, None)
    assert source.notes == ("a sidecar states EchoTime twice; it was left out",)


def test_a_sidecar_whose_content_was_not_fetched_is_noted(tmp_path: Path) -> None:
    put(tmp_path, IMAGE)
    (tmp_path / PLACES[-1]).symlink_to("nowhere.json")
    source = image(tmp_path)
    assert source.error is None
    assert source.notes == ("a sidecar is a link that leads nowhere; what it states is unknown",)
    assert unused(tmp_path) == {PLACES[-1]: "a link that leads nowhere"}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]}, "phase"),
        ({"ComplexImageComponent": "PHASE"}, "phase"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "FFE", "M", "FFE"]}, None),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]}, None),
        ({}, None),
    ],
)
def test_a_phase_image_without_its_entity_fails(tmp_path: Path, values: dict[str, Any], kind: str | None) -> None:
    put(tmp_path, IMAGE, values)
    error = image(tmp_path).error
    assert error == (kind and f"an image must be a magnitude; its sidecar states {kind} (ImageType)")


def test_a_phase_image_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    path = "sub-01/anat/sub-01_part-phase_T2starw.nii.gz"
    put(tmp_path, path, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]})
    (source,) = found(tmp_path, channels={"phase": "part-phase_T2starw"}).values()
    assert source.error is None


def test_sidecars_are_json_of_the_standard(tmp_path: Path) -> None:
    """The values of a scanner, as a converter writes them."""
    values = {
        "Manufacturer": "Philips",
        "ManufacturersModelName": "Ingenia_CX",
        "MagneticFieldStrength": 3,
        "FlipAngle": 9,
        "EchoTime": 0.002001,
        "RepetitionTime": 0.057,
        "SliceThickness": 5,
        "Units": "arbitrary",
    }
    put(tmp_path, IMAGE, values)
    got = {name: value for name, value in image(tmp_path).acquisition.to_dict().items() if value is not None}
    assert json.loads(json.dumps(got)) == {
        "manufacturer": "Philips",
        "model": "Ingenia_CX",
        "field_strength_t": 3,
        "flip_angle_deg": 9,
        "echo_time_ms": 2.001,
        "repetition_time_ms": 57,
        "slice_thickness_mm": 5,
    }
