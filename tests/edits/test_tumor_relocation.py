"""Relocation: the drawn place, shape and label; what may not be painted; lesions added and resized."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from builders import LESION_CODES, lesion_sample, tiny_spec
from pydantic import ValidationError

from augengine import masks
from augengine.diffusion.checkpoint import Generator, untrained
from augengine.edits import tumor_relocation
from augengine.edits.base import Context, Drawing, Plan, Skip
from augengine.edits.lesions import repaint
from augengine.edits.tumor_relocation import RelocationParams, TumorRelocationEdit, textured
from augengine.errors import CheckpointError, ConfigError
from augengine.intensity import normalise
from augengine.policy.spec import Sampler
from augengine.records import Sample

EDIT = TumorRelocationEdit()
SAMPLE = lesion_sample(1)
LESION = ["necrosis", "oedema", "enhancing"]
CHANNELS = ("t1", "flair")
SAMPLER = Sampler(solver="ddim", steps=3)
MIRROR = {"mirror": "always", "shift_mm": [0, 8]}
ADDED = {
    "add": {
        "diameter_mm": [20, 24],
        "parts": [
            {"label": "oedema", "share": 5},
            {"label": "enhancing", "share": 3},
            {"label": "necrosis", "share": 2},
        ],
    }
}


@pytest.fixture(scope="module", params=["painter", "counterfactual"])
def generator(request: pytest.FixtureRequest) -> Generator:
    return untrained(tiny_spec(request.param, channels=CHANNELS), seed=1)


def params_of(**params: Any) -> RelocationParams:
    return RelocationParams.model_validate({"labels": LESION, "host": {"inside": 0.9}, **params})


def draw(sample: Sample = SAMPLE, seed: int = 0, **params: Any) -> Drawing | Skip:
    return EDIT.plan(sample, params_of(**params), np.random.default_rng(seed), Context())


def plan(sample: Sample = SAMPLE, seed: int = 0, **params: Any) -> Plan:
    drawing = draw(sample, seed, **params)
    assert isinstance(drawing, Drawing), drawing
    return Plan("out", sample.sample_id, 0, 0, 5 + seed, drawing.params)


def move(generator: Generator, sample: Sample = SAMPLE, seed: int = 0, **params: Any) -> Sample:
    chosen = params_of(**params)
    return EDIT.apply([sample], [plan(sample, seed, **params)], {"generator": generator}, chosen, SAMPLER)[0]


def lesion(sample: Sample) -> np.ndarray:
    return np.isin(sample.label, [sample.labels[n] for n in LESION if n in sample.labels])


def centroid_mm(mask: np.ndarray) -> np.ndarray:
    return (np.argwhere(mask).mean(axis=0) - np.array(mask.shape) // 2) * 4.0


@pytest.fixture(scope="module")
def painter() -> Generator:
    return untrained(tiny_spec("painter", channels=CHANNELS), seed=1)


def test_both_places_change_and_nothing_else(generator: Generator) -> None:
    after, region = move(generator, **MIRROR), EDIT.region(SAMPLE, plan(**MIRROR))
    assert region is not None
    changed = (after.image != SAMPLE.image).any(axis=0)
    assert not changed[~region].any()
    for place in (lesion(SAMPLE), lesion(after)):
        assert region[place].all()
        assert changed[place].mean() > 0.9
    assert not (lesion(after) & lesion(SAMPLE)).any()
    assert np.array_equal(after.label[~region], SAMPLE.label[~region])  # type: ignore[index]


def test_a_mirrored_lesion_lies_on_the_other_side(painter: Generator) -> None:
    old = centroid_mm(lesion(SAMPLE))
    for seed in range(4):
        new = centroid_mm(lesion(move(painter, seed=seed, **MIRROR)))
        assert np.linalg.norm(new - [-old[0], old[1]]) < 8 + 4
    nose_up = SAMPLE.replace(affine=np.diag([4.0, 4.0, 4.0, 1.0])[[1, 0, 2, 3]])  # left and right are the second axis
    beside = lesion_sample(1, at_mm=(-20.0, 12.0)).replace(affine=nose_up.affine)
    new = centroid_mm(lesion(move(painter, beside, mirror="always", shift_mm=[0, 2])))
    assert np.allclose(new, [-20, -12], atol=4)


def test_shifts_keep_their_range_and_the_shape(painter: Generator) -> None:
    lengths = []
    for seed in range(6):
        after = move(painter, seed=seed, shift_mm=[16, 24], host={"inside": 1.0})
        lengths.append(np.linalg.norm(centroid_mm(lesion(after)) - centroid_mm(lesion(SAMPLE))))
        assert np.count_nonzero(lesion(after)) == pytest.approx(np.count_nonzero(lesion(SAMPLE)), rel=0.15)
    assert 16 - 3 < min(lengths) < max(lengths) < 24 + 3
    assert np.ptp(lengths) > 1


@pytest.mark.parametrize("scale", [0.7, 1.4])
def test_a_resized_lesion_stays_where_it_is(painter: Generator, scale: float) -> None:
    fine = lesion_sample(1, size=64, voxel_mm=2.0)
    after = move(painter, fine, keep_position=True, scale=[scale, scale], host={"edge_mm": 0, "inside": 1.0})
    ratio = np.count_nonzero(lesion(after)) / np.count_nonzero(lesion(fine))
    assert ratio == pytest.approx(scale**2, rel=0.06)
    assert np.abs(centroid_mm(lesion(after)) - centroid_mm(lesion(fine))).max() < 3


def test_parts_move_together_and_stay_nested(painter: Generator) -> None:
    for seed in range(4):
        after = move(painter, seed=seed, rotation_deg=[-45, 45], scale=[1.0, 1.3], elastic_mm=[1, 2])
        assert after.label is not None
        parts = {n: after.label == LESION_CODES[n] for n in LESION}
        assert all(part.any() for part in parts.values())
        around_core = masks.dilate(parts["necrosis"], 4.0, (4.0, 4.0)) & ~parts["necrosis"]
        assert (parts["enhancing"] | parts["oedema"])[around_core].all()
        assert masks.components(lesion(after)).max() == 1


def test_the_host_region_is_kept(painter: Generator) -> None:
    host = {"exclude": ["csf"], "edge_mm": 8.0, "inside": 0.7}
    ventricle = SAMPLE.label == LESION_CODES["csf"]
    brain = masks.erode(SAMPLE.image.any(axis=0), 8.0, (4.0, 4.0))
    cut = 0
    for seed in range(8):
        new = lesion(move(painter, seed=seed, host=host))
        assert not (new & ventricle).any()
        assert brain[new].all()
        cut += np.count_nonzero(new) < np.count_nonzero(lesion(SAMPLE)) * 0.95
    assert cut, "a lesion at the wall is cut, not refused"


def test_a_lesion_that_stays_keeps_its_distance(painter: Generator) -> None:
    label = np.array(SAMPLE.label)
    label[22:24, 14:17] = LESION_CODES["enhancing"]
    sample = SAMPLE.replace(label=label)
    stays = np.zeros(label.shape, bool)
    stays[22:24, 14:17] = True
    for seed in range(6):
        after = move(
            painter, sample, seed, components=[1], new_margin_mm=8.0, host={"clearance_mm": 6.0, "inside": 0.8}
        )
        assert np.array_equal(after.image[:, stays], sample.image[:, stays])
        assert np.array_equal(after.label[stays], label[stays])  # type: ignore[index]
        assert not (lesion(after) & ~stays & masks.dilate(stays, 6.0, (4.0, 4.0))).any()


@pytest.mark.parametrize("named", [True, False])
def test_a_lesion_is_added_to_a_healthy_scan(generator: Generator, named: bool) -> None:
    tissue = {n: c for n, c in LESION_CODES.items() if named or n not in LESION}
    assert SAMPLE.label is not None
    healthy = SAMPLE.replace(label=np.where(lesion(SAMPLE), np.uint8(6), SAMPLE.label), labels=tissue)
    after = move(generator, healthy, **ADDED)
    assert set(after.labels) == set(LESION_CODES)
    assert all(after.labels[n] == code for n, code in tissue.items())
    new = lesion(after)
    area_mm2 = np.count_nonzero(new) * 16
    assert np.pi * 100 * 0.8 < area_mm2 < np.pi * 144 * 1.2
    assert np.count_nonzero(after.label == after.labels["oedema"]) > np.count_nonzero(
        after.label == after.labels["necrosis"]
    )
    assert np.array_equal((after.image != healthy.image).any(axis=0) & ~new, np.zeros_like(new)), "nothing was healed"
    assert (after.image != healthy.image).any(axis=0)[new].mean() > 0.9
    region = EDIT.region(healthy, plan(healthy, **ADDED))
    assert np.array_equal(region, new)


def test_plans_are_json_and_draw_again_by_seed() -> None:
    wild = {"rotation_deg": [-30, 30], "scale": [0.8, 1.2], "elastic_mm": [1, 2], **MIRROR}
    first, again, other = (draw(seed=n, **wild) for n in (1, 1, 2))
    assert isinstance(first, Drawing)
    assert first == again
    assert first != other
    assert json.loads(json.dumps(first.params)) == first.params
    sent = Plan("o", "s", 0, 0, 1, json.loads(json.dumps(first.params, sort_keys=True)))
    assert np.array_equal(EDIT.region(SAMPLE, sent), EDIT.region(SAMPLE, Plan("o", "s", 0, 0, 1, first.params)))  # type: ignore[arg-type]


def test_the_second_step_sees_a_healed_scan_and_noise_of_its_own(
    painter: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[dict[str, Any]] = []

    def record(generator: Generator, samples: Any, x: Any, edit: Any, seeds: Any, *args: Any, ill: bool) -> Any:
        steps.append({"label": samples[0].label, "x": x, "edit": edit, "seeds": list(seeds), "ill": ill})
        return repaint(generator, samples, x, edit, seeds, *args, ill=ill)

    monkeypatch.setattr(tumor_relocation, "repaint", record)
    after = move(painter, **MIRROR)
    heals, paints = steps
    assert (heals["ill"], paints["ill"]) == (False, True)
    assert heals["edit"][0][lesion(SAMPLE)].all()
    assert np.array_equal(paints["edit"][0], lesion(after))
    assert np.array_equal(paints["label"], after.label)
    changed = (paints["x"] != heals["x"]).any(1).numpy()[0]
    assert np.array_equal(changed, heals["edit"][0])
    assert heals["seeds"] != paints["seeds"]


@pytest.mark.parametrize(
    ("params", "painter_mm", "other_mm"),
    [({}, 3.0, 0.0), ({"margin_mm": 8.0}, 8.0, 0.0), ({"margin_mm": 8.0, "new_margin_mm": 4.0}, 4.0, 4.0)],
)
def test_a_painter_also_paints_what_a_soft_border_reaches(
    params: dict[str, Any], painter_mm: float, other_mm: float
) -> None:
    for kind, margin_mm in (("painter", painter_mm), ("counterfactual", other_mm)):
        context = Context(specs={"generator": tiny_spec(kind, channels=CHANNELS)})
        drawing = EDIT.plan(SAMPLE, params_of(**params, **MIRROR), np.random.default_rng(0), context)
        assert isinstance(drawing, Drawing)
        assert drawing.params["new_margin_mm"] == margin_mm


def test_the_margin_beyond_the_new_lesion_is_painted(painter: Generator) -> None:
    after = move(painter, new_margin_mm=8.0, **MIRROR)
    reached = masks.dilate(lesion(after), 8.0, (4.0, 4.0)) & (SAMPLE.image != 0).any(0)
    beyond = reached & ~masks.dilate(lesion(SAMPLE), 3.0, (4.0, 4.0))
    assert (beyond & ~lesion(after)).sum() > 20
    assert (after.image != SAMPLE.image).any(axis=0)[beyond].mean() > 0.9


def test_texture_sets_quantiles_inside_the_new_lesion_only(painter: Generator) -> None:
    quantiles = [0.5, 0.7, 1.5]
    plain = move(painter, new_margin_mm=8.0, **MIRROR)
    after = move(painter, new_margin_mm=8.0, texture={"flair": quantiles}, **MIRROR)
    inside = lesion(after)
    found = np.quantile(normalise(after)[1][inside], [0, 0.5, 1])
    assert np.allclose(found, quantiles, atol=0.05)  # equal values share a rank
    assert np.array_equal(after.image[0], plain.image[0])
    assert np.array_equal(after.image[1][~inside], plain.image[1][~inside])


def test_textures_map_monotonically() -> None:
    x = np.random.default_rng(0).normal(size=(1, 8, 8)).astype(np.float32)
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    y = textured(x, mask, ["t1"], {"t1": [0.0, 1.0, 4.0]})
    assert np.array_equal(np.argsort(x[0][mask]), np.argsort(y[0][mask]))
    assert np.array_equal(x[0][~mask], y[0][~mask])


@pytest.mark.parametrize(
    ("changes", "params", "reason"),
    [
        ({"label": np.zeros((32, 32), np.uint8)}, {}, "no lesion"),
        ({}, {"host": {"edge_mm": 60}}, "host region is empty"),
        ({}, {"host": {"edge_mm": 40}}, r"no place for the lesion after 100 tries: at most \d+%"),
        ({}, {"shift_mm": [200, 300], "tries": 7}, "after 7 tries: at most 0%"),
        ({}, {"host": {"exclude": ["falx"]}}, "does not name falx"),
        ({"affine": np.array([[0, 0, 4, 0], [4, 0, 0, 0], [0, 4, 0, 0], [0, 0, 0, 1.0]])}, MIRROR, "no left and right"),
    ],
)
def test_impossible_placements_say_why(changes: dict[str, Any], params: dict[str, Any], reason: str) -> None:
    found = draw(SAMPLE.replace(**changes), **params)
    assert isinstance(found, Skip)
    assert re.search(reason, found.reason)


@pytest.mark.parametrize(
    "params",
    [
        {"keep_position": True, "shift_mm": [0, 5]},
        {**ADDED, "mirror": "always", "shift_mm": [0, 1]},
        {"mirror": "always"},
        {"scale": [1.2, 0.8]},
        {"scale": [0, 1]},
        {"elastic_mm": [0, 9]},
        {"texture": {"t1": [1, 0]}},
    ],
)
def test_params_that_contradict_each_other_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        params_of(**params)


def test_models_that_cannot_be_told_where_are_refused() -> None:
    spec = tiny_spec("painter", channels=CHANNELS)
    EDIT.check(params_of(**MIRROR), SAMPLER, {"generator": spec})
    for less in ({"mask": "none"}, {"labels": ("necrosis",)}):
        with pytest.raises(CheckpointError, match="a painter must be shown these labels"):
            EDIT.check(params_of(**MIRROR), SAMPLER, {"generator": spec.model_copy(update=less)})
    with pytest.raises(ConfigError, match="texture names channels of the model: t1, flair"):
        EDIT.check(params_of(texture={"t2": [0, 1]}), SAMPLER, {"generator": spec})
    with pytest.raises(ConfigError, match="one of its labels"):
        EDIT.check(params_of(labels=["necrosis"], **ADDED), SAMPLER, {"generator": spec})


def test_volumes_are_moved_by_the_same_code() -> None:
    sample = lesion_sample(2, at_mm=(-16.0, 0.0, 4.0), size=28)
    volume_painter = untrained(tiny_spec("painter", channels=CHANNELS, size=28, axes=3), seed=1)
    wild = {"rotation_deg": [-20, 20], "elastic_mm": [1, 1], **MIRROR}
    after, region = move(volume_painter, sample, **wild), EDIT.region(sample, plan(sample, **wild))
    assert region is not None
    assert not (after.image != sample.image)[:, ~region].any()
    assert np.allclose(centroid_mm(lesion(after)), [16, 0, 4], atol=10)
    assert np.count_nonzero(lesion(after)) == pytest.approx(np.count_nonzero(lesion(sample)), rel=0.2)
