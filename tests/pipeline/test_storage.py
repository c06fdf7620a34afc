"""Ingest, augment and read on a disk, in memory and on an object store: what is lost is made again, once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import write_checkpoint
from mri_files import block, write_series
from object_store import BUCKET

from augengine.errors import DataError, RunError
from augengine.io import run_lock
from augengine.io.commits import committed_units
from augengine.io.dataset import dataset_files, listed_files
from augengine.io.parts import write_part
from augengine.io.sealed import sealed
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.load import LoadedPolicy, load_policy
from augengine.pipeline.augment import AugmentSummary, augment
from augengine.pipeline.forecast import forecast
from augengine.pipeline.ingest import ingest
from augengine.pipeline.lineage import Run
from augengine.pipeline.units import INLINE, Actors
from augengine.prepare import Preparation
from augengine.train.data import BatchReader
from augengine.train.rows import SplitRows, dataset_facts

POLICY = """\
version: 1
name: storage
edit: acquisition
params: {target: {empirical: {from: duke_protocols}}}
sampler: {steps: 2}
gates: [{name: changed, min: 0.0}]
output: {micro_batch: 4}
"""
PATIENTS = 6


@pytest.fixture(autouse=True)
def _no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat writes, and whoever writes looks anew: no run may depend on that."""
    monkeypatch.setattr(run_lock, "RENEW_S", 3600.0)


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("patients")
    for n in range(PATIENTS):
        write_series(root / f"p{n}", block(seed=n), series=f"1.2.{n}", PatientID=f"P{n}")
    return root


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> LoadedPolicy:
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(POLICY)
    return load_policy(path)


def made(base: Store, patients: Path, policy: LoadedPolicy, actors: Actors) -> tuple[dict[str, Any], AugmentSummary]:
    model = base.folder("model")
    if not model.exists():
        write_checkpoint(model, channels=("mr",), size=16)
    manifest = ingest(patients, base.folder("data"), actors=actors, preparation=Preparation(size=16))
    summary = augment(policy, base.folder("data"), base.folder("out"), {"generator": model}, actors=actors)
    return manifest, summary


def rows(store: Store) -> dict[str, bytes]:
    samples = list(iter_samples(store, dataset_files(store)))
    found = {s.sample_id: s.image.tobytes() for s in samples}
    assert len(found) == len(samples), "a row stands there twice"
    return found


def test_what_is_lost_is_made_again_and_nothing_else_counts(base: Store, patients: Path, policy: LoadedPolicy) -> None:
    data, out = base.folder("data"), base.folder("out")
    manifest, summary = made(base, patients, policy, INLINE)
    assert manifest["counts"] == {"samples": 6 * PATIENTS, "volumes": PATIENTS, "failed": 0}
    first, edited = rows(data), rows(out)
    assert len(first) == 6 * PATIENTS
    assert len(edited) == summary.counts["accepted"] == summary.requested > 0
    assert {name: sum(p.rows or 0 for p in parts) for name, parts in listed_files(data).items()} == manifest["counts"]
    listed = {kind: [p.name for p in parts] for kind, parts in listed_files(out).items()}
    assert {kind: len(names) for kind, names in listed.items() if names} == {"accepted": summary.run.made}

    # Again: nothing is made, nothing changes.
    manifest, summary = made(base, patients, policy, INLINE)
    assert (manifest["made"], summary.run.made) == (0, 0)
    assert (rows(data), rows(out)) == (first, edited)

    # A crash: a unit without its record, files of attempts that never came to an end, and rows of other outcomes.
    for store, folder in ((data, "samples"), (out, "accepted")):
        unit = sorted(committed_units(store))[0]
        table = store.parquet(dataset_files(store)[-1]).read()
        orphans = [
            write_part(store, kind, name, table.slice(0, 1)).name
            for kind, name in ((folder, unit), ("rejected", unit), (folder, f"{unit}-row0000"))
        ]
        foreign = write_part(store, folder, "another-run", table.slice(0, 1)).name
        assert rows(store) == (first if store is data else edited), "what no record lists is no data"
        store.remove(f"_commits/{unit}.json")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("augengine.pipeline.committer.write_part", _dies)
            with pytest.raises(RunError, match="in a moment"):
                made(base, patients, policy, INLINE)
        with pytest.raises(DataError, match=r"not finished; .*run the command that writes it again"):
            dataset_files(store)
        manifest, summary = made(base, patients, policy, INLINE)
        assert (manifest["made"], summary.run.made) == ((1, 0) if store is data else (0, 1))
        assert (rows(data), rows(out)) == (first, edited)
        assert [name for name in orphans if store.exists(name)] == []
        assert store.exists(foreign)


def _dies(*_: object) -> None:
    raise RunError("it dies", found="in a moment")


def test_every_reader_takes_a_store(base: Store, patients: Path, policy: LoadedPolicy) -> None:
    data, out = base.folder("data"), base.folder("out")
    _, summary = made(base, patients, policy, INLINE)
    output_id = next(iter(rows(out)))
    run = Run(out)
    assert run.row(output_id).outcome == "accepted"
    assert run.replay(output_id, data).equal
    assert run.replay(output_id).equal, "data and models stand on the same storage"
    found = forecast(policy, data, {"generator": base.folder("model")}, run=out)
    assert found.requested == summary.requested
    assert dataset_facts([data, out], SplitRows("train")).rows == 2 * summary.requested
    assert BatchReader([data, out], SplitRows("train"), 0, 4).batch(0).images.shape == (4, 1, 16, 16)
    text = base.read("out/inputs.json") + base.read("out/manifest.json") + base.read("out/_run.json")
    assert b"test-secret" not in text
    if base.uri.startswith("s3"):
        assert data.uri.encode() in text


@pytest.mark.slow
def test_actors_write_to_an_object_store_what_this_process_does(
    ray_session: None, s3_options: dict[str, Any], tmp_path: Path, patients: Path, policy: LoadedPolicy
) -> None:
    """The driver lists before and after, and other processes write in between: all within one heartbeat."""
    far, near = Store(f"s3://{BUCKET}/actors", s3_options), Store(tmp_path)
    for base, actors in ((far, Actors(2)), (near, INLINE)):
        manifest, summary = made(base, patients, policy, actors)
        assert manifest["counts"] == {"samples": 6 * PATIENTS, "volumes": PATIENTS, "failed": 0}
        assert (manifest["made"], len(manifest["sources"])) == (2, PATIENTS)
        assert summary.counts["accepted"] == summary.requested > 0
    for folder in ("data", "out"):
        assert rows(far.folder(folder)) == rows(near.folder(folder))
    manifest, summary = made(far, patients, policy, Actors(2))
    assert (manifest["made"], summary.run.made) == (0, 0)


def test_folders_that_are_no_data_set_say_what_they_are(base: Store, patients: Path) -> None:
    data = base.folder("data")
    with pytest.raises(DataError, match=r"a data set is a folder with manifest.json and _SUCCESS.json.*jobs/ingest.py"):
        dataset_files(data)
    ingest(patients, data, actors=INLINE, preparation=Preparation(size=16))
    with pytest.raises(DataError, match=rf"found one of its folders; give the whole data set, {data.uri}$"):
        dataset_files(data.folder("samples"))
    loose = base.folder("loose")
    loose.write("rows.parquet", data.read(dataset_files(data)[0]))
    with pytest.raises(DataError, match="found Parquet files alone; write them with"):
        dataset_files(loose)
    kept = dataset_files(data)[0]
    content = data.read(kept)
    data.remove(kept)
    with pytest.raises(DataError, match=rf"{kept}: no such shard"):
        rows(data)
    data.write(kept, content[:-100])
    with pytest.raises(DataError, match=rf"{kept}: this is not a readable Parquet file"):
        rows(data)
    data.write(kept, content)
    data.remove("_SUCCESS.json")
    with pytest.raises(DataError, match="this data set is not finished"):
        dataset_files(data)


def test_a_data_set_of_an_older_version_is_read_by_its_rule(tmp_path: Path, patients: Path) -> None:
    """`part-<unit>.parquet` of units with a record; the manifest lists no files, or their names alone."""
    new, old = Store(tmp_path / "new"), Store(tmp_path / "old")
    ingest(patients, new, actors=INLINE, preparation=Preparation(size=16))
    shutil.copytree(new.root, old.root)
    manifest = old.read_json("manifest.json")
    for kind, parts in listed_files(new).items():
        for part in parts:
            unit = part.name.split("/part-")[1].rsplit("-", 1)[0]
            Path(old.path(part.name)).rename(old.path(f"{kind}/part-{unit}.parquet"))
            old.write_json(f"_commits/{unit}.json", {"unit_id": unit, "counts": {}, "seconds": 1.0})
    old.write("samples/part-crashed.parquet", b"without a record")
    for files in (None, {"samples": ["samples/part-x.parquet"]}):
        del manifest["files"]
        old.write_json("manifest.json", sealed(manifest if files is None else {**manifest, "files": files}))
        manifest["files"] = files
        assert rows(old) == rows(new)
    with pytest.raises(RunError, match="an older version began this run"):
        ingest(patients, old, actors=INLINE, preparation=Preparation(size=16))
    assert rows(old) == rows(new)


def test_a_data_set_is_written_in_one_go_and_anew(base: Store, patients: Path) -> None:
    from augengine.io.dataset import write_dataset

    data = base.folder("data")
    ingest(patients, data, actors=INLINE, preparation=Preparation(size=16))
    tables = [data.parquet(name).read() for name in dataset_files(data)]
    copy = write_dataset(base.folder("copy"), tables, about={"stage": "copied"})
    assert rows(copy) == rows(data)
    assert copy.read_json("manifest.json")["counts"] == {"samples": 6 * PATIENTS}
    again = write_dataset(copy, [pa.concat_tables(tables).slice(0, 5)], kind="accepted")
    assert list(rows(again)) == list(rows(data))[:5]
    assert list(listed_files(again)) == ["accepted"]
    empty = write_dataset(base.folder("empty"), [])
    with pytest.raises(DataError, match=r"this data set has no rows; found no samples"):
        dataset_files(empty)


def test_a_manifest_that_was_changed_by_hand_is_refused(tmp_path: Path, patients: Path) -> None:
    store = Store(tmp_path / "out")
    ingest(patients, store, actors=INLINE)
    stated = store.read_json("manifest.json")
    listed = stated["files"]["samples"]
    assert sum(part["rows"] for part in listed) == stated["counts"]["samples"]
    elsewhere = {**listed[0], "name": f"../other/{listed[0]['name']}"}
    for changed, found in (
        (listed[:-1], r"files of \d+ rows, and \d+ counted as samples"),
        ([*listed, listed[0]], "listed twice"),
        ([elsewhere, *listed[1:]], "which lies outside"),
        ([{"path": "x"}], "entries that are no files"),
    ):
        store.write_json("manifest.json", sealed({**stated, "files": {**stated["files"], "samples": changed}}))
        with pytest.raises(DataError, match=found):
            dataset_files(store)
    store.write_json("manifest.json", stated)
    assert len(dataset_files(store)) == len(listed)
