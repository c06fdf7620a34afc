"""BIDS-like folders: sessions, sidecars in seconds, masks in derivatives."""

import json
from pathlib import Path

import numpy as np
import pytest
from mri_files import block, write_nifti
from reading import read_all, scanned

from augengine.errors import ConfigError
from augengine.io.layouts import open_layout
from augengine.io.sources import Source, SourceOptions

TIMES = {"RepetitionTime": 2.3, "EchoTime": 0.00298, "InversionTime": 0.9, "FlipAngle": 9, "MagneticFieldStrength": 3}


def dataset(root: Path) -> None:
    for subject, session in (("sub-01", "ses-a"), ("sub-01", "ses-b"), ("sub-02", "")):
        anat = root / subject / session / "anat"
        stem = "_".join(p for p in (subject, session) if p)
        write_nifti(anat / f"{stem}_T1w.nii.gz", block(seed=1))
        write_nifti(anat / f"{stem}_FLAIR.nii.gz", block(seed=2))
        (anat / f"{stem}_T1w.json").write_text(
            json.dumps({**TIMES, "Manufacturer": "Philips", "ScanOptions": ["FS", "X"]})
        )
    (root / "FLAIR.json").write_text(json.dumps({"EchoTime": 0.12, "Manufacturer": "Philips"}))


def sources(root: Path, **options: object) -> list[Source]:
    reader, _ = open_layout(root, "auto", SourceOptions(**options))
    return scanned(reader)


def test_single_images_with_sidecars_in_milliseconds(tmp_path: Path) -> None:
    dataset(tmp_path)
    found = sources(tmp_path, public_ids=True)
    assert [s.volume_id for s in found] == [
        "sub-01_ses-a_FLAIR",
        "sub-01_ses-a_T1w",
        "sub-01_ses-b_FLAIR",
        "sub-01_ses-b_T1w",
        "sub-02_FLAIR",
        "sub-02_T1w",
    ]
    t1 = found[1].acquisition
    assert (t1.repetition_time_ms, t1.echo_time_ms, t1.inversion_time_ms) == (2300, 2.98, 900)
    assert (t1.flip_angle_deg, t1.field_strength_t, t1.scan_options) == (9, 3, "FS\\X")
    assert found[0].acquisition.echo_time_ms == 120  # inherited from the root


def test_stacked_channels_share_only_what_is_equal(tmp_path: Path) -> None:
    dataset(tmp_path)
    found = sources(tmp_path, channels={"t1": "T1w", "flair": "FLAIR"})
    assert len(found) == 3
    assert len({s.subject_id for s in found}) == 2
    assert found[0].acquisition.manufacturer == "Philips"
    assert found[0].acquisition.echo_time_ms is None
    assert "missing: t2 (T2w)" in str(sources(tmp_path, channels={"t1": "T1w", "t2": "T2w"})[0].error)


def test_masks_in_derivatives(tmp_path: Path) -> None:
    dataset(tmp_path)
    mask = (block() > 800).astype(np.uint8)
    write_nifti(tmp_path / "derivatives/manual/sub-02/anat/sub-02_desc-lesion_mask.nii.gz", mask)
    with pytest.raises(ConfigError, match="meaning of their codes"):
        sources(tmp_path)
    options = SourceOptions(channels={"t1": "T1w"}, labels={"lesion": 1})
    reader, _ = open_layout(tmp_path, "bids", options)
    labels = [v.sample.label for v in read_all(reader)]
    assert labels[:2] == [None, None]
    np.testing.assert_array_equal(labels[2], mask)
    write_nifti(tmp_path / "derivatives/auto/sub-02/anat/sub-02_dseg.nii.gz", mask)
    assert "an image must have one mask; found desc-lesion_mask, dseg; choose" in str(
        scanned(open_layout(tmp_path, "bids", options)[0])[2].error
    )


def test_broken_sidecar_rules_out_its_volume(tmp_path: Path) -> None:
    dataset(tmp_path)
    (tmp_path / "sub-02/anat/sub-02_T1w.json").write_text("{")
    assert [s.error is None for s in sources(tmp_path)] == [True] * 5 + [False]
