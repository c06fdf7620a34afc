import torch

from augengine.train.sections import WarpRecipe
from augengine.train.warp import warp


def blob() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.zeros(8, 1, 32, 32)
    x[:, :, 6:14, 18:28] = 1
    return x, (x[:, 0] > 0).to(torch.int8)


def test_image_and_tissue_move_together_and_differ_between_rows() -> None:
    x, tissue = blob()
    moved, index = warp(x, tissue, WarpRecipe(), torch.Generator().manual_seed(0))
    assert index.dtype == torch.int8
    overlap = ((moved[:, 0] > 0.5) & (index == 1)).sum((1, 2)) / (index == 1).sum((1, 2))
    assert overlap.min() > 0.9
    assert (moved[0] - moved[1]).abs().max() > 0.5
    again, _ = warp(x, tissue, WarpRecipe(), torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)


def test_nothing_asked_for_changes_nothing_and_flip_mirrors_the_first_axis() -> None:
    x, tissue = blob()
    still = WarpRecipe(rotation_deg=0, scale=0, shift=0, flip=False)
    moved, index = warp(x, tissue, still, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved, x)
    assert torch.equal(index, tissue)
    flipped, index = warp(x, tissue, still.model_copy(update={"flip": True}), torch.Generator().manual_seed(0))
    kinds = {torch.equal(a.round(), b) for a, b in zip(flipped, x, strict=True)}
    assert kinds == {True, False}
    turned = next(a for a, b in zip(flipped, x, strict=True) if not torch.equal(a.round(), b))
    torch.testing.assert_close(turned, x[0].flip(1))


def test_volumes_are_mirrored_along_each_axis_that_is_asked_for() -> None:
    x = torch.arange(27.0).view(1, 1, 3, 3, 3).repeat(64, 1, 1, 1, 1)
    tissue = x[:, 0].to(torch.int8)
    asked = WarpRecipe(rotation_deg=0, scale=0, shift=0, flip_axes=(0, 1, 2))
    moved, index = warp(x, tissue, asked, torch.Generator().manual_seed(0))
    assert torch.equal(moved[:, 0].to(torch.int8), index)
    steps = {tuple((row[0][at] - row[0][1, 1, 1]).item() for at in ((2, 1, 1), (1, 2, 1), (1, 1, 2))) for row in moved}
    assert steps == {(i, j, k) for i in (9.0, -9.0) for j in (3.0, -3.0) for k in (1.0, -1.0)}
    last = asked.model_copy(update={"flip_axes": (2,)})
    slices, _ = warp(*blob(), last, torch.Generator().manual_seed(0))
    torch.testing.assert_close(slices, blob()[0])
