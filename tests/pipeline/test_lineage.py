"""Replay makes a row's bytes again from its provenance; explain shows its history; plan foresees a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from builders import slice_sample, write_checkpoint, write_samples
from typer.testing import CliRunner

from augengine.cli import app
from augengine.errors import CheckpointError, DataError, RunError
from augengine.io.commits import committed_files
from augengine.io.dataset import finish, listed_files, read_manifest
from augengine.io.parts import write_part
from augengine.io.store import Store
from augengine.load import load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.forecast import forecast
from augengine.pipeline.lineage import Run
from augengine.pipeline.units import INLINE, Actors

POLICY = """\
version: 1
name: lineage
edit: acquisition
select: {where: {manufacturer: SIEMENS}}
params: {target: {empirical: {from: samples, where: {manufacturer: GE MEDICAL SYSTEMS}}}}
sampler: {steps: 2}
gates: [{name: changed, GATE}]
output: {per_input: 2, micro_batch: 4}
"""
SAMPLES = [slice_sample(s, i, split="test" if s == 5 else "train") for s in range(6) for i in range(3)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A finished run of 12 rows, half of them rejected or not as their change falls."""
    folder = tmp_path_factory.mktemp("lineage")
    paths = {
        "out": str(folder / "out"),
        "data": str(folder / "data"),
        "policy": str(folder / "policy.yaml"),
        "model": write_checkpoint(folder / "model"),
    }
    write_samples(folder / "data", SAMPLES)
    Path(paths["policy"]).write_text(POLICY.replace("GATE", "min: 0.0"))
    augment(load_policy(paths["policy"]), paths["data"], paths["out"], {"generator": paths["model"]}, actors=INLINE)
    return paths


def ids(out: str, folder: str = "accepted") -> list[str]:
    store = Store(out)
    return [i for n in committed_files(store, folder) for i in store.parquet(n).read()["sample_id"].to_pylist()]


def invoke(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(args), env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_every_row_replays_to_the_same_bytes(made: dict[str, str]) -> None:
    run = Run(made["out"])
    for output_id in ids(made["out"]):
        replay = run.replay(output_id)
        assert (replay.equal, replay.largest_difference, replay.batch) == (True, 0.0, 4)
    code, text = invoke("replay", ids(made["out"])[3], "--out", made["out"])
    assert (code, "equal, byte for byte" in text) == (0, True)


def rewrite(store: Store, name: str, table: pa.Table) -> None:
    """Other rows in the place of those that a run committed, as somebody may put them there who owns the folder."""
    files = listed_files(store)
    part = write_part(store, "accepted", "other", table)
    kept = [part if old.name in (name, part.name) or "other" in old.name else old for old in files["accepted"]]
    finish(store, read_manifest(store), {**files, "accepted": kept})


def test_a_changed_pixel_or_label_is_seen(made: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(made["out"], tmp_path / "out")
    store, victim = Store(str(tmp_path / "out")), ids(made["out"])[0]
    name = committed_files(store, "accepted")[0]
    table = store.parquet(name).read()
    values = table.to_pylist()
    row = next(r for r in values if r["sample_id"] == victim)
    image = np.frombuffer(row["image"], row["image_dtype"]).copy()
    image[100] += 7
    row["image"] = image.tobytes()
    rewrite(store, name, pa.Table.from_pylist(values, schema=table.schema))
    replay = Run(store.uri).replay(victim)
    assert not replay.equal
    assert replay.largest_difference == pytest.approx(7)
    code, text = invoke("replay", victim, "--out", store.uri)
    assert (code, "largest difference 7 grey levels" in text) == (1, True)
    row["image"] = (image - 7 * (np.arange(image.size) == 100)).astype(image.dtype).tobytes()
    row["label"] = bytes(len(row["label"]))
    rewrite(store, name, pa.Table.from_pylist(values, schema=table.schema))
    assert not Run(store.uri).replay(victim).equal


def test_moved_data_and_models_are_given_by_flag_and_others_refused(made: dict[str, str], tmp_path: Path) -> None:
    run, output_id = Run(made["out"]), ids(made["out"])[0]
    shutil.copytree(made["data"], tmp_path / "moved")
    assert run.replay(output_id, str(tmp_path / "moved")).equal
    with pytest.raises(DataError, match="source row is not in this data"):
        run.replay(output_id, write_samples(tmp_path / "other", [slice_sample(9)]))
    with pytest.raises(CheckpointError, match="the row was made by weights"):
        run.replay(output_id, checkpoints={"generator": write_checkpoint(tmp_path / "other-model", seed=1)})
    with pytest.raises(DataError, match="no such row in this run; found nobody"):
        run.row("nobody")
    with pytest.raises(RunError, match=r"an augmented run holds policy.yaml and inputs.json"):
        Run(str(tmp_path / "moved"))


def test_explain_prints_the_history_and_draws(made: dict[str, str], tmp_path: Path) -> None:
    output_id, picture = ids(made["out"])[0], tmp_path / "row.png"
    code, text = invoke("explain", output_id, "--out", made["out"], "--picture", str(picture))
    assert code == 0
    provenance = Run(made["out"]).row(output_id).provenance
    for said in (
        provenance.parent_id,
        provenance.policy_digest,
        provenance.models["generator"],
        made["model"],
        str(provenance.plan["seed"]),
        provenance.plan["donors"][0],
        "changed",
        "accepted",
    ):
        assert said in text, said
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_explain_names_the_folder_of_a_gate_s_reference(made: dict[str, str], tmp_path: Path) -> None:
    policy, models = tmp_path / "audited.yaml", {"generator": made["model"]}
    gate = f"{{name: copy_distance, min: 0.0, options: {{reference: {{ref: {made['data']}}}}}}}"
    text = POLICY.replace("GATE", "min: 0.0")
    policy.write_text(text.replace("gates: [", f"gates: [{gate}, "))
    assert policy.read_text() != text
    out = augment(load_policy(policy), made["data"], str(tmp_path / "out"), models, actors=INLINE).out
    output_id = ids(out)[0] if ids(out) else ids(out, "rejected")[0]
    code, told = invoke("explain", output_id, "--out", out, "--picture", str(tmp_path / "row.png"))
    sha256 = Run(out).row(output_id).provenance.models["copy_distance.reference"]
    assert code == 0
    assert f"  gate copy_distance.reference: {made['data']} sha256 {sha256}" in told
    assert f"  model generator: {made['model']} sha256 " in told


def test_a_row_without_pixels_explains_itself(made: dict[str, str], tmp_path: Path) -> None:
    nobody = tmp_path / "nobody.yaml"
    nobody.write_text(POLICY.replace("GATE", "min: 0.0").replace("GE MEDICAL SYSTEMS", "SIEMENS"))
    out, models = str(tmp_path / "out"), {"generator": made["model"]}
    augment(load_policy(nobody), made["data"], out, models, actors=INLINE)
    store = Store(out)
    lost: dict[str, Any] = store.parquet(committed_files(store, "skipped")[0]).read().to_pylist()[0]
    code, text = invoke("explain", lost["output_id"], "--out", out)
    assert (code, "skipped" in text, lost["reason"] in text) == (0, True, True)
    with pytest.raises(DataError, match="this row was never made"):
        Run(out).replay(lost["output_id"])


def test_plan_counts_as_the_run_does(made: dict[str, str], tmp_path: Path) -> None:
    loaded, models = load_policy(made["policy"]), {"generator": made["model"]}
    found = forecast(loaded, made["data"], models, run=made["out"], actors=Actors(4, num_gpus=0.5))
    assert (found.surveyed.rows, found.surveyed.selected, found.requested, found.outputs) == (18, 6, 12, 12)
    assert found.surveyed.left_out == {"split is test": 3, "select.where": 9}
    measured = Store(made["out"]).read_json("throughput.json")
    assert found.seconds == pytest.approx(12 / measured["rows_per_second"] / 4)
    assert found.gpu_hours == pytest.approx(12 / measured["rows_per_second"] * 0.5 / 3600)
    store = Store(made["out"])
    stored = sum(store.fs.size(store.path(n)) for n in committed_files(store, "accepted"))
    assert found.disk_bytes == pytest.approx(stored, rel=0.01)
    nobody = tmp_path / "nobody.yaml"
    nobody.write_text(POLICY.replace("GATE", "min: 0.0").replace("GE MEDICAL SYSTEMS", "SIEMENS"))
    skips = forecast(load_policy(nobody), made["data"], models, rows_drawn=3)
    assert (skips.drawn, sum(skips.skipped.values()), skips.outputs, skips.seconds) == (3, 3, 0, None)


def test_plan_reads_no_weights_and_says_what_it_does_not_know(made: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(made["model"], tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    code, text = invoke("plan", made["policy"], made["data"], "--checkpoint", str(tmp_path / "model"))
    assert (code, "outputs expected" in text, "time: unknown" in text) == (0, True, True)
    code, text = invoke("plan", made["policy"], made["data"], "--rows-per-second", "2", "--actors", "3")
    assert (code, "not counted, give --checkpoint" in text) == (0, True)
    assert "seconds" in text
