import pytest
import torch

from augengine.diffusion.padding import crop, pad, pad_to


@pytest.mark.parametrize("size", [(5, 8), (3, 9, 4)])
def test_padding_continues_the_far_edge_and_cropping_undoes_it(size: tuple[int, ...]) -> None:
    x = torch.rand(2, 3, *size)
    padded = pad(x, 4)
    assert padded.shape[2:] == tuple((n + 3) // 4 * 4 for n in size)
    assert torch.equal(crop(padded, size), x)
    # Every added cell repeats the nearest one of the image.
    nearest = x
    for axis, n in enumerate(size, start=2):
        nearest = nearest.index_select(axis, torch.arange(padded.shape[axis]).clamp(max=n - 1))
    assert torch.equal(padded, nearest)


def test_sizes_that_fit_are_returned_as_they_are() -> None:
    x = torch.rand(1, 1, 4, 8)
    assert pad(x, 4) is x
    assert pad_to(x, (6, 8)).shape == (1, 1, 6, 8)
