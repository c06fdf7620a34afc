"""Recipe and data to a model's description: what fits is described, what does not is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import (
    ACQUISITIONS,
    LABELS,
    LESION,
    NESTED,
    SUBJECTS,
    batch_of,
    objective_of,
    part_specs,
    recipe,
    spec_of,
    survey_of,
)

from augengine.acquisition_terms import manufacturer
from augengine.diffusion.checkpoint import subject_hash
from augengine.diffusion.spec import DiffusionSpec
from augengine.errors import CheckpointError, ConfigError
from augengine.train.model import model_spec, resolve_parts


@pytest.mark.parametrize(
    ("case", "content_channels", "planes", "classes", "vocabulary", "labels"),
    [
        ("acquisition", 1, 0, 0, True, False),
        ("structure", 1, 1 + 2 + 3, 0, True, True),
        ("counterfactual", 1, 0, 2, False, True),
        ("m1", 1, 0, 0, False, False),
        ("m2", 1, 3, 0, False, True),
        ("m3", 1, 4, 0, False, True),
        ("m3_surroundings", 1, 4 + 2, 0, False, True),
        ("m3_paper", 1, 3, 0, False, True),
        ("label_prior", 2, 0, 0, False, True),
        ("label_segmenter", 2, 1, 0, False, True),
        ("error_corrector", 2, 3, 0, False, True),
        ("acquisition_predictor", 1, 0, 0, True, False),
    ],
)
def test_the_description_follows_from_recipe_and_data(
    case: str, content_channels: int, planes: int, classes: int, vocabulary: bool, labels: bool
) -> None:
    spec = spec_of(case)
    assert (spec.kind, spec.recipe, spec.channels, spec.image_size) == (recipe(case).kind, case, ("t1",), (16, 16))
    assert (spec.content_channels, spec.condition_planes, len(spec.classes)) == (content_channels, planes, classes)
    assert (spec.vocabulary is not None, spec.labels) == (vocabulary, LABELS if labels else ())
    assert spec.subject_hashes == tuple(sorted(map(subject_hash, SUBJECTS)))


def test_segmenters_choose_among_regions_that_exclude_each_other() -> None:
    assert (spec_of("segmenter").exclusive, spec_of("segmenter").outputs) == (True, 3)
    assert (spec_of("segmenter_nested").exclusive, spec_of("segmenter_nested").outputs) == (False, 2)
    assert spec_of("acquisition_predictor").outputs == sum(survey_of().vocabulary.widths.values())


def test_the_subjects_of_parts_count_as_seen() -> None:
    part = spec_of("autoencoder").model_copy(update={"subject_hashes": (subject_hash("other"),)})
    spec = model_spec(recipe("counterfactual_dit"), survey_of(), {"autoencoder": part})
    assert set(spec.subject_hashes) == {subject_hash(s) for s in (*SUBJECTS, "other")}


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("m3", {"data": {"lesion": ["coer"]}}, "unknown label 'coer'; did you mean 'core'"),
        ("segmenter", {"data": {"regions": {"grey": ["gray"]}}}, "unknown label 'gray'; did you mean 'grey'"),
        ("m3", {"data": {"lesion": ["zzz"]}}, "unknown label 'zzz'; valid: core, grey, rim"),
    ],
)
def test_labels_must_be_those_of_the_data(case: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec_of(case, **changes)


def test_slice_context_adds_planes_that_reach_the_network_and_volumes_have_none() -> None:
    trained = objective_of("m2", data={"context": [-1, 1]}).eval()
    assert trained.spec.condition_planes == 3 + 2
    for parameter in trained.network.parameters():
        parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    batch = batch_of()
    losses = []
    for shown in (batch.images, 1 - batch.images):
        context = torch.from_numpy(shown).expand(-1, 2, -1, -1).numpy()
        seen = replace(batch, context=context)
        losses.append(float(trained(seen, 0, 0)["total"].detach()))
    assert losses[0] != losses[1]
    with pytest.raises(ConfigError, match="these rows are volumes"):
        spec_of("m2", 3, data={"context": [-1, 1]})


def changed(role: str, case: str, **changes: Any) -> dict[str, Any]:
    parts = part_specs(case)
    return {**parts, role: parts[role].model_copy(update=changes)}


@pytest.mark.parametrize(
    ("case", "parts", "message"),
    [
        ("counterfactual_dit", {"autoencoder": spec_of("m1")}, "must have kind autoencoder; found painter"),
        ("counterfactual_dit", {"autoencoder": spec_of("label_autoencoder")}, "must have content image; found labels"),
        ("label_ldm", {"autoencoder": spec_of("autoencoder")}, "must have content labels; found image"),
        ("counterfactual_dit", changed("autoencoder", "counterfactual_dit", channels=("t2",)), "image channels"),
        ("counterfactual_dit", changed("autoencoder", "counterfactual_dit", image_size=(16, 18)), "image size"),
        ("label_ldm", changed("autoencoder", "label_ldm", regions={"whole": LESION}), "regions"),
        ("label_ldm", changed("autoencoder", "label_ldm", regions=dict(reversed(NESTED.items()))), "regions"),
        ("label_segmenter", {"prior": spec_of("m1")}, "must have kind label_prior"),
        ("label_segmenter", {"prior": spec_of("label_prior")}, "downsampling factor 2; found 1"),
        ("label_segmenter", changed("prior", "label_segmenter", regions={"whole": LESION}), "regions"),
        (
            "label_segmenter",
            changed("prior", "label_segmenter", diffusion=DiffusionSpec(parametrisation="x0", schedule="cosine")),
            "must have diffusion .*'v'.*found .*'x0'",
        ),
        ("error_corrector", changed("fold_0", "error_corrector", kind="label_prior"), "must have kind segmenter"),
        ("error_corrector", changed("fold_1", "error_corrector", regions={"whole": LESION}), "'fold_1'.*regions"),
    ],
)
def test_parts_that_do_not_fit_are_refused(case: str, parts: dict[str, Any], message: str) -> None:
    model_spec(recipe(case), survey_of(), part_specs(case))
    with pytest.raises(CheckpointError, match=message):
        model_spec(recipe(case), survey_of(), parts)


def test_a_corrector_is_refused_if_all_its_segmenters_saw_a_subject() -> None:
    parts = part_specs("error_corrector")
    both = tuple(sorted({*parts["fold_0"].subject_hashes, subject_hash(SUBJECTS[1])}))
    parts["fold_0"] = parts["fold_0"].model_copy(update={"subject_hashes": both})
    with pytest.raises(CheckpointError, match=r"1 subjects seen by all; train one with data.fold \[0, 2\]"):
        model_spec(recipe("error_corrector"), survey_of(), parts)
    third = parts["fold_1"].model_copy(update={"subject_hashes": (subject_hash("other"),)})
    many = recipe("error_corrector", parts={"fold_0": None, "fold_1": None, "fold_2": None})
    assert model_spec(many, survey_of(), {**parts, "fold_2": third}).parts["fold_2"] == third
    silent = third.model_copy(update={"subject_hashes": ()})  # of nobody, or of everybody: nothing says which
    with pytest.raises(CheckpointError, match=r"state their training subjects.*'fold_2'"):
        model_spec(many, survey_of(), {**parts, "fold_2": silent})


def test_folders_of_parts_come_from_the_recipe_or_from_the_caller() -> None:
    folds = recipe("error_corrector", parts={"fold_0": "/a", "fold_1": None})
    assert resolve_parts(folds, {"fold_1": "/b"}) == {"fold_0": "/a", "fold_1": "/b"}
    assert resolve_parts(folds, {"fold_0": "/c", "fold_1": "/b"}) == {"fold_0": "/c", "fold_1": "/b"}
    relative = resolve_parts(folds, {"fold_0": "runs/c", "fold_1": "/b"})["fold_0"]
    assert relative == str(Path.cwd() / "runs/c")  # training workers have folders of their own
    with pytest.raises(ConfigError, match=r"'fold_1'; found no folder; .*--part fold_1=FOLDER"):
        resolve_parts(folds, {})
    with pytest.raises(ConfigError, match="unknown part 'fold_3'; did you mean 'fold_"):
        resolve_parts(folds, {"fold_3": "/b"})
    with pytest.raises(ConfigError, match="unknown part 'prior'; valid: none"):
        resolve_parts(recipe("m1"), {"prior": "/b"})


def test_a_vocabulary_of_the_data_is_the_models() -> None:
    vendors = {manufacturer(a.manufacturer or "") for a in ACQUISITIONS}
    assert spec_of("acquisition").vocabulary.categories["manufacturer"] == tuple(sorted(vendors))


def test_whose_scans_were_seen_is_unknown_if_one_row_or_part_does_not_say() -> None:
    parts = part_specs("counterfactual_dit")
    assert spec_of("counterfactual_dit").manufacturers == ("GE MEDICAL SYSTEMS", "SIEMENS")
    cases: list[tuple[tuple[str, ...] | None, dict[str, Any], tuple[str, ...] | None]] = [
        (None, {}, None),
        (("SIEMENS",), {"manufacturers": None}, None),
        (("SIEMENS",), {"manufacturers": ()}, None),
        (("SIEMENS",), {"manufacturers": ("GE",)}, ("GE MEDICAL SYSTEMS", "SIEMENS")),  # as older models spelt it
        (("SIEMENS",), {"manufacturers": (), "untrained_seed": 1}, ("SIEMENS",)),
    ]
    for own, of_part, expected in cases:
        given = {"autoencoder": parts["autoencoder"].model_copy(update=of_part)}
        found = model_spec(recipe("counterfactual_dit"), survey_of(manufacturers=own), given)
        assert found.manufacturers == expected


def test_who_lent_to_the_rows_and_what_made_them_is_stated_with_that_of_the_parts() -> None:
    lent = {"donor_hashes": (subject_hash("D1"),), "teachers": ("aa",)}
    part = part_specs("counterfactual_dit")["autoencoder"].model_copy(update=lent)
    found = model_spec(recipe("counterfactual_dit"), survey_of(donors=("D2",), teachers=("bb",)), {"autoencoder": part})
    assert set(found.donor_hashes) == {subject_hash("D1"), subject_hash("D2")}
    assert found.teachers == ("aa", "bb")
    assert subject_hash("D2") not in found.subject_hashes
