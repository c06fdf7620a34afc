"""DICOM series: geometry, rescale, compressed files, and every way in which a series can be broken."""

from pathlib import Path

import numpy as np
import pytest
from mri_files import block, edit, series_affine, write_enhanced, write_series
from reading import scanned

from augengine.errors import DataError
from augengine.io.dicom import DicomReader
from augengine.io.dicom_pixels import read_images
from augengine.io.dicom_stacks import find_stacks
from augengine.io.sources import Source, SourceOptions
from augengine.prepare import Preparation, prepare
from augengine.records import Sample

OBLIQUE = (0.88721967, 0.29733548, -0.35275051, -0.10480381, 0.87451601, 0.47353762)


def sources(root: Path, **options: object) -> tuple[DicomReader, list[Source]]:
    reader = DicomReader(root, SourceOptions(**options))
    return reader, scanned(reader)


def only(root: Path, **options: object) -> tuple[Sample, list[str]]:
    reader, found = sources(root, **options)
    assert [s.error for s in found] == [None]
    volume = reader.read(found[0])
    return volume.sample, list(volume.notes)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), OBLIQUE])
def test_every_voxel_is_where_the_header_says(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    pixels = block()
    write_series(tmp_path / "a", pixels, orientation=orientation)
    sample, _ = only(tmp_path)
    np.testing.assert_array_equal(sample.image[0], pixels)
    expected = series_affine(orientation, (0.9, 0.8), (-30, -20, 5), 3.0)
    np.testing.assert_allclose(sample.affine, expected, atol=1e-5)
    # A landmark keeps its millimetres through reader and preparation.
    (volume,) = prepare(sample, Preparation(slices=False))
    at = np.argwhere(volume.image[0] == pixels[3, 7, 2])
    places = at @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    assert np.abs(places - (expected[:3, :3] @ [3, 7, 2] + expected[:3, 3])).max(1).min() < 1e-4


def test_acquisition_is_read_and_identifiers_are_not(tmp_path: Path) -> None:
    write_series(tmp_path / "DOE JANE", block())
    _, (source,) = sources(tmp_path)
    a = source.acquisition
    assert (a.manufacturer, a.model, a.scan_options) == ("SIEMENS", "Skyra", "PFP\\FS")
    assert (a.repetition_time_ms, a.echo_time_ms, a.flip_angle_deg) == (4.1, 1.5, 10)
    assert (a.field_strength_t, a.slice_thickness_mm, a.inversion_time_ms) == (3.0, 3.0, None)
    assert source.subject_id.startswith("sub-")
    assert len(source.subject_id) == len("sub-") + 24
    assert sources(tmp_path, pseudonym_key="k")[1][0].subject_id != source.subject_id
    assert sources(tmp_path, public_ids=True)[1][0].subject_id == "HOSP-4711"


def test_rescale_and_single_scan_option(tmp_path: Path) -> None:
    pixels = block()
    write_series(tmp_path / "a", pixels, RescaleSlope="0.5", RescaleIntercept="-7", ScanOptions="FS")
    sample, _ = only(tmp_path)
    np.testing.assert_allclose(sample.image[0], pixels * 0.5 - 7)
    assert sample.acquisition.scan_options == "FS"


def test_missing_slice_names_the_gap(tmp_path: Path) -> None:
    write_series(tmp_path / "a", block(), skip=(3,))
    _, (source,) = sources(tmp_path)
    assert "6.00 mm between 11.00 and 17.00 mm instead of 3.00 (about 1 missing)" in str(source.error)


def test_exact_duplicates_are_dropped_conflicting_ones_refused(tmp_path: Path) -> None:
    pixels = block()
    paths = write_series(tmp_path / "a", pixels)
    copy = tmp_path / "a" / "copy.dcm"
    copy.write_bytes(paths[2].read_bytes())
    sample, notes = only(tmp_path)
    assert notes == ["1 exact duplicates dropped"]
    np.testing.assert_array_equal(sample.image[0], pixels)
    edit(copy, PixelData=bytes(len(pixels[:, :, 0].tobytes())))
    with pytest.raises(DataError, match="one image per position"):
        only(tmp_path)


def test_truncated_pixels_and_truncated_header(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "a", block())
    whole = paths[5].read_bytes()
    paths[5].write_bytes(whole[:-40])
    with pytest.raises(DataError, match="cut off or damaged"):
        only(tmp_path)
    for length in (0, 100, 400, 600):  # the end slice: without a check the volume would only be shorter
        paths[5].write_bytes(whole[:length])
        _, found = sources(tmp_path)
        assert len(found) == 1
        assert "cannot be read" in str(found[0].error), length


def test_mixed_series_is_split_into_its_stacks(tmp_path: Path) -> None:
    axial, sagittal, echo = block(seed=1), block(seed=2), block(seed=3)
    write_series(tmp_path / "a" / "1", axial)
    write_series(tmp_path / "a" / "2", sagittal, orientation=(0, 1, 0, 0, 0, -1))
    write_series(tmp_path / "a" / "3", echo, EchoTime="9")
    write_series(tmp_path / "a" / "4", block((5, 5, 4)))
    reader, found = sources(tmp_path)
    assert len({s.volume_id for s in found}) == 4
    assert {s.subject_id for s in found} == {found[0].subject_id}
    volumes = [reader.read(s).sample.image[0] for s in found]
    for pixels in (axial, sagittal, echo):
        assert any(np.array_equal(v, pixels) for v in volumes)


def test_a_dynamic_series_without_time_tags_is_refused_and_with_them_split(tmp_path: Path) -> None:
    for n in range(2):
        write_series(tmp_path / "a" / str(n), block(seed=n))
    with pytest.raises(DataError, match="one image per position"):
        only(tmp_path)
    for n in range(2):
        write_series(tmp_path / "a" / str(n), block(seed=n), TemporalPositionIdentifier=str(n + 1))
    assert len(sources(tmp_path)[1]) == 2


def test_enhanced_multiframe_reads_its_functional_groups(tmp_path: Path) -> None:
    pixels = block()
    write_enhanced(tmp_path / "a" / "1.dcm", pixels)
    sample, _ = only(tmp_path)
    np.testing.assert_allclose(sample.image[0], pixels * 2.0 - 5)
    np.testing.assert_allclose(np.diag(sample.affine), (-1, -1, 2, 1))
    a = sample.acquisition
    assert (a.repetition_time_ms, a.echo_time_ms, a.flip_angle_deg, a.slice_thickness_mm) == (7.5, 3.25, 12, 2)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "mosaic"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "VFRAME"], "Manufacturer": "UIH"}, "mosaic"),
        ({"ScanningSequence": ["EP", "GR"]}, "echo-planar"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME2"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, tags: dict[str, object], message: str) -> None:
    write_series(tmp_path / "a", block(), **tags)
    _, found = sources(tmp_path)
    assert message in str(found[0].error)
    allowed = sources(tmp_path, allow_echo_planar=True)[1][0].error
    assert (allowed is None) == (message == "echo-planar")


def test_a_series_of_two_patients_is_never_one_volume(tmp_path: Path) -> None:
    for path in write_series(tmp_path / "a", block())[3:]:
        edit(path, PatientID="HOSP-4712")
    _, found = sources(tmp_path)
    assert len({s.subject_id for s in found}) == 2


def test_one_slice_is_no_volume_and_bent_stacks_are_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "a", block())
    edit(paths[2], ImagePositionPatient=[-29, -20, 11])
    assert "in one line; found 1.00 mm off" in str(sources(tmp_path)[1][0].error)
    for path in paths[1:]:
        path.unlink()
    assert "at least two slices" in str(sources(tmp_path)[1][0].error)


def test_files_are_told_apart_by_series_not_by_folder(tmp_path: Path) -> None:
    for n in (1, 2):
        write_series(tmp_path / "both", block(seed=n), series=f"1.2.3.{n}")
        for path in (tmp_path / "both").glob("1-*.dcm"):
            path.rename(path.with_name(f"{n}x{path.name}"))
    (tmp_path / "both" / "README.txt").write_text("no DICOM")
    found = find_stacks(tmp_path)
    assert sorted(len(s.frames) for s in found.stacks) == [6, 6]
    assert not found.broken


def test_real_dicom(real_data: Path) -> None:
    root = real_data / "A7_dicom"
    reader, found = sources(root)
    errors = {s.entry.split("/")[0]: s.error for s in found}
    assert len(found) == 8
    assert [name for name, error in errors.items() if error is None] == ["siemens_prisma_gre_pfp"]
    assert sum("mosaic" in str(e) for e in errors.values()) == 3
    assert sum("echo-planar" in str(e) for e in errors.values()) == 4
    gre = next(s for s in found if s.error is None)
    sample = reader.read(gre).sample
    assert sample.image.shape == (1, 42, 64, 5)
    assert sample.acquisition.scan_options == "PFP"
    # Slices are sorted along the normal, here towards R: the file 1.dcm is the last one.
    np.testing.assert_allclose((sample.affine @ [0, 0, 4, 1])[:3], (13.7293, 98.7740, 197.3138), atol=1e-3)

    reader, found = sources(root, allow_echo_planar=True)
    by_name = {s.entry.split("/")[0]: s for s in found}
    architect = by_name["ge_architect_epi_multivalued_so"].acquisition
    assert architect.scan_options == "SAT_GEMS\\EDR_GEMS\\EPI_GEMS\\HYPERBAND_GEMS\\PFF\\FS"
    xa30 = by_name["siemens_xa30_enhanced_multiframe"]
    assert None not in (xa30.acquisition.repetition_time_ms, xa30.acquisition.echo_time_ms)
    volume = reader.read(xa30).sample
    assert volume.image.shape == (1, 86, 86, 63)
    np.testing.assert_allclose((volume.affine @ [0, 0, 62, 1])[:3], (68.2, 96, 96), atol=1e-4)
    np.testing.assert_allclose(volume.spacing_mm[2], 2.2, atol=1e-4)


@pytest.mark.parametrize("name", ["siemens_trio_jpeg_lossless/jpg1.dcm", "siemens_trio_jp2k_lossless/jp2k1.dcm"])
def test_compressed_transfer_syntaxes_decode(real_data: Path, name: str) -> None:
    (image,) = read_images(real_data / "A7_dicom" / name)
    assert image.pixels.shape == (516, 516)
    # A mosaic of brain slices: dark corners of tiles, bright tissue.
    assert 0 <= image.pixels.min() < 50 < 500 < image.pixels.max() < 4096
    assert image.frame.refusal is not None
