"""Training images and their tissue maps in; the same, moved at random together, out."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from augengine.train.sections import WarpRecipe


def warp(x: Tensor, tissue: Tensor, recipe: WarpRecipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W), linear, and tissue maps (B, H, W), nearest; beyond the edge, the edge's values.

    3D batches (B, C, *) come back as they are, but for the reflections.
    """
    b, first = len(x), recipe.flip and 0 in recipe.flip_axes
    for axis in recipe.flip_axes if recipe.flip else ():
        if 0 < axis < x.ndim - 2:
            turned = torch.rand(b, generator=generator).to(x.device) < 0.5
            x = torch.where(turned.view(-1, *[1] * (x.ndim - 1)), x.flip(axis + 2), x)
            tissue = torch.where(turned.view(-1, *[1] * (x.ndim - 2)), tissue.flip(axis + 1), tissue)
    sign = torch.where(torch.rand(b, generator=generator) < 0.5, -1.0, 1.0) if first else torch.ones(b)
    if x.ndim != 4:
        turned = (sign < 0).view(-1, *[1] * (x.ndim - 1))
        return torch.where(turned, x.flip(2), x), torch.where(turned[:, 0], tissue.flip(1), tissue)
    spread = [torch.rand(b, generator=generator) * 2 - 1 for _ in range(5)]
    angle = spread[0] * math.radians(recipe.rotation_deg)
    scale_i, scale_j = (1 + s * recipe.scale for s in spread[1:3])
    shift_i, shift_j = (s * 2 * recipe.shift for s in spread[3:5])
    cos, sin = angle.cos(), angle.sin()
    # `affine_grid` orders coordinates (j, i): the last axis first.
    rows = [
        torch.stack([cos * scale_j, -sin * scale_i * sign, shift_j], 1),
        torch.stack([sin * scale_j, cos * scale_i * sign, shift_i], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    moved = functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    index = functional.grid_sample(
        tissue[:, None].to(x), grid, mode="nearest", padding_mode="border", align_corners=False
    )
    return moved, index[:, 0].to(tissue)
