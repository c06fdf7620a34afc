"""Changing contrast: the source's own pixels, wherever and whichever way round they lie; settings as physics."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import GE, SIEMENS, tiny_spec

from augengine.diffusion import settings
from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import load_model, save_model, untrained_model
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.local_contrast import LocalContrast, LocalContrastSpec, brought_to, render
from augengine.diffusion.local_features import body
from augengine.diffusion.slices import Slices
from augengine.diffusion.spec import ModelSpec
from augengine.io.store import Store
from augengine.records import Acquisition

SPACING = (1.5, 1.5, 3.0)
VOCABULARY = Vocabulary.fit([GE, SIEMENS])
FLASH = Acquisition("GE", "Signa", 3.0, None, 9.0, 5.0, 4.0, 35.0)


def spec_of(channels: tuple[str, ...] = ("t1",), **sees: bool) -> ModelSpec:
    return tiny_spec("acquisition").model_copy(
        update={
            "network": LocalContrastSpec(members=3, width=8, **sees),
            "diffusion": None,
            "vocabulary": VOCABULARY,
            "channels": channels,
        }
    )


def network_of(channels: int = 1, seed: int = 1, **sees: bool) -> LocalContrast:
    found = build(spec_of(tuple("abc"[:channels]), **sees), seed)
    assert isinstance(found, LocalContrast)
    return found.eval()


def head(dims: int = 2, channels: int = 1) -> np.ndarray:
    shape = (36, 36, 3)[:dims]
    place = np.stack(np.meshgrid(*[np.arange(n) - n / 2 + 0.5 for n in shape], indexing="ij"))
    image = 0.8 * (np.sqrt((place[:2] ** 2).sum(0)) < 11) - 0.4 * (np.abs(place[0] - 3) < 3) * (np.abs(place[1]) < 5)
    noise = np.random.default_rng(dims).normal(0, 0.03, (channels, *shape))
    return np.asarray(np.maximum(image, 0) + noise, np.float32)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_mirrored_source_gives_the_mirrored_result(dims: int) -> None:
    network, image = network_of(2, neighbours=True), head(dims, 2)
    made = render(network, image, SPACING, SIEMENS, GE, 0.2)
    for axis in range(1, dims + 1):
        turned = render(network, np.flip(image, axis), SPACING, SIEMENS, GE, 0.2)
        for name in ("mean", "draw", "spread"):
            # Voxels come in another order, which moves the last bits of a product of matrices.
            assert np.allclose(getattr(turned, name), np.flip(getattr(made, name), axis), atol=2e-6)


def test_a_moved_source_gives_the_moved_result() -> None:
    network, image = network_of(), head()
    image[:, ~body(image, SPACING)] = 0
    made = render(network, image, SPACING, SIEMENS, GE, 0.2).draw
    moved = render(network, np.roll(image, (4, -5), (1, 2)), SPACING, SIEMENS, GE, 0.2).draw
    assert np.allclose(moved, np.roll(made, (4, -5), (1, 2)), atol=2e-6)


def test_a_voxel_knows_how_far_it_lies_from_the_ends_of_the_slab() -> None:
    image = head(3)

    def found(image: np.ndarray, spacing_mm: tuple[float, ...], end_mm: float | None) -> list[np.ndarray]:
        slices = Slices.of(image, spacing_mm, end_mm)
        return [np.unique(view.slab_mm) for view in slices.views(slices.bodies())]

    assert found(image, SPACING, 10.0) == [[10.0], [13.0], [10.0]]
    assert all(np.isnan(mm).all() for mm in found(image, SPACING, None))
    assert found(image[..., 0], SPACING[:2], 7.5) == [[7.5]]


@pytest.mark.parametrize(("thick", "apart", "thinned"), [(5.0, 1, 9), (4.0, 1, 9), (2.0, 2, 5), (1.0, 5, 2)])
def test_neighbours_are_the_slices_about_five_millimetres_away(thick: float, apart: int, thinned: int) -> None:
    """In volumes of thin slices, the one right beside a slice says nothing new."""
    image = np.repeat(head(3)[..., :1], 9, axis=3)
    image[..., 0] *= 2
    slices = Slices.of(image, (1.5, 1.5, thick))
    views = list(slices.views(slices.bodies()))
    brighter = [k for k, view in enumerate(views) if view.features[0][:, -4].mean() > 0.1]
    assert brighter == [apart]
    assert views[0].features[0][:, -4].mean() < -0.1  # its one neighbour is darker
    kept = slices.thinned()
    assert (len(kept.planes), kept.step) == (thinned, 1)
    lone = Slices.of(image[..., 0], (1.5, 1.5))
    assert not next(lone.views(lone.bodies())).features[0][:, -4:].any()


def test_a_network_that_sees_neighbours_makes_a_slice_in_its_volume_another_than_alone() -> None:
    image = np.repeat(head(3)[..., :1], 3, axis=3)
    image[..., 2] *= 1.6

    def made(network: LocalContrast) -> tuple[np.ndarray, np.ndarray]:
        whole = render(network, image, (1.5, 1.5, 5.0), SIEMENS, GE, 0.0).spread
        return whole[..., 0], whole[..., 1]  # the bright end of a volume is the volume's; the spread is each slice's

    alone = render(network_of(), image[..., 1], SPACING, SIEMENS, GE, 0.0).spread
    first, middle = made(network_of())
    assert np.allclose(first, middle, atol=2e-6)
    assert np.allclose(middle, alone, atol=2e-6)
    first, middle = made(network_of(neighbours=True))
    assert not np.allclose(first, middle, atol=1e-3)


def test_slices_that_show_nothing_stay_as_they_are() -> None:
    image = np.repeat(head(3)[..., :1], 4, axis=3)
    image[..., (0, 3)] = 0
    made = render(network_of(neighbours=True, slab=True), image, (1.5, 1.5, 5.0), SIEMENS, GE, 0.2, 2.5)
    assert not made.draw[..., (0, 3)].any()
    assert np.isfinite(made.draw).all()
    assert np.abs(made.draw - image)[..., 1].max() > 0.02


def test_the_bright_end_of_a_volume_is_the_volumes_and_not_each_slices() -> None:
    image = np.repeat(head(3)[..., :1], 3, axis=3) * np.array([0.5, 1.0, 0.5], np.float32)
    network = network_of()
    made = render(network, image, (1.5, 1.5, 5.0), SIEMENS, GE, 0.0).mean
    where = np.stack([body(image[..., k], SPACING) for k in range(3)], axis=-1)
    ends = [np.percentile(x[0][where], 99) for x in (made, image)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-3)
    alone = render(network, image[..., 0], (1.5, 1.5), SIEMENS, GE, 0.0).mean
    assert not np.allclose(made[..., 0], alone, atol=1e-2)


def test_a_network_that_sees_the_slab_is_told_where_a_row_lies_and_one_that_does_not_is_not() -> None:
    image = head()

    def made(network: LocalContrast, end_mm: float | None) -> np.ndarray:
        return render(network, image, SPACING, SIEMENS, GE, 0.2, end_mm).mean

    sees, blind = network_of(slab=True), network_of()
    known = [made(sees, end_mm) for end_mm in (2.5, 30.0, None)]
    assert not any(np.allclose(a, b, atol=1e-3) for a, b in pairwise(known))
    assert np.isfinite(known).all()
    assert np.allclose(made(sees, 70.0), made(sees, 500.0), atol=2e-2)  # deep within, nothing changes any more
    assert np.array_equal(made(blind, 2.5), made(blind, None))


def test_a_mirrored_slab_gives_the_mirrored_result() -> None:
    network, image = network_of(slab=True), head(3)
    made = render(network, image, SPACING, SIEMENS, GE, 0.2, 2.5).draw
    turned = render(network, np.flip(image, 3), SPACING, SIEMENS, GE, 0.2, 2.5).draw
    assert np.allclose(turned, np.flip(made, 3), atol=2e-6)


def test_only_the_body_changes_and_detail_is_the_sources_own() -> None:
    network, image = network_of(), head()
    where = body(image, SPACING)
    smooth, sharp = (render(network, image, SPACING, SIEMENS, GE, share) for share in (0.0, 0.5))
    assert np.array_equal(smooth.draw, smooth.mean)
    assert np.array_equal(sharp.mean, smooth.mean)
    assert np.array_equal(sharp.draw[:, ~where], image[:, ~where])
    assert not sharp.spread[:, ~where].any()
    assert (sharp.spread[:, where] > 0).all()
    assert np.abs(sharp.mean - image)[:, where].mean() > 0.02
    assert np.array_equal(render(network, image * 0, SPACING, SIEMENS, GE, 0.5).draw, image * 0)


@pytest.mark.parametrize("gain", [0.5, 0.9, 1.7])
def test_the_bright_end_is_the_sources(gain: float) -> None:
    """A mean is dull at its bright end, and nobody knows the other scanner's gain."""
    own = np.random.default_rng(0).uniform(0, 1, 5000).astype(np.float32)
    found = brought_to(gain * own, own)
    assert np.percentile(found, 99) == pytest.approx(np.percentile(own, 99), rel=1e-3)
    assert np.array_equal(np.argsort(found, kind="stable"), np.argsort(gain * own, kind="stable"))
    below = gain * own < min(np.percentile(gain * own, 94), 0.8 * np.percentile(own, 99))
    assert np.allclose(found[below], (gain * own)[below])
    assert (brought_to(own * 0, own) == 0).all()


def test_a_scanner_that_clips_goes_on_clipping_and_another_vendors_does_not() -> None:
    network, image = network_of(), np.minimum(head(), 0.75)
    slices, where = Slices.of(image, SPACING), body(image, SPACING)
    assert slices.clipped([where]) == (True,)
    full = image[0][where].max()
    assert render(network, image, SPACING, GE, GE.replace(flip_angle_deg=12.0), 0.5).draw[0][where].max() <= full
    assert render(network, image, SPACING, SIEMENS, GE, 0.5).draw[0][where].max() > full


def test_beyond_what_training_held_counts_as_the_nearest_that_it_held() -> None:
    network = network_of()
    size = len(network.mean)
    network.low.copy_(torch.full((size,), -1.0))
    network.high.copy_(torch.full((size,), 1.0))
    near, far = torch.full((3, 2, size), 1.0), torch.full((3, 2, size), 30.0)
    assert torch.equal(network(near), network(far))
    assert not torch.equal(network(near), network(0.9 * near))


def test_a_checkpoint_brings_it_back(tmp_path: Path) -> None:
    model = untrained_model(spec_of(), 3)
    assert model.spec.changes_contrast
    assert not model.spec.takes_structure
    save_model(Store(tmp_path), model.spec, model.network.state_dict())
    image = head()
    again = load_model(str(tmp_path)).network
    first, second = (render(n, image, SPACING, SIEMENS, GE, 0.1).draw for n in (model.network, again))
    assert np.array_equal(first, second)


def test_the_condition_is_physics() -> None:
    """Between two flip angles lies a third; the scanner's model says nothing, an unknown number is flagged."""
    vocabulary = Vocabulary.fit([FLASH, GE])
    flips = [
        settings.condition(FLASH, FLASH.replace(flip_angle_deg=f, repetition_time_ms=15.0), vocabulary)
        for f in (9.0, 15.0, 25.0)
    ]
    assert all(len(c) == settings.width(vocabulary) for c in flips)
    known, *ratios = flips[1][-5:]
    assert known == 1
    # More T1 weighting: fat gains on muscle and fluid, the more the larger the angle.
    assert ratios == sorted(ratios, reverse=True)
    assert sum(ratios) == pytest.approx(0, abs=1e-6)
    assert flips[0][-4] < flips[1][-4] < flips[2][-4]
    same = settings.condition(FLASH, FLASH.replace(model="another"), vocabulary)
    assert np.array_equal(same, settings.condition(FLASH, FLASH, vocabulary))
    unknown = settings.condition(FLASH, FLASH.replace(repetition_time_ms=None), vocabulary)
    assert not unknown[-5:].any()


def test_distance_between_settings() -> None:
    assert settings.distance(GE, GE.replace(manufacturer="GE")) == 0
    steps = [{"model": "x"}, {"repetition_time_ms": 20.0}, {"field_strength_t": 3.0}, {"manufacturer": "Philips"}]
    apart = [settings.distance(GE, GE.replace(**step)) for step in steps]
    assert apart == sorted(apart)
    assert apart[0] > 0
    assert settings.distance(GE, SIEMENS) == settings.distance(SIEMENS, GE)
