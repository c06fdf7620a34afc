"""Classical augmentation: what moves, what is recoloured, and what it may not touch."""

from typing import Any

import numpy as np
import pytest
import torch
from training_cases import batch_of, objective_of

from augengine.train.classical import classical, moved
from augengine.train.sections import ClassicalRecipe

STILL = {"rotation_deg": 0, "scale": (1, 1)}
PLAIN = {
    "noise_sd": 0,
    "blur_px": (1e-6, 1e-6),
    "brightness": 0,
    "contrast": 0,
    "low_resolution": (1, 1),
    "gamma": (1, 1),
}
QUIET = {"noise_sd": 0, "brightness": 0}


def changed(
    dims: int = 2, rows: int = 48, seed: int = 3, side: int = 24, **recipe: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Balls off the centre, of value 2 on 1, as image and as map: before and after."""
    place = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, side)] * dims, indexing="ij"))
    ball = (place - 0.1).square().sum(0) < 0.16
    tissue = ball.to(torch.int8).expand(rows, *ball.shape).clone()
    x = 1.0 + tissue[:, None].float()
    after = classical(x, tissue, ClassicalRecipe(**recipe), torch.Generator().manual_seed(seed))
    return x, tissue, *after


@pytest.mark.parametrize("dims", [2, 3])
def test_image_and_map_move_together(dims: int) -> None:
    x, tissue, images, maps = changed(dims, **PLAIN)
    moved = ((images - x).abs() > 1e-3).flatten(1).any(1)
    assert torch.equal(maps[~moved], tissue[~moved])
    assert 0.2 < moved.float().mean() < 0.5
    assert maps.dtype == torch.int8
    torch.testing.assert_close(images[~moved], x[~moved], rtol=0, atol=1e-3)  # gamma 1 with its statistics retained
    assert ((images[:, 0] - 1 > 0.5) == (maps == 1))[moved].float().mean() > 0.985  # but for the nearest pixel's edge
    assert (images - x)[moved].abs().amax() > 0.5


def test_the_largest_factor_doubles_the_sides() -> None:
    _, tissue, _, maps = changed(scale=(2, 2), rotation_deg=0, **PLAIN)
    areas = maps.flatten(1).sum(1) / tissue.flatten(1).sum(1)
    assert {round(float(area)) for area in areas} == {1, 4}


@pytest.mark.parametrize("name", ["noise_sd", "blur_px", "brightness", "contrast", "low_resolution", "gamma"])
def test_each_change_comes_to_some_rows_and_leaves_the_map(name: str) -> None:
    others = {key: value for key, value in PLAIN.items() if key != name}
    x, tissue, images, maps = changed(**STILL, **others)
    assert torch.equal(maps, tissue)
    share = ((images - x).abs().flatten(1).amax(1) > 5e-3).float().mean()
    # The ramp of two values gives gamma and contrast nothing to do but at the ends, which they keep.
    assert (0.02 < share < 0.55) if name not in ("gamma", "contrast") else share < 0.55


def test_nothing_comes_from_beyond_the_edge() -> None:
    """With zeros beyond the edge, a constant 0.8 fell to 0.55 in the first of 16 slices and to 0.26 in the corners."""
    for shape in ((16, 16, 16), (16, 16, 1), (24, 24, 3), (24, 24)):
        x = torch.full((60, 1, *shape), 0.8)
        images, _ = classical(x, torch.zeros(60, *shape, dtype=torch.int8), ClassicalRecipe(**QUIET), torch.Generator())
        torch.testing.assert_close(images, x, rtol=0, atol=1e-5)


def test_channels_are_drawn_for_themselves() -> None:
    """Half of the channels are blurred where a row is, and brightness differs between those of one row."""
    x = torch.rand(60, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    blank = torch.zeros(60, 16, 16, dtype=torch.int8)
    still = {**PLAIN, **STILL}
    blurry, _ = classical(x, blank, ClassicalRecipe(**{**still, "blur_px": (1.0, 1.0)}), torch.Generator())
    touched = ((blurry - x).abs().flatten(2).amax(2) > 0.01).sum(1)
    assert {0, 1, 2} == set(touched.tolist())
    bright, _ = classical(x, blank, ClassicalRecipe(**{**still, "brightness": 0.25}), torch.Generator())
    factors = (bright / x).flatten(2).median(2).values
    assert 0.05 < ((factors[:, 0] - factors[:, 1]).abs() > 0.01).float().mean() < 0.3


@pytest.mark.parametrize("shape", [(24, 24, 24), (24, 24, 4)])
def test_slices_of_a_thin_stack_stay_apart(shape: tuple[int, ...]) -> None:
    """Scaling and coarsening leave the axis of a stack alone that is more than three times as wide as thick."""
    x = torch.arange(shape[2]).float().expand(60, 1, *shape).clone()
    recipe = ClassicalRecipe(**{**PLAIN, "rotation_deg": 20, "low_resolution": (0.5, 0.5)})
    images, _ = classical(x, torch.zeros(60, *shape, dtype=torch.int8), recipe, torch.Generator())
    changed_rows = ((images - x).abs() > 0.01).flatten(1).any(1).float().mean()
    assert changed_rows == 0 if shape[2] == 4 else changed_rows > 0.2


def test_a_label_keeps_the_pixels_of_which_it_has_most() -> None:
    """Where four labels meet, none is made up between the first and the last."""
    tissue = torch.tensor([[0, 0, 5, 5], [0, 0, 5, 5], [1, 1, 3, 3], [1, 1, 3, 3]], dtype=torch.int8)
    _, found = moved(torch.zeros(1, 4, 4), tissue, 0.4, (0.8, 0.8))
    assert set(found.unique().tolist()) == {0, 1, 3, 5}


@pytest.mark.parametrize("name", ["gamma", "contrast"])
def test_gamma_and_contrast_bend_a_ramp(name: str) -> None:
    x = torch.linspace(0, 1, 256).view(1, 1, 16, 16).expand(48, 1, 16, 16).clone()
    others = {key: value for key, value in PLAIN.items() if key != name}
    images, _ = classical(
        x, torch.zeros(48, 16, 16, dtype=torch.int8), ClassicalRecipe(**STILL, **others), torch.Generator()
    )
    bent = (images - x).abs().flatten(1).amax(1) > 0.01
    assert 0.05 < bent.float().mean() < 0.55
    assert (images.flatten(1).diff(dim=1) >= -1e-5).all()


def test_the_generator_alone_decides() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first, again, other = changed()[2:], changed()[2:], changed(seed=4)[2:]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][0] - first[0][1], torch.zeros_like(first[0][0]))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002


@pytest.mark.parametrize("dims", [2, 3])
def test_training_is_augmented_and_validation_is_not(dims: int) -> None:
    plain, wild = (objective_of("segmenter_nested", dims, classical=how) for how in (None, {}))
    batch = batch_of(dims)

    def total(trained: torch.nn.Module, seed: int) -> float:
        with torch.no_grad():
            return float(trained(batch, seed, 0)["total"])

    assert len({total(wild, seed) for seed in range(4)}) > 1 == len({total(plain, seed) for seed in range(4)})
    assert total(wild.eval(), 0) == total(plain.eval(), 0)


@pytest.mark.parametrize("how", [{"classical": {}}, {"warp": {}}], ids=["classical", "warp"])
def test_short_numbers_of_the_network_do_not_move_images(how: dict[str, Any]) -> None:
    trained, batch = objective_of("segmenter_nested", **how), batch_of()
    exact = trained.tensors(batch, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        found = trained.tensors(batch, torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(exact, found, strict=True))
