import pytest
import torch

from augengine.diffusion.label_planes import enforce_nesting, regions, signed_planes


@pytest.mark.parametrize("size", [(6, 5), (4, 6, 5)])
def test_nested_regions_come_back(size: tuple[int, ...]) -> None:
    levels = torch.randint(0, 4, (2, 1, *size), generator=torch.Generator().manual_seed(0))
    nested = torch.cat([levels > k for k in range(3)], dim=1)
    shown = signed_planes(nested)
    assert shown.dtype == torch.float32
    assert shown.unique().tolist() == [-1.0, 1.0]
    assert torch.equal(regions(shown), nested)


def test_inner_regions_are_cut_to_the_outer_ones() -> None:
    probabilities = torch.tensor([[0.9, 0.2, 0.8], [0.1, 0.7, 0.6]]).view(2, 3, 1, 1)
    nested = enforce_nesting(probabilities)
    assert nested.flatten(1).tolist() == [pytest.approx([0.9, 0.2, 0.2]), pytest.approx([0.1, 0.1, 0.1])]
    assert torch.equal(enforce_nesting(nested), nested)


def test_drawn_planes_become_nested_regions() -> None:
    drawn = torch.tensor([[0.2, 0.1, -0.3], [-0.1, 0.9, 0.8]]).view(2, 3, 1, 1)
    assert regions(drawn).flatten(1).tolist() == [[True, True, False], [False, False, False]]


def test_order_names_one_nest_and_leaves_the_others() -> None:
    values = torch.tensor([[0.8, 0.9, 0.3]]).view(1, 3, 1, 1)
    assert enforce_nesting(values, order=(2, 0)).flatten().tolist() == pytest.approx([0.3, 0.9, 0.3])
    assert values.flatten().tolist() == pytest.approx([0.8, 0.9, 0.3])


def test_masks_nest_as_well() -> None:
    masks = torch.tensor([[False, True], [True, True]]).view(2, 2, 1, 1)
    assert enforce_nesting(masks).flatten(1).tolist() == [[False, False], [True, True]]
