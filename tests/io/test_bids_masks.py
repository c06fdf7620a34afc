"""Which mask belongs to which image."""

from pathlib import Path

import numpy as np
import pytest
from bids_files import LABELS, found, pixels, put, put_mask, unused

from augengine.errors import ConfigError

ANAT = "sub-01/anat/sub-01_"
LABELLED = "derivatives/labels/sub-01/anat/sub-01_"


def labels(root: Path, **options: object) -> dict[str, np.ndarray | None]:
    return {name: label for name, (_, label) in pixels(root, labels=LABELS, **options).items()}


@pytest.mark.parametrize("entity", ["run-1", "acq-a", "ce-gadolinium", "rec-norm", "echo-1", "inv-1", "ses-a"])
def test_a_mask_belongs_to_the_image_of_its_entities(tmp_path: Path, entity: str) -> None:
    """The other image has another value, or none."""
    other = entity[:-1] + "2"
    for name in (entity, other):
        put(tmp_path, f"{ANAT}{name}_T1w.nii.gz")
    put(tmp_path, f"{ANAT}T1w.nii.gz")
    mask = put_mask(tmp_path, f"{LABELLED}{entity}_label-lesion_mask.nii.gz")
    got = labels(tmp_path)
    np.testing.assert_array_equal(got[f"sub-01_{entity}_T1w"], mask)
    assert got[f"sub-01_{other}_T1w"] is None
    assert got["sub-01_T1w"] is None


def test_names_of_the_spinal_cord_toolbox(tmp_path: Path) -> None:
    for name in ("run-1_T2starw", "run-2_T2starw", "run-1_T1w"):
        put(tmp_path, f"{ANAT}{name}.nii.gz")
    grey = put_mask(tmp_path, f"{LABELLED}run-1_T2starw_gmseg-manual.nii.gz", seed=1)
    put_mask(tmp_path, f"{LABELLED}run-1_T2starw_seg-manual.nii.gz", seed=2)
    got = labels(tmp_path, mask="*_gmseg-manual*")
    np.testing.assert_array_equal(got["sub-01_run-1_T2starw"], grey)
    assert got["sub-01_run-2_T2starw"] is None
    assert got["sub-01_run-1_T1w"] is None
    assert unused(tmp_path, labels=LABELS, mask="*_gmseg-manual*") == {
        f"{LABELLED}run-1_T2starw_seg-manual.nii.gz": "made from an image, and not asked for by --mask"
    }
    (volume,) = [v for v in found(tmp_path, labels=LABELS, mask="*seg-manual.nii.gz").values() if v.error]
    assert volume.volume_id == "sub-01_run-1_T2starw"
    assert volume.error == (
        "an image must have one mask; found gmseg-manual, seg-manual; choose with --mask PATTERN "
        "(of the name, or of the path if it holds /)"
    )


def test_a_mask_that_names_the_suffix_is_of_no_other_image(tmp_path: Path) -> None:
    for suffix in ("T1w", "FLAIR"):
        put(tmp_path, f"{ANAT}{suffix}.nii.gz")
    mask = put_mask(tmp_path, f"{ANAT}FLAIR_label-lesion_mask.nii.gz")
    got = labels(tmp_path)
    np.testing.assert_array_equal(got["sub-01_FLAIR"], mask)
    assert got["sub-01_T1w"] is None


def test_a_mask_without_a_suffix_is_of_all_images_of_its_entities(tmp_path: Path) -> None:
    for suffix in ("T1w", "FLAIR", "run-2_T1w"):
        put(tmp_path, f"{ANAT}{suffix}.nii.gz")
    put_mask(tmp_path, f"{LABELLED}label-lesion_mask.nii.gz")
    volumes = found(tmp_path, labels=LABELS)
    note = "its mask names no suffix and was taken for 2 images"
    assert {n: v.notes for n, v in volumes.items()} == {
        "sub-01_FLAIR": (note,),
        "sub-01_T1w": (note,),
        "sub-01_run-2_T1w": ("no mask was found",),
    }
    stacked = found(tmp_path, labels=LABELS, channels={"t1": "T1w", "flair": "FLAIR"})
    assert [v.notes for v in stacked.values()] == [()]


def test_the_mask_of_one_channel_is_that_of_the_volume(tmp_path: Path) -> None:
    for name in ("T1w", "ce-gadolinium_T1w"):
        put(tmp_path, f"{ANAT}{name}.nii.gz")
    mask = put_mask(tmp_path, f"{LABELLED}ce-gadolinium_dseg.nii.gz")
    got = labels(tmp_path, channels={"t1": "T1w", "t1c": "ce-gadolinium_T1w"})
    np.testing.assert_array_equal(got["sub-01"], mask)


def test_fewer_entities_than_any_image(tmp_path: Path) -> None:
    put(tmp_path, f"{ANAT}run-1_T1w.nii.gz")
    mask = put_mask(tmp_path, f"{LABELLED}desc-lesion_mask.nii.gz")
    (volume,) = found(tmp_path, labels=LABELS).values()
    assert volume.notes == ("its mask has fewer entities; it was taken since it can be of no other image",)
    np.testing.assert_array_equal(labels(tmp_path)["sub-01_run-1_T1w"], mask)
    put(tmp_path, f"{ANAT}run-2_T1w.nii.gz")
    put(tmp_path, "sub-02/anat/sub-02_T1w.nii.gz")
    put_mask(tmp_path, "sub-02/anat/sub-02_desc-lesion_mask.nii.gz")
    got = labels(tmp_path)
    assert [name for name, label in got.items() if label is not None] == ["sub-02_T1w"]
    assert unused(tmp_path, labels=LABELS) == {
        f"{LABELLED}desc-lesion_mask.nii.gz": "a mask that may be of several images"
    }


@pytest.mark.parametrize(
    ("space", "fits"),
    [("orig", True), ("scanner", True), ("T1w", True), ("MNI152NLin2009cAsym", False), ("T2w", False)],
)
def test_a_mask_in_another_space_is_none(tmp_path: Path, space: str, fits: bool) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz")
    put(tmp_path, "sub-02/anat/sub-02_T1w.nii.gz")
    put_mask(tmp_path, "sub-02/anat/sub-02_dseg.nii.gz")
    path = f"{LABELLED}space-{space}_dseg.nii.gz"
    put_mask(tmp_path, path)
    assert (labels(tmp_path)["sub-01_T1w"] is not None) is fits
    assert (unused(tmp_path, labels=LABELS) == {}) is fits
    if not fits:
        assert unused(tmp_path, labels=LABELS) == {path: "a mask in another space"}


def test_an_image_in_a_space_has_the_mask_of_that_space(tmp_path: Path) -> None:
    for space in ("", "space-MNI152_"):
        put(tmp_path, f"{ANAT}{space}T1w.nii.gz")
    native = put_mask(tmp_path, f"{ANAT}dseg.nii.gz", seed=1)
    template = put_mask(tmp_path, f"{ANAT}space-MNI152_dseg.nii.gz", seed=2)
    got = labels(tmp_path)
    np.testing.assert_array_equal(got["sub-01_T1w"], native)
    np.testing.assert_array_equal(got["sub-01_space-MNI152_T1w"], template)


@pytest.mark.parametrize(
    "path",
    [
        "sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        "derivatives/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        "derivatives/a/b/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        "derivatives/sub-01_label-lesion_mask.nii",
        "derivatives/masks/sub-01/sub-01_rater-2_label-lesion_mask.nii.gz",
    ],
)
def test_places_of_masks(tmp_path: Path, path: str) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz")
    mask = put_mask(tmp_path, path)
    np.testing.assert_array_equal(labels(tmp_path)["sub-01_T1w"], mask)


def test_a_mask_of_another_session(tmp_path: Path) -> None:
    for session in ("a", "b"):
        put(tmp_path, f"sub-01/ses-{session}/anat/sub-01_T1w.nii.gz")
    mask = put_mask(tmp_path, "derivatives/labels/sub-01/ses-b/anat/sub-01_T1w_label-lesion_mask.nii.gz")
    got = labels(tmp_path)
    assert got["sub-01_ses-a_T1w"] is None
    np.testing.assert_array_equal(got["sub-01_ses-b_T1w"], mask)


def test_masks_of_no_image_are_named(tmp_path: Path) -> None:
    put(tmp_path, f"{ANAT}run-1_T1w.nii.gz")
    put_mask(tmp_path, f"{ANAT}run-1_dseg.nii.gz")
    others = ("sub-01/anat/sub-01_run-3_dseg.nii.gz", "derivatives/x/sub-09/anat/sub-09_dseg.nii.gz")
    for path in others:
        put_mask(tmp_path, path)
    assert unused(tmp_path, labels=LABELS) == dict.fromkeys(others, "a mask of no image that is used")


def test_two_masks_of_one_image_fail_and_are_named(tmp_path: Path) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz")
    paths = [f"derivatives/{rater}/sub-01/anat/sub-01_dseg.nii.gz" for rater in "ab"]
    for n, path in enumerate(paths):
        put_mask(tmp_path, path, seed=n)
    (volume,) = found(tmp_path, labels=LABELS).values()
    assert "an image must have one mask; found 2 of one name in 2 folders" in str(volume.error)
    assert unused(tmp_path, labels=LABELS) == dict.fromkeys(paths, "one of several masks of one image")


def test_one_of_two_raters_is_chosen_by_folder(tmp_path: Path) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz")
    masks = {
        r: put_mask(tmp_path, f"derivatives/{r}/sub-01/anat/sub-01_dseg.nii.gz", seed=n) for n, r in enumerate("ab")
    }
    for rater, mask in masks.items():
        np.testing.assert_array_equal(labels(tmp_path, mask=f"derivatives/{rater}/*_dseg.nii.gz")["sub-01_T1w"], mask)


def test_masks_are_left_out_if_that_is_stated(tmp_path: Path) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz")
    put_mask(tmp_path, f"{ANAT}dseg.nii.gz")
    with pytest.raises(ConfigError, match="or --mask none to ingest images only"):
        found(tmp_path)
    assert found(tmp_path, mask="none")["sub-01_T1w"].spec["mask"] is None
    assert unused(tmp_path, mask="none") == {f"{ANAT}dseg.nii.gz": "a mask that --mask does not ask for"}
    with pytest.raises(ConfigError, match="labels need masks"):
        found(tmp_path, mask="none", labels=LABELS)


def test_a_mask_of_a_suffix_that_is_not_there_is_of_no_image(tmp_path: Path) -> None:
    for suffix in ("T1w", "FLAIR"):
        put(tmp_path, f"{ANAT}{suffix}.nii.gz")
    put_mask(tmp_path, f"{ANAT}FLAIR_label-lesion_mask.nii.gz")
    path = f"{ANAT}T2w_label-lesion_mask.nii.gz"
    put_mask(tmp_path, path)
    volumes = found(tmp_path, labels=LABELS)
    assert {name: v.notes for name, v in volumes.items()} == {"sub-01_FLAIR": (), "sub-01_T1w": ("no mask was found",)}
    assert unused(tmp_path, labels=LABELS) == {path: "a mask of no image that is used"}


def test_the_mask_of_a_magnitude_part(tmp_path: Path) -> None:
    put(tmp_path, f"{ANAT}part-mag_T2starw.nii.gz")
    put_mask(tmp_path, f"{ANAT}dseg.nii.gz")
    assert found(tmp_path, labels=LABELS)["sub-01_part-mag_T2starw"].notes == ()


def test_a_mask_of_the_brain_is_no_lesion(tmp_path: Path) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz")
    lesion = put_mask(tmp_path, f"{LABELLED}label-lesion_mask.nii.gz", seed=1)
    brain = put_mask(tmp_path, "derivatives/fmriprep/sub-01/anat/sub-01_desc-brain_mask.nii.gz", seed=2)
    np.testing.assert_array_equal(labels(tmp_path)["sub-01_T1w"], lesion)
    np.testing.assert_array_equal(labels(tmp_path, mask="*_desc-brain_mask*")["sub-01_T1w"], brain)
    assert "--mask" in unused(tmp_path, labels=LABELS)["derivatives/fmriprep/sub-01/anat/sub-01_desc-brain_mask.nii.gz"]


def test_a_mask_whose_content_was_not_fetched_fails_its_image(tmp_path: Path) -> None:
    """Without a word, a labelled image would become one without a label."""
    put(tmp_path, f"{ANAT}T1w.nii.gz")
    (tmp_path / f"{ANAT}label-lesion_mask.nii.gz").symlink_to("../../.git/annex/objects/x.nii.gz")
    (volume,) = found(tmp_path, labels=LABELS).values()
    assert str(volume.error).startswith("the mask is a link that leads nowhere: fetch its content")


def test_stated_masks_and_labels_must_be_found(tmp_path: Path) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz")
    with pytest.raises(ConfigError, match=r"--mask must match a file; found \*_leson"):
        found(tmp_path, labels=LABELS, mask="*_leson_mask*")
    with pytest.raises(ConfigError, match="no mask belongs to an image"):
        found(tmp_path, labels=LABELS)
    put_mask(tmp_path, f"{LABELLED}T1w_gmseg-manual.nii.gz")
    with pytest.raises(ConfigError, match=r"choose with --mask PATTERN \(suffixes: gmseg-manual\)"):
        found(tmp_path, labels=LABELS)


def test_a_table_of_codes_is_offered(tmp_path: Path) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz")
    put_mask(tmp_path, f"{LABELLED}dseg.nii.gz")
    with pytest.raises(ConfigError, match="give --labels name=code"):
        found(tmp_path)
    (tmp_path / "derivatives/labels/dseg.tsv").write_text("index\tname\n0\tbackground\n1\tGrey Matter\n3\tcsf\n")
    with pytest.raises(ConfigError, match=r"its dseg\.tsv says --labels Grey_Matter=1,csf=3"):
        found(tmp_path)
    (tmp_path / f"{LABELLED}dseg.tsv").write_text("index\tname\n1\tlesion\n")
    with pytest.raises(ConfigError, match=r"its dseg\.tsv says --labels lesion=1"):
        found(tmp_path)
    (tmp_path / f"{LABELLED}dseg.tsv").write_text("name\nlesion\n")
    with pytest.raises(ConfigError, match="give --labels name=code"):
        found(tmp_path)
