"""Training images and tissue maps in; the same after the transforms of nnU-Net's trainer, by its own package, out.

`augengine.train.classical` makes the same changes without that package; this is the check that it does them justice.
Order, chances and ranges are those of nnU-Net 2.5's `nnUNetTrainer.get_training_transforms`. The package draws from
numpy's and torch's global generators and writes into its input: here both generators are as before afterwards, and it
is given copies. Legend: B rows, C channels, `*` spatial axes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augengine.errors import ConfigError
from augengine.train.classical import thin
from augengine.train.sections import Batchgeneratorsv2Recipe

LEAST_VERSION = (0, 3, 5)
INSTALL = "pip install 'augengine[batchgeneratorsv2]'"


def require() -> None:
    """Refuse to go on without the package, or with a version that transposes the affine of rotated images.

    Raises:
        ConfigError: says how to install it.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("batchgeneratorsv2")
    except PackageNotFoundError:
        found = "none"
    if found == "none" or tuple(int(part) for part in found.split(".")[:3] if part.isdigit()) < LEAST_VERSION:
        raise ConfigError(
            f"the arm batchgeneratorsv2 needs that package, {'.'.join(map(str, LEAST_VERSION))} or later",
            found=found,
            where="--arms",
            next_step=f"{INSTALL}, or leave the arm out",
        )


def nnunet_transforms(
    x: Tensor, tissue: Tensor, recipe: Batchgeneratorsv2Recipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Images (B, C, *), 2D or 3D, and tissue maps (B, *), each row changed by what follows from `generator` alone.

    nnU-Net's images are z-scored, so each channel is, too, before it is changed, and put back afterwards.
    """
    require()
    chain = _chain(tuple(tissue.shape[1:]), recipe)
    images, maps = torch.empty_like(x), torch.empty_like(tissue)
    axes = tuple(range(1, x.ndim - 1))
    for n, seed in enumerate(torch.randint(2**31, (len(x),), generator=generator).tolist()):
        mean, sd = x[n].mean(axes, keepdim=True), x[n].std(axes, keepdim=True).clamp(min=1e-7)
        with _seeded(seed):
            found = chain(image=((x[n] - mean) / sd).clone().float(), segmentation=tissue[n][None].clone().short())
        images[n], maps[n] = found["image"] * sd + mean, found["segmentation"][0].to(tissue.dtype)
    return images, maps


def _chain(shape: tuple[int, ...], recipe: Batchgeneratorsv2Recipe) -> Any:
    """The transforms of patches of a shape; a thin stack is turned and scaled slice by slice ("dummy 2D").

    The package takes a stack's first axis for the one across slices; here that is the last, so thin stacks are turned
    round before and after.
    """
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    flat = thin(shape)
    ordered = (shape[2], *shape[:2]) if flat else shape
    in_plane = ordered[1:] if flat else ordered
    square = max(in_plane) / min(in_plane) <= 1.5
    widest = math.pi / 6 if len(in_plane) == 3 else math.pi if square else math.pi / 12
    kept = (0,) if flat else None
    steps: list[Any] = [Convert3DTo2DTransform()] if flat else []
    steps.append(
        SpatialTransform(
            in_plane,
            patch_center_dist_from_border=0,
            random_crop=False,
            p_elastic_deform=0,
            p_rotation=0.2,
            rotation=(-widest, widest),
            p_scaling=0.2,
            scaling=(0.7, 1.4),
            p_synchronize_scaling_across_axes=1,
            bg_style_seg_sampling=False,
        )
    )
    steps += [Convert2DTo3DTransform()] if flat else []
    either, gamma = BGContrast((0.75, 1.25)), BGContrast((0.7, 1.5))
    changes: list[tuple[Any, float]] = [
        (GaussianNoiseTransform(noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True), 0.1),
        (
            GaussianBlurTransform(
                blur_sigma=(0.5, 1.0), synchronize_channels=False, synchronize_axes=False, p_per_channel=0.5
            ),
            0.2,
        ),
        (MultiplicativeBrightnessTransform(multiplier_range=either, synchronize_channels=False, p_per_channel=1), 0.15),
        (
            ContrastTransform(contrast_range=either, preserve_range=True, synchronize_channels=False, p_per_channel=1),
            0.15,
        ),
        (
            SimulateLowResolutionTransform(
                scale=(0.5, 1),
                synchronize_channels=False,
                synchronize_axes=True,
                ignore_axes=kept,
                allowed_channels=None,
                p_per_channel=0.5,
            ),
            0.25,
        ),
        (
            GammaTransform(
                gamma=gamma, p_invert_image=1, synchronize_channels=False, p_per_channel=1, p_retain_stats=1
            ),
            0.1,
        ),
        (
            GammaTransform(
                gamma=gamma, p_invert_image=0, synchronize_channels=False, p_per_channel=1, p_retain_stats=1
            ),
            0.3,
        ),
    ]
    steps += [RandomTransform(change, apply_probability=chance) for change, chance in changes]
    if recipe.mirror:
        steps.append(MirrorTransform(allowed_axes=tuple(range(len(shape)))))
    chain = ComposeTransforms(steps)
    if not flat:
        return chain

    def turned(image: Tensor, segmentation: Tensor) -> dict[str, Tensor]:
        found = chain(image=image.permute(0, 3, 1, 2), segmentation=segmentation.permute(0, 3, 1, 2))
        return {name: value.permute(0, 2, 3, 1) for name, value in found.items()}

    return turned


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Inside, the global generators of Python, numpy and torch start from `seed`; afterwards they are as before."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  (the package draws from it)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
