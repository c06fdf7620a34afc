"""The leakage guard: one test subject anywhere in a row's lineage is named, and so is a lineage with a gap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import GE, slice_sample, write_checkpoint, write_samples

from augengine.diffusion.checkpoint import read_spec, subject_hash
from augengine.diffusion.spec import ModelSpec
from augengine.errors import DataError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_metadata
from augengine.io.store import Store
from augengine.leakage import LeakageError, Lineage, check_leakage
from augengine.records import Provenance, Sample

TEST = ("S090", "S091")


@pytest.fixture
def model(tmp_path: Path) -> ModelSpec:
    spec = read_spec(write_checkpoint(tmp_path / "model"))
    return spec.model_copy(update={"subject_hashes": (subject_hash("S001"),), "manufacturers": ("SIEMENS",)})


def made(subject: int, model: ModelSpec, **plan: Any) -> Sample:
    sample = slice_sample(subject)
    provenance = Provenance(
        output_id=f"out-{subject}", parent_id=sample.sample_id, policy="p", policy_digest="d", edit="acquisition",
        plan={"params": {}, **plan}, models={"generator": model.sha256, "nearest_training_dice.reference": "ab"},
    )  # fmt: skip
    return sample.replace(provenance=provenance, acquisition=GE)


def check(folder: Path, samples: list[Sample], *models: ModelSpec, **options: Any) -> Lineage:
    store = Store(write_samples(folder / "rows", samples))
    named = {f"model {n}": spec for n, spec in enumerate(models)}
    return check_leakage(TEST, iter_metadata(store, dataset_files(store)), named, **options)


def test_a_clean_lineage_is_counted(tmp_path: Path, model: ModelSpec) -> None:
    rows = [slice_sample(1), slice_sample(2), made(1, model, donors=["S002"]), made(2, model)]
    assert check(tmp_path, rows, model) == Lineage(rows=4, synthetic=2, subjects=2, donors=1, models=1)


def test_every_way_in_is_named(tmp_path: Path, model: ModelSpec) -> None:
    seen = model.model_copy(update={"subject_hashes": tuple(subject_hash(s) for s in ("S001", "S091"))})
    outer = model.model_copy(update={"parts": {"prior": model.model_copy(update={"parts": {"autoencoder": seen}})}})
    chained = [{"edit": "a"}, {"edit": "b", "donors": ["S003", "S090"]}]
    cases: list[tuple[Sample, ModelSpec, str]] = [
        (slice_sample(90), model, r"S090#0000: .*S090 is the row's own subject"),
        (made(91, model), model, r"out-91: .*S091 is the row's own subject"),
        (made(1, model, donors=["S090"]), model, r"out-1: .*S090 is a donor"),
        (made(1, model, steps=chained), model, r"out-1: .*S090 is a donor"),
        (made(1, model), seen, r"out-1, generator: .*S091 trained model 'model 0'"),
        (made(1, model), outer, r"S091 trained model 'model 0\.prior\.autoencoder'"),
    ]
    for n, (row, spec, says) in enumerate(cases):
        with pytest.raises(LeakageError, match=says) as error:
            check(tmp_path / str(n), [slice_sample(1), row], spec)
        assert isinstance(error.value, DataError)


def test_a_lineage_with_a_gap_proves_nothing(tmp_path: Path, model: ModelSpec) -> None:
    with pytest.raises(LeakageError, match="generator with weights"):
        check(tmp_path / "a", [made(1, model)])
    row = {"sample_id": "x", "subject_id": "S001", "synthetic": True, "provenance": "{}"}
    with pytest.raises(LeakageError, match="must state its plan and models"):
        check_leakage(TEST, [row], {"m": model})


def test_strict_refuses_generators_that_saw_the_held_out_manufacturer(tmp_path: Path, model: ModelSpec) -> None:
    rows = [made(1, model)]
    assert check(tmp_path / "a", rows, model, held_out_manufacturer=GE.manufacturer).models == 1
    with pytest.raises(LeakageError, match="no generator may have seen SIEMENS"):
        check(tmp_path / "b", rows, model, held_out_manufacturer="SIEMENS")
    silent = model.model_copy(update={"manufacturers": None})
    with pytest.raises(LeakageError, match="must state the manufacturers"):
        check(tmp_path / "c", rows, silent, held_out_manufacturer="SIEMENS")
