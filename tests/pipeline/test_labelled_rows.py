"""Policies and splits that tell rows with a label map from rows without."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from builders import slice_sample, write_checkpoint, write_samples

from augengine.errors import ConfigError, DataError
from augengine.gates.real_rows import read_real_rows
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_metadata, iter_samples
from augengine.io.sources import SourceOptions
from augengine.io.store import Store
from augengine.load import LoadedPolicy, load_mixture, load_policy
from augengine.phantom.cohort import Cohort
from augengine.phantom.write import write
from augengine.pipeline.augment import augment
from augengine.pipeline.ingest_plan import plan_ingest
from augengine.pipeline.survey import survey
from augengine.pipeline.units import INLINE

POLICY = """\
version: 1
name: test
edit: acquisition
select: {split: train, labelled: SELECT, where: {manufacturer: SIEMENS}}
params: {target: {empirical: {from: samples, labelled: DONORS, where: {manufacturer: GE MEDICAL SYSTEMS}}}}
sampler: {steps: 2}
gates: [{name: changed, min: 0.0}]
"""
# Odd subjects are Siemens, the others GE; every third subject has no masks.
SAMPLES = [slice_sample(s, i, **({"label": None} if s % 3 == 0 else {})) for s in range(8) for i in range(2)]


def policy(folder: Path, select: str, donors: str) -> LoadedPolicy:
    (folder / "policy.yaml").write_text(POLICY.replace("SELECT", select).replace("DONORS", donors))
    return load_policy(folder / "policy.yaml")


@pytest.mark.parametrize(("select", "sources"), [("true", {1, 5, 7}), ("false", {3}), ("null", {1, 3, 5, 7})])
def test_rows_are_chosen_by_their_label_and_donors_by_theirs(tmp_path: Path, select: str, sources: set[int]) -> None:
    data = write_samples(tmp_path / "data", SAMPLES, per_file=5)
    chosen = policy(tmp_path, select, "false")
    done = augment(chosen, data, str(tmp_path / "out"), {"generator": write_checkpoint(tmp_path / "m")}, actors=INLINE)
    store = Store(done.out)
    made = [sample.provenance for sample in iter_samples(store, dataset_files(store))]
    assert done.requested == len(made) == 2 * len(sources)
    assert {lineage.parent_id.partition("#")[0] for lineage in made if lineage} == {f"S00{s}" for s in sources}
    assert {donor for lineage in made if lineage for donor in lineage.plan["donors"]} <= {"S000", "S006"}
    assert len(read_real_rows(data, chosen.policy.select, 99)) == 2 * len(sources)


def test_a_choice_that_takes_nothing_says_why(tmp_path: Path) -> None:
    labelled = write_samples(tmp_path / "labelled", [s for s in SAMPLES if s.label is not None])
    model = {"generator": write_checkpoint(tmp_path / "m")}
    with pytest.raises(DataError, match="none without a label map"):
        augment(policy(tmp_path, "false", "null"), labelled, str(tmp_path / "a"), model, actors=INLINE)
    with pytest.raises(DataError, match="training subjects without a label map"):
        augment(policy(tmp_path, "true", "false"), labelled, str(tmp_path / "b"), model, actors=INLINE)
    text = POLICY.replace("SELECT", "true").replace("DONORS", "true").replace("samples", "duke_protocols")
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(ConfigError, match="the data's own subjects"):
        load_policy(tmp_path / "wrong.yaml")


def test_what_is_left_out_is_counted_by_the_key_that_leaves_it_out(tmp_path: Path) -> None:
    store = Store(write_samples(tmp_path / "data", SAMPLES))
    policy(tmp_path, "true", "null")
    found = survey(store, load_mixture(tmp_path / "policy.yaml"))
    assert found.left_out == {"select.where": 8, "select.labelled": 2}
    assert [row["labelled"] for row in iter_metadata(store, dataset_files(store))].count(False) == 6


@pytest.mark.parametrize("own", [None, (0.75, 0.25, 0.0)])
def test_subjects_with_masks_are_spread_or_split_by_themselves(tmp_path: Path, own: tuple[float, ...] | None) -> None:
    write(Cohort(subjects=40, seed=4, matrix=32, slices=2, siemens_fraction=0.3), tmp_path, "duke-classic")
    for folder in sorted({path.parent for path in tmp_path.rglob("*.seg.nrrd")})[1::2]:
        shutil.rmtree(folder)
    plan = plan_ingest(tmp_path, "duke", SourceOptions(), 0, (0.5, 0.25, 0.25), True, labelled_fractions=own)
    labelled = Counter(plan.splits[s.subject_id] for s in plan.sources if s.labelled)
    others = Counter(plan.splits[s.subject_id] for s in plan.sources if not s.labelled)
    wanted = {"train": 10, "val": 5, "test": 5} if own is None else {"train": 15, "val": 5, "test": 0}
    assert all(abs(labelled[name] - count) <= (own is None) for name, count in wanted.items()), labelled
    assert all(abs(others[name] - count) <= 1 for name, count in {"train": 10, "val": 5, "test": 5}.items()), others
