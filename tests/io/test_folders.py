"""Folders of files: which files are one volume, two that claim one place, masks beside and in folders of their own."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from mri_files import block, write_nifti
from reading import read_all, scanned

from augengine.errors import ConfigError, DataError
from augengine.io.folders import NiftiReader
from augengine.io.pairing import by_pattern
from augengine.io.sources import SourceOptions

LESION = {"lesion": 1}


def mask(seed: int = 0) -> np.ndarray:
    return (block(seed=seed) > 600).astype(np.uint8)


def reader(root: Path, **options: object) -> NiftiReader:
    return NiftiReader(root, SourceOptions(public_ids=True, **options))


def test_two_masks_of_one_image_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_nifti(tmp_path / f"{patient}.nii.gz", block())
        write_nifti(tmp_path / f"{patient}_label.nii.gz", mask(1))
        write_nifti(tmp_path / f"{patient}_mask.nii.gz", mask(2))
    found = scanned(reader(tmp_path, labels=LESION))
    for source in found:
        assert "found '*_label.nii.gz' and '*_mask.nii.gz'; choose with --mask" in str(source.error)
        assert "p1" not in str(source.error)  # it is written down, and names may be a patient's
        assert len(source.files) == 3
    for pattern, seed in (("*_label.nii.gz", 1), ("*_mask.*", 2)):
        chosen = reader(tmp_path, labels=LESION, mask=pattern)
        for volume in read_all(chosen):
            np.testing.assert_array_equal(volume.sample.label, mask(seed))
        assert set(chosen.listing().unused.values()) == {"named like a mask, but --mask asks for another"}


@pytest.mark.parametrize("names", [("p-seg", "p_seg"), ("p_seg", "p_seg.seg"), ("p_segmentation", "p_label")])
def test_any_two_endings_of_masks(tmp_path: Path, names: tuple[str, str]) -> None:
    write_nifti(tmp_path / "p.nii", block())
    for name in names:
        write_nifti(tmp_path / f"{name}.nii", mask())
    assert "one mask per image" in str(scanned(reader(tmp_path, labels=LESION))[0].error)


def test_a_pattern_names_masks_that_look_like_none(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_nifti(tmp_path / "flat" / f"{patient}.nii", block())
        write_nifti(tmp_path / "flat" / f"{patient}_lesion.nii", mask())
        write_nifti(tmp_path / "deep" / patient / "scan.nii", block())
        write_nifti(tmp_path / "deep" / patient / "lesion.nii", mask())
    for folder, pattern in (("flat", "*_lesion.nii"), ("deep", "lesion.nii")):
        volumes = read_all(reader(tmp_path / folder, labels=LESION, mask=pattern))
        assert len(volumes) == 2
        for volume in volumes:
            np.testing.assert_array_equal(volume.sample.label, mask())


def test_one_name_with_and_without_gz_is_not_one_file(tmp_path: Path) -> None:
    for name in ("p.nii", "p.nii.gz", "q.nii", "q_seg.nii", "q_seg.nii.gz", "r.nii", "r_image.nii"):
        write_nifti(tmp_path / name, mask() if "seg" in name else block())
    errors = [str(s.error) for s in scanned(reader(tmp_path, labels=LESION))]
    assert "two files would be one image: '*.nii' and '*.nii.gz'" in errors[0]
    assert "one mask per image is needed; found '*_seg.nii' and '*_seg.nii.gz'" in errors[1]
    assert "two files would be one image: '*.nii' and '*_image.nii'" in errors[2]


@pytest.mark.parametrize("folders", [("images", "labels"), ("img", "Masks"), ("a/images", "a/segmentations")])
def test_masks_in_a_folder_beside_the_images(tmp_path: Path, folders: tuple[str, str]) -> None:
    for n in range(3):
        write_nifti(tmp_path / folders[0] / f"p{n}.nii.gz", block(seed=n))
        write_nifti(tmp_path / folders[1] / f"p{n}{'_seg' if n == 2 else ''}.nii.gz", mask(n))
    with pytest.raises(ConfigError, match="meaning of their codes"):
        reader(tmp_path).listing()
    volumes = read_all(reader(tmp_path, labels=LESION))
    assert len(volumes) == 3
    for n, volume in enumerate(volumes):
        np.testing.assert_array_equal(volume.sample.image[0], block(seed=n))
        np.testing.assert_array_equal(volume.sample.label, mask(n))
    write_nifti(tmp_path / folders[1] / "p9.nii.gz", mask())
    errors = [s.error for s in scanned(reader(tmp_path, labels=LESION)) if s.error]
    assert errors == ["every channel must have its file; missing: image"]


def test_masks_beside_channels_in_a_folder_of_their_own(tmp_path: Path) -> None:
    for n in range(2):
        for k, name in enumerate(("t1", "t2")):
            write_nifti(tmp_path / "images" / f"p{n}_{name}.nii", block(seed=10 * n + k))
        write_nifti(tmp_path / "labels" / f"p{n}.nii", mask(n))
    options = {"channels": {"t1": "*_t1.nii", "t2": "*_t2.nii"}, "mask": "p?.nii", "labels": LESION}
    volumes = read_all(reader(tmp_path, **options))
    for n, volume in enumerate(volumes):
        np.testing.assert_array_equal(volume.sample.image[1], block(seed=10 * n + 1))
        np.testing.assert_array_equal(volume.sample.label, mask(n))


def test_case_of_letters_in_names_of_masks(tmp_path: Path) -> None:
    write_nifti(tmp_path / "Case1.nii", block())
    write_nifti(tmp_path / "case1_SEG.nii", mask())
    write_nifti(tmp_path / "x.nii", block(seed=1))
    write_nifti(tmp_path / "X.nii", block(seed=2))
    write_nifti(tmp_path / "X_seg.nii", mask(2))
    volumes = {v.sample.subject_id: v.sample for v in read_all(reader(tmp_path, labels=LESION))}
    np.testing.assert_array_equal(volumes["Case1"].label, mask())
    np.testing.assert_array_equal(volumes["X"].label, mask(2))
    assert volumes["x"].label is None


def test_a_loose_pattern_is_refused_with_a_tighter_one(tmp_path: Path) -> None:
    for patient in ("a", "b"):
        for name in ("t1", "t1ce", "flair"):
            write_nifti(tmp_path / patient / f"{patient}_{name}.nii.gz", block())
    channels = {"t1": "*_t1*.nii.gz", "flair": "*_flair.nii.gz"}
    for source in scanned(reader(tmp_path, channels=channels)):
        assert "found '…_t1.nii.gz' and '…_t1ce.nii.gz'" in str(source.error)
        assert "for example t1=*_t1.nii.gz" in str(source.error)
        assert len(source.files) == 3
    assert len(read_all(reader(tmp_path, channels={**channels, "t1": "*_t1.nii.gz"}))) == 2


@pytest.mark.parametrize(
    ("patterns", "names", "expected"),
    [
        # what differs is a part of the name of its own: two volumes
        ({"t1": "*_??_T1.nii"}, ["P1_11_T1.nii", "P1_21_T1.nii"], {"P1_11", "P1_21"}),
        (
            {"t1": "*_??_T1.nii", "t2": "*_??_T2.nii"},
            ["P1_11_T1.nii", "P1_11_T2.nii", "P1_21_T1.nii"],
            {"P1_11", "P1_21"},
        ),
        ({"t1": "*-*-t1.nii"}, ["a-1-t1.nii", "a-2-t1.nii", "b-1-t1.nii"], {"a-1", "a-2", "b"}),
        # a word is longer, or only the end of the name differs: too loose
        ({"t1": "*_t1*.nii"}, ["a_t1.nii", "a_t1ce.nii"], None),
        ({"t1": "t1*"}, ["t1.nii", "t1ce.nii"], None),
        ({"t1": "t1*", "flair": "flair.nii"}, ["t1.nii", "t1ce.nii", "flair.nii"], None),
        ({"t1": "*_t1_*.nii"}, ["a_t1_pre.nii", "a_t1_post.nii"], None),
        ({"t1": "*t1*_bet.nii"}, ["a_t1_bet.nii", "a_t1ce_bet.nii"], None),
        ({"t1": "*_t1.nii*"}, ["a_t1.nii", "a_t1.nii.gz"], None),
        ({"t1": "*_t1.nii", "": "*_m*.nii"}, ["a_t1.nii", "a_m1.nii", "a_mask.nii"], None),
        # one file for two places
        ({"t1": "*_t1*.nii", "t1c": "*_t1ce.nii"}, ["a_t1ce.nii"], None),
        ({"t1": "*.nii", "": "*_seg.nii"}, ["a_seg.nii"], None),
        # numbers after a word are cases
        ({"t1": "img*.nii"}, ["img1.nii", "img2.nii"], {"1", "2"}),
        ({"t1": "t1_*.nii", "t2": "t2_*.nii"}, ["t1_a.nii", "t1_b.nii", "t2_a.nii", "t2_b.nii"], {"a", "b"}),
    ],
)
def test_which_names_are_one_volume(patterns: dict[str, str], names: list[str], expected: set[str] | None) -> None:
    groups = by_pattern(patterns, names)
    if expected is None:
        assert any(group.error for group in groups.values())
    else:
        assert set(groups) == expected
        assert not any(group.error for group in groups.values())
    # Whatever comes of it: every file is in one group.
    held = [n for g in groups.values() for n in {*g.channels.values(), *g.spare, *([g.mask] if g.mask else [])}]
    assert sorted(held) == sorted(names)


def test_time_points_by_pattern_are_volumes_of_their_own(tmp_path: Path) -> None:
    for n, name in enumerate(("P-1_11", "P-1_21", "P-2_11")):
        for k, channel in enumerate(("T1", "T2")):
            write_nifti(tmp_path / f"{name}_{channel}.nii.gz", block(seed=10 * n + k))
    for pattern in ("*_{}.nii.gz", "*_??_{}.nii.gz"):
        channels = {"t1": pattern.format("T1"), "t2": pattern.format("T2")}
        volumes = read_all(reader(tmp_path, channels=channels))
        firsts = {int(n) for v in volumes for n in (0, 10, 20) if np.array_equal(v.sample.image[0], block(seed=n))}
        assert firsts == {0, 10, 20}


def test_what_is_stated_and_matches_nothing_is_an_error(tmp_path: Path) -> None:
    for patient in "ab":
        write_nifti(tmp_path / patient / "t1.nii", block())
        write_nifti(tmp_path / patient / "lesion_seg.nii", mask())
    channels = {"t1": "t1.nii"}
    with pytest.raises(ConfigError, match="--mask must match the mask of a volume; found 'lesions_seg"):
        reader(tmp_path, channels=channels, mask="lesions_seg.nii", labels=LESION).listing()
    with pytest.raises(ConfigError, match="--labels is stated, but no volume of this data set has a mask"):
        reader(tmp_path, channels=channels, labels=LESION).listing()
    (tmp_path / "b" / "lesion_seg.nii").unlink()
    found = scanned(reader(tmp_path, channels=channels, mask="lesion_seg.nii", labels=LESION))
    assert [s.notes for s in found] == [(), ("no mask was found",)]


def test_pairs_of_header_and_data_are_one_image(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(block(), np.diag([1, 1, 3, 1.0])), tmp_path / "a.img")
    write_nifti(tmp_path / "b.nii", block())
    (tmp_path / "c.img").write_bytes(b"x")
    files = reader(tmp_path)
    first, second = scanned(files)
    assert first.files == ("a.hdr", "a.img")
    assert second.files == ("b.nii",)
    assert files.listing().unused == {"c.img": "data without their header .hdr"}
    np.testing.assert_array_equal(files.read(first).sample.image[0], block())
    (tmp_path / "a.img").unlink()
    assert "the .img of a .hdr is missing" in str(scanned(reader(tmp_path))[0].error)


def test_names_with_signs_of_patterns_and_composed_letters(tmp_path: Path) -> None:
    for name in ("[T1] a*b", "e\u0301", "\u00e9"):
        write_nifti(tmp_path / name / "t1.nii.gz", block())
    assert len(read_all(reader(tmp_path, channels={"t1": "t1.nii.gz"}))) == 3
    write_nifti(tmp_path / "x" / "[a]_t1.nii.gz", block())
    write_nifti(tmp_path / "x" / "[b]_t1.nii.gz", block())
    assert len(read_all(reader(tmp_path / "x", channels={"t1": "*_t1.nii.gz"}))) == 2


def test_channels_within_a_tenth_of_a_voxel_are_one_grid(tmp_path: Path) -> None:
    for shift, note in ((0.0, False), (0.004, False), (0.05, True)):
        moved = np.eye(4)
        moved[0, 3] = shift
        write_nifti(tmp_path / "t1.nii", block(), np.eye(4))
        write_nifti(tmp_path / "t2.nii", block(seed=1), moved)
        (volume,) = read_all(reader(tmp_path, channels={"t1": "t1.nii", "t2": "t2.nii"}))
        assert any("differ by 0.05 voxels" in n for n in volume.notes) == note


def test_reasons_for_files_that_are_no_image(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", block())
    for name in ("b.mgz", "c.nrrd", "d.txt", "e.mha"):
        (tmp_path / name).write_bytes(b"x")
    assert reader(tmp_path).listing().unused == {
        "b.mgz": "an image of another format",
        "c.nrrd": "an image of another format",
        "d.txt": "no image",
        "e.mha": "an image of another format",
    }


@pytest.mark.parametrize("ending", ["_labels", "-lesion", "_ROI", "_GT", "_dseg", ".rois", "_ground-truth", "_Tumor"])
def test_a_file_called_after_an_image_beside_it_is_its_mask(tmp_path: Path, ending: str) -> None:
    write_nifti(tmp_path / "p.nii", block())
    write_nifti(tmp_path / f"p{ending}.nii", mask())
    write_nifti(tmp_path / "q_lesion.nii", block(seed=1))  # no q beside it: an image
    first, second = read_all(reader(tmp_path, labels={"lesion": 1}))
    np.testing.assert_array_equal(first.sample.label, mask())
    np.testing.assert_array_equal(second.sample.image[0], block(seed=1))


def test_a_label_map_does_not_become_an_image(tmp_path: Path) -> None:
    write_nifti(tmp_path / "p.nii", block((20, 20, 6)))
    for name, data in {"p_WT": mask(), "p_aseg": np.arange(2400).reshape(20, 20, 6) % 16}.items():
        write_nifti(tmp_path / f"{name}.nii", data.astype(np.float32 if name == "p_WT" else np.int16))
        opened = reader(tmp_path)
        source = next(s for s in scanned(opened) if s.subject_id == name)
        with pytest.raises(DataError, match="whole values, as label maps do"):
            opened.read(source)
    fractions = reader(tmp_path / "maps")
    write_nifti(tmp_path / "maps" / "m.nii", (mask() * 0.5).astype(np.float32))
    assert len(read_all(fractions)) == 1


def test_places_that_give_one_name_are_volumes_of_their_own(tmp_path: Path) -> None:
    paths = ["a/b_c", "a_b/c", "a/b/c", "d"]
    for n, path in enumerate(paths):
        write_nifti(tmp_path / f"{path}.nii", block(seed=n))
    found = {s.entry: s.subject_id for s in scanned(reader(tmp_path))}
    assert len(set(found.values())) == 4
    assert found["d"] == "d"
    assert all(found[path].startswith("a_b_c-") for path in paths[:3])
