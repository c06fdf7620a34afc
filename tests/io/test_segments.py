"""Segmentations of 3D Slicer: codes by the names of segments, joined tissues, layers, overlap, and cropped files."""

from pathlib import Path

import nrrd
import numpy as np
import pytest
from mri_files import block
from reading import read_all

from augengine.errors import DataError
from augengine.io.folders import NrrdReader
from augengine.io.mask_files import read_mask
from augengine.io.sources import SourceOptions, Volume

LABELS = {"lesion": 1, "cyst": 2}
HEADER = {"space": "left-posterior-superior", "space directions": np.diag([1.0, 1, 3]), "space origin": [0.0, 0, 0]}


def segmentation(
    path: Path, data: np.ndarray, *segments: tuple[str, int, int], origin: tuple[int, ...] = (0, 0, 0)
) -> None:
    """Name, value and layer per segment; `data` has a first axis of layers, or none."""
    stated = {**HEADER, "space origin": np.array(origin) * [1.0, 1, 3]}
    if data.ndim == 4:
        stated |= {"kinds": ["list", "domain", "domain", "domain"]}
        stated["space directions"] = np.vstack([[np.nan] * 3, HEADER["space directions"]])
    for n, (name, value, layer) in enumerate(segments):
        stated |= {
            f"Segment{n}_ID": f"s{n}",
            f"Segment{n}_Name": name,
            f"Segment{n}_LabelValue": str(value),
            f"Segment{n}_Layer": str(layer),
        }
    nrrd.write(str(path), data, stated)


def read(folder: Path) -> Volume:
    nrrd.write(str(folder / "p.nrrd"), block(), HEADER)
    (volume,) = read_all(NrrdReader(folder, SourceOptions(labels=LABELS)))
    return volume


def test_names_decide_and_not_values(tmp_path: Path) -> None:
    data = np.zeros((12, 10, 6), np.uint8)
    data[1:3], data[4:6] = 1, 2
    segmentation(tmp_path / "p.seg.nrrd", data, ("Cyst", 1, 0), (" LESION", 2, 0))
    label = read(tmp_path).sample.label
    np.testing.assert_array_equal(label[1:3], 2)
    np.testing.assert_array_equal(label[4:6], 1)


def test_segments_of_one_tissue_are_joined(tmp_path: Path) -> None:
    data = np.zeros((12, 10, 6), np.uint8)
    for n, at in enumerate((1, 4, 7, 10), 1):
        data[at] = n
    segmentation(
        tmp_path / "p_seg.seg.nrrd", data, ("lesion", 1, 0), ("Lesion", 2, 0), ("lesion_2", 3, 0), ("Lesion 3", 4, 0)
    )
    label = read(tmp_path).sample.label
    np.testing.assert_array_equal(np.flatnonzero(label.any((1, 2))), [1, 4, 7, 10])
    assert set(np.unique(label)) == {0, 1}


def test_layers_overlap_and_the_label_stated_last_wins(tmp_path: Path) -> None:
    data = np.zeros((2, 12, 10, 6), np.uint8)
    data[0, 2:6], data[1, 4:8] = 1, 1
    segmentation(tmp_path / "p.seg.nrrd", data, ("cyst", 1, 0), ("lesion", 1, 1))
    volume = read(tmp_path)
    np.testing.assert_array_equal(volume.sample.label[2:6], 2)
    np.testing.assert_array_equal(volume.sample.label[6:8], 1)
    assert "segments overlap in 120 voxels; the label stated last was taken" in " ".join(volume.notes)


def test_beyond_the_stored_box_all_is_background(tmp_path: Path) -> None:
    data = np.ones((4, 3, 2), np.uint8)
    segmentation(tmp_path / "p.seg.nrrd", data, ("lesion", 1, 0), origin=(2, 3, 1))
    volume = read(tmp_path)
    expected = np.zeros((12, 10, 6), np.uint8)
    expected[2:6, 3:6, 1:3] = 1
    np.testing.assert_array_equal(volume.sample.label, expected)
    assert volume.watch is not None
    assert volume.watch.uncovered is None  # unlike a plain mask, whose outside is unknown


def test_segments_without_a_stated_name(tmp_path: Path) -> None:
    data = np.zeros((12, 10, 6), np.uint8)
    data[1] = 2
    segmentation(tmp_path / "a.seg.nrrd", data, ("Segment_1", 2, 0))
    mask = read_mask(tmp_path / "a.seg.nrrd", LABELS)
    assert set(np.unique(mask.label)) == {0, 2}
    assert mask.notes == ("mask: segments that bear no name were taken by their values",)
    segmentation(tmp_path / "b.seg.nrrd", data, ("vessel", 2, 0))
    with pytest.raises(DataError, match=r"stated labels \(lesion, cyst\).*found 'vessel'.*--labels"):
        read_mask(tmp_path / "b.seg.nrrd", LABELS)
    segmentation(tmp_path / "c.seg.nrrd", data, ("lesion", 2, 1))
    with pytest.raises(DataError, match="layer must be in the file"):
        read_mask(tmp_path / "c.seg.nrrd", LABELS)
