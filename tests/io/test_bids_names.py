"""Entities, suffixes and kinds of files, by the schema of the standard."""

from pathlib import Path

import numpy as np
import pytest
from bids_files import found, pixels, put, unused
from mri_files import block, write_nifti

from augengine.errors import ConfigError, DataError
from augengine.io.bids_names import misplaced, parse, schema
from augengine.io.layouts import open_layout
from augengine.io.sources import SourceOptions

ANAT = "sub-01/anat/sub-01_"
TELLING = (
    "acq-a",
    "acq-b",
    "ce-gadolinium",
    "rec-norm",
    "dir-AP",
    "run-1",
    "run-2",
    "echo-1",
    "echo-2",
    "flip-1",
    "flip-2",
    "inv-1",
    "inv-2",
    "mt-on",
    "mt-off",
    "part-mag",
    "chunk-1",
    "chunk-2",
    "space-MNI152",
    "desc-preproc",
    "foo-bar",
)


def test_the_schema_tells_what_files_are() -> None:
    known = schema()
    assert {"T1w", "T2w", "FLAIR", "MTS", "MEGRE", "VFA", "MP2RAGE", "UNIT1", "T2starw"} <= known.anatomy
    assert {"T1map", "R2starmap", "MTRmap", "Chimap"} <= known.maps
    assert not known.anatomy & {"defacemask", "T1map", "dseg", "mask", "bold"}
    assert {"desc", "space", "label", "res"} <= known.derived
    assert not known.derived & {"sub", "ses", "run", "acq", "ce", "rec", "dir", "echo", "part", "inv", "flip", "mt"}
    assert {"run", "echo", "flip", "inv"} <= known.indices


@pytest.mark.parametrize(
    ("path", "entities", "suffix", "source"),
    [
        ("acq-x_T1w.json", {"acq": "x"}, "T1w", None),
        ("sub-1/anat/sub-1_run-007_T1w.nii", {"sub": "1", "run": "7"}, "T1w", None),
        ("sub-1/ses-b/anat/sub-1_T1w.nii", {"sub": "1", "ses": "b"}, "T1w", None),
        ("sub-1/anat/sub-1_acq-a-b_T1w.nii.gz", {"sub": "1", "acq": "a-b"}, "T1w", None),
        ("sub-1/anat/sub-1_acq-0.8mm_T1w.NII.GZ", {"sub": "1", "acq": "0.8mm"}, "T1w", None),
        ("sub-1_run-1_T2starw_gmseg-manual.nii.gz", {"sub": "1", "run": "1"}, "gmseg-manual", "T2starw"),
        ("sub-1_T2w_label-SC_seg.nii.gz", {"sub": "1", "label": "SC"}, "seg", "T2w"),
    ],
)
def test_names_in_parts(path: str, entities: dict[str, str], suffix: str, source: str | None) -> None:
    name = parse(path)
    assert name is not None
    assert (dict(name.entities), name.suffix, name.source) == (entities, suffix, source)


@pytest.mark.parametrize("path", ["dataset_description.json", "README", "sub-1_run-1_run-2_T1w.nii", "sub-1_acq-_T1w"])
def test_other_names_are_none(path: str) -> None:
    name = parse(path)
    assert name is None or not name.subject


def test_a_folder_of_another_subject_or_session() -> None:
    assert misplaced(parse("sub-1/anat/sub-2_T1w.nii"))  # type: ignore[arg-type]
    assert misplaced(parse("sub-1/ses-a/anat/sub-1_ses-b_T1w.nii"))  # type: ignore[arg-type]
    assert not misplaced(parse("sub-1/ses-a/anat/sub-1_T1w.nii"))  # type: ignore[arg-type]


def test_every_entity_makes_an_image_of_its_own(tmp_path: Path) -> None:
    names = ["T1w", *(f"{entity}_T1w" for entity in TELLING)]
    for n, name in enumerate(names):
        put(tmp_path, f"{ANAT}{name}.nii.gz", {"EchoTime": 0.001 * (n + 1)}, seed=n)
    volumes = found(tmp_path)
    assert list(volumes) == sorted(volumes)
    assert set(volumes) == {f"sub-01_{name}" for name in names}
    for n, name in enumerate(names):
        assert volumes[f"sub-01_{name}"].acquisition.echo_time_ms == n + 1
    images = pixels(tmp_path)
    assert all(np.array_equal(images[f"sub-01_{name}"][0][0], block(seed=n)) for n, name in enumerate(names))
    assert unused(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("part-phase_T1w", "phase image"),
        ("part-real_T1w", "real part"),
        ("part-imag_T1w", "imaginary part"),
        ("mod-T1w_defacemask", "a defacing mask"),
        ("label-GM_probseg", "a map of probabilities"),
        ("acq-localizer_T1w", "a localiser"),
        ("acq-AAHScout_T1w", "a localiser"),
        ("localizer", "a localiser"),
        ("T1map", "a quantitative map"),
        ("R2starmap", "a quantitative map"),
        ("T1w_brain", "made from another image"),
        ("SWI", "suffix SWI is none of BIDS' anatomy"),
        ("desc-brain_mask", "a mask of the brain"),
    ],
)
def test_what_is_no_contrast_image_is_named(tmp_path: Path, name: str, reason: str) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz", seed=1)
    put(tmp_path, f"{ANAT}{name}.nii.gz", {"EchoTime": 0.01}, seed=2)
    assert list(found(tmp_path)) == ["sub-01_T1w"]
    assert unused(tmp_path)[f"{ANAT}{name}.nii.gz"].startswith(reason)
    assert unused(tmp_path)[f"{ANAT}{name}.json"] == "a sidecar of no image that is used"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("sub-01/func/sub-01_task-rest_bold.nii.gz", "of data type func, which is no anatomy"),
        ("sub-01/dwi/sub-01_dwi.nii.gz", "of data type dwi"),
        ("sub-01/fmap/sub-01_magnitude1.nii.gz", "of data type fmap"),
        ("sub-01/perf/sub-01_asl.nii.gz", "of data type perf"),
        ("sub-01/pet/sub-01_pet.nii.gz", "of data type pet"),
        ("sub-01/mprage/sub-01_T1w.nii.gz", "in no folder of a data type"),
        ("sub-01/sub-01_T1w.nii.gz", "in no folder of a data type"),
        ("sub-01/anat/sub-02_T1w.nii.gz", "its name and its folder state different subjects"),
        ("sub-01/anat/scan_T1w.nii.gz", "its name is no BIDS name"),
        (
            "derivatives/fmriprep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
            "made from an image; --mask PATTERN takes it",
        ),
        ("derivatives/fmriprep/sub-01/anat/sub-01_label-GM_probseg.nii.gz", "a map of probabilities"),
        ("sourcedata/sub-01/anat/sub-01_T1w.nii.gz", "outside of the folders of subjects"),
        ("sub-01_T1w.nii.gz", "outside of any folder"),
        ("sub-01/sub-01_sessions.tsv", "a table of BIDS; none of its columns is read"),
        ("sub-01/sub-01_scans.tsv", "a table of BIDS; none of its columns is read"),
        ("participants.tsv", "a table of participants; --subject-column and --site-column read it"),
        ("participants.json", "describes a table"),
        ("dataset_description.json", "describes the data set"),
        ("derivatives/fmriprep/dataset_description.json", "describes derivatives"),
        ("README", "no image"),
    ],
)
def test_every_other_file_has_its_reason(tmp_path: Path, path: str, reason: str) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz")
    (put if path.endswith(".nii.gz") else put_text)(tmp_path, path)
    assert list(found(tmp_path)) == ["sub-01_T1w"]
    assert unused(tmp_path)[path].startswith(reason)


def put_text(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("participant_id\n" if path.endswith("tsv") else "{}")


def test_an_image_and_its_uncompressed_twin_are_one(tmp_path: Path) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz", seed=1)
    put(tmp_path, f"{ANAT}T1w.nii", seed=2)
    np.testing.assert_array_equal(pixels(tmp_path)["sub-01_T1w"][0][0], block(seed=1))
    assert unused(tmp_path) == {f"{ANAT}T1w.nii": "a .nii.gz of the same name lies beside it, and was taken"}


def test_an_image_whose_content_was_not_fetched_fails(tmp_path: Path) -> None:
    put(tmp_path, f"{ANAT}T1w.nii.gz", {"EchoTime": 0.003})
    (tmp_path / f"{ANAT}T2w.nii.gz").symlink_to("../../.git/annex/objects/x.nii.gz")
    error = found(tmp_path)["sub-01_T2w"].error
    assert error is not None
    assert "a link that leads nowhere: fetch its content" in error


def test_an_image_of_several_volumes_fails_with_the_way_out(tmp_path: Path) -> None:
    """BIDS wants a file per echo; which echo of a 4D file is meant nobody can know."""
    write_nifti(tmp_path / f"{ANAT}MEGRE.nii.gz", np.ones((8, 8, 4, 3), np.int16))
    reader, listing = open_layout(tmp_path, "bids", SourceOptions(public_ids=True))
    (source,) = reader.scan(listing.entries[0]).sources
    with pytest.raises(DataError, match=r"one file must hold one 3D volume; found shape \(8, 8, 4, 3\)"):
        reader.read(source)


def test_names_in_any_case_of_the_ending_and_linked_folders(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "sub-02_T1w.nii.gz", {"EchoTime": 0.004}, seed=2)
    put(tmp_path / "data", f"{ANAT}T1w.NII.GZ", {"EchoTime": 0.003}, seed=1)
    (tmp_path / "data/sub-02").mkdir()
    (tmp_path / "data/sub-02/anat").symlink_to(tmp_path / "elsewhere")
    assert [s.acquisition.echo_time_ms for s in found(tmp_path / "data").values()] == [3, 4]
    images = pixels(tmp_path / "data")
    np.testing.assert_array_equal(images["sub-01_T1w"][0][0], block(seed=1))
    np.testing.assert_array_equal(images["sub-02_T1w"][0][0], block(seed=2))


@pytest.mark.parametrize("layout", ["auto", "bids"])
def test_subjects_that_lie_deeper_are_pointed_to(tmp_path: Path, layout: str) -> None:
    """As a generic folder every image would be a subject, and sessions would part between splits."""
    put(tmp_path, "rawdata/sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz")
    (tmp_path / "README").write_text("about")
    with pytest.raises(ConfigError, match=r"found rawdata/sub-\*; ingest .*rawdata$"):
        open_layout(tmp_path, layout, SourceOptions())


def test_a_data_set_without_anatomy_says_what_it_holds(tmp_path: Path) -> None:
    put(tmp_path, "sub-01/dwi/sub-01_dwi.nii.gz")
    put(tmp_path, f"{ANAT}T1map.nii.gz")
    with pytest.raises(DataError, match="found 1 of data type dwi, which is no anatomy; 1 a quantitative map"):
        found(tmp_path)
