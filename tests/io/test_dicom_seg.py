"""Masks that archives hold as DICOM Segmentations: whose they are, what segments mean and where slices lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import block, found, item, unused, write_slices
from mri_files import header

from augengine.errors import ConfigError
from augengine.io.dicom_kinds import STRUCTURES

LABELS = {"necrosis": 1, "oedema": 2, "enhancing": 4}
NAMES = tuple(LABELS)
STUDY = {
    "FrameOfReferenceUID": "1.2.3.4",
    "PatientBirthDate": "",
    "PatientSex": "",
    "StudyDate": "",
    "StudyTime": "",
    "StudyID": "",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
    "SeriesNumber": 1,
    "PositionReferenceIndicator": "",
}
TILTED = (0.9848077530, 0.1736481777, 0, 0, 0, -1)


def truth() -> np.ndarray:
    """Codes 1, 2 and 4 in slices 2 to 4 of (12, 10, 6): every slice, row and column looks different."""
    label = np.zeros((12, 10, 6), np.uint8)
    label[4:9, 3:6, 2], label[2:5, 3:9, 3], label[1:4, 7:9, 4] = 1, 2, 4
    return label


def images(root: Path, **tags: Any) -> list[Path]:
    return write_slices(root / "p", block(), **{**STUDY, **tags})


def segmentation(root: Path, kind: str, names: tuple[str, ...] = NAMES, name: str = "seg.dcm", **options: Any) -> Path:
    """A Segmentation of the images in a folder, by highdicom; the n-th segment has the n-th code of `LABELS`."""
    hd = pytest.importorskip("highdicom", reason="highdicom is not installed")
    from pydicom.sr.coding import Code

    sources = [pydicom.dcmread(path) for path in sorted((root / "p").glob("s*.dcm"))]
    planes = np.stack([code == truth().T for code in LABELS.values()], -1)
    pixels: np.ndarray = planes.astype(np.uint8)
    if kind == "FRACTIONAL":
        pixels = planes * 0.7 + (truth().T == 0)[..., None] * 0.3  # 0.3 is no voxel of it
    if kind == "LABELMAP":
        pixels = (planes * np.arange(1, 4)).sum(-1).astype(np.uint8)
    described = [
        hd.seg.SegmentDescription(
            n, text, Code("49755003", "SCT", "Altered"), Code("79654002", "SCT", "Edema"), "MANUAL"
        )
        for n, text in enumerate(names, 1)
    ]
    made = hd.seg.Segmentation(
        sources, pixels, kind, described, hd.UID(), 2, hd.UID(), 1, "maker", "model", "1", "0", **options
    )
    made.save_as(root / "p" / name)
    return root / "p" / name


def label(root: Path, **options: Any) -> np.ndarray:
    reader, sources = found(root, labels=LABELS, **options)
    assert [s.error for s in sources] == [None]
    volume = reader.read(sources[0])
    assert volume.sample.label is not None
    assert dict(volume.sample.labels) == LABELS
    return volume.sample.label


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), TILTED], ids=["axial", "tilted"])
@pytest.mark.parametrize("omit", [True, False], ids=["frames_left_out", "all_frames"])
def test_codes_and_places(tmp_path: Path, kind: str, orientation: tuple[float, ...], omit: bool) -> None:
    """Segments 1, 2, 3 are codes 1, 2, 4; empty slices come back; no slice stands in another's place."""
    images(tmp_path, orientation=orientation)
    path = segmentation(tmp_path, kind, omit_empty_frames=omit)
    assert (pydicom.dcmread(path).NumberOfFrames < 6) == omit or kind != "LABELMAP"
    np.testing.assert_array_equal(label(tmp_path), truth())


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_names_decide_and_not_numbers(tmp_path: Path, kind: str) -> None:
    """The scheme of 2023 has 3 for enhancing: the same file then has 1, 2 and 3."""
    images(tmp_path)
    segmentation(tmp_path, kind, ("Necrosis", "whatever a site calls it", "ENHANCING"))  # coded as edema
    np.testing.assert_array_equal(label(tmp_path), truth())
    reader, (source,) = found(tmp_path, labels={"enhancing": 3, "oedema": 2, "necrosis": 1})
    assert set(np.unique(reader.read(source).sample.label)) == {0, 1, 2, 3}
    reader, (source,) = found(tmp_path, labels={"lesion": 1})
    with pytest.raises(Exception, match="names of segments must be those of the stated labels"):
        reader.read(source)


def test_a_mask_whose_images_have_other_uids_is_refused(tmp_path: Path) -> None:
    """Anonymisers renew the images' UIDs and leave the mask's references: readers return an empty mask."""
    paths = images(tmp_path)
    segmentation(tmp_path, "BINARY")
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        dataset.save_as(path)
    _, sources = found(tmp_path, labels=LABELS)
    errors = [source.error for source in sources if source.error]
    assert len(errors) == 1
    assert "found none of the 6 that it names" in errors[0]
    assert [source.notes for source in sources if not source.error] == [("no mask was found",)]


def test_two_masks_of_one_image_are_a_guess(tmp_path: Path) -> None:
    images(tmp_path)
    segmentation(tmp_path, "BINARY", name="reader1.dcm")
    segmentation(tmp_path, "LABELMAP", name="reader2.dcm")
    _, (source,) = found(tmp_path, labels=LABELS)
    assert "one of several DICOM Segmentations" in str(source.error)
    np.testing.assert_array_equal(label(tmp_path, mask="reader2*"), truth())


def test_without_labels_a_segmentation_is_named_and_without_one_labels_are_refused(tmp_path: Path) -> None:
    images(tmp_path)
    with pytest.raises(ConfigError, match="no volume of this data set has a DICOM Segmentation"):
        found(tmp_path, labels=LABELS)
    segmentation(tmp_path, "BINARY")
    assert list(unused(tmp_path).values()) == ["a DICOM Segmentation (layout dicom reads it with --labels)"]
    _, (source,) = found(tmp_path)
    assert (source.error, source.labelled) == (None, False)


def test_contours_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    paths = images(tmp_path)
    contours = header("1.2.826.0.1.88", Modality="RTSTRUCT", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    image = item(ReferencedSOPInstanceUID=pydicom.dcmread(paths[0]).SOPInstanceUID)
    contours.ROIContourSequence = [item(ContourSequence=[item(ContourImageSequence=[image])])]
    contours.file_meta.MediaStorageSOPClassUID = contours.SOPClassUID
    contours.save_as(tmp_path / "p/contours.dcm", enforce_file_format=True)
    assert unused(tmp_path)["p/contours.dcm"] == STRUCTURES
    _, (source,) = found(tmp_path, labels=LABELS)
    assert "convert it, for example with plastimatch" in str(source.error)
    _, (source,) = found(tmp_path, labels=LABELS, mask="none")
    assert source.error is None
