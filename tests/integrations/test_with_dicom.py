"""highdicom writes the label maps, and SimpleITK reads the images where they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

highdicom = pytest.importorskip("highdicom")
sitk = pytest.importorskip("SimpleITK")

from export_cohorts import OBLIQUE, augmented, cohort, exported, volume  # noqa: E402
from identifiers import found_in, plant_nifti  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from augengine.cli import app  # noqa: E402
from augengine.export.dicom_seg import DicomSeg  # noqa: E402
from augengine.records import Sample  # noqa: E402


def tall() -> Sample:
    """Twelve slices, the first and the last without labels."""
    sample = volume(0, shape=(20, 16, 12))
    assert sample.label is not None
    label = sample.label.copy()
    label[..., 1:11] = np.maximum(label[..., 1:11], 2 * (np.arange(10) >= 0))
    label[..., [0, 11]] = 0
    return sample.replace(label=label)


def test_label_maps_with_every_frame(tmp_path: Path) -> None:
    rows = [tall(), volume(3)]
    exported(DicomSeg(), cohort(tmp_path, rows, [augmented(rows[0])]), tmp_path / "out")
    for name, synthetic in (("S000", False), (f"syn-{augmented(rows[0]).sample_id}", True)):
        found = highdicom.seg.segread(tmp_path / f"out/segmentations/{name}.dcm")
        assert found.SegmentationType == "LABELMAP"
        assert found.NumberOfFrames == 12  # by default highdicom leaves out the 2 empty ones
        assert found.SyntheticData == ("YES" if synthetic else "NO")
        codes = found.pixel_array.transpose(2, 1, 0)
        assert rows[0].label is not None
        assert (codes == np.searchsorted([0, 1, 2, 4], rows[0].label)).all()
        described = [found.get_segment_description(n) for n in (1, 2, 3)]
        assert [d.segment_label for d in described] == ["necrosis", "oedema", "enhancing"]
        assert described[1].segmented_property_type.meaning == "Edema"
        images = {
            pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in (tmp_path / "out").rglob("images/*/*")
        }
        assert {uids[2] for uids in found.get_source_image_uids()} <= images


def test_empty_frames_are_left_out_unless_told(tmp_path: Path) -> None:
    """Why they are asked for."""
    exported(DicomSeg(), cohort(tmp_path, [tall(), volume(3)]), tmp_path / "out")
    sources = [pydicom.dcmread(p) for p in sorted((tmp_path / "out/images/S000_0t1").iterdir())]
    found = highdicom.seg.segread(tmp_path / "out/segmentations/S000.dcm")
    default = highdicom.seg.Segmentation(
        sources,
        found.pixel_array,
        "LABELMAP",
        [found.get_segment_description(n) for n in (1, 2, 3)],
        highdicom.UID(),
        1,
        highdicom.UID(),
        1,
        "m",
        "n",
        "1",
        "0",
    )
    assert default.NumberOfFrames == 10


def test_the_same_bytes_again(tmp_path: Path) -> None:
    stores = cohort(tmp_path, [volume(0), volume(3)])
    for name in ("a", "b"):
        exported(DicomSeg(), stores, tmp_path / name)
    for path in sorted((tmp_path / "a").rglob("*.dcm")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_the_geometry(tmp_path: Path) -> None:
    exported(DicomSeg(), cohort(tmp_path, [volume(0), volume(3)]), tmp_path / "out")
    folder = tmp_path / "out/images/S000_1flair"
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    assert np.abs(np.diag([-1, -1, 1, 1]) @ affine - OBLIQUE).max() <= 1e-5
    assert (sitk.GetArrayFromImage(image).transpose(2, 1, 0) == volume(0).image[1]).all()


def test_no_planted_identifier_reaches_an_image_or_a_segmentation(tmp_path: Path) -> None:
    plant_nifti(tmp_path / "source")
    data, out = str(tmp_path / "out/data"), str(tmp_path / "out/dicom")
    files = ["--channels", "t1=*_t1.nii.gz", "--mask", "*_mask.nii.gz", "--labels", "lesion=1", "--volumes"]
    for command in (
        ["ingest", str(tmp_path / "source"), "--out", data, "--inline", *files],
        ["export", "dicom-seg", data, "--out", out, "--inline", "--licence", "CC0-1.0"],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out/dicom/segmentations").iterdir())) == 3
    assert found_in(tmp_path / "out") == {}
