"""Mask-ablated training: lesion masks in; what is hidden from the network, and where it is told "unknown", out.

Paper 001, 4.6 hides the lesion's label and leaves its pixels in the target, which teaches the network to paint
lesions, or the mean of everything, onto background. With `unknown` the region has a plane of its own, the lesion's
pixels leave the loss, and healthy tissue, hidden likewise in the shape and place of another row's lesion, teaches what
belongs there: lesions lie where lesions grow, and not in all tissues alike.
Legend: B rows, `*` spatial axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from augengine.train.config import MaskRecipe


def ablate(lesion: Tensor, recipe: MaskRecipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bool (B, *) masks: labels to hide, and pixels marked as unknown (none with `paper`)."""
    rows = torch.rand(len(lesion), generator=generator) < recipe.probability
    chosen = rows.view(-1, *[1] * (lesion.ndim - 1))
    if recipe.ablation == "paper":
        return lesion & chosen, torch.zeros_like(lesion)
    unknown = (lesion | holes(lesion, recipe.blob, generator)) & chosen
    return unknown, unknown


def holes(lesion: Tensor, radius: tuple[float, float], generator: torch.Generator) -> Tensor:
    """The lesion of the next row that has one, bool (B, *); a random ellipsoid where that leaves nothing healthy."""
    ill = lesion.flatten(1).any(1)
    rows = ill.nonzero()[:, 0]
    borrowed = lesion[rows[ill.cumsum(0) % len(rows)]] if len(rows) else lesion
    teaches = (borrowed & ~lesion).flatten(1).any(1).view(-1, *[1] * (lesion.ndim - 1))
    return torch.where(teaches, borrowed, blobs(lesion, radius, generator))


def blobs(like: Tensor, radius: tuple[float, float], generator: torch.Generator) -> Tensor:
    """One random ellipsoid per row, bool (B, *); radii are shares of the field of view."""
    dims = like.ndim - 1
    centre = 0.2 + 0.6 * torch.rand(len(like), dims, generator=generator)
    radii = radius[0] + (radius[1] - radius[0]) * torch.rand(len(like), dims, generator=generator)
    distance = torch.zeros(like.shape)
    for axis in range(dims):
        size = like.shape[axis + 1]
        place = (torch.arange(size) + 0.5).view(-1, *[1] * (dims - 1 - axis)) / size
        shape = (-1, *[1] * dims)
        distance = distance + ((place - centre[:, axis].view(shape)) / radii[:, axis].view(shape)) ** 2
    return distance < 1
