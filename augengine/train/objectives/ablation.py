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

from augengine.train.sections import MaskRecipe


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
    tissue: Tensor,
    lesion: Tensor,
    body: Tensor,
    labels: Sequence[str],
    recipe: MaskRecipe,
    generator: torch.Generator,
) -> Ablation:
    """What is hidden and shown.

    Args:
        tissue: index maps (B, *) over `labels`.
        lesion, body: bool (B, *), where a lesion is, and where the scan shows anything at all.
    """
    nowhere = torch.zeros_like(lesion)
    if recipe.ablation == "none":
        return Ablation(nowhere, nowhere, nowhere, nowhere)
    chosen = _rows(lesion, recipe.probability, generator)
    if recipe.ablation == "paper":
        return Ablation(lesion & chosen, nowhere, nowhere, nowhere)
    region, coloured = lesion | holes(tissue, lesion, body, labels, recipe, generator), lesion
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
    tissue: Tensor,
    lesion: Tensor,
    body: Tensor,
    labels: Sequence[str],
    recipe: MaskRecipe,
    generator: torch.Generator,
) -> Tensor:
    """The lesion of the next row that has one, on tissue that could bear it, bool (B, *).

    A part of a lesion keeps to the tissues that it grows in (`recipe.hosts`), and else to the body. Where less than
    half of the lesion finds such tissue in its own place, it is moved onto some. A random ellipsoid serves where that
    leaves nothing healthy. Legend: P parts of lesions, the background first.
    """
    rows = lesion.flatten(1).any(1).nonzero()[:, 0]
    if not len(rows):
        return blobs(lesion, recipe.blob, generator) & body
    follows = torch.searchsorted(rows, torch.arange(len(lesion)), right=True)
    lender = rows[follows % len(rows)]
    lent = torch.where(lesion[lender], tissue[lender], 0).long()
    bears = _bearing(tissue, lesion, body, labels, recipe)
    found = torch.gather(bears, 1, lent[:, None])[:, 0]
    own, all_ = found.flatten(1).sum(1), (lent > 0).flatten(1).sum(1)
    for row in (2 * own < all_).nonzero()[:, 0].tolist():
        moved = _moved(lent[row], bears[row], generator)
        found[row] = torch.gather(bears[row], 0, moved[None])[0]
    teaches = found.flatten(1).any(1).view(-1, *[1] * (lesion.ndim - 1))
    return torch.where(teaches, found, blobs(lesion, recipe.blob, generator) & body)


def _bearing(tissue: Tensor, lesion: Tensor, body: Tensor, labels: Sequence[str], recipe: MaskRecipe) -> Tensor:
    """Healthy tissue that each part of a lesion could lie in, bool (B, P, *); nothing for the background."""
    healthy = body & ~lesion
    planes = [torch.zeros_like(lesion)]
    for name in labels:
        hosts = torch.tensor([labels.index(host) + 1 for host in recipe.hosts.get(name, ())])
        planes.append(healthy & torch.isin(tissue, hosts) if name in recipe.hosts else healthy)
    return torch.stack(planes, dim=1)


def _moved(lent: Tensor, bears: Tensor, generator: torch.Generator) -> Tensor:
    """An index map (*) of a lesion, its centre moved to a random place that could bear its largest part (P, *)."""
    largest = int(torch.bincount(lent.flatten())[1:].argmax()) + 1
    places = bears[largest].nonzero()
    if not len(places):
        return torch.zeros_like(lent)
    goal = places[torch.randint(len(places), (1,), generator=generator)[0]]
    there = lent.nonzero()
    at = there + goal - there.float().mean(0).round().long()
    inside = ((at >= 0) & (at < torch.tensor(lent.shape))).all(1)
    moved = torch.zeros_like(lent)
    moved[tuple(at[inside].T)] = lent[tuple(there[inside].T)]
    return moved


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
