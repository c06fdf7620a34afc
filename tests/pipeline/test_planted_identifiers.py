"""Identifiers are planted in headers, folder and file names; no output, no cluster log and no picture holds one."""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from identifiers import FILE, FOLDER, NAMES, STRAY, WORDS, found_in, plant_dicom, plant_nifti
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from augengine.cli import app
from augengine.io.dataset import run_files
from augengine.io.store import Store

RECIPE = """\
version: 1
name: planted
kind: acquisition
seed: 0
network: {body: compact, channels: [8, 16], head_channels: 8, norm_groups: 4, token_dim: 8}
diffusion: {parametrisation: x0, schedule: cosine, timesteps: 100}
data: {validation_rows: 2}
optimiser: {batch_size: 4, learning_rate: 1.0e-3, weight_decay: 0.0, warmup_steps: 0, ema_decay: 0.9}
steps: 2
"""
POLICY = """\
version: 1
name: planted
edit: acquisition
params: {method: sdedit, target: {empirical: {from: samples}}}
sampler: {solver: ddim, steps: 2}
gates: [{name: changed, min: 0.0}]
output: {max_reject_rate: 1.0}
"""
PROTOCOL = """\
version: 1
name: planted
key: site
domains: {north: [north], south: [south]}
cells:
  - {train: north, test: south}
splits: {train: [train], val: [val], test: [test], elsewhere: [train, val, test]}
classes: {lesion: [lesion]}
generator_sees: train_domain
metrics: [dice, hd95_mm]
"""


def said(*command: str, code: int = 0) -> str:
    """What a command prints, in a cluster's log."""
    done = CliRunner().invoke(app, list(command))
    assert done.exit_code == code, done.output
    words = [word for word in WORDS if word in done.output.lower()]
    assert not words, f"{command[0]} prints {words}: {done.output}"
    return done.output


@pytest.fixture
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")


def test_the_search_finds_what_is_packed(tmp_path: Path) -> None:
    """Without this, finding nothing would say nothing."""
    word = NAMES["AccessionNumber"].encode()
    pq.write_table(pa.table({"a": [["x", "Zqhospital of Quxtown"]]}), tmp_path / "a.parquet", compression="zstd")
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(word))
    info = PngInfo()
    info.add_text("Title", word.decode(), zip=True)
    Image.new("L", (2, 2)).save(tmp_path / "c.png", pnginfo=info)
    with zipfile.ZipFile(tmp_path / "d.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", word)
    with tarfile.open(tmp_path / "e.tar", "w") as tar:
        inner = gzip.compress(word)
        member = tarfile.TarInfo("x.nii.gz")
        member.size = len(inner)
        tar.addfile(member, io.BytesIO(inner))
    picture = base64.b64encode((tmp_path / "c.png").read_bytes()).decode()
    (tmp_path / "h.html").write_text(f'<img src="data:image/png;base64,{picture}">')
    (tmp_path / f"{FOLDER}_1").mkdir()
    (tmp_path / "g.json").write_text('{"date": 19431127}')
    packed = {"a.parquet", "b.json.gz", "c.png", "d.pt", "e.tar", "g.json", "h.html"}
    assert set(found_in(tmp_path)) == {*packed, f"{FOLDER}_1"}


def test_what_is_planted_is_in_the_source(tmp_path: Path) -> None:
    plant_dicom(tmp_path / "dicom")
    places = found_in(tmp_path / "dicom")
    series = [words for place, words in places.items() if place.endswith("_0_0.dcm")]
    assert set(WORDS) - {word for words in series for word in words} <= {STRAY, "zqprivate"}
    plant_nifti(tmp_path / "nifti")
    assert any("zqplantname" in words for words in found_in(tmp_path / "nifti").values())


def test_the_preview_names_no_path_in_a_cluster_s_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_dicom(tmp_path / "source")
    command = ["ingest", str(tmp_path / "source"), "--inline", "--preview"]
    assert FILE in CliRunner().invoke(app, command).output, "on the user's own terminal it does"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert "not in a cluster's log" in said(*command)


@pytest.mark.slow
def test_no_output_and_no_log_holds_an_identifier(
    ray_session: None, in_a_job: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_dicom(tmp_path / "source")
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "policy.yaml").write_text(POLICY)
    data, run = str(out / "data"), str(out / "run/augmented")
    said("ingest", str(tmp_path / "source"), "--out", data, "--size", "32", "--actors", "1", "--fractions", "1,0,0")
    said("train", str(tmp_path / "recipe.yaml"), "--data", data, "--out", str(out / "model"), "--cpu")
    said(
        "augment",
        "--data",
        data,
        "--policy",
        str(tmp_path / "policy.yaml"),
        "--out",
        str(out / "run"),
        "--checkpoint",
        str(out / "model/checkpoint"),
        "--actors",
        "1",
    )
    store = Store(run)
    assert store.exists("contact_sheet.png")
    row = store.parquet(run_files(store, "accepted")[0]).read().to_pylist()[0]
    said("explain", row["sample_id"], "--out", run)
    said("report", run, "--out", str(out / "report.html"))
    assert b"data:image/" in (out / "report.html").read_bytes()
    said("check", data, run, "--deep")
    for target, *more in (["monai"], ["bids", "--suffixes", "mr=T1w"], ["webdataset"], ["hf"], ["torchio"]):
        said(
            "export",
            target,
            data,
            "--augmented",
            run,
            "--out",
            str(out / target),
            "--unlabelled",
            "keep",
            "--inline",
            "--licence",
            "CC0-1.0",
            *more,
        )
    failed = [row for name in run_files(Store(data), "failed") for row in Store(data).parquet(name).read().to_pylist()]
    assert len(failed) == 1, "the patient whose file is cut off"
    assert len(list(out.rglob("*"))) > 30
    assert found_in(out) == {}
    _no_log_holds_one()


def _no_log_holds_one() -> None:
    import ray

    logs = Path(ray._private.worker._global_node.get_session_dir_path())
    assert list(logs.rglob("*.log"))
    assert found_in(logs) == {}


@pytest.mark.slow
def test_no_evaluation_holds_an_identifier(ray_session: None, in_a_job: None, tmp_path: Path) -> None:
    """Sets of arms, predictions, tables and plots; two sites whose patients' names are identifiers."""
    (tmp_path / "protocol.yaml").write_text(PROTOCOL)
    out = tmp_path / "out"
    for first, site in ((0, "north"), (6, "south")):
        plant_nifti(tmp_path / site, patients=6, first=first)
        said(
            "ingest",
            str(tmp_path / site),
            "--out",
            str(out / site),
            "--inline",
            "--channels",
            "t1=*_t1.nii.gz",
            "--mask",
            "*_mask.nii.gz",
            "--labels",
            "lesion=1",
            "--site",
            site,
            "--fractions",
            "0.4,0.3,0.3",
        )
    said(
        "evaluate",
        "--data",
        str(out / "north"),
        "--data",
        str(out / "south"),
        "--protocol",
        str(tmp_path / "protocol.yaml"),
        "--arms",
        "real,classical",
        "--recipe",
        "unet=unet_small",
        "--seeds",
        "1",
        "--steps",
        "2",
        "--actors",
        "1",
        "--out",
        str(out / "evaluation"),
    )
    assert len(list((out / "evaluation").rglob("*.parquet"))) > 1
    assert list((out / "evaluation").rglob("*.png"))
    assert found_in(out) == {}
    _no_log_holds_one()


def test_names_of_nifti_files_and_their_headers_reach_no_export(in_a_job: None, tmp_path: Path) -> None:
    plant_nifti(tmp_path / "source")
    out, data = tmp_path / "out", str(tmp_path / "out/data")
    said(
        "ingest",
        str(tmp_path / "source"),
        "--out",
        data,
        "--inline",
        "--channels",
        "t1=*_t1.nii.gz",
        "--mask",
        "*_mask.nii.gz",
        "--labels",
        "lesion=1",
        "--volumes",
    )
    for target, folder in (("nnunet", "Dataset501_Lesion"), ("monai", "monai"), ("bids", "bids")):
        said("export", target, data, "--out", str(out / folder), "--inline", "--licence", "CC0-1.0")
    assert list(out.rglob("*.nii.gz"))
    assert found_in(out) == {}
