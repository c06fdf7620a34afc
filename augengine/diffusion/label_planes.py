"""Nested label regions as image planes: masks (B, R, *) in, values in [-1, 1] out, and nested masks back.

Regions are listed from the outermost to the innermost; each contains the next. Legend: B rows, R regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def signed_planes(regions: Tensor) -> Tensor:
    """Float32 planes (B, R, *), 1 inside and -1 outside, of boolean `regions` (B, R, *)."""
    return regions.float() * 2 - 1


def regions(values: Tensor, order: Sequence[int] | None = None) -> Tensor:
    """Boolean regions (B, R, *) of planes that a model drew: where the nested value is above 0."""
    return enforce_nesting(values, order) > 0


def enforce_nesting(values: Tensor, order: Sequence[int] | None = None) -> Tensor:
    """Probabilities, planes or masks (B, R, *) with no inner region above an outer one: the running minimum.

    `order` names the planes of one nest from the outermost inwards, by default all of them as they stand; others
    stay as they are. What is nested already does not change.
    """
    nest = list(range(values.shape[1]) if order is None else order)
    nested = values.clone()
    nested[:, nest] = torch.cummin(values[:, nest], dim=1).values
    return nested
