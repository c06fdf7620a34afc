"""Training images and their tissue maps in; the same, moved and recoloured at random as nnU-Net does it, out.

MONAI's transforms, each row with a random state of its own. Legend: B rows, C channels, `*` spatial axes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandSimulateLowResolutiond,
)
from torch import Tensor

from augengine.train.config import ClassicalRecipe

IMAGE, TISSUE = "image", "tissue"


def classical(
    x: Tensor, tissue: Tensor, recipe: ClassicalRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Images (B, C, *), 2D or 3D, and tissue maps (B, *), which only move; beyond the edge, the edge's values.

    Each row's changes follow from one number of `generator`; no global random state is read or set.
    """
    change = _transforms(recipe, x.ndim - 2)
    images, maps = torch.empty_like(x), torch.empty_like(tissue)
    for n, seed in enumerate(torch.randint(2**62, (len(x),), generator=generator).tolist()):
        state = np.random.RandomState(np.random.Philox(seed))
        for step in change.transforms:  # all draw from one state: to seed one each takes longer than what they do
            step.set_random_state(state=state)
        row = change({IMAGE: x[n], TISSUE: tissue[n : n + 1].float()})
        images[n], maps[n] = row[IMAGE], row[TISSUE][0].round()
    return images, maps


@lru_cache(maxsize=8)
def _transforms(recipe: ClassicalRecipe, dims: int) -> Compose:
    """In nnU-Net's order and with its probabilities (batchgenerators' transforms, as MONAI has them)."""
    angle = math.radians(recipe.rotation_deg)
    smooth = "bilinear" if dims == 2 else "trilinear"
    return Compose(
        [
            RandAffined(
                (IMAGE, TISSUE), prob=0.36,  # a rotation or a scaling, of probability 0.2 each
                rotate_range=(angle,) if dims == 2 else (0.0, 0.0, angle),
                scale_range=[(1 / recipe.scale[1] - 1, 1 / recipe.scale[0] - 1)] * dims,  # MONAI's factor shrinks
                mode=("bilinear", "nearest"), padding_mode="border",
            ),
            RandGaussianNoised(IMAGE, prob=0.1, std=recipe.noise_sd),
            RandGaussianSmoothd(
                IMAGE, prob=0.2, sigma_x=recipe.blur_px, sigma_y=recipe.blur_px, sigma_z=recipe.blur_px
            ),
            RandScaleIntensityd(IMAGE, factors=recipe.brightness, prob=0.15),
            RandScaleIntensityFixedMeand(IMAGE, factors=recipe.contrast, prob=0.15, preserve_range=True),
            RandSimulateLowResolutiond(IMAGE, prob=0.25, zoom_range=recipe.low_resolution, upsample_mode=smooth),
            RandAdjustContrastd(IMAGE, prob=0.1, gamma=recipe.gamma, invert_image=True, retain_stats=True),
            RandAdjustContrastd(IMAGE, prob=0.3, gamma=recipe.gamma, retain_stats=True),
        ]
    )  # fmt: skip
