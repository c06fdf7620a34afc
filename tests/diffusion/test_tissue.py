"""Label maps by name: index maps, planes per label and planes per region."""

import numpy as np
import torch

from augengine.diffusion.tissue import NO_MASK, one_hot, region_planes, tissue_index

NAMES = ("core", "grey", "rim")


def test_the_index_follows_names_whatever_a_rows_codes_are() -> None:
    label = np.array([[0, 7, 9], [4, 7, 0]], np.uint8)
    like = np.zeros((1, 2, 3), np.float32)
    index = tissue_index(label, {"rim": 7, "core": 9, "skull": 4}, NAMES, like)
    assert index.dtype == np.int8
    assert index.tolist() == [[0, 3, 1], [0, 3, 0]]  # a label that the model does not know is the rest
    none = tissue_index(None, {}, NAMES, np.zeros((2, 4, 5, 6), np.float32))
    assert none.shape == (4, 5, 6)
    assert (none == NO_MASK).all()


def test_planes_are_one_where_their_label_is_and_empty_without_a_mask() -> None:
    tissue = torch.tensor([[[0, 1], [2, 3]], [[-1, -1], [-1, -1]]], dtype=torch.int8)
    planes = one_hot(tissue, 3)
    assert planes.dtype == torch.float32
    assert planes[0].tolist() == [[[0, 1], [0, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 1]]]
    assert not planes[1].any()
    assert one_hot(torch.zeros(2, 3, 4, 5, dtype=torch.int8), 3).shape == (2, 3, 3, 4, 5)


def test_regions_are_unions_in_the_order_asked_for() -> None:
    tissue = torch.tensor([[[0, 1], [2, 3]], [[-1, -1], [3, 3]]], dtype=torch.int8)
    found = region_planes(tissue, {"core": ("core",), "whole": ("rim", "core"), "none": ()}, NAMES)
    assert found.dtype == torch.bool
    assert found[0].int().tolist() == [[[0, 1], [0, 0]], [[0, 1], [0, 1]], [[0, 0], [0, 0]]]
    assert found[1, 1].int().tolist() == [[0, 0], [1, 1]]
    volume = torch.randint(0, 4, (2, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    each = region_planes(volume, {name: (name,) for name in NAMES}, NAMES)
    assert torch.equal(each.float(), one_hot(volume, 3))
