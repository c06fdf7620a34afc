"""Label maps by name to tensors: an index map of a model's labels, one plane per label, one plane per region.

A region is a union of labels (the whole tumour is necrosis, oedema and enhancing); regions may overlap.
Legend: B rows, L labels, R regions, `*` spatial axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

NO_MASK = -1


def tissue_index(
    label: np.ndarray | None, codes: Mapping[str, int], names: Sequence[str], like: np.ndarray
) -> np.ndarray:
    """int8 map (*) of one row: 0 for the rest, n for `names[n - 1]`, -1 everywhere without a mask or names.

    Args:
        label: uint8 (*) in the row's own `codes`, or None.
        names: labels in the order of the checkpoint's `labels`; other codes count as the rest.
        like: image (C, *) of the row.
    """
    if label is None or not names:
        return np.full(like.shape[1:], NO_MASK, np.int8)
    index = np.zeros(like.shape[1:], np.int8)
    for n, name in enumerate(names, 1):
        if name in codes:
            index[label == codes[name]] = n
    return index


def one_hot(tissue: Tensor, labels: int) -> Tensor:
    """Float planes (B, L, *) of an index map (B, *); all zero where the index is 0 or -1."""
    return functional.one_hot(tissue.clamp(min=0).long(), labels + 1).movedim(-1, 1)[:, 1:].float()


def region_planes(tissue: Tensor, regions: Mapping[str, Sequence[str]], labels: Sequence[str]) -> Tensor:
    """Bool planes (B, R, *), in the order of `regions`, of an index map (B, *) over `labels`.

    >>> tissue = torch.tensor([[0, 1, 2]])
    >>> region_planes(tissue, {"whole": ("core", "rim"), "core": ("core",)}, ("core", "rim"))[0].int().tolist()
    [[0, 1, 1], [0, 1, 0]]
    """
    member = torch.zeros(len(regions), len(labels) + 1, dtype=torch.bool, device=tissue.device)
    for r, names in enumerate(regions.values()):
        member[r, [labels.index(name) + 1 for name in names]] = True
    return member[:, tissue.clamp(min=0).long()].movedim(0, 1)
