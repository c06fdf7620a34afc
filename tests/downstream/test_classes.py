"""Regions are classes by name: whatever their order and number, a perfect segmenter scores 1 under every protocol."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from augengine.bundled import PROTOCOLS, names
from augengine.diffusion.label_planes import enforce_nesting
from augengine.downstream.checks import check_classes
from augengine.downstream.classes import class_maps, outermost_first, regions_of_classes
from augengine.downstream.experiment import Experiment
from augengine.downstream.measures import scores
from augengine.downstream.predictions import map_rows
from augengine.downstream.protocols import Protocol, protocol
from augengine.downstream.segmenters import SEGMENTERS
from augengine.errors import ConfigError
from augengine.train.config import read_recipe

RECIPES = {
    "unet": {"unet": "unet_small"},
    "dmcie": {"unet": "unet_small", "error": "dmcie_error_small"},
    "ldm_seg": {
        "autoencoder": "label_autoencoder_small",
        "prior": "label_ldm_small",
        "control": "ldm_seg_controlnet_small",
    },
    "pcf": {"counterfactual": "pcf_unet_small", "prompter": "unet_small"},
}


def experiment(segmenter: str, asked: Protocol) -> Experiment:
    recipes = {role: read_recipe(name) for role, name in RECIPES[segmenter].items()}
    return Experiment(asked, "data", "out", recipes, segmenter=segmenter)


def planes(tissue: np.ndarray, labels: list[str], unions: dict[str, Any]) -> np.ndarray:
    """Bool (R, *) of a label map whose code n + 1 is label n."""
    return np.stack([np.isin(tissue, [labels.index(name) + 1 for name in union]) for union in unions.values()])


@pytest.mark.parametrize("name", names(PROTOCOLS))
@pytest.mark.parametrize("segmenter", RECIPES)
def test_a_perfect_segmenter_scores_one_in_every_class_that_it_predicts(segmenter: str, name: str) -> None:
    asked = protocol(name)
    adapted = experiment(segmenter, asked).adapted_recipes
    regions = SEGMENTERS[segmenter].regions_of(adapted)
    assert regions
    whole = [n for n, union in asked.classes.items() if set(union) == {"oedema", "necrosis", "enhancing"}]
    if segmenter == "pcf" and not whole:
        with pytest.raises(ConfigError, match=r"predicts at least one class|are of the same labels"):
            check_classes(experiment(segmenter, asked))
        return
    labels = list(dict.fromkeys(label for union in asked.classes.values() for label in union))
    tissue = np.zeros((12, 12, 4), np.int64)
    for n in range(len(labels)):  # boxes of different sizes, so that no two classes are alike
        tissue[2 + 2 * n : 4 + 3 * n, 1 : 4 + 2 * n] = n + 1
    assert len(np.unique(tissue)) == len(labels) + 1
    perfect = torch.from_numpy(planes(tissue, labels, regions)[None].astype(np.float32))
    if segmenter == "ldm_seg" and not asked.exclusive:
        perfect = enforce_nesting(perfect)  # what it does to each of its samples
    row = {"sample_id": "a", "subject_id": "a", "volume_id": "a", "slice_index": None}
    (found,) = map_rows([row], perfect.numpy(), regions, asked)
    prediction = np.frombuffer(found["map"], np.uint8).reshape(found["map_shape"])
    truth = sum(plane.astype(np.uint8) << n for n, plane in enumerate(planes(tissue, labels, asked.classes)))
    got = scores(prediction, np.asarray(truth, np.uint8), (1, 1, 1), asked, predicted=found["classes"])
    predicted = set(whole) if segmenter == "pcf" else set(asked.classes)
    assert set(found["classes"]) == predicted
    for of_class in asked.classes:
        if of_class in predicted:
            assert got["dice", of_class] == 1, of_class
        else:
            assert all(math.isnan(value) for (_, name), value in got.items() if name == of_class)


def test_every_segmenter_is_tried() -> None:
    assert RECIPES.keys() >= {"unet", "dmcie", "ldm_seg", "pcf"}
    assert SEGMENTERS.keys() - {"threshold", "mine"} == RECIPES.keys()


def test_a_region_is_a_class_by_its_name_then_by_its_labels() -> None:
    classes = {"ET": ["a"], "TC": ["a", "b"], "WT": ["a", "b", "c"]}
    assert regions_of_classes({"WT": ["c", "b", "a"], "ET": ["a"]}, classes) == {"ET": 1, "WT": 0}
    assert regions_of_classes({"whole": ["c", "a", "b"]}, classes) == {"WT": 0}
    assert regions_of_classes({"other": ["a"], "ET": ["a"]}, classes) == {"ET": 1}
    with pytest.raises(ConfigError, match="here TC, are of the same labels; found a, c and a, b"):
        regions_of_classes({"TC": ["a", "c"]}, classes)
    assert list(outermost_first(classes)) == ["WT", "TC", "ET"]
    assert list(outermost_first({"x": ["a"], "y": ["b", "c"]})) == ["x", "y"]


def test_regions_beyond_the_classes_still_compete_with_them() -> None:
    """Skin beats fat in the second pixel, though no class is skin; without it fat would be the likeliest."""
    p = np.array([[[0.6, 0.40], [0.3, 0.42]]])
    assert class_maps(p, {"fat": ["fat"], "skin": ["skin"]}, {"fat": ["fat"]}).tolist() == [[1, 0]]


def test_the_background_is_not_scored_without_a_class() -> None:
    asked = protocol("duke_strict")
    truth = np.array([[[0], [1], [2]]], np.uint8)
    got = scores(truth & 1, truth, (1, 1, 1), asked, predicted=["fat"])
    assert got["accuracy", "fat"] == got["dice", "fat"] == 1
    assert math.isnan(got["accuracy", "background"])
    assert math.isnan(got["dice", "fibroglandular"])
