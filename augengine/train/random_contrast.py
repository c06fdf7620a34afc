"""Training images and their tissue maps in; the same anatomy in a contrast that no scanner makes, out.

Source: domain randomisation (Billot et al. 2023, SynthSeg), on real images instead of rendered label maps: every
labelled tissue, and the rest, passes through a random curve of its own, so that a segmenter cannot rely on which of
two tissues is the brighter one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from augengine.diffusion.structure import draw_heights, recolour
from augengine.train.sections import RandomContrastRecipe


def random_contrast(
    x: Tensor, tissue: Tensor, tissues: int, recipe: RandomContrastRecipe, generator: torch.Generator
) -> Tensor:
    """Images (B, C, *) with tissue maps (B, *) of L `tissues`; a share of the rows stays as it is."""
    rows = (len(x), *[1] * (x.ndim - 1))
    changed = recolour(x, tissue, draw_heights(len(x), tissues, x.shape[1], generator))
    deviation = recipe.noise_sd * torch.rand(rows, generator=generator)
    changed = changed + deviation * torch.randn(x.shape, generator=generator)
    return torch.where(torch.rand(rows, generator=generator) < recipe.share, changed, x)
