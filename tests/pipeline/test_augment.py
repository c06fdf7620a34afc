"""Augmentation without Ray: every requested row ends in one place, and a rerun or another layout changes none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from builders import slice_sample, write_checkpoint, write_samples

from augengine import gates
from augengine.edits import EDITS
from augengine.errors import CheckpointError, ConfigError, DataError, RunError
from augengine.io.commits import committed_files
from augengine.io.dataset import dataset_files, write_dataset
from augengine.io.sealed import sealed
from augengine.io.shards import SCHEMA, iter_samples, to_row
from augengine.io.store import Store
from augengine.load import LoadedPolicy, load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.lineage import Run
from augengine.pipeline.units import INLINE

POLICY = """\
version: 1
name: test
edit: acquisition
seed: 3
select: {split: train, where: {manufacturer: SIEMENS}}
params: {target: {empirical: {from: samples, where: {manufacturer: GE MEDICAL SYSTEMS}}}}
sampler: {steps: 2}
gates: [{name: changed, GATE}]
output: {per_input: 2, retries: 1, max_reject_rate: 0.5, micro_batch: 4}
"""
SAMPLES = [slice_sample(s, i, split="test" if s == 5 else "train") for s in range(6) for i in range(3)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


def policy(tmp_path: Path, gate: str = "min: 0.0", **replace: str) -> LoadedPolicy:
    text = POLICY.replace("GATE", gate)
    for old, new in replace.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "policy.yaml").write_text(text)
    return load_policy(tmp_path / "policy.yaml")


def run(tmp_path: Path, checkpoint: str, loaded: LoadedPolicy, data: str, out: str = "out") -> Any:
    return augment(loaded, data, str(tmp_path / out), {"generator": checkpoint}, actors=INLINE)


def rows(tmp_path: Path, out: str = "out", folder: str = "accepted") -> dict[str, Any]:
    store = Store(str(tmp_path / out))
    samples = list(iter_samples(store, committed_files(store, folder)))
    assert len({s.sample_id for s in samples}) == len(samples), "a row was made twice"
    return {s.sample_id: s for s in samples}


def test_every_selected_row_is_made_once_with_its_lineage(tmp_path: Path, checkpoint: str) -> None:
    data = write_samples(tmp_path / "data", SAMPLES)
    summary = run(tmp_path, checkpoint, policy(tmp_path), data)
    # Subjects 1 and 3 are Siemens training subjects: 2 subjects × 3 slices × 2 replicates.
    assert summary.requested == summary.counts["accepted"] == 12
    made = rows(tmp_path)
    assert {(s.provenance.parent_id, s.provenance.plan["replicate"]) for s in made.values()} == {
        (f"S00{s}#000{i}", r) for s in (1, 3) for i in range(3) for r in (0, 1)
    }
    for sample in made.values():
        assert sample.acquisition.manufacturer == "GE MEDICAL SYSTEMS"
        assert set(sample.provenance.plan["donors"]) <= {"S000", "S002", "S004"}
        assert sample.provenance.gates[0]["passed"] is True
        assert sample.split == "train"
        assert to_row(sample)["synthetic"] is True
    assert run(tmp_path, checkpoint, policy(tmp_path), data).run.made == 0


def test_rows_do_not_depend_on_shard_sizes_or_order(tmp_path: Path, checkpoint: str) -> None:
    loaded = policy(tmp_path)
    run(tmp_path, checkpoint, loaded, write_samples(tmp_path / "a", SAMPLES, per_file=8), "out-a")
    shuffled = [SAMPLES[n] for n in np.random.default_rng(0).permutation(len(SAMPLES))]
    run(tmp_path, checkpoint, loaded, write_samples(tmp_path / "b", shuffled, per_file=3), "out-b")
    a, b = rows(tmp_path, "out-a"), rows(tmp_path, "out-b")
    assert a.keys() == b.keys()
    assert all(a[k].image.tobytes() == b[k].image.tobytes() for k in a)


def test_data_and_output_may_be_uris(tmp_path: Path, checkpoint: str) -> None:
    data, out = f"memory://{tmp_path.name}/data", f"memory://{tmp_path.name}/out"
    write_samples(data, SAMPLES)
    summary = augment(policy(tmp_path), data, out, {"generator": checkpoint}, actors=INLINE)
    assert summary.counts["accepted"] == 12
    assert augment(policy(tmp_path), data, out, {"generator": checkpoint}, actors=INLINE).run.made == 0


def test_rejected_rows_are_kept_apart_with_value_and_bound(tmp_path: Path, checkpoint: str) -> None:
    data = write_samples(tmp_path / "data", SAMPLES)
    summary = run(tmp_path, checkpoint, policy(tmp_path, "min: 1000"), data)
    assert summary.counts == {"accepted": 0, "rejected": 12, "failed": 0, "skipped": 0}
    assert not summary.acceptable
    store = Store(str(tmp_path / "out"))
    table = store.parquet(committed_files(store, "rejected")[0]).read()
    assert "changed = " in table["reason"][0].as_py()
    assert "must be ≥ 1000" in table["reason"][0].as_py()
    assert {s.provenance.plan["attempt"] for s in rows(tmp_path, folder="rejected").values()} == {1}


def test_a_retry_draws_a_fresh_seed_and_can_pass(
    tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, int] = {}

    class SecondTime(gates.Gate):
        def value(self, case: gates.Case, tools: gates.Tools) -> float:
            name = case.before.sample_id
            calls[name] = calls.get(name, 0) + 1
            return float(calls[name] % 2 == 0)

    monkeypatch.setitem(gates.MEASURES, "changed", SecondTime)
    summary = run(tmp_path, checkpoint, policy(tmp_path, "min: 1"), write_samples(tmp_path / "data", SAMPLES))
    assert summary.counts["accepted"] == 12
    plans = [s.provenance.plan for s in rows(tmp_path).values()]
    assert {p["attempt"] for p in plans} == {1}
    assert len({p["seed"] for p in plans}) == 12


def test_a_row_that_fails_is_quarantined_and_spares_its_neighbours(
    tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit, apply = EDITS["acquisition"], type(EDITS["acquisition"]).apply_measured

    def fails_on_one(samples: Any, *args: Any) -> Any:
        if any(s.sample_id == "S001#0001" for s in samples):
            raise FloatingPointError("planted")
        return apply(edit, samples, *args)

    monkeypatch.setattr(edit, "apply_measured", fails_on_one, raising=False)
    summary = run(tmp_path, checkpoint, policy(tmp_path), write_samples(tmp_path / "data", SAMPLES))
    assert summary.counts == {"accepted": 10, "rejected": 0, "failed": 2, "skipped": 0}
    store = Store(str(tmp_path / "out"))
    failed = [r for n in committed_files(store, "failed") for r in store.parquet(n).read().to_pylist()]
    assert {(r["sample_id"], r["stage"], r["reason"]) for r in failed} == {
        ("S001#0001", "apply", "FloatingPointError: planted")
    }


def test_a_damaged_row_fails_and_a_row_without_target_is_skipped(tmp_path: Path, checkpoint: str) -> None:
    data = write_samples(tmp_path / "data", SAMPLES)
    store = Store(data)
    first, *others = [store.parquet(name).read() for name in dataset_files(store)]
    table = first
    images = [
        b"short" if i == "S001#0000" else v
        for i, v in zip(table["sample_id"].to_pylist(), table["image"].to_pylist(), strict=True)
    ]
    column = table.schema.get_field_index("image")
    damaged = table.set_column(column, table.schema.field(column), pa.array(images, pa.large_binary()))
    subjects = [
        None if i == "S001#0001" else v
        for i, v in zip(table["sample_id"].to_pylist(), table["subject_id"].to_pylist(), strict=True)
    ]
    assert None in subjects
    damaged = damaged.set_column(1, SCHEMA.field("subject_id"), pa.array(subjects, pa.string()))
    write_dataset(data, [damaged, *others])
    summary = run(tmp_path, checkpoint, policy(tmp_path), data)
    assert summary.counts == {"accepted": 8, "rejected": 0, "failed": 4, "skipped": 0}
    own = policy(tmp_path, **{"GE MEDICAL SYSTEMS": "SIEMENS"})
    summary = run(tmp_path, checkpoint, own, data, "out-2")
    assert summary.counts["skipped"] == 8


def test_mistakes_are_one_line_errors(tmp_path: Path, checkpoint: str) -> None:
    data, loaded = write_samples(tmp_path / "data", SAMPLES), policy(tmp_path)
    with pytest.raises(ConfigError, match="needs a checkpoint for the role 'generator'"):
        augment(loaded, data, str(tmp_path / "out"), {}, actors=INLINE)
    with pytest.raises(CheckpointError, match="a checkpoint folder holds"):
        run(tmp_path, str(tmp_path / "absent"), loaded, data)
    with pytest.raises(DataError, match="a data set is a folder with manifest"):
        run(tmp_path, checkpoint, loaded, str(tmp_path / "nowhere"))
    nearest = r"select takes no row.* 18 rows, no manufacturer 'PHILIPS', nearest: '.*' \(\d\), 'SIEMENS' \(\d\)"
    with pytest.raises(DataError, match=nearest):
        run(tmp_path, checkpoint, policy(tmp_path, SIEMENS="PHILIPS"), data)
    with pytest.raises(DataError, match=r"select takes no row.* none of split val: 3 of test, 15 of train"):
        run(tmp_path, checkpoint, policy(tmp_path, **{"split: train": "split: val"}), data)
    nearest = r"target.empirical .* no manufacturer 'MEDICAL SYSTEMS', nearest: 'GE MEDICAL SYSTEMS' \(3\)"
    with pytest.raises(DataError, match=nearest):
        run(tmp_path, checkpoint, policy(tmp_path, **{"GE MEDICAL SYSTEMS": "MEDICAL SYSTEMS"}), data)
    wrong = policy(tmp_path, **{"sampler:": "models: {generator: {sha256: abc}}\nsampler:"})
    with pytest.raises(CheckpointError, match="asks for weights abc"):
        run(tmp_path, checkpoint, wrong, data)


def test_a_checkpoint_for_other_channels_is_one_error_not_a_thousand_rows(tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "model", channels=("flair",))
    with pytest.raises(CheckpointError, match="trained on channels flair; found t1"):
        run(tmp_path, other, policy(tmp_path), write_samples(tmp_path / "data", SAMPLES))


def test_settings_that_cannot_work_are_refused_before_any_row(tmp_path: Path, checkpoint: str) -> None:
    data, wrong = write_samples(tmp_path / "data", SAMPLES), {"params: {": "params: {method: inversion, "}
    loaded = policy(tmp_path, **wrong, **{"steps: 2": "steps: 2, solver: ddpm"})
    with pytest.raises(ConfigError, match="needs solver ddim; found ddpm"):
        run(tmp_path, checkpoint, loaded, data)
    spec = json.loads((Path(checkpoint) / "model.json").read_text())
    spec["network"]["structure"] = False
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/model.json").write_text(json.dumps(sealed(spec)))
    with pytest.raises(CheckpointError, match="needs a generator with a structure input"):
        run(tmp_path, str(tmp_path / "plain"), policy(tmp_path), data)
    assert not (tmp_path / "out").exists()


def test_an_inversion_says_in_its_plan_what_it_lost_and_refuses_what_it_cannot_keep(
    tmp_path: Path, checkpoint: str
) -> None:
    data = write_samples(tmp_path / "data", SAMPLES)
    changes = {"steps: 2": "steps: 4, solver: ddim, strength: 0.2", "per_input: 2": "per_input: 1"}
    wide = policy(tmp_path, **changes, **{"params: {": "params: {method: inversion, round_trip: 100, "})
    assert run(tmp_path, checkpoint, wide, data).counts["accepted"] == 6
    made = rows(tmp_path)
    lost = [s.provenance.plan["params"]["measured"]["round_trip"] for s in made.values()]
    assert all(0 < error < 100 for error in lost)
    assert Run(str(tmp_path / "out")).replay(next(iter(made))).equal, "what was measured decides no pixel"
    bound = sorted(lost)[2]
    narrow = policy(tmp_path, **changes, **{"params: {": f"params: {{method: inversion, round_trip: {bound}, "})
    summary = run(tmp_path, checkpoint, narrow, data, "narrow")
    # The rows have other seeds, but inversion draws nothing: three of six are as they were.
    assert summary.counts["accepted"] == 3
    store = Store(str(tmp_path / "narrow"))
    reasons = [r["reason"] for f in committed_files(store, "skipped") for r in store.parquet(f).read().to_pylist()]
    assert len(reasons) == 3
    assert all("differs from itself by" in r and "take more sampler.steps" in r for r in reasons)


def test_another_policy_in_the_same_folder_is_refused(tmp_path: Path, checkpoint: str) -> None:
    data = write_samples(tmp_path / "data", SAMPLES)
    run(tmp_path, checkpoint, policy(tmp_path), data)
    with pytest.raises(RunError, match=r"another policy_digest; found seed 3; .*\(this run has seed 4\)"):
        run(tmp_path, checkpoint, policy(tmp_path, **{"seed: 3": "seed: 4"}), data)
