"""The leakage guard: one test subject anywhere in a row's lineage is named, and so is a lineage with a gap."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from builders import GE, SIEMENS, slice_sample, write_checkpoint, write_samples

from augengine.diffusion.checkpoint import read_spec, subject_hash, untrained
from augengine.diffusion.spec import ModelSpec
from augengine.errors import DataError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_metadata
from augengine.io.store import Store
from augengine.leakage import LeakageError, Lineage, check_leakage
from augengine.records import Acquisition, Provenance, Sample

PHILIPS = Acquisition("Philips")
TEST = ("S090", "S091")


@pytest.fixture
def model(tmp_path: Path) -> ModelSpec:
    spec = read_spec(write_checkpoint(tmp_path / "model"))
    seen = {"subject_hashes": (subject_hash("S001"),), "manufacturers": ("SIEMENS",), "untrained_seed": None}
    return spec.model_copy(update=seen)


def made(subject: int, model: ModelSpec, **plan: Any) -> Sample:
    sample = slice_sample(subject)
    provenance = Provenance(
        output_id=f"out-{subject}",
        parent_id=sample.sample_id,
        policy="p",
        policy_digest="d",
        edit="acquisition",
        plan={"params": {}, **plan},
        models={"generator": model.sha256, "nearest_training_dice.reference": "ab"},
    )
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
    chosen = model.model_copy(update={"selection_hashes": (subject_hash("S091"),)})
    outer = model.model_copy(update={"parts": {"prior": model.model_copy(update={"parts": {"autoencoder": seen}})}})
    chained = [{"edit": "a"}, {"edit": "b", "donors": ["S003", "S090"]}]
    cases: list[tuple[Sample, ModelSpec, str]] = [
        (slice_sample(90), model, r"S090#0000: .*S090 is the row's own subject"),
        (made(91, model), model, r"out-91: .*S091 is the row's own subject"),
        (made(1, model, donors=["S090"]), model, r"out-1: .*S090 is a donor"),
        (made(1, model, steps=chained), model, r"out-1: .*S090 is a donor"),
        (made(1, model), seen, r"out-1, generator: .*S091 trained model 'model 0'"),
        (made(1, model), chosen, r"out-1, generator: .*S091 chose the checkpoint of model 'model 0'"),
        (made(1, model), outer, r"S091 trained model 'model 0\.prior\.autoencoder'"),
    ]
    for n, (row, spec, says) in enumerate(cases):
        with pytest.raises(LeakageError, match=says) as error:
            check(tmp_path / str(n), [slice_sample(1), row], spec)
        assert isinstance(error.value, DataError)


def test_a_lineage_with_a_gap_proves_nothing(tmp_path: Path, model: ModelSpec) -> None:
    with pytest.raises(LeakageError, match=r"out-1, generator: every model .* must be known.*weights"):
        check(tmp_path / "a", [made(1, model)])
    row = {"sample_id": "x", "subject_id": "S001", "synthetic": True, "provenance": "{}"}
    with pytest.raises(LeakageError, match="must state its plan and models"):
        check_leakage(TEST, [row], {"m": model})


def test_a_model_that_names_no_training_subject_is_unknown_and_not_innocent(tmp_path: Path, model: ModelSpec) -> None:
    silent = model.model_copy(update={"subject_hashes": ()})
    part = model.model_copy(update={"parts": {"prior": silent}})
    for n, (spec, name) in enumerate(((silent, "model 0"), (part, r"model 0\.prior"))):
        with pytest.raises(LeakageError, match=rf"'{name}', a acquisition that states neither"):
            check(tmp_path / str(n), [made(1, spec)], spec)


def test_a_control_says_that_nobody_trained_it(tmp_path: Path, model: ModelSpec) -> None:
    """Its parts are as random as the rest, whoever trained those of the model that it is like."""
    seen = model.model_copy(update={"subject_hashes": (subject_hash("S091"),), "sha256": "ab"})
    like = model.model_copy(update={"parts": {"prior": seen}, "teachers": ("cd",), "metrics": {"steps": 9.0}})
    control = untrained(like, seed=3).spec
    assert (control.untrained_seed, control.subject_hashes, control.parts["prior"].subject_hashes) == (3, (), ())
    held_out = {"held_out_manufacturers": ("Siemens", "GE")}
    rows = [made(1, control).replace(acquisition=PHILIPS), slice_sample(1, acquisition=PHILIPS)]
    assert check(tmp_path / "a", rows, control, **held_out).models == 1
    for n, claim in enumerate(({"subject_hashes": (subject_hash("S001"),)}, {"metrics": {"steps": 9.0}})):
        both = control.model_copy(update=claim)
        with pytest.raises(LeakageError, match="states both"):
            check(tmp_path / f"b{n}", [made(1, both)], both)


def test_what_a_generator_was_trained_on_has_a_lineage_too(tmp_path: Path, model: ModelSpec) -> None:
    """A segmenter labelled its rows, another generator made some of them from donors."""
    innocent = model.model_copy(update={"sha256": "aa", "kind": "segmenter", "teachers": ("bb",)})
    root = model.model_copy(update={"sha256": "bb"})
    taught = model.model_copy(update={"teachers": ("aa",)})
    assert check(tmp_path / "a", [made(1, taught)], taught, innocent, root).models == 3
    with pytest.raises(LeakageError, match=r"out-1, generator, what 'model 0' was trained on.*must be known"):
        check(tmp_path / "b", [made(1, taught)], taught)
    with pytest.raises(LeakageError, match=r"what 'model 1' was trained on.*must be known"):
        check(tmp_path / "c", [made(1, taught)], taught, innocent)
    guilty = root.model_copy(update={"subject_hashes": (subject_hash("S090"),)})
    with pytest.raises(LeakageError, match="S090 trained model 'model 2'"):
        check(tmp_path / "d", [made(1, taught)], taught, innocent, guilty)
    borrowed = model.model_copy(update={"donor_hashes": (subject_hash("S091"),)})
    with pytest.raises(LeakageError, match="S091 lent to the training rows of model 'model 0'"):
        check(tmp_path / "e", [made(1, borrowed)], borrowed)


def test_a_model_that_labelled_the_rows_is_looked_at(tmp_path: Path, model: ModelSpec) -> None:
    labeller = model.model_copy(update={"sha256": "aa", "subject_hashes": (subject_hash("S090"),)})
    with pytest.raises(LeakageError, match=r"labels, unet: .*S090 trained model"):
        check(tmp_path / "a", [slice_sample(1)], labeller, others={"labels, unet": "aa"})
    with pytest.raises(LeakageError, match=r"labels, unet: .*must be known"):
        check(tmp_path / "b", [slice_sample(1)], others={"labels, unet": "aa"})


def test_strict_refuses_models_that_saw_any_held_out_manufacturer(tmp_path: Path, model: ModelSpec) -> None:
    rows = [made(1, model)]
    assert check(tmp_path / "a", rows, model, held_out_manufacturers=("GE", "Philips")).models == 1
    for n, names in enumerate((("SIEMENS",), ("Siemens Healthineers",), ("GE MEDICAL SYSTEMS", "Philips", "Siemens"))):
        with pytest.raises(LeakageError, match=r"nothing may be known of .*what model 'model 0' saw is of SIEMENS"):
            check(tmp_path / f"b{n}", rows, model, held_out_manufacturers=names)
    older = model.model_copy(update={"manufacturers": ("Philips", "GE")})
    with pytest.raises(LeakageError, match="saw is of GE"):
        check(tmp_path / "c", rows, older, held_out_manufacturers=("GE MEDICAL SYSTEMS",))
    for n, nothing in enumerate((None, ())):
        silent = model.model_copy(update={"manufacturers": nothing})
        with pytest.raises(LeakageError, match="must state the manufacturers"):
            check(tmp_path / f"d{n}", rows, silent, held_out_manufacturers=("SIEMENS",))


def test_strict_looks_at_parts_judges_donors_and_rows(tmp_path: Path, model: ModelSpec) -> None:
    clean = model.model_copy(update={"manufacturers": ("Philips",)})
    part = clean.model_copy(update={"parts": {"autoencoder": model}})
    judge = model.model_copy(update={"sha256": "ab", "kind": "segmenter"})
    judged = made(1, clean)
    models = {**judged.provenance.models, "referee_dice.model": "ab"}  # type: ignore[union-attr]
    judged = judged.replace(provenance=dataclasses.replace(judged.provenance, models=models))  # type: ignore[type-var]
    lent = {"donors": ["S002"], "params": {"acquisition": SIEMENS.to_dict()}}
    filed_without = {"acquisition": {"manufacturer": None}, "unseen": {"manufacturer": "Siemens"}}
    chained = {"params": {"steps": [{"edit": "other", "params": {}, "donors": ["S003"]}, lent]}, "donors": ["S002"]}
    nobody = {"donors": ["S002"], "params": {"acquisition": Acquisition().to_dict()}}
    cases: list[tuple[Sample, tuple[ModelSpec, ...], str]] = [
        (made(1, part), (part,), r"what model 'model 0\.autoencoder' saw is of SIEMENS"),
        (judged, (clean, judge), "what model 'model 1' saw is of SIEMENS"),
        (made(1, clean, **lent), (clean,), "out-1: .*a donor of the row's plan is of SIEMENS"),
        (made(1, clean, donors=["S002"], params=filed_without), (clean,), "a donor of the row's plan is of Siemens"),
        (made(1, clean, **chained), (clean,), "a donor of the row's plan is of SIEMENS"),
        (made(1, clean, **nobody), (clean,), "a donor .* of a manufacturer that it does not state"),
        (slice_sample(1, acquisition=Acquisition("Siemens")), (clean,), "S001#0000: .*a training row is of Siemens"),
        (slice_sample(1, acquisition=Acquisition()), (clean,), "a training row is of a manufacturer .* not state"),
    ]
    for n, (row, specs, says) in enumerate(cases):
        with pytest.raises(LeakageError, match=says):
            check(tmp_path / str(n), [row], *specs, held_out_manufacturers=("SIEMENS",))
    # What the published protocols say of a scanner is no knowledge of the data.
    published = made(1, clean, params={"acquisition": SIEMENS.to_dict()})
    assert check(tmp_path / "z", [published], clean, held_out_manufacturers=("SIEMENS",)).rows == 1
