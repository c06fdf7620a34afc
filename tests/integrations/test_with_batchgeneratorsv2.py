"""Every change of classical augmentation is that of batchgeneratorsv2, nnU-Net's transforms, given the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augmented_rows import real_row
from builders import write_samples
from torch import Tensor

pytest.importorskip("batchgeneratorsv2")

from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform, _build_kernel
from batchgeneratorsv2.transforms.noise.rician import RicianNoiseTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

from augengine.phantom.physics import add_rician_noise
from augengine.torch import ShardDataset
from augengine.torch.items import Form
from augengine.train.classical import (
    _either_side,
    _kernel,
    _recoloured,
    bent,
    blurred,
    coarse,
    moved,
    stretched,
)
from augengine.train.sections import ClassicalRecipe


def images() -> dict[str, Tensor]:
    """(1, *): constant, z-scored, within 0 and 1; a slice, a volume, a thin stack."""
    generator = torch.Generator().manual_seed(7)
    smooth = torch.rand(1, 12, 12, 12, generator=generator)
    return {
        "constant_slice": torch.full((1, 16, 20), 0.8),
        "constant_volume": torch.full((1, 16, 16, 8), 0.8),
        "z_scored_slice": torch.randn(1, 16, 20, generator=generator),
        "z_scored_volume": torch.randn(1, 12, 14, 8, generator=generator),
        "unit_volume": smooth,
        "thin_stack": torch.randn(1, 24, 20, 4, generator=generator),
    }


def same(mine: Callable[[Tensor], Tensor], theirs: Any, image: Tensor, atol: float = 2e-6) -> None:
    found = mine(image[0])
    expected = theirs(image=image.clone())["image"][0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("name", images())
def test_colours(name: str) -> None:
    image = images()[name]
    same(lambda c: stretched(c, 1.2), ContrastTransform(1.2, True, False, 1), image)
    same(lambda c: c * 0.8, MultiplicativeBrightnessTransform(0.8, False, 1), image)
    for gamma in (0.7, 1.4):
        for negative in (True, False):
            theirs = GammaTransform(gamma, float(negative), False, 1, 1)
            same(lambda c, g=gamma, n=negative: bent(c, g, negative=n), theirs, image, atol=1e-5)  # type: ignore[misc]


@pytest.mark.parametrize("name", images())
@pytest.mark.parametrize("sd", [0.5, 0.7, 1.0])
def test_blur(name: str, sd: float) -> None:
    image = images()[name]
    same(lambda c: blurred(c, [sd] * c.ndim), GaussianBlurTransform(sd, False, False, 1), image)


@pytest.mark.parametrize("sd", np.linspace(0.3, 2.0, 40).tolist())
def test_kernel(sd: float) -> None:
    np.testing.assert_allclose(_kernel(sd), _build_kernel(sd, truncate=6), atol=1e-7)


@pytest.mark.parametrize("name", images())
@pytest.mark.parametrize("share", [0.5, 0.63, 1.0])
def test_low_resolution(name: str, share: float) -> None:
    """Of a thin stack nnU-Net ignores the axis across slices ("dummy 2D": there the first, here the last)."""
    image = images()[name]
    ignored = (2,) if name == "thin_stack" else None
    same(lambda c: coarse(c, share), SimulateLowResolutionTransform(share, False, True, ignored), image)


@pytest.mark.parametrize("name", ["z_scored_slice", "z_scored_volume", "unit_volume"])
@pytest.mark.parametrize(("angle", "factor"), [(0.4, 1.0), (-0.2, 0.75), (0.0, 1.3)])
def test_moves(name: str, angle: float, factor: float) -> None:
    image = images()[name]
    tissue = (image[0] * 3).round().abs().clamp(max=3).to(torch.int8)
    last = image.ndim - 2
    theirs = SpatialTransform(
        tuple(tissue.shape),
        0,
        False,
        p_rotation=1,
        rotation=lambda image, dim: angle if dim == last else 0.0,
        p_scaling=1,
        scaling=factor,
        p_synchronize_scaling_across_axes=1,
        padding_mode_image="border",
        border_mode_seg="border",
    )
    expected = theirs(image=image.clone(), segmentation=tissue[None].clone())
    x, maps = moved(image, tissue, angle, [factor] * tissue.ndim)
    torch.testing.assert_close(x, expected["image"], rtol=1e-4, atol=1e-4)
    assert (maps == expected["segmentation"][0]).float().mean() > 0.99  # shares are compared in float16 there


def test_noise_and_the_sides_of_a_factor_are_drawn_alike() -> None:
    """`noise_variance` is used as a standard deviation; a factor is below 1 as often as above."""
    theirs = GaussianNoiseTransform(0.1, 1, True)(image=torch.zeros(1, 200, 200))["image"]
    assert float(theirs.std()) == pytest.approx(0.1, rel=0.03)
    recipe = ClassicalRecipe(brightness=0, contrast=0, gamma=(1, 1), low_resolution=(1, 1), blur_px=(1e-6, 1e-6))
    noises = [_recoloured(torch.zeros(1, 40, 40), recipe, np.random.default_rng(n)).std() for n in range(400)]
    drawn = np.array([float(sd) for sd in noises if sd > 1e-4])
    assert 25 < len(drawn) < 60
    assert drawn.max() < 0.032
    assert drawn.mean() == pytest.approx(0.015, rel=0.25)
    rng = np.random.default_rng(0)
    factors = np.array([_either_side(0.7, 1.5, rng) for _ in range(20000)])
    assert (factors < 1).mean() == pytest.approx(0.5, abs=0.03)
    others = np.array([BGContrast((0.7, 1.5))() for _ in range(20000)])
    assert np.quantile(factors, [0.1, 0.3, 0.7, 0.9]) == pytest.approx(
        np.quantile(others, [0.1, 0.3, 0.7, 0.9]), abs=0.03
    )


def test_rician_noise_is_of_magnitudes() -> None:
    """In air it has the mean 1.2533 sd and no value below 0; batchgeneratorsv2 shifts an image by its smallest value
    first and gives it its old mean and deviation back, so that air stays where it was on average."""
    air = np.zeros(100_000, np.float32)
    assert add_rician_noise(air, 0.1, np.random.default_rng(0)).mean() == pytest.approx(0.12533, rel=0.01)
    half = torch.cat([torch.zeros(1, 100, 100), torch.ones(1, 100, 100)], 1)
    theirs = RicianNoiseTransform((0.1, 0.1))(image=half)["image"]
    assert float(theirs.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(theirs[:, :100].mean()) < 0.06


@pytest.mark.parametrize("step", [1.0, 0.1], ids=["whole_numbers", "fractions"])
def test_a_cached_row_does_not_drift(tmp_path: Path, step: float) -> None:
    """The transforms write into what they are given: 200 passes over one tensor leave little of it."""
    rows = [row.replace(image=np.float32(step) * row.image) for row in (real_row(1, n) for n in range(2))]
    uri = write_samples(tmp_path, rows)
    gamma, noise = GammaTransform((0.7, 1.5), 1, False, 1, 1), GaussianNoiseTransform((0.0, 0.1), 1)

    def changed(item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "image": noise(**gamma(image=item["image"]))["image"]}

    plain, data = ShardDataset(uri, normalise=None)[1]["image"], ShardDataset(uri, normalise=None, transform=changed)
    for _ in range(200):
        assert not torch.equal(data[1]["image"], plain)
    assert torch.equal(ShardDataset.of(data.selected, Form(normalise=None))[1]["image"], plain)
    data.form, data._items.form = Form(normalise=None), Form(normalise=None)
    assert torch.equal(data[1]["image"], plain)  # from the cache that the transform was given its rows of
    drifting = plain.clone()
    for _ in range(200):
        changed({"image": drifting})
    assert np.corrcoef(drifting.flatten(), plain.flatten())[0, 1] < 0.999
