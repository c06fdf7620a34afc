"""Lesions laid into scans: contrast, shape and place of what comes out; refusals, and rows that are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import LESION_CODES, lesion_sample, tiny_bank

from augengine import rng
from augengine.diffusion.checkpoint import Model
from augengine.edits.base import Context, Drawing, Plan, Skip, SkippedError
from augengine.edits.lesion_insertion import InsertionParams, LesionInsertionEdit
from augengine.errors import CheckpointError, ConfigError
from augengine.metrics.lesion_contrast import lesion_to_ring_ratio
from augengine.policy.spec import Sampler
from augengine.records import Sample

EDIT = LesionInsertionEdit()
LESION = ("necrosis", "oedema", "enhancing")
WHOLE: dict[str, Any] = {"rotation_deg": [0, 0], "scale": [1, 1], "mirror": 0, "own": [0, 0]}


@pytest.fixture(scope="module")
def bank() -> Model:
    return tiny_bank([lesion_sample(n) for n in range(4)])


def healthy(subject: int = 9, **changes: Any) -> Sample:
    """A head of one tissue, its label map of zeros but for white matter."""
    sample = lesion_sample(subject)
    assert sample.label is not None
    label = np.where(sample.label > 0, np.uint8(LESION_CODES["white_matter"]), np.uint8(0))
    bright = np.random.default_rng(subject).normal(0, 5, sample.image.shape) + np.array([400, 350]).reshape(2, 1, 1)
    image = np.where(label > 0, np.round(bright), 0).astype(np.float32)
    return sample.replace(image=image, label=label, **changes)


def insert(sample: Sample, bank: Model, seed: int = 0, **params: Any) -> Sample:
    made = InsertionParams.model_validate({"recipients": "any", **params})
    drawn = EDIT.plan(sample, made, rng.generator("test", seed), Context((), {"bank": bank.spec}))
    assert isinstance(drawn, Drawing), drawn
    plan = Plan("out", sample.sample_id, 0, 0, seed, drawn.params)
    return EDIT.apply([sample], [plan], {"bank": bank}, made, Sampler())[0]


def lesion(sample: Sample) -> np.ndarray:
    return np.isin(sample.label, [LESION_CODES[name] for name in LESION])


def ratio(sample: Sample, part: str, channel: int) -> float:
    where = sample.label == LESION_CODES[part]
    return float(np.median(sample.image[channel][where])) / [400, 350][channel]


def test_a_donor_is_as_bright_beside_its_new_place_as_it_was_beside_its_own(bank: Model) -> None:
    """The samples' oedema has 250 (t1) and 700 (flair) on tissue of 400 and 350, its core 600 and 500."""
    made = insert(healthy(), bank, gain=[1, 1], **WHOLE)
    assert ratio(made, "oedema", 0) == pytest.approx(250 / 400, rel=0.12)
    assert ratio(made, "oedema", 1) == pytest.approx(700 / 350, rel=0.12)
    assert made.labels == LESION_CODES
    assert lesion(made).sum() == pytest.approx(lesion(lesion_sample(0)).sum(), rel=0.15)


def test_the_gain_draws_the_contrast_out_and_takes_it_away(bank: Model) -> None:
    found = []
    for gain in (0.0, 0.5, 1.0):
        made = insert(healthy(), bank, gain=[gain, gain], **WHOLE)
        found.append(abs(np.log(lesion_to_ring_ratio(made.image[1], lesion(made), made.label > 0))))
    assert found[0] < 0.1 < found[1] < found[2]


def test_a_drawn_lesion_has_the_contrast_that_was_asked_for(bank: Model) -> None:
    for wanted in (1.1, 1.9):
        ranges = {name: [wanted, wanted] for name in ("t1", "flair")}
        made = insert(healthy(), bank, texture="drawn", contrast=ranges, **WHOLE)
        core = made.label == LESION_CODES["enhancing"]
        for c, tissue in enumerate((400, 350)):
            assert np.median(made.image[c][core]) / tissue == pytest.approx(wanted, rel=0.12)


def test_a_dark_core_is_darker_than_the_rim(bank: Model) -> None:
    ranges = {name: [1.9, 1.9] for name in ("t1", "flair")}
    made = insert(healthy(), bank, texture="drawn", contrast=ranges, dark_core=1.0, **WHOLE)
    inner, outer = (made.image[0][made.label == LESION_CODES[n]] for n in ("necrosis", "oedema"))
    assert np.median(inner) < np.median(outer)


def test_nothing_beyond_the_region_and_no_other_label_changes(bank: Model) -> None:
    sample = lesion_sample(5)
    params = InsertionParams.model_validate({"recipients": "any"})
    drawn = EDIT.plan(sample, params, rng.generator("test", 3), Context((), {"bank": bank.spec}))
    assert isinstance(drawn, Drawing), drawn
    plan = Plan("out", sample.sample_id, 0, 0, 3, drawn.params)
    made = EDIT.apply([sample], [plan], {"bank": bank}, params, Sampler())[0]
    region = EDIT.region(sample, plan)
    assert region is not None
    changed = (made.image != sample.image).any(axis=0)
    assert changed.any()
    assert not changed[~region].any()
    own = lesion(sample)
    assert (made.label[own] == sample.label[own]).all()  # type: ignore[index]
    assert lesion(made).sum() > own.sum()


def test_lesions_keep_away_from_each_other_and_from_the_edge(bank: Model) -> None:
    from scipy.ndimage import distance_transform_edt

    for seed in range(6):
        sample = lesion_sample(5)
        made = insert(sample, bank, seed, host={"edge_mm": 8, "clearance_mm": 8, "inside": 0.5}, scale=[0.5, 0.7])
        new = lesion(made) & ~lesion(sample)
        assert distance_transform_edt(~lesion(sample))[new].min() * 4 > 8
        assert distance_transform_edt(sample.label > 0)[new].min() * 4 > 8  # type: ignore[operator]


def test_voxels_of_another_size_keep_the_lesion_s_millimetres(bank: Model) -> None:
    coarse, fine = healthy(), lesion_sample(9, size=64, voxel_mm=2.0)
    assert fine.label is not None
    label = np.where(fine.label > 0, np.uint8(LESION_CODES["white_matter"]), np.uint8(0))
    fine = fine.replace(image=np.where(label > 0, np.float32(400), np.float32(0))[None].repeat(2, 0), label=label)
    areas = []
    for sample, voxel_mm in ((coarse, 4.0), (fine, 2.0)):
        made = insert(sample, bank, **WHOLE)
        areas.append(lesion(made).sum() * voxel_mm**2)
    assert areas[1] == pytest.approx(areas[0], rel=0.15)


def test_volumes_take_lesions_of_volumes() -> None:
    at_mm = (-20.0, 0.0, 0.0)
    bank = tiny_bank([lesion_sample(1, at_mm=at_mm, slice_index=None)])
    made = insert(lesion_sample(2, at_mm=at_mm, slice_index=None), bank, scale=[0.6, 0.6])
    assert lesion(made).sum() > lesion(lesion_sample(2, at_mm=at_mm)).sum()


def test_a_scan_without_room_is_left_out_with_the_reason(bank: Model) -> None:
    with pytest.raises(SkippedError, match="no room for a lesion in 3 tries: at most"):
        insert(healthy(), bank, scale=[3, 3], tries=3, host={"inside": 1.0})


def test_rows_unlike_those_with_lesions_are_left_out(bank: Model) -> None:
    params = InsertionParams()
    context = Context((), {"bank": bank.spec})
    small = healthy()
    tiny = small.image.copy()
    tiny[:, :12] = tiny[:, 20:] = 0
    noise = np.random.default_rng(0).choice([0.3, 1.0, 1.9], (2, 32, 32)).astype(np.float32)
    for sample, reason in (
        (small.replace(image=tiny), "the body has"),
        (small.replace(image=small.image * np.float32(0.05)), "its brightness is"),
        (small.replace(image=small.image * noise), "its roughness is"),
    ):
        drawn = EDIT.plan(sample, params, rng.generator("test", 0), context)
        assert isinstance(drawn, Skip)
        assert drawn.reason.startswith(f"unlike rows with lesions: {reason}")
    assert isinstance(EDIT.plan(lesion_sample(0), params, rng.generator("test", 0), context), Drawing)


def test_what_does_not_go_together_is_refused(bank: Model) -> None:
    with pytest.raises(ValueError, match="go with texture drawn"):
        InsertionParams.model_validate({"contrast": {"flair": [1, 2]}})
    with pytest.raises(ConfigError, match="contrast names channels of the bank: t1, flair"):
        EDIT.check(InsertionParams(texture="drawn", contrast={"t2": (1.0, 2.0)}), Sampler(), {"bank": bank.spec})
    with pytest.raises(CheckpointError, match="a ball has one part"):
        EDIT.check(InsertionParams.model_validate({"texture": "drawn", "ball": {}}), Sampler(), {"bank": bank.spec})
    other = healthy().replace(channels=("t1", "t2"))
    with pytest.raises(CheckpointError, match="this bank was cut from channels t1, flair"):
        insert(other, bank)
    unlabelled = EDIT.plan(healthy().replace(label=None), InsertionParams(), rng.generator("t", 0), Context())
    assert isinstance(unlabelled, Skip)
