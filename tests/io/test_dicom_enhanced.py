"""Enhanced and legacy-converted files: what each frame is, and where it says so."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import at, block, errors, found, images, item, unused, volumes, write_frames
from pydicom.dataset import Dataset

A, B = block(seed=1), block(seed=2)
S = range(6)
LEGACY = "1.2.840.10008.5.1.4.1.1.4.4"


def part(component: str) -> dict[str, object]:
    kind = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    return {"MRImageFrameTypeSequence": [item(FrameType=kind, ComplexImageComponent=component)]}


def slices(x: np.ndarray) -> list[np.ndarray]:
    return [x[..., k] for k in S]


@pytest.mark.parametrize("component", ["PHASE", "REAL", "IMAGINARY"])
def test_a_file_of_one_complex_part(tmp_path: Path, component: str) -> None:
    write_frames(tmp_path / "a" / "1.dcm", slices(A), [at(3.0 * k, **part(component)) for k in S])
    assert errors(tmp_path) == []
    assert component.lower() in unused(tmp_path)["a/1.dcm"]


def test_magnitude_and_phase_in_one_file(tmp_path: Path) -> None:
    frames = [x[..., k] for k in S for x in (A, B)]
    groups = [at(3.0 * k, **part(c)) for k in S for c in ("MAGNITUDE", "PHASE")]
    write_frames(tmp_path / "a" / "1.dcm", frames, groups, ComplexImageComponent="MIXED")
    (volume,) = volumes(tmp_path)
    np.testing.assert_array_equal(volume.sample.image[0], A)
    (source,) = found(tmp_path)[1]
    assert source.notes == ("6 other frames of its files are not used: phase image",)
    assert source.spec["frames"] == [[0, 2, 4, 6, 8, 10]]


def test_phases_by_temporal_position(tmp_path: Path) -> None:
    groups = [at(3.0 * k, FrameContentSequence=[item(TemporalPositionIndex=t)]) for t in (1, 2) for k in S]
    write_frames(tmp_path / "a" / "1.dcm", slices(A) + slices(B), groups)
    first, second = images(tmp_path)
    np.testing.assert_array_equal(first, A)
    np.testing.assert_array_equal(second, B)


@pytest.mark.parametrize("between_mm", [100.0, 18.0, 19.0])
def test_stacks_by_stack_id(tmp_path: Path, between_mm: float) -> None:
    groups = [
        at(3.0 * k + between_mm * s, FrameContentSequence=[item(StackID=str(s + 1), InStackPositionNumber=k + 1)])
        for s in (0, 1)
        for k in S
    ]
    write_frames(tmp_path / "a" / "1.dcm", slices(A) + slices(B), groups)
    first, second = images(tmp_path)
    np.testing.assert_array_equal(first, A)
    np.testing.assert_array_equal(second, B)


def test_a_stack_id_for_each_slice_is_none(tmp_path: Path) -> None:
    groups = [at(3.0 * k, FrameContentSequence=[item(StackID=str(k))]) for k in S]
    write_frames(tmp_path / "a" / "1.dcm", slices(A), groups)
    assert len(images(tmp_path)) == 1


def test_each_frame_has_its_own_scale(tmp_path: Path) -> None:
    groups = [
        at(3.0 * k, PixelValueTransformationSequence=[item(RescaleSlope=str(k + 1), RescaleIntercept=str(-k))])
        for k in S
    ]
    write_frames(tmp_path / "a" / "1.dcm", slices(A), groups)
    np.testing.assert_allclose(images(tmp_path)[0], A * (np.arange(6) + 1.0) - np.arange(6))


CLASSIC = {
    "EchoTime": "2.4",
    "RepetitionTime": "5",
    "FlipAngle": "10",
    "InversionTime": "900",
    "ScanOptions": ["PFP", "FS"],
    "ScanningSequence": "GR",
}


def converted(place: str, tags: dict[str, object]) -> tuple[list[Dataset], dict[str, object]]:
    """Groups and shared groups of a legacy-converted file that keeps `tags` in one of two places."""
    if place == "shared":
        return [at(3.0 * k) for k in S], {"UnassignedSharedConvertedAttributesSequence": [item(**tags)]}
    return [at(3.0 * k, UnassignedPerFrameConvertedAttributesSequence=[item(**tags)]) for k in S], {}


@pytest.mark.parametrize("place", ["shared", "per frame"])
def test_attributes_of_legacy_converted_files(tmp_path: Path, place: str) -> None:
    groups, shared = converted(place, CLASSIC)
    write_frames(tmp_path / "a" / "1.dcm", slices(A), groups, shared, SOPClassUID=LEGACY)
    (source,) = found(tmp_path)[1]
    a = source.acquisition
    assert (a.echo_time_ms, a.repetition_time_ms, a.flip_angle_deg, a.inversion_time_ms) == (2.4, 5, 10, 900)
    assert a.scan_options == "PFP\\FS"


@pytest.mark.parametrize("place", ["shared", "per frame"])
def test_what_legacy_converted_files_are_refused_for(tmp_path: Path, place: str) -> None:
    groups, shared = converted(place, {**CLASSIC, "ScanningSequence": ["EP", "SE"]})
    write_frames(tmp_path / "a" / "1.dcm", slices(A), groups, shared, SOPClassUID=LEGACY)
    (error,) = errors(tmp_path)
    assert "echo-planar" in str(error)
    assert errors(tmp_path, allow_echo_planar=True) == [None]
    groups, shared = converted(place, {**CLASSIC, "ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]})
    write_frames(tmp_path / "a" / "1.dcm", slices(A), groups, shared, SOPClassUID=LEGACY)
    assert "phase image" in unused(tmp_path)["a/1.dcm"]


def test_a_functional_group_wins_over_converted_attributes(tmp_path: Path) -> None:
    groups, shared = converted("shared", CLASSIC)
    shared["MREchoSequence"] = [item(EffectiveEchoTime=7.5)]
    write_frames(tmp_path / "a" / "1.dcm", slices(A), groups, shared)
    assert found(tmp_path)[1][0].acquisition.echo_time_ms == 7.5


def test_philips_private_copy_of_the_classic_header(tmp_path: Path) -> None:
    groups = [at(3.0 * k) for k in S]
    for group in groups:
        inner = item(EchoTime="4.6", ScanningSequence="EP", ComplexImageComponent="REAL")
        group.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        group.add_new(0x2005140F, "SQ", [inner])
    write_frames(tmp_path / "a" / "1.dcm", slices(A), groups, Manufacturer="Philips")
    (source,) = found(tmp_path, allow_echo_planar=True)[1]
    assert source.acquisition.echo_time_ms == 4.6  # but its part of a complex image is known to be wrong
    assert "echo-planar" in str(errors(tmp_path)[0])


def test_two_slabs_in_one_file(tmp_path: Path) -> None:
    groups = [at(3.0 * k + 60 * s) for s in (0, 1) for k in S]
    write_frames(tmp_path / "a" / "1.dcm", slices(A) + slices(B), groups)
    first, second = images(tmp_path)
    np.testing.assert_array_equal(first, A)
    np.testing.assert_array_equal(second, B)


def test_a_series_in_several_multi_frame_files(tmp_path: Path) -> None:
    for n, half in enumerate((range(3), range(3, 6))):
        write_frames(
            tmp_path / "a" / f"{n}.dcm",
            [A[..., k] for k in half],
            [at(3.0 * k) for k in half],
            SOPInstanceUID=f"1.2.826.{n}",
        )
    np.testing.assert_array_equal(images(tmp_path)[0], A)
