"""Training images and their tissue maps in; the same, moved and recoloured at random as nnU-Net does it, out.

What each change does to an image is what batchgeneratorsv2 0.3.6 does, nnU-Net's transforms, checked one by one in
`tests/integrations/test_with_batchgeneratorsv2.py`; nothing is written into the caller's tensors. Order, chances and
ranges are those of nnU-Net's trainer, each channel drawn for itself. What differs, and why, is in docs/downstream.md.
Legend: B rows, C channels, `*` spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from augengine.train.sections import ClassicalRecipe

# A volume so many times wider than thick is a stack of slices, which are moved and coarsened in their plane alone.
_THIN = 3
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
# batchgeneratorsv2's kernels reach over about 6 standard deviations in all.
_KERNEL_SDS = 6
_EPSILON = 1e-7


def classical(x: Tensor, tissue: Tensor, recipe: ClassicalRecipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (B, C, *), 2D or 3D, and tissue maps (B, *), which only move; beyond the edge, the edge's values.

    Each row's changes follow from one number of `generator`; no global random state is read or set.
    """
    images, maps = torch.empty_like(x), torch.empty_like(tissue)
    for n, seed in enumerate(torch.randint(2**62, (len(x),), generator=generator).tolist()):
        rng = np.random.Generator(np.random.Philox(seed))
        image, maps[n] = _moved_at_random(x[n].float(), tissue[n], recipe, rng)
        images[n] = _recoloured(image, recipe, rng)
    return images, maps


def thin(shape: Sequence[int]) -> bool:
    """True for a volume (I, J, K) of so few slices that nnU-Net augments it slice by slice ("dummy 2D")."""
    return len(shape) == 3 and max(shape) > _THIN * shape[2]


def moved(x: Tensor, tissue: Tensor, angle_rad: float, factors: Sequence[float]) -> tuple[Tensor, Tensor]:
    """An image (C, *) and its map (*), turned in the plane of the first two axes and scaled about the centre.

    Args:
        angle_rad: of the sampling grid, from the first axis to the second.
        factors: per axis, of the sampling grid; larger ones make objects smaller.

    Returns:
        The image by linear interpolation; of each pixel's labels the one with the largest share.
    """
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    turn = torch.eye(x.ndim - 1)
    turn[:2, :2] = torch.tensor([[c, -s], [s, c]])
    half = torch.tensor([side / 2 for side in tissue.shape])
    places = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in tissue.shape], indexing="ij")
    grid = torch.stack(places, -1) @ (turn @ torch.diag(torch.tensor(list(factors)))).T / half
    grid = grid.flip(-1)[None]  # torch counts axes from the last

    def sampled(planes: Tensor) -> Tensor:
        return functional.grid_sample(planes[None], grid, padding_mode="border", align_corners=False)[0]

    codes = torch.unique(tissue)
    shares = sampled(torch.stack([tissue == code for code in codes]).to(x))
    return sampled(x), codes[shares.argmax(0)]


def blurred(channel: Tensor, sds_px: Sequence[float]) -> Tensor:
    """A channel (*) blurred along each axis; beyond the edge its mirror image, whatever the number of slices."""
    found = channel.numpy()
    for axis, sd in enumerate(sds_px):
        found = ndimage.correlate1d(found, _kernel(sd), axis, mode="mirror")
    return torch.from_numpy(found)


def stretched(channel: Tensor, factor: float) -> Tensor:
    """A channel (*) with its values' distance from their mean times `factor`, cut to its own range."""
    mean = channel.mean()
    return ((channel - mean) * factor + mean).clamp(channel.min(), channel.max())


def coarse(channel: Tensor, share: float) -> Tensor:
    """A channel (*) with a share of its pixels along each axis (of a thin stack, in its plane), and back."""
    shape = list(channel.shape)
    sides = [max(1, round(n * share)) for n in shape]
    if thin(shape):
        sides[2] = shape[2]
    small = functional.interpolate(channel[None, None], sides, mode="nearest-exact")
    return functional.interpolate(small, shape, mode=_LINEAR[channel.ndim])[0, 0]


def bent(channel: Tensor, gamma: float, *, negative: bool) -> Tensor:
    """A channel (*), or its negative, with the power `gamma` of its range; mean and standard deviation stay."""
    x = -channel if negative else channel
    low, span = x.min(), x.max() - x.min()
    found = ((x - low) / span.clamp(min=_EPSILON)) ** gamma * span + low
    found = (found - found.mean()) * (x.std() / found.std().clamp(min=_EPSILON)) + x.mean()
    return -found if negative else found


def _moved_at_random(
    x: Tensor, tissue: Tensor, recipe: ClassicalRecipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    turns, scales = rng.random(2) < 0.2
    if not (turns or scales):
        return x, tissue
    angle = math.radians(rng.uniform(-recipe.rotation_deg, recipe.rotation_deg)) if turns else 0.0
    factor = rng.uniform(1 / recipe.scale[1], 1 / recipe.scale[0]) if scales else 1.0
    in_plane = thin(tissue.shape)
    return moved(x, tissue, angle, [1.0 if in_plane and axis == 2 else factor for axis in range(tissue.ndim)])


def _recoloured(x: Tensor, recipe: ClassicalRecipe, rng: np.random.Generator) -> Tensor:
    """An image (C, *) after the changes of colour that come to it, in nnU-Net's order."""
    about_one = (1 - recipe.brightness, 1 + recipe.brightness)
    if rng.random() < 0.1:
        noise = rng.standard_normal(x.shape, np.float32)
        x = x + rng.uniform(0, recipe.noise_sd) * torch.from_numpy(noise)
    steps: list[tuple[float, float, Callable[[Tensor], Tensor]]] = [
        (0.2, 0.5, lambda c: blurred(c, rng.uniform(*recipe.blur_px, size=c.ndim).tolist())),
        (0.15, 1, lambda c: c * _either_side(*about_one, rng)),
        (0.15, 1, lambda c: stretched(c, _either_side(1 - recipe.contrast, 1 + recipe.contrast, rng))),
        (0.25, 0.5, lambda c: coarse(c, rng.uniform(*recipe.low_resolution))),
        (0.1, 1, lambda c: bent(c, _either_side(*recipe.gamma, rng), negative=True)),
        (0.3, 1, lambda c: bent(c, _either_side(*recipe.gamma, rng), negative=False)),
    ]
    for of_row, of_channel, change in steps:
        if rng.random() < of_row:
            x = torch.stack([change(c) if rng.random() < of_channel else c for c in x])
    return x


def _either_side(low: float, high: float, rng: np.random.Generator) -> float:
    """Below 1 as often as above, evenly on either side (batchgeneratorsv2's `BGContrast`)."""
    return float(rng.uniform(low, 1) if rng.random() < 0.5 and low < 1 else rng.uniform(max(low, 1), high))


def _kernel(sd: float) -> np.ndarray:
    """A Gaussian at whole pixels, its odd length about `_KERNEL_SDS` standard deviations."""
    length = round(_KERNEL_SDS * sd + 0.5)
    if length % 2 == 0:
        length += 1 if _KERNEL_SDS * sd + 0.5 >= length else -1
    places = np.arange(length) - length // 2
    weights = np.exp(-0.5 * (places / sd) ** 2)
    return np.asarray(weights / weights.sum())
