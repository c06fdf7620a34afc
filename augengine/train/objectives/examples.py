"""What one denoising step trains on: a batch in; content to be noised, what the network sees, and pixel weights out.

One function per kind of generator; in training they also warp, hide and ablate.
Legend: B rows, C image channels, L labels, R regions, `*` spatial axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from augengine.diffusion.checkpoint import subject_hash
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.label_planes import signed_planes
from augengine.diffusion.segmentation import probabilities
from augengine.diffusion.structure import draw_heights, recolour, structure_planes
from augengine.diffusion.tissue import NO_MASK, one_hot, region_planes
from augengine.train.data import Batch
from augengine.train.objectives.ablation import ablate
from augengine.train.objectives.base import Objective
from augengine.train.sections import MaskRecipe


@dataclass(frozen=True)
class Example:
    """`content` (B, *) at full resolution, its conditioning, and None or weights (B, 1, *) of its pixels."""

    content: Tensor
    conditioning: Conditioning
    weight: Tensor | None = None


def example(objective: Objective, batch: Batch, generator: torch.Generator) -> Example:
    """The example of the objective's kind of model; all random numbers come from `generator`."""
    return _KINDS[objective.spec.kind](objective, batch, generator)


def _acquisition(objective: Objective, batch: Batch, generator: torch.Generator) -> Example:
    spec, recipe = objective.spec, objective.recipe.structure
    images, tissue = objective.tensors(batch, generator)
    image, shown = _split(objective, images)
    weight = _lesion_weight(objective, tissue)
    assert spec.vocabulary is not None  # the recipe's kind sees to it
    if recipe is not None:
        rows = len(image)
        if objective.training:
            tissue[torch.rand(rows, generator=generator) < recipe.mask_dropout] = NO_MASK
        heights = draw_heights(rows, len(spec.labels), image.shape[1], generator)
        structure = structure_planes(recolour(image, tissue, heights), tissue, len(spec.labels))
        if objective.training:
            structure[torch.rand(rows, generator=generator) < recipe.dropout] = 0
        shown = [structure, *shown]
    conditioning = Conditioning(_cat(shown), acquisition=spec.vocabulary.encode(batch.acquisitions))
    return Example(image, conditioning, weight)


def _counterfactual(objective: Objective, batch: Batch, generator: torch.Generator) -> Example:
    images, tissue = objective.tensors(batch, generator)
    image, shown = _split(objective, images)
    ill = lesion_mask(objective, tissue).flatten(1).any(1)
    return Example(image, Conditioning(_cat(shown), classes=1 + ill.long()), _lesion_weight(objective, tissue))


def _painter(objective: Objective, batch: Batch, generator: torch.Generator) -> Example:
    """Paper 001: M1 without a mask, M2 on the label map, M3 with mask-ablated training."""
    spec, recipe = objective.spec, objective.recipe.mask
    images, tissue = objective.tensors(batch, generator)
    image, shown = _split(objective, images)
    weight = _lesion_weight(objective, tissue)
    if recipe is None:
        return Example(image, Conditioning(_cat(shown)), weight)
    lesion = lesion_mask(objective, tissue)
    # Air has one value, the least, in scans without a skull; where it holds noise nothing is told from it.
    body = (image > image.flatten(2).amin(2).view(*image.shape[:2], *[1] * (image.ndim - 2))).any(1)
    drawn = recipe if objective.training else MaskRecipe()
    found = ablate(tissue, lesion, body, spec.labels, drawn, generator)
    tissue[found.hidden] = 0
    if found.untaught.any():
        kept = (~found.untaught)[:, None].float()
        weight = kept if weight is None else weight * kept
    mask = [one_hot(tissue, len(spec.labels))]
    if spec.mask == "labels_unknown":
        mask.append(found.unknown[:, None].float())
    if spec.surroundings:
        around = found.around[:, None].float()
        shown = [*shown, image * around, around]
    return Example(image, Conditioning(_cat([*mask, *shown])), weight)


def _label_prior(objective: Objective, batch: Batch, generator: torch.Generator) -> Example:
    _, tissue = objective.tensors(batch, generator)
    return Example(signed_planes(regions(objective, tissue)), Conditioning())


def _label_segmenter(objective: Objective, batch: Batch, generator: torch.Generator) -> Example:
    images, tissue = objective.tensors(batch, generator)
    return Example(signed_planes(regions(objective, tissue)), Conditioning(images))


def _error_corrector(objective: Objective, batch: Batch, generator: torch.Generator) -> Example:
    """Paper 003 with the sign that makes its correction M - E right: E is the initial mask M less the truth.

    M comes from the one of several segmenters that did not see the subject: an error that a segmenter makes on its
    own training subjects is not the one that it makes on others.
    """
    images, tissue = objective.tensors(batch, generator)
    truth = regions(objective, tissue).float()
    initial = out_of_fold(objective, images, batch.subjects)
    return Example(initial - truth, Conditioning(torch.cat([images, initial], dim=1)))


@torch.no_grad()
def out_of_fold(objective: Objective, images: Tensor, subjects: list[str]) -> Tensor:
    """Initial masks (B, R, *), probabilities, each by a segmenter that was not trained on the row's subject."""
    parts = objective.spec.parts
    initial = torch.zeros(len(images), len(objective.spec.regions), *images.shape[2:])
    hashes = [subject_hash(s) for s in subjects]
    chosen = [next((role for role, part in parts.items() if h not in part.subject_hashes), None) for h in hashes]
    for role, part in parts.items():
        rows = [n for n, name in enumerate(chosen) if name == role]
        if rows:
            logits = objective.network.parts[role](images[rows].to(objective.device))
            initial[rows] = probabilities(part, logits.float()).cpu()
    return initial


def regions(objective: Objective, tissue: Tensor) -> Tensor:
    """Bool planes (B, R, *) of the model's regions."""
    return region_planes(tissue, objective.spec.regions, objective.spec.labels)


def lesion_mask(objective: Objective, tissue: Tensor) -> Tensor:
    """Bool (B, *): where a lesion is."""
    return region_planes(tissue, {"lesion": objective.spec.lesion}, objective.spec.labels)[:, 0]


def _split(objective: Objective, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    channels = len(objective.spec.channels)
    return images[:, :channels], [images[:, channels:]] if images.shape[1] > channels else []


def _cat(shown: list[Tensor]) -> Tensor | None:
    return torch.cat(shown, dim=1) if shown else None


def _lesion_weight(objective: Objective, tissue: Tensor) -> Tensor | None:
    extra = objective.recipe.loss.lesion_weight
    return 1 + extra * lesion_mask(objective, tissue)[:, None].float() if extra else None


_KINDS: dict[str, Callable[[Objective, Batch, torch.Generator], Example]] = {
    "acquisition": _acquisition,
    "counterfactual": _counterfactual,
    "painter": _painter,
    "label_prior": _label_prior,
    "label_segmenter": _label_segmenter,
    "error_corrector": _error_corrector,
}
