"""Chained edits through the real pipeline: one row per source, planned step by step, replayed to the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GE, SIEMENS, lesion_sample, write_checkpoint, write_samples
from typer.testing import CliRunner

from augengine.cli import app
from augengine.edits import EDITS
from augengine.edits.base import Plan
from augengine.edits.chain import parted, union
from augengine.errors import CheckpointError, ConfigError
from augengine.io.commits import committed_files, committed_units, record_name
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.leakage import LeakageError, check_leakage
from augengine.load import LoadedPolicy, load_policy
from augengine.pipeline.augment import AugmentSummary, augment
from augengine.pipeline.forecast import forecast
from augengine.pipeline.lineage import Run
from augengine.pipeline.row_maker import apply_padded
from augengine.pipeline.units import INLINE
from augengine.records import Sample

REMOVAL = "{edit: tumor_removal, sampler: {steps: 2}, params: {labels: [necrosis, oedema, enhancing], margin_mm: 5}}"
RELOCATION = (
    "{edit: tumor_relocation, sampler: {steps: 2},"
    " params: {labels: [necrosis, oedema, enhancing], mirror: always, shift_mm: [0, 4], host: {inside: 0.5}}}"
)
ACQUISITION = (
    "{edit: acquisition, sampler: {steps: 2}, params: {target: {empirical: {from: samples, where: "
    "{manufacturer: SIEMENS}}}}, gates: [{name: changed, min: 0.0}]}"
)
POLICY = """\
version: 1
name: chain
select: {{where: {{manufacturer: GE MEDICAL SYSTEMS}}}}
edits: [{}]
gates: [{{name: locality, max: {}}}]
output: {{retries: 0, micro_batch: 2}}
"""
SAMPLES = [lesion_sample(n, at_mm=(-20.0, 4.0 * (n % 3)), acquisition=SIEMENS if n > 2 else GE) for n in range(5)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained: a painter for lesions, and a generator of acquisitions."""
    folder = tmp_path_factory.mktemp("models")
    channels = SAMPLES[0].channels
    painter = write_checkpoint(folder / "painter", channels=channels, kind="painter")
    return {"": painter, "acquisition.generator": write_checkpoint(folder / "acquisition", channels=channels)}


def chain(tmp_path: Path, *steps: str, far: float = 0.0) -> LoadedPolicy:
    (tmp_path / "policy.yaml").write_text(POLICY.format(", ".join(steps), far))
    return load_policy(tmp_path / "policy.yaml")


def run(
    tmp_path: Path,
    loaded: LoadedPolicy,
    models: dict[str, str],
    samples: Sequence[Sample] = SAMPLES,
    out: str = "out",
    per_file: int = 8,
) -> AugmentSummary:
    used = {role: uri for role, uri in models.items() if not role or role in loaded.roles}
    data = write_samples(tmp_path / f"data-{out}", list(samples), per_file=per_file)
    return augment(loaded, data, str(tmp_path / out), used, actors=INLINE)


def rows(out: str) -> list[Sample]:
    store = Store(out)
    return list(iter_samples(store, committed_files(store, "accepted")))


def lost(out: str, folder: str) -> list[dict[str, Any]]:
    store = Store(out)
    return [row for n in committed_files(store, folder) for row in store.parquet(n).read().to_pylist()]


def test_one_row_holds_the_plans_of_all_steps_in_order(tmp_path: Path, models: dict[str, str]) -> None:
    loaded = chain(tmp_path, REMOVAL, ACQUISITION, far=1e6)
    summary = run(tmp_path, loaded, models)
    assert (summary.requested, summary.counts["accepted"]) == (3, 3)
    for sample in rows(summary.out):
        provenance = sample.provenance
        assert provenance is not None
        plan, steps = provenance.plan, provenance.plan["params"]["steps"]
        assert provenance.edit == "tumor_removal+acquisition"
        assert [step["edit"] for step in steps] == ["tumor_removal", "acquisition"]
        assert len({plan["seed"], *(step["seed"] for step in steps)}) == 3
        assert set(provenance.models) == {"tumor_removal.generator", "acquisition.generator"}
        assert len(set(provenance.models.values())) == 2
        # The last step's acquisition, the first step's label.
        assert sample.acquisition == SIEMENS
        assert not np.isin(sample.label, [1, 2, 4]).any()
        assert steps[0]["donors"] == []
        assert steps[1]["donors"] == plan["donors"]
        assert set(plan["donors"]) <= {"L003", "L004"}
        assert [g["name"] for g in provenance.gates] == ["acquisition.changed", "locality"]


def test_every_row_replays_and_explains_each_step(tmp_path: Path, models: dict[str, str]) -> None:
    out = run(tmp_path, chain(tmp_path, RELOCATION, ACQUISITION, far=1e6), models).out
    found = [s.sample_id for s in rows(out)]
    assert len(found) == 3
    for output_id in found:
        replay = Run(out).replay(output_id)
        assert (replay.equal, replay.batch) == (True, 2)
    result = CliRunner().invoke(app, ["explain", found[0], "--out", out, "--picture", str(tmp_path / "row.png")])
    assert result.exit_code == 0, result.output
    for said in (
        "step 1, tumor_relocation, plan",
        "step 2, acquisition, seed",
        "step 2, acquisition, donors",
        "model tumor_relocation.generator",
    ):
        assert said in result.output
    other = write_checkpoint(tmp_path / "other", channels=SAMPLES[0].channels, seed=5)
    with pytest.raises(CheckpointError, match="the row was made by weights"):
        Run(out).replay(found[0], checkpoints={"acquisition.generator": other})


def test_a_later_step_works_on_what_the_first_one_made_and_nothing_changes_outside_both(
    tmp_path: Path, models: dict[str, str]
) -> None:
    loaded = chain(tmp_path, RELOCATION, REMOVAL)
    summary = run(tmp_path, loaded, models)
    assert summary.counts["accepted"] == 3, lost(summary.out, "failed") + lost(summary.out, "skipped")
    sources, reader = {s.sample_id: s for s in SAMPLES}, Run(summary.out)
    first, second = loaded.steps
    for sample in rows(summary.out):
        assert sample.provenance is not None
        source, plans = (
            sources[sample.provenance.parent_id],
            parted(Plan.from_dict(sample.provenance.plan), loaded.steps),
        )
        by_role = reader.models(sample.provenance, {}, "cpu")
        ((moved, _),) = apply_padded(first, by_role, [source], plans[:1], 2)
        old, new = first.edit.region(source, plans[0]), second.edit.region(moved, plans[1])
        assert old is not None
        assert new is not None
        assert (new & ~old).any(), "the second step's own region counts, too"
        changed = (sample.image != source.image).any(axis=0)
        assert not changed[~np.asarray(union(old, new))].any()
        assert changed[new].mean() > 0.9
        # The lesion was healed where it had been moved to; planned on the source, it would still be there.
        assert not np.isin(sample.label, [1, 2, 4]).any()


def test_a_skip_of_any_step_skips_the_row_and_names_it(tmp_path: Path, models: dict[str, str]) -> None:
    summary = run(tmp_path, chain(tmp_path, REMOVAL, REMOVAL), models)
    assert summary.counts == {"accepted": 0, "rejected": 0, "failed": 0, "skipped": 3}
    assert {row["reason"] for row in lost(summary.out, "skipped")} == {
        "2.tumor_removal: no lesion (necrosis, oedema, enhancing)"
    }
    bare = [s.replace(label=None) for s in SAMPLES]
    summary = run(tmp_path, chain(tmp_path, REMOVAL, ACQUISITION), models, bare, "bare")
    assert {row["reason"].split(":")[0] for row in lost(summary.out, "skipped")} == {"tumor_removal"}


def test_a_failure_in_a_later_step_spares_the_neighbours(
    tmp_path: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = EDITS["acquisition"]
    apply = edit.apply_measured

    def broken(samples: Sequence[Sample], *args: Any) -> Any:
        if any(s.sample_id == SAMPLES[1].sample_id for s in samples):
            raise FloatingPointError("planted")
        return apply(samples, *args)

    monkeypatch.setattr(edit, "apply_measured", broken, raising=False)
    summary = run(tmp_path, chain(tmp_path, REMOVAL, ACQUISITION, far=1e6), models)
    assert summary.counts == {"accepted": 2, "rejected": 0, "failed": 1, "skipped": 0}
    assert [(r["sample_id"], r["stage"]) for r in lost(summary.out, "failed")] == [(SAMPLES[1].sample_id, "apply")]


def test_a_gate_of_a_step_rejects_the_row(tmp_path: Path, models: dict[str, str]) -> None:
    strict = REMOVAL[:-1] + ", gates: [{name: changed, min: 1000}]}"
    summary = run(tmp_path, chain(tmp_path, strict, ACQUISITION, far=1e6), models)
    assert summary.counts["rejected"] == 3
    assert {r["reason"].split(" ")[0] for r in lost(summary.out, "rejected")} == {"tumor_removal.changed"}


def test_rows_depend_on_no_layout_and_are_made_again_where_a_commit_is_missing(
    tmp_path: Path, models: dict[str, str]
) -> None:
    loaded = chain(tmp_path, RELOCATION, ACQUISITION, far=1e6)
    first = run(tmp_path, loaded, models)
    other = run(tmp_path, loaded, models, SAMPLES[::-1], "other", per_file=2)
    images = {s.sample_id: s.image.tobytes() for s in rows(first.out)}
    assert images == {s.sample_id: s.image.tobytes() for s in rows(other.out)}
    store = Store(other.out)
    store.remove(record_name(sorted(committed_units(store))[0]))
    again = run(tmp_path, loaded, models, SAMPLES[::-1], "other", per_file=2)
    assert again.run.made == 1
    assert images == {s.sample_id: s.image.tobytes() for s in rows(other.out)}
    assert run(tmp_path, loaded, models, SAMPLES[::-1], "other", per_file=2).run.made == 0


def test_donors_of_a_later_step_are_seen_by_the_leakage_guard(tmp_path: Path, models: dict[str, str]) -> None:
    summary = run(tmp_path, chain(tmp_path, REMOVAL, ACQUISITION, far=1e6), models)
    made = rows(summary.out)[0]
    assert made.provenance is not None
    row = {
        "sample_id": made.sample_id,
        "subject_id": made.subject_id,
        "synthetic": True,
        "provenance": made.provenance.to_json(),
    }
    with pytest.raises(LeakageError, match="a donor of its plan"):
        check_leakage(made.provenance.plan["params"]["steps"][1]["donors"], [row], {})


def test_models_are_named_by_step_and_a_wrong_name_is_refused(tmp_path: Path, models: dict[str, str]) -> None:
    loaded = chain(tmp_path, REMOVAL, ACQUISITION)
    data = write_samples(tmp_path / "data", SAMPLES)
    with pytest.raises(ConfigError, match=r"needs a checkpoint for the role 'tumor_removal.generator'"):
        augment(loaded, data, str(tmp_path / "out"), {"acquisition.generator": models[""]}, actors=INLINE)
    with pytest.raises(ConfigError, match=r"did you mean 'acquisition.generator'"):
        augment(loaded, data, str(tmp_path / "out"), {**models, "acquisiton.generator": "x"}, actors=INLINE)
    with pytest.raises(CheckpointError, match=r"the role .acquisition\.generator. needs a model of kind .acquisition."):
        augment(loaded, data, str(tmp_path / "out"), {"": models[""]}, actors=INLINE)
    found = forecast(loaded, data, models)
    assert (found.requested, found.drawn, found.outputs) == (3, 3, 3)
