import numpy as np
import pytest
import torch

from augengine.diffusion.structure import HIGH, draw_heights, opposed_heights, recolour, structure_planes
from augengine.diffusion.tissue import NO_MASK, tissue_index

RAMP = torch.linspace(-0.5, 2.0, 2001).view(1, 1, 1, -1)


def curves(rows: int, tissues: int = 0, seed: int = 0) -> torch.Tensor:
    return draw_heights(rows, tissues, 1, torch.Generator().manual_seed(seed))


def test_each_row_has_its_own_continuous_curve() -> None:
    x, tissue = RAMP.repeat(8, 1, 2, 1), torch.zeros(8, 2, 2001, dtype=torch.int8)
    out = recolour(x, tissue, curves(8))
    assert out.shape == x.shape
    assert torch.equal(out[:, :, 0], out[:, :, 1])  # a function of intensity alone
    assert out.min() >= 0
    assert out.max() <= 1
    assert float(out.diff(dim=-1).abs().max()) < 0.02
    assert (out[..., :400] == 0).all(), "air must stay dark"
    assert len({round(float(v), 6) for v in out[:, 0, 0, 1000]}) == 8


def test_curves_are_not_monotone() -> None:
    x = torch.linspace(0, 1.2, 500).view(1, 1, 1, -1).repeat(200, 1, 1, 1)
    slope = recolour(x, torch.zeros(200, 1, 500, dtype=torch.int8), curves(200)).diff(dim=-1)
    both_ways = (slope > 1e-4).any(-1) & (slope < -1e-4).any(-1)
    assert both_ways.float().mean() > 0.8


def test_tissues_have_curves_of_their_own_and_no_mask_means_one_curve() -> None:
    x = torch.full((64, 1, 2, 2), 0.5)
    tissue = torch.tensor([[0, 1], [2, 1]], dtype=torch.int8).repeat(64, 1, 1)
    out = recolour(x, tissue, curves(64, tissues=2))
    assert torch.equal(out[:, :, 0, 1], out[:, :, 1, 1])
    order = (out[:, 0, 0, 0] > out[:, 0, 0, 1]).float().mean()
    assert 0.3 < order < 0.7, "the order of two tissues must be a coin toss"
    hidden = recolour(x, torch.full_like(tissue, NO_MASK), curves(64, tissues=2))
    assert torch.equal(hidden.amax((2, 3)), hidden.amin((2, 3)))


def test_opposed_curves_tell_apart_what_either_would_merge() -> None:
    x, tissue = (
        torch.linspace(0, HIGH, 501).view(1, 1, 1, -1).repeat(2, 1, 1, 1),
        torch.ones(2, 1, 501, dtype=torch.int8),
    )
    rising, falling = recolour(x, tissue, opposed_heights(2, 1))[:, 0, 0]
    assert (rising.diff() > 0).all()
    assert falling[0] == 0, "air must stay dark"
    assert falling.argmax() == 100
    assert (falling[100:].diff() < 0).all()
    one_for_all = recolour(x, tissue, opposed_heights(2, 1)[:1])
    assert torch.equal(one_for_all[0], one_for_all[1])


def test_tissue_index_goes_by_name_not_by_code() -> None:
    image, label = np.zeros((1, 1, 4), np.float32), np.array([[0, 7, 9, 3]], np.uint8)
    codes = {"fat": 9, "fibroglandular": 7, "lesion": 3}
    assert tissue_index(label, codes, ("fat", "fibroglandular"), image).tolist() == [[0, 2, 1, 0]]
    assert tissue_index(None, codes, ("fat",), image).tolist() == [[NO_MASK] * 4]


@pytest.mark.parametrize("mask", [0, 1, NO_MASK])
def test_planes_say_what_is_known(mask: int) -> None:
    tissue = torch.full((1, 2, 2), mask, dtype=torch.int8)
    found = structure_planes(torch.full((1, 1, 2, 2), 0.3), tissue, 2)[0, :, 0, 0]
    assert found.tolist() == pytest.approx([0.3, 1.0, float(mask != NO_MASK), float(mask == 1), 0.0])
