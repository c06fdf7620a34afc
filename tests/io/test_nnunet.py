"""nnU-Net and Decathlon folders: pairs across folders, names from dataset.json, test images, and what is amiss."""

import json
from pathlib import Path

import numpy as np
import pytest
from mri_files import block, write_nifti
from reading import read_all, scanned

from augengine.errors import ConfigError, DataError
from augengine.io.layouts import open_layout
from augengine.io.sources import Reader, Source, SourceOptions
from augengine.pipeline.ingest import ingest
from augengine.pipeline.ingest_plan import plan_ingest
from augengine.pipeline.units import INLINE

V2 = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "oedema": 1, "core": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
MSD = {
    "modality": {"0": "FLAIR", "1": "T1w"},
    "labels": {"0": "background", "1": "oedema", "2": "core"},
    "training": [{"image": f"./imagesTr/c_{n}.nii.gz", "label": f"./labelsTr/c_{n}.nii.gz"} for n in range(3)],
    "test": ["./imagesTs/c_7.nii.gz"],
}


def label(seed: int) -> np.ndarray:
    values = block(seed=seed)
    return ((values > 500).astype(np.uint8) + (values > 800)).astype(np.uint8)


def nnunet(root: Path, stated: dict | None = None, channels: int = 2, ending: str = ".nii.gz") -> Path:
    for n in range(3):
        for k in range(channels):
            write_nifti(root / "imagesTr" / f"c{n}_{k:04d}{ending}", block(seed=10 * n + k))
        write_nifti(root / "labelsTr" / f"c{n}{ending}", label(10 * n))
    if stated is not None:
        (root / "dataset.json").write_text(json.dumps(stated))
    return root


def decathlon(root: Path, stated: dict | None = None, channels: int = 2) -> Path:
    for folder, numbers in (("Tr", range(3)), ("Ts", (7,))):
        for n in numbers:
            stack = np.stack([block(seed=10 * n + k) for k in range(channels)], -1)
            write_nifti(root / f"images{folder}" / f"c_{n}.nii.gz", stack if channels > 1 else stack[..., 0])
            if folder == "Tr":
                write_nifti(root / "labelsTr" / f"c_{n}.nii.gz", label(10 * n))
                (root / "imagesTr" / f"._c_{n}.nii.gz").write_bytes(b"\0\5\x16\7")  # as the tar files have them
    if stated is not None:
        (root / "dataset.json").write_text(json.dumps(stated))
    return root


def opened(root: Path, **options: object) -> Reader:
    return open_layout(root, "auto", SourceOptions(public_ids=True, **options))[0]


def test_nnunet_pairs_files_and_takes_names_from_dataset_json(tmp_path: Path) -> None:
    reader = opened(nnunet(tmp_path / "Dataset001_X", V2).parent)
    assert reader.layout == "nnunet"
    volumes = read_all(reader)
    assert [v.sample.subject_id for v in volumes] == ["c0", "c1", "c2"]
    for n, volume in enumerate(volumes):
        assert volume.sample.channels == ("T1", "FLAIR")
        assert dict(volume.sample.labels) == {"oedema": 1, "core": 2}
        np.testing.assert_array_equal(volume.sample.image[1], block(seed=10 * n + 1))
        np.testing.assert_array_equal(volume.sample.label, label(10 * n))
    assert reader.listing().shared == ["Dataset001_X/dataset.json"]


def test_flags_win_over_dataset_json(tmp_path: Path) -> None:
    nnunet(tmp_path, V2)
    for text in ("0001", "1", "*_0001.nii.gz"):
        volumes = read_all(opened(tmp_path, channels={"flair": text}, labels={"a": 1, "b": 2}, mask="c*.nii.gz"))
        assert volumes[0].sample.channels == ("flair",)
        assert dict(volumes[0].sample.labels) == {"a": 1, "b": 2}
        np.testing.assert_array_equal(volumes[2].sample.image[0], block(seed=21))
    unused = opened(tmp_path, channels={"flair": "1"}).listing().unused
    assert set(unused.values()) == {"a channel that is not asked for"}
    with pytest.raises(ConfigError, match="by their numbers; found flair=FLAIR"):
        opened(tmp_path, channels={"flair": "FLAIR"})
    with pytest.raises(ConfigError, match="--mask must match"):
        opened(tmp_path, mask="x*.nii.gz")


def test_without_dataset_json_names_must_be_stated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="meaning of their codes must be stated"):
        opened(nnunet(tmp_path / "one", channels=1))
    volumes = read_all(opened(tmp_path / "one", labels={"a": 1, "b": 2}))
    assert [v.sample.channels for v in volumes] == [("image",)] * 3
    with pytest.raises(ConfigError, match=r"channels need names.*found 0000, 0001.*--channels"):
        opened(nnunet(tmp_path / "two"), labels={"a": 1, "b": 2})


def test_missing_doubled_and_lonely_files_of_nnunet(tmp_path: Path) -> None:
    nnunet(tmp_path, V2)
    (tmp_path / "imagesTr" / "c1_0001.nii.gz").unlink()
    write_nifti(tmp_path / "imagesTr" / "c2_0000.nii", block())
    write_nifti(tmp_path / "labelsTr" / "c9.nii.gz", label(1))
    (tmp_path / "splits_final.json").write_text("[]")
    reader = opened(tmp_path)
    found = {s.volume_id: s for s in scanned(reader)}
    assert found["c0"].error is None
    assert "missing: FLAIR" in str(found["c1"].error)
    assert "stands there twice, e.g. as .nii and .nii.gz: T1" in str(found["c2"].error)
    assert "missing: T1, FLAIR" in str(found["c9"].error)
    assert reader.listing().unused == {"splits_final.json": "no image"}


def test_regions_are_refused_unless_codes_are_stated_and_ignore_is_a_label(tmp_path: Path) -> None:
    nnunet(tmp_path, {**V2, "labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]})
    with pytest.raises(ConfigError, match="regions, which overlap"):
        opened(tmp_path)
    assert len(read_all(opened(tmp_path, labels={"oedema": 1, "core": 2}))) == 3
    (tmp_path / "dataset.json").write_text(json.dumps({**V2, "labels": {"background": 0, "a": [1], "ignore": 2}}))
    assert dict(read_all(opened(tmp_path))[0].sample.labels) == {"a": 1, "ignore": 2}
    assert all("nobody annotated" in " ".join(s.notes) for s in scanned(opened(tmp_path)))
    assert not any(s.notes for s in scanned(opened(tmp_path, labels={"a": 1, "unsure": 2})))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_ending": ".png"}, "must be NIfTI or NRRD"),
        ({"channel_names": {"0": "T1", "1": "T1"}}, "different names"),
        ({"labels": {"background": 0, "a": 300}}, "codes of 1 to 255"),
        ({"labels": {"background": 0, "a": "x"}}, "as nnU-Net or the Decathlon do"),
        ({"channel_names": ["T1"]}, "as nnU-Net or the Decathlon do"),
    ],
)
def test_a_dataset_json_that_cannot_be_obeyed(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(nnunet(tmp_path, {**V2, **change}))


def test_files_that_dataset_json_names_one_by_one(tmp_path: Path) -> None:
    nnunet(tmp_path / "in", V2)
    own = {"x": {"images": ["imagesTr/c0_0000.nii.gz", "./imagesTr/c1_0001.nii.gz"], "label": "labelsTr/c2.nii.gz"}}
    own["y"] = {"images": ["../secret.nii.gz", "imagesTr/c0_0001.nii.gz"]}
    own["z"] = {"images": ["imagesTr/gone.nii.gz", "imagesTr/c2_0001.nii.gz"]}
    write_nifti(tmp_path / "secret.nii.gz", block())
    (tmp_path / "in" / "dataset.json").write_text(json.dumps({**V2, "dataset": own}))
    reader = opened(tmp_path / "in")
    found = scanned(reader)
    sample = reader.read(found[0]).sample
    np.testing.assert_array_equal(sample.image, [block(seed=0), block(seed=11)])
    np.testing.assert_array_equal(sample.label, label(20))
    assert "must lie below the folder" in str(found[1].error)
    assert "are missing" in str(found[2].error)


def test_decathlon_reads_channels_of_one_file(tmp_path: Path) -> None:
    reader = opened(decathlon(tmp_path, MSD))
    assert reader.layout == "decathlon"
    volumes = read_all(reader)
    assert [v.sample.label is None for v in volumes] == [False, False, False, True]
    for n, volume in enumerate(volumes[:3]):
        assert volume.sample.channels == ("FLAIR", "T1w")
        np.testing.assert_array_equal(volume.sample.image, [block(seed=10 * n), block(seed=10 * n + 1)])
        np.testing.assert_array_equal(volume.sample.label, label(10 * n))
    one = read_all(opened(tmp_path, channels={"t1": "1"}))
    np.testing.assert_array_equal(one[0].sample.image, block(seed=1)[None])


def test_test_images_never_train(tmp_path: Path) -> None:
    decathlon(tmp_path / "in", MSD)
    write_nifti(tmp_path / "in" / "labelsTs" / "c_7.nii.gz", label(70))
    plan = plan_ingest(tmp_path / "in", "auto", SourceOptions(public_ids=True), inline=True)
    assert plan.splits["c_7"] == "test"
    assert sorted(plan.splits[f"c_{n}"] for n in range(3)) == ["test", "train", "val"]
    summary = ingest(tmp_path / "in", str(tmp_path / "out"), options=SourceOptions(public_ids=True), actors=INLINE)
    assert summary["counts"]["volumes"] == 4
    assert summary["input_files"]["found"] == 12
    # A patient of which one image is a test image is tested with all of them.
    merged = plan_ingest(tmp_path / "in", "auto", SourceOptions(public_ids=True, subject="c_"), inline=True)
    assert set(merged.splits.values()) == {"test"}


def test_lists_of_dataset_json_are_checked(tmp_path: Path) -> None:
    decathlon(tmp_path, {**MSD, "training": [*MSD["training"][1:], {"image": "imagesTr/gone.nii.gz", "label": "x"}]})
    found: dict[str, Source] = {s.volume_id: s for s in scanned(opened(tmp_path))}
    assert found["c_0"].notes == ("not in the lists of dataset.json",)
    assert found["c_1"].notes == ()
    assert "lists this case, but it has no file" in str(found["gone"].error)


def test_channels_that_a_file_does_not_hold(tmp_path: Path) -> None:
    decathlon(tmp_path, {**MSD, "modality": {"0": "FLAIR", "1": "T1w", "2": "T2w"}})
    reader = opened(tmp_path)
    with pytest.raises(DataError, match=r"found shape \(12, 10, 6, 2\), names FLAIR, T1w, T2w"):
        reader.read(scanned(reader)[0])
    decathlon(tmp_path / "three", channels=1)
    three = read_all(opened(tmp_path / "three", labels={"a": 1, "b": 2}))
    assert {v.sample.channels for v in three} == {("image",)}


def test_four_digits_in_a_name_are_no_channel_if_the_label_has_them_too(tmp_path: Path) -> None:
    for n in (1001, 1002):
        write_nifti(tmp_path / "imagesTr" / f"case_{n}.nii.gz", block(seed=n))
        write_nifti(tmp_path / "labelsTr" / f"case_{n}.nii.gz", label(n))
    reader = opened(tmp_path, labels={"a": 1, "b": 2})
    assert reader.layout == "decathlon"
    assert [v.sample.subject_id for v in read_all(reader)] == ["case_1001", "case_1002"]


def test_images_without_any_label_need_none(tmp_path: Path) -> None:
    nnunet(tmp_path, V2)
    for file in (tmp_path / "labelsTr").iterdir():
        file.unlink()
    assert [v.sample.label for v in read_all(opened(tmp_path))] == [None] * 3
    with pytest.raises(ConfigError, match="no volume of this data set has a mask"):
        opened(tmp_path, labels={"a": 1})


def test_two_data_sets_in_one_folder(tmp_path: Path) -> None:
    for name in ("Task01", "Task02"):
        nnunet(tmp_path / name, V2)
    with pytest.raises(ConfigError, match=r"one data set.*Task01, Task02"):
        opened(tmp_path)
