"""Synthetic labels: the drawn targets, the host's anatomy, the label map and its confidence, and what is painted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from builders import GE, LESION_CODES, lesion_sample, tiny_spec
from pydantic import ValidationError
from torch import Tensor, nn

from augengine import masks
from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.denoisers import GenerativeNetwork
from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Context, Drawing, Plan, Skip
from augengine.edits.label_candidates import Wanted, candidate, laid, region_labels
from augengine.edits.synthetic_labels import SyntheticLabelsEdit, SyntheticLabelsParams, restyled
from augengine.errors import CheckpointError, ConfigError, DataError
from augengine.policy.spec import Sampler
from augengine.records import Acquisition, Sample

EDIT = SyntheticLabelsEdit()
CHANNELS = ("t1", "flair")
LESION = ("necrosis", "oedema", "enhancing")
SAMPLE = lesion_sample(1, acquisition=GE)
HEALTHY = SAMPLE.replace(label=np.where(np.isin(SAMPLE.label, (1, 2, 4)), 6, SAMPLE.label).astype(np.uint8))
SAMPLER = Sampler(solver="ddim", steps=2)
VOXEL_ML = 4.0**3 / 1000


class Balls(nn.Module):
    """The clean label map of one step: one to three balls in thirds of the frame, as a row's noise decides.

    Enhancing is a shell about necrosis, within oedema; all planes fall off by 0.5 a voxel.
    """

    def forward(self, x: Tensor, t_B: Tensor, conditioning: Any) -> Tensor:
        grid = torch.stack(torch.meshgrid(*[torch.arange(n).float() for n in x.shape[2:]], indexing="ij"))
        maps = []
        for row in torch.special.ndtr(x).flatten(1)[:, :8].tolist():
            radii = [2 + 5 * u for u in row[: 1 + int(3 * row[7])]]
            depth = torch.full(x.shape[2:], -torch.inf)
            for n, radius in enumerate(radii):
                middle = torch.tensor([x.shape[2] * (2 * n + 1) / 6, *[s / 2 for s in x.shape[3:]]])
                away = (grid - middle.reshape(-1, *[1] * (x.ndim - 2))).norm(dim=0)
                depth = torch.maximum(depth, (radius - away) / radius)
            core, inner = depth - 0.3, 0.6 - depth
            maps.append(torch.stack([depth, core, torch.minimum(core, inner)]))
        return (3 * torch.stack(maps)).clamp(-1, 1)


def prior_of(body: nn.Module, spacing_mm: float = 4.0, axes: int = 2) -> Generator:
    spec = tiny_spec("label_prior", channels=CHANNELS, axes=axes)
    return Generator(spec.model_copy(update={"spacing_mm": (spacing_mm,) * axes}), GenerativeNetwork(body, {}))


PRIOR = prior_of(Balls())


@pytest.fixture(scope="module")
def painter() -> Generator:
    return untrained(tiny_spec("painter", channels=CHANNELS), seed=1)


def params_of(**params: Any) -> SyntheticLabelsParams:
    usual = {"prior": {"solver": "ddim", "steps": 1}, "candidates": 12, "host": {"inside": 0.8}}
    return SyntheticLabelsParams.model_validate({**usual, **params})


def context(painter: Generator, prior: Generator = PRIOR) -> Context:
    return Context(specs={"prior": prior.spec, "painter": painter.spec})


def draw(painter: Generator, sample: Sample = SAMPLE, seed: int = 0, **params: Any) -> Drawing | Skip:
    return EDIT.plan(sample, params_of(**params), np.random.default_rng(seed), context(painter))


def plan(painter: Generator, sample: Sample = SAMPLE, seed: int = 0, **params: Any) -> Plan:
    drawing = draw(painter, sample, seed, **params)
    assert isinstance(drawing, Drawing), drawing
    return Plan("out", sample.sample_id, 0, 0, 5 + seed, json.loads(json.dumps(drawing.params)))


def make(painter: Generator, sample: Sample = SAMPLE, seed: int = 0, prior: Generator = PRIOR, **params: Any) -> Sample:
    planned = plan(painter, sample, seed, **params)
    return EDIT.apply([sample], [planned], {"prior": prior, "painter": painter}, params_of(**params), SAMPLER)[0]


def named(sample: Sample, *names: str) -> np.ndarray:
    return np.isin(sample.label, [sample.labels[n] for n in names if n in sample.labels])


def lesion(sample: Sample) -> np.ndarray:
    return named(sample, *LESION)


def test_volumes_follow_the_range(painter: Generator) -> None:
    more = {"lesions": [1, 1], "candidates": 24}
    for low, high in ((1.5, 3.0), (6.0, 9.0)):
        found = [lesion(make(painter, seed=n, volume_ml=[low, high], **more)).sum() * VOXEL_ML for n in range(6)]
        assert low * 0.7 < min(found) < max(found) < high * 1.3
        assert np.ptp(found) > 0.1


def test_a_row_is_as_near_to_its_own_target_as_candidates_allow(painter: Generator) -> None:
    off = {}
    for candidates in (1, 24):
        params = {"volume_ml": [1.5, 9.0], "candidates": candidates}
        wanted = [plan(painter, seed=n, **params).params["volume_ml"] for n in range(6)]
        found = [lesion(make(painter, seed=n, **params)).sum() * VOXEL_ML for n in range(6)]
        off[candidates] = np.abs(np.log(np.divide(found, wanted))).mean()
    assert off[24] < 0.2 < off[1]


@pytest.mark.parametrize("lesions", [1, 2])
def test_the_number_of_parts_follows_the_range(painter: Generator, lesions: int) -> None:
    host = {"inside": 0.6, "edge_mm": 0}
    for n in range(5):
        after = make(painter, seed=n, lesions=[lesions, lesions], host=host, min_component_ml=0.3)
        parts = masks.components(lesion(after))
        assert parts.max() == lesions
        assert np.bincount(parts.ravel())[1:].min() * VOXEL_ML >= 0.3


def test_the_host_and_the_side_are_kept(painter: Generator) -> None:
    host = {"labels": ["white_matter"], "exclude": ["csf"], "edge_mm": 6.0, "inside": 0.5}
    middle = (SAMPLE.image.shape[1]) // 2
    places = set()
    for n in range(4):
        for side in ("left", "right"):  # voxel 0 lies furthest to the left
            after = make(painter, seed=n, side=side, host=host)
            at = np.argwhere(lesion(after))
            assert (at[:, 0] < middle).all() if side == "left" else (at[:, 0] > middle).all()
            assert not (lesion(after) & named(SAMPLE, "csf")).any()
            assert masks.erode(SAMPLE.image.any(axis=0), 6.0, (4.0, 4.0))[lesion(after)].all()
            places.add(tuple(at.mean(axis=0).round()))
    assert len(places) > 4


def test_the_prior_s_own_place_is_kept_if_asked_for(painter: Generator) -> None:
    off = {}
    for place in ("prior", "host"):
        maps = [lesion(make(painter, HEALTHY, seed=n, place=place, lesions=[1, 1])) for n in range(3)]
        off[place] = max(abs(np.argwhere(m)[:, 1].mean() - 16) for m in maps)  # where all balls have their middle
    assert off["prior"] < 1 < off["host"]


def test_the_label_map_is_the_source_s_with_the_new_lesion_instead_of_the_old(painter: Generator) -> None:
    after = make(painter, lesions=[1, 1])
    new, old = lesion(after), lesion(SAMPLE)
    assert new.any()
    assert (old & ~new).any()
    assert np.isin(after.label[old & ~new], [LESION_CODES[n] for n in ("white_matter", "csf")]).all()  # type: ignore[index]
    assert np.array_equal(after.label[~old & ~new], SAMPLE.label[~old & ~new])  # type: ignore[index]
    core = named(after, "necrosis", "enhancing")
    assert named(after, "necrosis").any()
    assert named(after, "enhancing").any()
    assert (core | named(after, "oedema"))[masks.dilate(core, 4.0, (4.0, 4.0)) & new].all()
    around_necrosis = masks.dilate(named(after, "necrosis"), 4.0, (4.0, 4.0))
    assert core[around_necrosis & new].mean() > 0.9


class Inverted(Balls):
    """Planes that do not nest: enhancing everywhere, core as usual."""

    def forward(self, x: Tensor, t_B: Tensor, conditioning: Any) -> Tensor:
        maps = super().forward(x, t_B, conditioning)
        maps[:, 2] = 1
        return maps


def test_an_inner_region_ends_where_the_outer_one_does(painter: Generator) -> None:
    after = make(painter, prior=prior_of(Inverted()), lesions=[1, 1])
    assert named(after, "enhancing").any()
    assert named(after, "oedema").any(), "enhancing outside the core"
    assert not named(after, "necrosis").any(), "all of the core enhances"


def test_a_label_that_the_scan_never_had_gets_a_code(painter: Generator) -> None:
    bare = HEALTHY.replace(labels={"csf": 5, "white_matter": 6})
    after = make(painter, bare)
    assert {k: after.labels[k] for k in bare.labels} == dict(bare.labels)
    assert set(LESION) <= set(after.labels)
    assert len(set(after.labels.values())) == len(after.labels)
    assert named(after, "oedema").any()


def test_confidence_is_the_distance_from_the_decision() -> None:
    planes = np.full((2, 9, 9), -1, np.float32)
    planes[0, 2:6, 2:6], planes[1, 3:5, 3:5] = 0.5, 0.25
    planes[0, 4, 6], planes[0, 8, 8] = -0.125, 1
    wanted = Wanted(None, None, min_component_ml=2.0, inside=0.9)
    found = candidate(planes, np.ones((9, 9), bool), 1.0, None, wanted)
    assert np.array_equal(found.regions, (planes > 0) & (np.indices((9, 9)) < 7).all(axis=0))
    assert (found.confidence[2, 2], found.confidence[3, 3], found.confidence[4, 6]) == (0.5, 0.25, 0.125)
    assert (found.confidence[0, 0], found.confidence[8, 8]) == (1, 1), "what the prior did not decide is certain"
    assert found.misfit == (False, False, 0.0)


def test_a_map_is_laid_on_the_sample_in_mm() -> None:
    values = np.full((1, 40, 40), -1, np.float32)
    values[0, 14:26, 20:30] = 1  # 12 x 10 mm, 0 mm and 4.5 mm from the middle
    planes = laid(values, (1.0, 1.0), (16, 14), (2.0, 3.0))
    inside = np.argwhere(planes[0] > 0)
    assert planes.shape == (1, 16, 14)
    assert np.ptp(inside, axis=0).tolist() == [5, 3]
    assert np.abs(inside.mean(axis=0) - (8 - 0.25, 7 + 1.5)).max() <= 0.5
    assert np.array_equal(laid(values, (1.0, 1.0), (40, 40), (1.0, 1.0)), values)


def test_a_candidate_is_carried_to_its_place_and_judged_there() -> None:
    planes = np.full((1, 16, 16), -1, np.float32)
    planes[0, 0:6, 0:3] = 1
    room = np.zeros((16, 16), bool)
    room[2:14, 2:14] = True
    wanted = Wanted(volume_ml=9.0, lesions=2, min_component_ml=0, inside=0.9)
    found = candidate(planes, room, 0.5, (8, 7), wanted)
    assert found.lesion[6:12, 6:9].all()
    assert found.lesion.sum() == 18
    assert found.misfit == (False, False, 1.0), "one part too few, and the volume as drawn"
    at_the_edge = candidate(planes, room, 0.5, (2, 7), wanted)
    assert at_the_edge.lesion.sum() == 12
    assert at_the_edge.misfit == (False, True, pytest.approx(1 + np.log(1.5)))
    nowhere = candidate(planes, room & False, 0.5, (8, 7), wanted)
    assert nowhere.misfit[0]
    assert not nowhere.lesion.any()
    pair = planes.copy()
    pair[0, 10:12, 10:14] = 1
    both = candidate(pair, np.ones((16, 16), bool), 0.5, None, wanted)
    assert both.lesion.sum() == 18 + 8
    assert candidate(pair, room | True, 0.5, None, Wanted(None, 1, 0, 0.9)).lesion.sum() == 18


def test_the_confidence_of_a_row_is_of_its_own_label(painter: Generator) -> None:
    after = make(painter)
    assert after.label_confidence is not None
    rim = lesion(after) & ~masks.erode(lesion(after), 4.0, (4.0, 4.0))
    assert after.label_confidence[rim].mean() < 200
    far = ~masks.dilate(lesion(after), 30.0, (4.0, 4.0))
    assert (after.label_confidence[far] == 255).all()


def test_all_of_the_foreground_is_painted_and_air_is_not(painter: Generator) -> None:
    after, air = make(painter), ~masks.foreground(SAMPLE.image)
    assert EDIT.region(SAMPLE, plan(painter)) is None
    assert (after.image != SAMPLE.image).any(axis=0)[~air].mean() > 0.9
    assert np.array_equal(after.image[:, air], SAMPLE.image[:, air])


def test_the_style_is_the_source_s_or_unknown(painter: Generator) -> None:
    after = make(painter)
    kept = (SAMPLE.label == 6) & (after.label == 6) & ~masks.dilate(lesion(SAMPLE), 8.0, (4.0, 4.0))
    found, wanted = (np.quantile(s.image[:, kept], [0.2, 0.5, 0.8], axis=1) for s in (after, SAMPLE))
    assert np.abs(found - wanted).max() < 25
    assert after.acquisition == SAMPLE.acquisition
    assert make(painter, style="painter").acquisition == Acquisition()


def test_restyling_keeps_the_order_of_intensities() -> None:
    rng = np.random.default_rng(0)
    x, source = rng.normal(0, 1, (2, 20, 20)).astype(np.float32), rng.gamma(2, 2, (2, 20, 20)).astype(np.float32)
    where = np.zeros((20, 20), bool)
    where[:15] = True
    x[:, 19, 19] = 9
    made = restyled(x, source, where)
    found, wanted = (np.quantile(values[:, where], [0.25, 0.5], axis=1) for values in (made, source))
    assert np.allclose(found, wanted, atol=0.1)
    assert (np.diff(made[0].ravel()[x[0].ravel().argsort(kind="stable")]) >= 0).all()
    assert made[0, 19, 19] == pytest.approx(source[0, where].max() + 9 - x[0, where].max())
    assert x[0, 19, 19] == 9, "the caller's array was changed"


def test_the_lesion_alone_is_painted_if_asked_for(painter: Generator) -> None:
    params = {"paint": "lesion", "margin_mm": 4.0, "new_margin_mm": 4.0}
    after, region = make(painter, **params), EDIT.region(SAMPLE, plan(painter, **params))
    changed = (after.image != SAMPLE.image).any(axis=0)
    assert region is not None
    assert not changed[~region].any()
    here = masks.dilate(lesion(after) | lesion(SAMPLE), 4.0, (4.0, 4.0))
    assert not changed[~here].any()
    assert changed[lesion(after) | lesion(SAMPLE)].mean() > 0.9
    beyond = here & ~masks.dilate(lesion(SAMPLE), 4.0, (4.0, 4.0)) & ~lesion(after) & masks.foreground(SAMPLE.image)
    assert beyond.sum() > 5
    assert changed[beyond].mean() > 0.9, "the new lesion's margin was not painted"
    by_default = plan(painter, paint="lesion", margin_mm=8.0)
    assert by_default.params["new_margin_mm"] == 8.0, "as much as around the old lesion"


def test_a_healthy_scan_gets_a_lesion_and_every_seed_another(painter: Generator) -> None:
    maps = {lesion(make(painter, HEALTHY, seed=n)).tobytes() for n in range(4)}
    assert len(maps) == 4
    assert all(any(m) for m in maps)


def test_volumes_work_as_slices_do() -> None:
    volume = lesion_sample(1, at_mm=(-20.0, 0.0, 0.0), size=16, voxel_mm=8.0)
    painter = untrained(tiny_spec("painter", channels=CHANNELS, size=16, axes=3), seed=1)
    prior = prior_of(Balls(), spacing_mm=4.0, axes=3)
    params = params_of(lesions=[1, 1], candidates=3, host={"inside": 0.5})
    drawing = EDIT.plan(volume, params, np.random.default_rng(1), context(painter, prior))
    assert isinstance(drawing, Drawing)
    planned = Plan("out", volume.sample_id, 0, 0, 3, drawing.params)
    (after,) = EDIT.apply([volume], [planned], {"prior": prior, "painter": painter}, params, SAMPLER)
    assert masks.components(lesion(after)).max() == 1
    assert after.label_confidence is not None
    assert after.label_confidence.shape == volume.image.shape[1:]


@pytest.mark.parametrize(
    ("sample", "params", "says"),
    [
        (SAMPLE.replace(label=None), {}, "no label map"),
        (SAMPLE.replace(intensity_range=None), {}, "no intensity range"),
        (SAMPLE, {"host": {"exclude": ["skull"]}}, "does not name skull"),
        (SAMPLE, {"host": {"edge_mm": 60.0}}, "the host region has 0 ml, the smallest lesion asked for 0.1 ml"),
        (SAMPLE, {"host": {"labels": ["csf"], "edge_mm": 0}, "volume_ml": [5.0, 6.0]}, "lesion asked for 5 ml"),
        (SAMPLE.replace(affine=np.diag([4.0, 4, 4, 1])[[2, 1, 0, 3]]), {"side": "left"}, "no left and right"),
        (lesion_sample(1, at_mm=(-20.0, 0.0, 0.0), size=16), {}, "label maps of 2 axes, the row has 3"),
    ],
)
def test_rows_that_cannot_be_served_are_skipped(painter: Generator, sample: Sample, params: dict, says: str) -> None:
    drawing = draw(painter, sample, **params)
    assert isinstance(drawing, Skip)
    assert says in drawing.reason


class Empty(nn.Module):
    """A prior without lesions."""

    def forward(self, x: Tensor, t_B: Tensor, conditioning: Any) -> Tensor:
        return torch.full_like(x, -1)


def test_a_row_never_comes_back_without_a_lesion(painter: Generator) -> None:
    with pytest.raises(DataError, match=r"none of at least 0\.1 ml in 12 maps") as caught:
        make(painter, prior=prior_of(Empty()))
    assert SAMPLE.sample_id in str(caught.value)


def refuse(prior: dict[str, Any] | None = None, painter: dict[str, Any] | None = None, **params: Any) -> None:
    def spec(kind: Any, changes: dict[str, Any] | None) -> ModelSpec:
        return tiny_spec(kind, channels=CHANNELS).model_copy(update=changes or {})

    specs = {"prior": spec("label_prior", prior), "painter": spec("painter", painter)}
    EDIT.check(params_of(**params), SAMPLER, specs)


def test_models_that_do_not_fit_are_refused() -> None:
    refuse()
    apart = {"oedema": ("oedema",), "core": ("necrosis", "enhancing")}
    vague = {"whole": LESION, "enhancing": ("enhancing",)}
    for regions in (apart, vague):
        with pytest.raises(CheckpointError, match="the next one and one label more"):
            refuse(prior={"regions": regions})
    for changes in ({"mask": "none"}, {"labels": ("oedema", "necrosis")}, {"context": (-1, 1)}):
        with pytest.raises(CheckpointError, match="must be shown single slices or volumes with the prior's labels"):
            refuse(painter=changes)
    with pytest.raises(CheckpointError, match="both be of slices"):
        refuse(prior={"image_size": (32, 32, 32)})
    with pytest.raises(ConfigError, match="which labels make a lesion"):
        refuse(painter={"lesion": ()})
    refuse(painter={"lesion": ()}, labels=LESION)


def test_the_innermost_region_names_its_label() -> None:
    spec = tiny_spec("label_prior")
    assert region_labels(spec.regions) == ("oedema", "necrosis", "enhancing")


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"volume_ml": [0, 4]}, "must be positive"),
        ({"volume_ml": [5, 4]}, "two rising numbers"),
        ({"lesions": [3, 1]}, "two rising numbers"),
        ({"lesions": [0, 1]}, "greater than or equal to 1"),
        ({"paint": "lesion", "style": "painter"}, "goes with paint all"),
    ],
)
def test_impossible_parameters_are_refused(params: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        params_of(**params)
