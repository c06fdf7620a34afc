"""Segmentation from a counterfactual pair: every step by its own effect, then a phantom with its true healthy pair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from augengine.downstream.segmenters.pcf import PAPER, Vote, copy_the_prompt, prompt, segment
from augengine.errors import ConfigError, DataError
from augengine.metrics.overlap import dice
from augengine.phantom.brain_cohort import BrainCohort
from augengine.rng import generator

LESION = np.zeros((24, 24), bool)
LESION[8:14, 8:14] = True
EVERYWHERE = np.ones((24, 24), bool)
BARE = replace(PAPER, contrast_percent=None)


def pair(*where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image that is brighter than its counterfactual, modality by modality, where a mask says."""
    healthy = generator("pcf").normal(0.5, 0.02, (len(where), 24, 24))
    return healthy + 0.4 * np.stack(where), healthy


def test_half_of_the_weights_decide() -> None:
    none = np.zeros_like(LESION)
    assert np.array_equal(segment(*pair(LESION, LESION, none, none), EVERYWHERE, PAPER), LESION)
    assert not segment(*pair(LESION, none, none, none), EVERYWHERE, PAPER).any()
    heavy = replace(PAPER, weights=(0.5, 0.2, 0.2, 0.1))
    assert np.array_equal(segment(*pair(LESION, none, none, none), EVERYWHERE, heavy), LESION)
    tenths = replace(PAPER, weights=(0.7, 0.1, 0.1, 0.1), majority=0.8)  # 0.7 + 0.1 < 0.8 in binary
    assert np.array_equal(segment(*pair(LESION, LESION, none, none), EVERYWHERE, tenths), LESION)


def test_dark_lesions_count_as_bright_ones_do() -> None:
    factual, healthy = pair(*[LESION] * 4)
    assert np.array_equal(segment(healthy, factual, EVERYWHERE, BARE), LESION)


def test_equal_images_hold_no_tumour() -> None:
    factual, _ = pair(*[LESION] * 4)
    assert not segment(factual, factual, EVERYWHERE).any()
    assert not segment(factual, factual - 0.1, EVERYWHERE, BARE).any()


def test_contrast_keeps_faint_lesions_beside_an_outlier() -> None:
    factual, healthy = pair(*[LESION] * 4)
    factual += LESION * generator("faint").uniform(-0.1, 0.1, LESION.shape)
    factual[:, 20, 20] += 8
    stretched = replace(BARE, contrast_percent=(1, 99))
    assert segment(factual, healthy, EVERYWHERE, BARE).sum() < 10
    assert segment(factual, healthy, EVERYWHERE, stretched).sum() == LESION.sum() + 1


def test_contrast_is_taken_over_the_prompt() -> None:
    """Most of a composited difference is exactly 0, and beside a small lesion so are its percentiles."""
    spot = np.zeros_like(LESION)
    spot[5:7, 5:7] = True
    factual, healthy = pair(*[spot] * 4)
    factual += spot * generator("spot").uniform(-0.1, 0.1, spot.shape)
    factual[:, 9, 9] += 8
    where = prompt("box", spot, (1.0, 1.0), 4.0)
    assert np.array_equal(segment(factual, healthy, where), spot)


def test_histogram_matching_undoes_another_scale_outside_the_prompt() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 24), (4, 24, 24))
    factual = ramp + 0.3 * LESION
    counterfactual = 2 * ramp + 0.5
    where = prompt("box", LESION, (1.0, 1.0), 3.0)
    matched = replace(BARE, match_histogram=True)
    assert np.array_equal(segment(factual, counterfactual, where, matched), LESION)
    assert dice(segment(factual, counterfactual, where, BARE), LESION) < 0.5
    kept = factual.copy()
    kept[:, 6, 6], counterfactual[:, 6, 6] = 2.0, 3.5  # brighter than all outside, and unchanged but for the scale
    assert dice(segment(kept, counterfactual, where, matched), LESION) == 1
    equal_outside = segment(factual, ramp, where, matched)
    assert np.array_equal(equal_outside, segment(factual, ramp, where, BARE))


def test_clean_up_steps_one_by_one() -> None:
    seen = LESION.copy()
    seen[10, 10] = False  # a hole
    seen[1, 1:4] = True  # a piece apart, within the prompt
    seen[20:22, 2:4] = True  # and one outside
    where = EVERYWHERE.copy()
    where[18:] = False
    images = pair(*[seen] * 4)
    assert np.array_equal(segment(*images, where, BARE), seen)
    inside = segment(*images, where, replace(BARE, inside_prompt=True))
    assert np.array_equal(inside, seen & where)
    largest = segment(*images, where, replace(BARE, largest_component=True))
    assert np.array_equal(largest, seen & LESION)
    filled = segment(*images, where, replace(BARE, fill_holes=True))
    assert np.array_equal(filled, seen | LESION)
    assert np.array_equal(segment(*images, where), LESION)
    where[10, 10] = False
    assert np.array_equal(segment(*images, where), LESION & where)


def test_air_is_left_out_of_the_histogram() -> None:
    """Unprompted, every brain voxel differs a little; over the frame Otsu separates brain from air."""
    brain = np.zeros_like(LESION)
    brain[3:21, 3:21] = True
    factual = np.repeat(np.where(brain, 0.5, 0.0)[None], 4, axis=0)
    healthy = factual + brain * generator("air").uniform(0.28, 0.3, (4, 24, 24))
    factual = factual - 0.12 * LESION
    assert np.array_equal(segment(factual, healthy, brain, BARE, brain=brain), LESION)
    assert np.array_equal(segment(factual, healthy, EVERYWHERE, BARE), brain)


def test_prompts_in_millimetres() -> None:
    spot = np.zeros((9, 9, 9), bool)
    spot[4, 4, 4:6] = True
    spacing = (1.0, 2.0, 4.0)
    box = prompt("box", spot, spacing, 4.0)
    assert box[0:9, 2:7, 3:7].all()
    assert box.sum() == 9 * 5 * 4
    grown = prompt("dilated", spot, spacing, 2.0)
    assert grown.sum() == 2 * (1 + 4 + 2)  # 2 mm along i, one voxel along j, none along k
    assert np.array_equal(prompt("predicted", spot, spacing, 2.0), grown)
    assert np.array_equal(prompt("ground_truth", spot, spacing, 2.0), spot)
    assert prompt("none", spot, spacing).all()
    assert np.array_equal(prompt("none", spot, spacing, brain=grown), grown)
    assert prompt("box", np.roll(spot, -4, axis=0), spacing, 2.0)[:4].any(axis=(1, 2)).tolist() == [1, 1, 1, 0]
    assert not prompt("box", np.zeros_like(spot), spacing, 4.0).any()
    assert dice(copy_the_prompt(prompt("ground_truth", spot, spacing)), spot) == 1
    assert dice(copy_the_prompt(box), spot) == pytest.approx(4 / 182)


def test_mistakes_are_refused() -> None:
    factual, healthy = pair(*[LESION] * 4)
    with pytest.raises(ConfigError, match="give 4 weights"):
        segment(factual, healthy, LESION, Vote(weights=(0.5, 0.5)))
    with pytest.raises(DataError, match="grid"):
        segment(factual, healthy[:, :-1], LESION)
    with pytest.raises(DataError, match="finite"):
        segment(factual, healthy * np.nan, LESION)
    with pytest.raises(ConfigError, match="kinds: none"):
        prompt("circle", LESION, (1.0, 1.0))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="-1"):
        prompt("box", LESION, (1.0, 1.0), -1.0)


def test_true_healthy_pair_of_a_phantom_shows_the_tumour() -> None:
    cohort = BrainCohort(subjects=1, matrix=64, slices=12)
    scan = cohort.scan(0)
    truth = cohort.truth(scan.subject_id, shared_noise=True)
    assert scan.label is not None
    k = int((scan.label > 0).sum(axis=(0, 1)).argmax())
    lesion, brain = scan.label[..., k] > 0, scan.image[..., k].any(axis=0)
    factual, healthy = scan.image[..., k], truth.image[..., k]
    everywhere = prompt("none", lesion, (3.0, 3.0), brain=brain)
    assert dice(segment(factual, healthy, everywhere, brain=brain), lesion) > 0.6
    boxed = prompt("box", lesion, (3.0, 3.0), 6.0)
    assert dice(copy_the_prompt(boxed), lesion) < dice(segment(factual, healthy, boxed, brain=brain), lesion)
