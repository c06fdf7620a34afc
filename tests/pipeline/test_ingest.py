"""Ingest end to end: counts reconcile, identifiers stay out, reruns skip, real data come in."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mri_files import SECRETS, block, write_nifti, write_series

from augengine.errors import ConfigError, DataError, RunError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.sources import SourceOptions
from augengine.io.store import Store
from augengine.pipeline.cluster import connect
from augengine.pipeline.ingest import ingest
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation
from augengine.records import Sample

ROOT = Path(__file__).resolve().parents[2]


def patients(root: Path, count: int = 9) -> Path:
    """Patients of two vendors; one misses a slice, one is a mosaic, one folder holds a broken file."""
    for n in range(count):
        tags = {"Manufacturer": "SIEMENS" if n % 2 else "GE MEDICAL SYSTEMS", "PatientID": f"HOSP-{n}"}
        mosaic = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]} if n == 1 else {}
        skip = (2,) if n == 0 else ()
        write_series(root / f"DOE^JANE-{n}", block(seed=n), series=f"1.2.826.4711.{n}", skip=skip, **tags, **mosaic)
    (root / "DOE^JANE-broken").mkdir()
    (root / "DOE^JANE-broken" / "HOSP-4711.dcm").write_bytes(b"not DICOM")
    return root


def run(root: Path, out: Path, **options: object) -> dict:
    return ingest(root, str(out), actors=INLINE, preparation=Preparation(size=16), options=SourceOptions(**options))


def rows(out: Path) -> list[Sample]:
    store = Store(out)
    return list(iter_samples(store, dataset_files(store)))


def test_counts_reconcile_and_every_failure_has_its_reason(tmp_path: Path) -> None:
    summary = run(patients(tmp_path / "in"), tmp_path / "out")
    assert summary["found"] == {"volumes": 10, "subjects": 10}
    assert summary["counts"] == {"samples": 42, "volumes": 7, "failed": 3}
    failed = {s["entry"].split("/")[0][-6:]: (s["stage"], s["reason"]) for s in summary["sources"] if s["reason"]}
    assert failed["JANE-0"][0] == "headers"
    assert "evenly spaced" in failed["JANE-0"][1]
    assert failed["JANE-1"][0] == "headers"
    assert "mosaic" in failed["JANE-1"][1]
    assert "named like DICOM" in failed["broken"][1]
    samples = rows(tmp_path / "out")
    assert len(samples) == 42
    assert len({s.sample_id for s in samples}) == 42
    by_subject = {s.subject_id: s.split for s in samples}
    assert {(s.subject_id, s.split) for s in samples} == set(by_subject.items())  # one split per subject
    assert set(by_subject.values()) == {"train", "val", "test"}
    assert Store(tmp_path / "out").read_json("manifest.json")["counts"] == summary["counts"]


def test_no_identifier_reaches_any_output_file(tmp_path: Path) -> None:
    run(patients(tmp_path / "in"), tmp_path / "out", pseudonym_key="my secret key")
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".parquet":  # compressed: look at the values, too
            import pyarrow.parquet as pq

            content += str(pq.read_table(path).to_pylist()).encode()
        for secret in (*SECRETS, "DOE", "HOSP", "4711", "my secret key", "1.2.826", str(tmp_path)):
            assert secret.encode() not in content, (path.name, secret)


def test_geometry_and_acquisition_arrive_in_the_shards(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "p", block((16, 16, 6)), spacing=(1, 1), origin=(-8, -8, 0))
    options = {"acquisition": {"echo_time_ms": "1.7"}, "site": "north"}
    run(tmp_path / "in", tmp_path / "out", **options)
    sample = rows(tmp_path / "out")[2]
    assert (sample.acquisition.echo_time_ms, sample.acquisition.model, sample.site) == (1.7, "Skyra", "north")
    # LPS (-8, -8, 6) is RAS (8, 8, 6): the last voxel of the canonical slice, with its own value.
    np.testing.assert_allclose((sample.affine @ [15, 15, 0, 1])[:3], (8, 8, 6), atol=1e-6)
    assert sample.image[0, 15, 15] == block((16, 16, 6))[0, 0, 2]


def test_rerun_skips_and_other_settings_are_refused(tmp_path: Path) -> None:
    root, out = patients(tmp_path / "in"), tmp_path / "out"
    first = run(root, out)
    images = {s.sample_id: s.image.tobytes() for s in rows(out)}
    (next((out / "_commits").glob("*.json"))).unlink()  # as after a crash in mid-unit
    again = run(root, out)
    assert (first["skipped"], again["made"], again["skipped"]) == (0, 1, 2)
    assert {s.sample_id: s.image.tobytes() for s in rows(out)} == images
    assert again["counts"] == first["counts"]
    with pytest.raises(RunError, match="another options"):
        run(root, out, site="elsewhere")
    write_series(root / "new", block(seed=50), series="1.9")
    with pytest.raises(RunError, match="another sources"):
        run(root, out)


def test_a_file_that_changed_since_is_read_again_and_nothing_else(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    for n in range(6):
        write_nifti(root / f"{n}.nii.gz", block(seed=n))
    run(root, out)
    before = {s.sample_id: s.image.tobytes() for s in rows(out)}
    write_nifti(root / "2.nii.gz", block(seed=50))
    again = run(root, out)
    after = {s.sample_id: s.image.tobytes() for s in rows(out)}
    assert (again["made"], again["skipped"]) == (1, 1)
    assert before.keys() == after.keys()
    assert {name.split("#")[0] for name in before if before[name] != after[name]} == {
        next(s["source"] for s in again["sources"] if s["entry"].startswith("2"))
    }


def test_the_same_series_twice_is_taken_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_series(tmp_path / "in" / name, block())
    summary = run(tmp_path / "in", tmp_path / "out")
    assert summary["counts"] == {"samples": 6, "volumes": 1, "failed": 1}
    assert "two folders" in next(s["reason"] for s in summary["sources"] if s["reason"])


def test_an_empty_mask_is_noted_and_an_empty_match_is_no_subject(tmp_path: Path) -> None:
    for n, name in enumerate(("p1", "p2", "x")):
        write_nifti(tmp_path / "in" / f"{name}.nii", block(seed=n))
        write_nifti(tmp_path / "in" / f"{name}_seg.nii", np.full((12, 10, 6), name == "p2", np.uint8))
    summary = run(tmp_path / "in", tmp_path / "out", labels={"a": 1}, subject=r"in/|p?(\d*)", public_ids=True)
    found = {s["entry"]: s for s in summary["sources"]}
    assert "must match the path" in found["x"]["reason"]
    assert (found["p1"]["subject_id"], found["p2"]["subject_id"]) == ("1", "2")
    assert found["p1"]["notes"] == ["the mask is empty: all of it is background"]
    assert found["p2"]["notes"] == []


def test_an_unforeseen_error_fails_one_volume_without_naming_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = patients(tmp_path / "in")

    def broken(paths: list[Path], *_: object) -> None:
        if "JANE-4" in str(paths[0]):
            raise OSError(f"cannot open {paths[0]}")
        return load(paths, *_)

    from augengine.io import dicom

    load = dicom.load_stack
    monkeypatch.setattr(dicom, "load_stack", broken)
    summary = run(root, tmp_path / "out")
    assert summary["counts"]["failed"] == 4
    reason = next(s["reason"] for s in summary["sources"] if "JANE-4" in s["entry"])
    assert reason.startswith("OSError: cannot open")
    assert "JANE" not in reason
    assert ".dcm" not in reason


@pytest.mark.slow
def test_ray_gives_the_same_rows_as_inline(tmp_path: Path) -> None:
    root = patients(tmp_path / "in")
    run(root, tmp_path / "inline")
    connect(2)
    done: list[tuple[str, int, int]] = []
    summary = ingest(
        root,
        str(tmp_path / "ray"),
        preparation=Preparation(size=16),
        options=SourceOptions(),
        progress=lambda stage, n, total, counts: done.append((stage, n, total)),
    )
    assert summary["counts"] == {"samples": 42, "volumes": 7, "failed": 3}
    assert ("headers", 10, 10) in done
    assert ("volumes", 3, 3) in done
    inline, ray = ({s.sample_id: (s.image.tobytes(), s.split) for s in rows(tmp_path / n)} for n in ("inline", "ray"))
    assert inline == ray


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a folder"):
        run(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="not clear; found no known file"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="no subject of layout 'dicom'"):
        ingest(tmp_path / "empty", str(tmp_path / "out"), layout="dicom", actors=INLINE)
    with pytest.raises(ConfigError, match="did you mean 'nifti'"):
        ingest(tmp_path / "empty", str(tmp_path / "out"), layout="nifty", actors=INLINE)
    write_nifti(tmp_path / "both" / "a.nii", block())
    write_series(tmp_path / "both" / "d", block())
    with pytest.raises(ConfigError, match="nifti and dicom"):
        run(tmp_path / "both", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_job_prints_a_table_and_one_line_on_mistakes(tmp_path: Path) -> None:
    job = [sys.executable, str(ROOT / "jobs" / "ingest.py")]
    good = [
        *job,
        str(patients(tmp_path / "in")),
        "--out",
        str(tmp_path / "out"),
        "--inline",
        "--size",
        "16",
    ]
    done = subprocess.run(good, capture_output=True, text=True, env={"COLUMNS": "200", "PATH": ""}, check=False)
    assert done.returncode == 0, done.stderr
    assert "10 volumes of 10 subjects found = 7 ingested (42 samples) + 3 failed" in done.stdout
    assert "evenly spaced" in done.stdout
    bad = subprocess.run(
        [*job, str(tmp_path / "in"), "--labels", "brats2022"], capture_output=True, text=True, check=False
    )
    assert bad.returncode == 2
    assert bad.stderr.strip().splitlines() == [
        "error: --labels: unknown label scheme 'brats2022'; did you mean 'brats2023'?"
    ]


@pytest.mark.parametrize(
    ("folder", "options", "counts"),
    [
        ("A7_dicom", {}, (5, 1, 7)),
        ("A7_dicom", {"allow_echo_planar": True}, (96, 5, 3)),
        ("A5_pyradiomics", {"labels": {"lesion": 1}}, (69, 3, 0)),
        (
            "A1_brats21style_TCGA-FG-6692",
            {
                "labels": {"necrosis": 1, "oedema": 2, "enhancing": 4},
                "mask": "seg_simple.nii.gz",
                "channels": {"t1": "*_t1_bet.nii.gz", "t1c": "*_t1c_bet.nii.gz", "t2": "*_t2_*", "flair": "*_fla_*"},
            },
            (155, 1, 0),
        ),
    ],
)
def test_real_data(real_data: Path, tmp_path: Path, folder: str, options: dict, counts: tuple[int, ...]) -> None:
    summary = ingest(
        real_data / folder,
        str(tmp_path),
        actors=INLINE,
        options=SourceOptions(**options),
        preparation=Preparation(size=32),
    )
    assert tuple(summary["counts"].values()) == counts
    assert all(np.isfinite(s.image).all() for s in rows(tmp_path))
