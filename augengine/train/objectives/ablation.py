"""Mask-ablated training: lesion masks in; what is hidden from the network, and where it is told "unknown", out.

Paper 001, 4.6 hides the lesion's label and leaves its pixels in the target, which teaches the network to paint
lesions, or the mean of everything, onto background. With `unknown` the region has a plane of its own, the lesion's
pixels leave the loss, and healthy tissue, hidden likewise in the shape and place of another row's lesion, teaches what
belongs there: lesions lie where lesions grow, and not in all tissues alike.
Legend: B rows, `*` spatial axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from augengine.train.config import MaskRecipe


@dataclass(frozen=True)
class Ablation:
    """Bool (B, *) masks.

    Attributes:
        hidden: whose labels are hidden.
        unknown: what is marked as unknown; nothing with `paper`.
        untaught: unknown pixels that a lesion or its soft border has coloured; they say nothing of healthy tissue.
        around: where the image itself is shown without noise; nothing unless the recipe says so.
    """

    hidden: Tensor
    unknown: Tensor
    untaught: Tensor
    around: Tensor


def ablate(
    tissue: Tensor, lesion: Tensor, labels: Sequence[str], recipe: MaskRecipe, generator: torch.Generator
) -> Ablation:
    """What is hidden and shown of index maps (B, *) over `labels`, whose lesions are `lesion`, bool (B, *)."""
    nowhere = torch.zeros_like(lesion)
    if recipe.ablation == "none":
        return Ablation(nowhere, nowhere, nowhere, nowhere)
    chosen = _rows(lesion, recipe.probability, generator)
    if recipe.ablation == "paper":
        return Ablation(lesion & chosen, nowhere, nowhere, nowhere)
    region, coloured = lesion | holes(tissue, lesion, labels, recipe, generator), lesion
    for _ in range(recipe.margin):
        region = torch.where(_rows(lesion, 0.5, generator), _grown(region), region)
        coloured = _grown(coloured)
    around = _around(tissue, region, chosen, generator) if recipe.surroundings else nowhere
    unknown = region & chosen
    return Ablation(unknown, unknown, unknown & coloured, around)


def _around(tissue: Tensor, region: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Where the image is shown: around the region in `chosen` rows and half of the others, bool (B, *).

    A quarter of the others shows what the label map does not name, the air around a brain that is painted whole, and
    the last quarter nothing, for what is drawn from labels alone.
    """
    drawn = torch.rand(chosen.shape, generator=generator)
    return torch.where(chosen | (drawn < 0.5), ~region, (drawn < 0.75) & (tissue == 0))


def holes(
    tissue: Tensor, lesion: Tensor, labels: Sequence[str], recipe: MaskRecipe, generator: torch.Generator
) -> Tensor:
    """The lesion of the next row that has one, bool (B, *); a random ellipsoid where that leaves nothing healthy.

    Parts of a lesion that grow in some tissues only (`recipe.hosts`) are borrowed where the row has these.
    """
    ill = lesion.flatten(1).any(1)
    rows = ill.nonzero()[:, 0]
    lender = rows[ill.cumsum(0) % len(rows)] if len(rows) else torch.arange(len(lesion))
    borrowed = lesion[lender]
    for part, hosts in recipe.hosts.items():
        codes = torch.tensor([labels.index(name) + 1 for name in hosts])
        borrowed &= (tissue[lender] != labels.index(part) + 1) | torch.isin(tissue, codes)
    teaches = (borrowed & ~lesion).flatten(1).any(1).view(-1, *[1] * (lesion.ndim - 1))
    return torch.where(teaches, borrowed, blobs(lesion, recipe.blob, generator))


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


def _rows(like: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Rows drawn, bool (B, 1, ...)."""
    rows = torch.rand(len(like), generator=generator) < probability
    return rows.view(-1, *[1] * (like.ndim - 1))


def _grown(region: Tensor) -> Tensor:
    """`region` (B, *) and the pixels that touch it."""
    pool = functional.max_pool2d if region.ndim == 3 else functional.max_pool3d
    return pool(region[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
