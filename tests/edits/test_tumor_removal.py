"""Removal: which lesions are chosen, what is painted, and the label of the healed place."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from builders import LESION_CODES, lesion_sample, tiny_spec

from augengine import masks
from augengine.diffusion.checkpoint import Generator, untrained
from augengine.edits.base import Context, Drawing, Plan, Skip
from augengine.edits.lesions import LesionParams
from augengine.edits.tumor_removal import TumorRemovalEdit
from augengine.errors import CheckpointError, ConfigError
from augengine.policy.spec import Sampler
from augengine.records import Sample

EDIT = TumorRemovalEdit()
SAMPLE = lesion_sample(1)
LESION = ["necrosis", "oedema", "enhancing"]
CHANNELS = ("t1", "flair")
SAMPLER = Sampler(solver="ddim", steps=3)


@pytest.fixture(scope="module", params=["painter", "counterfactual"])
def generator(request: pytest.FixtureRequest) -> Generator:
    return untrained(tiny_spec(request.param, channels=CHANNELS), seed=1)


def draw(sample: Sample = SAMPLE, context: Context | None = None, **params: Any) -> Drawing | Skip:
    chosen = LesionParams.model_validate({"labels": LESION, **params})
    return EDIT.plan(sample, chosen, np.random.default_rng(0), context or Context())


def plan(sample: Sample = SAMPLE, **params: Any) -> Plan:
    drawing = draw(sample, **params)
    assert isinstance(drawing, Drawing)
    return Plan("out", sample.sample_id, 0, 0, 5, drawing.params)


def heal(generator: Generator, sample: Sample = SAMPLE, **params: Any) -> Sample:
    chosen = LesionParams.model_validate({"labels": LESION, **params})
    return EDIT.apply([sample], [plan(sample, **params)], {"generator": generator}, chosen, SAMPLER)[0]


def two_lesions() -> Sample:
    """The head with a second, smaller lesion that touches nothing."""
    assert SAMPLE.label is not None
    label = SAMPLE.label.copy()
    label[22:24, 14:17] = LESION_CODES["enhancing"]
    return SAMPLE.replace(label=label)


def lesion(sample: Sample) -> np.ndarray:
    return np.isin(sample.label, [LESION_CODES[n] for n in LESION])


def test_the_lesion_and_its_margin_change_and_nothing_else(generator: Generator) -> None:
    after, region = heal(generator, margin_mm=4.0), EDIT.region(SAMPLE, plan(margin_mm=4.0))
    assert region is not None
    inside = SAMPLE.image.any(axis=0)
    assert np.array_equal(region, masks.dilate(lesion(SAMPLE), 4.0, (4.0, 4.0)) & inside)
    changed = (after.image != SAMPLE.image).any(axis=0)
    assert not changed[~region].any()
    assert changed[region].mean() > 0.9
    assert all((after.image != SAMPLE.image)[c][region].mean() > 0.8 for c in range(2)), "all channels together"


def test_margins_add_up_and_stop_at_the_air() -> None:
    sample = lesion_sample(1, at_mm=(-36.0, 0.0))
    near, wide = (EDIT.region(sample, plan(sample, margin_mm=4.0, mass_effect_margin_mm=m)) for m in (0.0, 8.0))
    assert near is not None
    assert wide is not None
    assert near.sum() < wide.sum() == (masks.dilate(lesion(sample), 12.0, (4.0, 4.0)) & (sample.image[0] > 0)).sum()


def test_a_prompt_may_reach_beyond_the_brain() -> None:
    sample = lesion_sample(1, at_mm=(-36.0, 0.0))
    inside, beyond = (EDIT.region(sample, plan(sample, margin_mm=12.0, beyond_brain=b)) for b in (False, True))
    assert inside is not None
    assert beyond is not None
    assert np.array_equal(beyond, masks.dilate(lesion(sample), 12.0, (4.0, 4.0)))
    assert np.array_equal(inside, beyond & (sample.image[0] > 0))
    assert beyond.sum() > inside.sum()


def test_healed_voxels_take_the_nearest_host_label(generator: Generator) -> None:
    after = heal(generator)
    assert after.label is not None
    assert SAMPLE.label is not None
    gap = lesion(SAMPLE)
    assert set(np.unique(after.label[gap])) <= {LESION_CODES["white_matter"], LESION_CODES["csf"]}
    assert np.array_equal(after.label[~gap], SAMPLE.label[~gap])
    assert not heal(generator, fill="background").label[gap].any()  # type: ignore[index]
    lesions_only = SAMPLE.replace(labels={n: LESION_CODES[n] for n in LESION})
    assert not heal(generator, lesions_only).label[gap].any()  # type: ignore[index]


@pytest.mark.parametrize(
    ("params", "large", "small"),
    [
        ({}, True, True),
        ({"components": [1]}, True, False),
        ({"components": [2]}, False, True),
        ({"min_volume_ml": 1.0}, True, False),
        ({"max_volume_ml": 1.0}, False, True),
    ],
)
def test_lesions_are_chosen_by_rank_and_volume(params: dict[str, Any], large: bool, small: bool) -> None:
    sample = two_lesions()
    region = EDIT.region(sample, plan(sample, **params))
    assert region is not None
    assert (region[11, 16], region[22, 15]) == (large, small)
    drawing = draw(sample, **params)
    assert isinstance(drawing, Drawing)
    healed = (np.count_nonzero(lesion(SAMPLE)) * large + 6 * small) * 0.064
    assert drawing.params["volume_ml"] == pytest.approx(healed, abs=1e-4)


def test_a_lesion_that_stays_is_not_painted_over(generator: Generator) -> None:
    sample = two_lesions()
    after = heal(generator, sample, components=[1], margin_mm=45.0)
    stays = np.zeros(lesion(sample).shape, bool)
    stays[22:24, 14:17] = True
    assert np.array_equal(after.image[:, stays], sample.image[:, stays])
    assert np.array_equal(after.label[stays], sample.label[stays])  # type: ignore[index]
    assert not (lesion(after) & ~stays).any()


def test_labels_default_to_those_of_the_generator() -> None:
    context = Context(specs={"generator": tiny_spec("painter", channels=CHANNELS)})
    drawing = draw(context=context, labels=None)
    assert isinstance(drawing, Drawing)
    assert set(drawing.params["labels"]) == set(LESION)
    named = Plan("out", "s", 0, 0, 5, drawing.params)
    assert np.array_equal(EDIT.region(SAMPLE, named), EDIT.region(SAMPLE, plan()))  # type: ignore[arg-type]
    part = draw(context=context, labels=["enhancing"])
    assert isinstance(part, Drawing)
    assert set(part.params["kept"]) == {"necrosis", "oedema"}
    assert set(part.params["host"]) == {"csf", "white_matter"}
    with pytest.raises(ConfigError, match="which labels make a lesion"):
        draw(labels=None)


@pytest.mark.parametrize(
    ("changes", "params", "reason"),
    [
        ({"label": None}, {}, "no label map"),
        ({"label": np.zeros((32, 32), np.uint8)}, {}, "no lesion"),
        ({}, {"labels": ["metastasis"]}, "none of metastasis"),
        ({}, {"components": [4]}, "none of 1 lesions .the largest has"),
        ({"intensity_range": None}, {}, "intensity range"),
    ],
)
def test_rows_that_cannot_be_healed_say_why(changes: dict[str, Any], params: dict[str, Any], reason: str) -> None:
    found = draw(SAMPLE.replace(**changes), **params)
    assert isinstance(found, Skip)
    assert re.search(reason, found.reason)


def test_volumes_are_healed_by_the_same_code() -> None:
    sample = lesion_sample(2, at_mm=(-16.0, 0.0, 4.0), size=28)
    generator = untrained(tiny_spec("painter", channels=CHANNELS, size=28, axes=3), seed=1)
    after, region = heal(generator, sample), EDIT.region(sample, plan(sample))
    assert region is not None
    assert not (after.image != sample.image)[:, ~region].any()
    assert (after.image != sample.image)[0][region].mean() > 0.9
    assert not lesion(after).any()


def test_a_box_around_the_prompt_heals_too(generator: Generator) -> None:
    after, region = heal(generator, roi_margin_mm=8.0), EDIT.region(SAMPLE, plan())
    assert region is not None
    changed = (after.image != SAMPLE.image).any(axis=0)
    assert not changed[~region].any()
    assert changed[region].mean() > 0.9


def test_what_cannot_work_is_refused_before_any_row(generator: Generator) -> None:
    specs = {"generator": generator.spec}
    EDIT.check(LesionParams(), SAMPLER, specs)
    with pytest.raises(ConfigError, match="labels make a lesion"):
        EDIT.check(LesionParams(), SAMPLER, {"generator": generator.spec.model_copy(update={"lesion": ()})})
    jumps = LesionParams.model_validate({"prompting": {"resamples": 2}})
    EDIT.check(jumps, SAMPLER, specs)
    with pytest.raises(ConfigError, match="solver without memory"):
        EDIT.check(jumps, Sampler(solver="unipc"), specs)
    with pytest.raises(CheckpointError, match="trained on channels t1, flair"):
        heal(generator, SAMPLE.replace(channels=("t1", "t2")))
