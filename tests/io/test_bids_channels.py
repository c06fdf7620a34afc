"""Stated channels: which image is taken, what is said of it, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from bids_files import found, pixels, put, unused
from mri_files import block

from augengine.errors import ConfigError

ANAT = "sub-01/anat/sub-01_"


def session(root: Path, *names: str) -> None:
    for n, name in enumerate(names):
        put(root, f"{ANAT}{name}.nii.gz", seed=n)


def test_the_image_without_further_entities_is_taken(tmp_path: Path) -> None:
    session(tmp_path, "T1w", "ce-gadolinium_T1w", "FLAIR", "T2w", "bold")
    channels = {"t1": "T1w", "flair": "FLAIR"}
    ((image, _),) = pixels(tmp_path, channels=channels).values()
    np.testing.assert_array_equal(image, [block(seed=0), block(seed=2)])
    (source,) = found(tmp_path, channels=channels).values()
    assert (source.volume_id, source.notes) == ("sub-01", ())
    assert unused(tmp_path, channels=channels) == {
        f"{ANAT}ce-gadolinium_T1w.nii.gz": "channel 't1' took the image with fewer entities",
        f"{ANAT}T2w.nii.gz": "no channel asks for suffix T2w",
        f"{ANAT}bold.nii.gz": "no channel asks for suffix bold",
    }


def test_entities_before_the_suffix_must_match(tmp_path: Path) -> None:
    session(tmp_path, "T1w", "ce-gadolinium_T1w", "acq-x_run-2_FLAIR", "run-1_FLAIR")
    channels = {"t1": "T1w", "t1c": "ce-gadolinium_T1w", "flair": "run-02_FLAIR"}
    ((image, _),) = pixels(tmp_path, channels=channels).values()
    np.testing.assert_array_equal(image, [block(seed=0), block(seed=1), block(seed=2)])
    (source,) = found(tmp_path, channels=channels).values()
    assert source.notes == ("channel 'flair': its only image has acq, which was not asked for",)


def test_one_image_with_other_entities_is_taken_with_a_note(tmp_path: Path) -> None:
    session(tmp_path, "acq-mprage_T1w")
    (source,) = found(tmp_path, channels={"t1": "T1w"}).values()
    assert source.error is None
    assert source.notes == ("channel 't1': its only image has acq, which was not asked for",)


def test_several_images_fail_and_are_named(tmp_path: Path) -> None:
    session(tmp_path, "run-1_T1w", "run-2_T1w", "FLAIR")
    channels = {"t1": "T1w", "flair": "FLAIR"}
    (source,) = found(tmp_path, channels=channels).values()
    assert source.error == (
        "channel 't1' must be one image of the session; found run-1_T1w, run-2_T1w; "
        "choose with --channels, for example t1=run-1_T1w"
    )
    assert unused(tmp_path, channels=channels) == {
        f"{ANAT}run-{n}_T1w.nii.gz": "one of several images for channel 't1'" for n in (1, 2)
    }
    (alone,) = found(tmp_path, channels={"t1": "T1w"}).values()
    assert alone.error == source.error


def test_statements_are_tried_in_turn(tmp_path: Path) -> None:
    session(tmp_path, "run-1_T1w", "run-2_T1w")
    put(tmp_path, "sub-02/anat/sub-02_T1w.nii.gz", seed=7)
    images = pixels(tmp_path, channels={"t1": "T1w|run-2_T1w"})
    np.testing.assert_array_equal(images["sub-01"][0][0], block(seed=1))
    np.testing.assert_array_equal(images["sub-02"][0][0], block(seed=7))


def test_channels_of_one_volume_are_of_one_run_unless_stated(tmp_path: Path) -> None:
    session(tmp_path, "run-1_T1w", "run-2_FLAIR")
    (source,) = found(tmp_path, channels={"t1": "T1w", "flair": "FLAIR"}).values()
    assert source.error == "channels of one volume must be of one run, or their runs must be stated in --channels"
    (half,) = found(tmp_path, channels={"t1": "run-1_T1w", "flair": "FLAIR"}).values()
    assert half.error == source.error
    (stated,) = found(tmp_path, channels={"t1": "run-1_T1w", "flair": "run-2_FLAIR"}).values()
    assert stated.error is None


def test_channels_that_differ_in_acquisition_are_noted(tmp_path: Path) -> None:
    session(tmp_path, "acq-mprage_T1w", "acq-space_FLAIR")
    (source,) = found(tmp_path, channels={"t1": "T1w", "flair": "FLAIR"}).values()
    assert source.error is None
    assert source.notes[-1] == "channels of one volume differ in acq"
    stated = {"t1": "acq-mprage_T1w", "flair": "acq-space_FLAIR"}
    assert next(iter(found(tmp_path, channels=stated).values())).notes == ()


def test_a_missing_channel_fails(tmp_path: Path) -> None:
    session(tmp_path, "T1w", "T2w")
    put(tmp_path, "sub-02/anat/sub-02_T2w.nii.gz")
    volumes = found(tmp_path, channels={"t1": "T1w", "flair": "FLAIR"})
    assert [v.error for v in volumes.values()] == ["every channel must have its file; missing: flair (FLAIR)"]
    assert unused(tmp_path, channels={"t1": "T1w", "flair": "FLAIR"})["sub-02/anat/sub-02_T2w.nii.gz"] == (
        "no channel asks for suffix T2w"
    )


def test_parts_of_complex_images(tmp_path: Path) -> None:
    session(tmp_path, "part-mag_T2starw", "part-phase_T2starw")
    (source,) = found(tmp_path, channels={"t2s": "T2starw"}).values()
    assert (source.notes, source.spec["channels"]) == ((), {"t2s": f"{ANAT}part-mag_T2starw.nii.gz"})
    assert unused(tmp_path, channels={"t2s": "T2starw"}) == {f"{ANAT}part-phase_T2starw.nii.gz": "phase image"}
    both = {"mag": "T2starw", "phase": "part-phase_T2starw"}
    ((image, _),) = pixels(tmp_path, channels=both).values()
    np.testing.assert_array_equal(image, [block(seed=0), block(seed=1)])


@pytest.mark.parametrize(("name", "spec"), [("T1map", "T1map"), ("SWI", "SWI"), ("acq-scout_T1w", "acq-scout_T1w")])
def test_what_is_asked_for_is_taken(tmp_path: Path, name: str, spec: str) -> None:
    session(tmp_path, name)
    assert found(tmp_path, channels={"x": spec})["sub-01"].error is None


def test_a_localiser_is_never_taken_for_the_image(tmp_path: Path) -> None:
    session(tmp_path, "acq-localizer_T1w")
    put(tmp_path, "sub-scout/anat/sub-scout_T1w.nii.gz")
    assert list(found(tmp_path, channels={"t1": "T1w"})) == ["sub-scout"]
    assert list(found(tmp_path)) == ["sub-scout_T1w"]


def test_sessions_are_volumes_of_their_own(tmp_path: Path) -> None:
    for n, name in enumerate(("ses-a/anat/sub-01_ses-a", "ses-b/anat/sub-01")):
        put(tmp_path, f"sub-01/{name}_T1w.nii.gz", seed=n)
    volumes = found(tmp_path, channels={"t1": "T1w"})
    assert list(volumes) == ["sub-01_ses-a", "sub-01_ses-b"]
    assert list(found(tmp_path)) == ["sub-01_ses-a_T1w", "sub-01_ses-b_T1w"]
    assert {v.subject_id for v in volumes.values()} == {"sub-01"}


@pytest.mark.parametrize("spec", ["*_T1w.nii.gz", "sub-01_T1w_x", "T1w_", "", "acq-x"])
def test_a_channel_that_is_no_suffix_is_refused(tmp_path: Path, spec: str) -> None:
    session(tmp_path, "T1w")
    with pytest.raises(ConfigError, match="a BIDS channel is a suffix"):
        found(tmp_path, channels={"t1": spec})


def test_channels_that_match_nothing_are_refused(tmp_path: Path) -> None:
    session(tmp_path, "T1w", "FLAIR")
    with pytest.raises(ConfigError, match=r"--channels must match an image; found T2w; .*: FLAIR, T1w"):
        found(tmp_path, channels={"t2": "T2w"})
