import torch

from augengine.diffusion.remap import random_remap


def test_each_row_has_its_own_curve_that_is_smooth_and_keeps_equal_tissues_equal() -> None:
    ramp = torch.linspace(-0.5, 2.0, 2001).view(1, 1, 1, -1).repeat(8, 1, 2, 1)
    out = random_remap(ramp, torch.Generator().manual_seed(0), knots=6)
    assert out.shape == ramp.shape
    assert torch.equal(out[:, :, 0], out[:, :, 1])  # a function of intensity alone
    assert out.min() >= 0
    assert out.max() <= 1
    assert float(out.diff(dim=-1).abs().max()) < 0.02
    assert len({round(float(v), 6) for v in out[:, 0, 0, 1000]}) == 8


def test_curves_are_not_monotone() -> None:
    ramp = torch.linspace(0, 1.2, 500).view(1, 1, 1, -1).repeat(200, 1, 1, 1)
    slope = random_remap(ramp, torch.Generator().manual_seed(0), knots=8).diff(dim=-1)
    both_ways = (slope > 1e-4).any(-1) & (slope < -1e-4).any(-1)
    assert both_ways.float().mean() > 0.9


def test_the_same_seed_gives_the_same_curves() -> None:
    x = torch.rand(3, 2, 4, 4)
    first, second, other = (random_remap(x, torch.Generator().manual_seed(s), knots=6) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
