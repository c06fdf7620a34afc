"""nnU-Net's raw layout: labels, regions, folds, spacing and orientation, without nnU-Net itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from export_cohorts import OBLIQUE, augmented, cohort, exported, slice_cohort, volume, volume_cohort
from pydantic import ValidationError

from augengine.errors import ConfigError, DataError
from augengine.export.nnunet import BRATS_REGIONS, NnUnet, own_dataset_json

NAME = "Dataset501_Test"


def dataset(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "dataset.json").read_text())


def test_the_layout(tmp_path: Path) -> None:
    exported(NnUnet(), volume_cohort(tmp_path), tmp_path / NAME, licence="CC0 1.0")
    about = dataset(tmp_path / NAME)
    assert about["channel_names"] == {"0": "t1", "1": "flair"}
    assert about["labels"] == {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 3}  # the rows have 1, 2, 4
    assert about["numTraining"] == 7  # three for training, one for validation, three augmented
    assert about["overwrite_image_reader_writer"] == "NibabelIOWithReorient"
    assert about["licence"] == "CC0 1.0"
    for folder, files in {"imagesTr": 14, "labelsTr": 7, "imagesTs": 2, "labelsTs": 1}.items():
        assert len(list((tmp_path / NAME / folder).iterdir())) == files
    label = np.asarray(nib.load(tmp_path / NAME / "labelsTr/S000.nii.gz").dataobj)
    assert set(np.unique(label)) == {0, 1, 2, 3}
    assert ((label == 3) == (volume(0).label == 4)).all()


def test_augmented_cases_are_in_the_training_of_the_first_fold_alone(tmp_path: Path) -> None:
    exported(NnUnet(), volume_cohort(tmp_path), tmp_path / NAME)
    with_made, real = json.loads((tmp_path / NAME / "splits_final.json").read_text())
    made = dataset(tmp_path / NAME)["augengine"]["synthetic"]
    assert len(made) == 3
    assert with_made == {"train": ["S000", "S001", "S002", *made], "val": ["S003"]}
    assert real == {"train": ["S000", "S001", "S002"], "val": ["S003"]}
    assert not [name for name in (tmp_path / NAME / "imagesTs").iterdir() if name.name.startswith("syn-")]


def test_a_slice_has_a_third_spacing_of_999(tmp_path: Path) -> None:
    """The slicing axis is the one of the largest spacing: 3.3 mm would do here, but of a thin slice it would not."""
    exported(NnUnet(), slice_cohort(tmp_path), tmp_path / NAME)
    image = nib.load(tmp_path / NAME / "imagesTr/S000-0002_0000.nii.gz")
    assert image.shape == (20, 16, 1)
    assert image.header.get_zooms() == pytest.approx((0.8, 1.1, 999))
    for voxel in ((0, 0), (19, 15)):  # where the slice lies is not changed
        there = OBLIQUE @ [*voxel, 2, 1]
        assert np.abs(image.affine @ [*voxel, 0, 1] - there).max() <= 1e-4


def test_files_in_the_orientation_of_the_source(tmp_path: Path) -> None:
    exported(NnUnet(source_orientation="LPS"), volume_cohort(tmp_path), tmp_path / NAME)
    image, label = (nib.load(tmp_path / NAME / f) for f in ("imagesTr/S001_0000.nii.gz", "labelsTr/S001.nii.gz"))
    assert nib.aff2axcodes(image.affine) == nib.aff2axcodes(label.affine) == ("L", "P", "S")
    assert (nib.as_closest_canonical(image).get_fdata() == volume(1).image[0]).all()
    with pytest.raises(ValidationError, match="three letters"):
        NnUnet(source_orientation="LRS")


def test_regions_of_brats(tmp_path: Path) -> None:
    exported(NnUnet(regions=BRATS_REGIONS), volume_cohort(tmp_path), tmp_path / NAME)
    about = dataset(tmp_path / NAME)
    assert about["labels"] == {"background": 0, "whole_tumour": [1, 2, 3], "tumour_core": [1, 3], "enhancing_tumour": 3}
    assert about["regions_class_order"] == [2, 1, 3]  # written one over the other: oedema, necrosis, enhancing


@pytest.mark.parametrize(
    ("regions", "rule"),
    [
        ({"whole": ("oedema", "necrosis", "enhancing")}, "one label that no later region"),
        ({"whole": ("oedema", "necrosis"), "core": ("necrosis",)}, "every label must be in a region"),
        ({"whole": ("edema",)}, "did you mean 'oedema'"),
    ],
)
def test_regions_that_cannot_be_trained_are_refused(tmp_path: Path, regions: dict, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        exported(NnUnet(regions=regions), volume_cohort(tmp_path), tmp_path / NAME)


def test_uncertain_labels_of_augmented_cases_are_ignored(tmp_path: Path) -> None:
    rows = [volume(n) for n in (0, 3)]
    stores = cohort(tmp_path, rows, [augmented(rows[0], confidence=True)])  # oedema has 50, all else 200
    exported(NnUnet(ignore_below=100), stores, tmp_path / NAME)
    about = dataset(tmp_path / NAME)
    assert about["labels"]["ignore"] == 4  # the highest, as nnU-Net demands
    (name,) = about["augengine"]["synthetic"]
    label = np.asarray(nib.load(tmp_path / NAME / f"labelsTr/{name}.nii.gz").dataobj)
    assert ((label == 4) == (rows[0].label == 2)).all()
    assert 4 not in np.asarray(nib.load(tmp_path / NAME / "labelsTr/S000.nii.gz").dataobj)


def test_weights_are_those_of_training_cases(tmp_path: Path) -> None:
    made = augmented(volume(0)).sample_id
    exported(NnUnet(weights={"S001": 3, made: 0.5}), volume_cohort(tmp_path), tmp_path / NAME)
    assert dataset(tmp_path / NAME)["augengine"]["weights"] == {"S001": 3.0, f"syn-{made}": 0.5}
    with pytest.raises(ConfigError, match="--weights: unknown training case 'S003'"):  # it is for validation
        exported(NnUnet(weights={"S003": 3}), volume_cohort(tmp_path / "b"), tmp_path / "b" / NAME)
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        NnUnet(weights={"S001": -1})
    nothing = {**{f"S00{n}": 0.0 for n in range(3)}, **{augmented(volume(n)).sample_id: 0.0 for n in range(3)}}
    with pytest.raises(ConfigError, match="some training case must have a weight above 0"):
        exported(NnUnet(weights=nothing), volume_cohort(tmp_path / "c"), tmp_path / "c" / NAME)


def test_a_folder_that_nnunet_does_not_find_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Dataset501_"):
        exported(NnUnet(), volume_cohort(tmp_path), tmp_path / "out")


def test_without_validation_nnunet_would_draw_its_own_folds(tmp_path: Path) -> None:
    stores = cohort(tmp_path, [volume(0), volume(4)], [augmented(volume(0))])
    with pytest.raises(DataError, match="none in val"):
        exported(NnUnet(), stores, tmp_path / NAME)


def test_our_text_is_in_nnunets_order() -> None:
    values = {
        "channel_names": {"0": "t1"},
        "labels": {"background": 0, "a": 1},
        "num_training_cases": 2,
        "file_ending": ".nii.gz",
        "regions_class_order": None,
        "license": "x",
        "converted_by": "y",
        "description": "z",
        "overwrite_image_reader_writer": "R",
        "augengine": {"synthetic": []},
    }
    assert list(json.loads(own_dataset_json(values))) == [
        "channel_names",
        "labels",
        "numTraining",
        "file_ending",
        "licence",
        "converted_by",
        "description",
        "overwrite_image_reader_writer",
        "augengine",
    ]
