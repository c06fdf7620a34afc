"""The interface of every segmenter: shards in, a fitted folder out; images in, probabilities of named regions out.

No ground truth can reach `predict`: it is given images and how they were acquired alone, and what it draws at random
follows from their bytes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from augengine.diffusion.spec import Kind
from augengine.errors import CheckpointError, DataError
from augengine.intensity import normalise
from augengine.records import Acquisition, IntensityRule, Sample
from augengine.rng import derive
from augengine.train.config import Recipe


@dataclass(frozen=True)
class Training:
    """How a segmenter is trained, whichever it is.

    Attributes:
        augmented_per_real: augmented rows (those that carry provenance) for every real one; which ones follows from
            the seed, and those of a smaller ratio are among those of a larger. None takes every row.
        classical: random rotation, scaling, noise, blur, brightness, contrast, low resolution and gamma
            (`augengine.train.classical`).
        random_contrast: tissues of random brightness (`augengine.train.random_contrast`).
        batchgeneratorsv2: nnU-Net's own transforms (`augengine.train.nnunet_transforms`).
        num_workers: as for `augengine.train.run.train`.
        use_gpu: the same.
        threads_per_worker: the same.
        progress: receives one plain line at a time.
    """

    augmented_per_real: float | None = None
    classical: bool = False
    random_contrast: bool = False
    batchgeneratorsv2: bool = False
    num_workers: int = 1
    use_gpu: bool | None = None
    threads_per_worker: int | None = None
    progress: Callable[[str], None] = print

    @property
    def natural(self) -> Training:
        """The same on images as they are, for networks that would learn to draw what was done to them."""
        return replace(self, classical=False, random_contrast=False, batchgeneratorsv2=False)


PLAIN = Training()


class Segmenter(ABC):
    """Something that is fitted to shards and then segments images.

    Attributes:
        name: as in `SEGMENTERS`.
        roles: the recipes that `fit` takes: role to kind.
        made_parts: beginnings of the names of the recipes' parts that `fit` trains itself.
        loaded: roles whose checkpoints `load` takes; what else was trained is a part of them.
        channels: of the images, in order.
        regions: what is segmented, by name: the labels whose union each region is. The second axis of what `predict`
            returns follows their order.
        rule: how the intensity ranges of the rows must have been measured; None takes any.
    """

    name: ClassVar[str]
    roles: ClassVar[Mapping[str, Kind]] = MappingProxyType({})
    made_parts: ClassVar[tuple[str, ...]] = ()
    loaded: ClassVar[tuple[str, ...]] = ()
    channels: tuple[str, ...]
    regions: Mapping[str, tuple[str, ...]]
    rule: IntensityRule | None = None

    @classmethod
    @abstractmethod
    def fit(
        cls,
        shards: Sequence[str],
        steps: int,
        seed: int,
        out: str,
        *,
        recipes: Mapping[str, Recipe],
        training: Training = PLAIN,
    ) -> str:
        """Train on the split `train` of several folders of shards taken together.

        Args:
            shards: folders, real and augmented; each row says itself which it is.
            steps: optimiser steps of every network, instead of those of its recipe.
            seed: of weights, batches and all that is random in training.
            out: folder of the fitted segmenter. The same call again goes on where it stopped.
            recipes: one for each of `roles`.
            training: the rest.

        Returns:
            `out`, which `load` takes.
        """

    @classmethod
    def regions_of(cls, recipes: Mapping[str, Recipe]) -> dict[str, tuple[str, ...]]:
        """The `regions` of what `fit` makes of these recipes, in order; empty where only the fitted segmenter knows."""
        return {}

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """How it predicts where nothing else is asked for, as plain JSON: decides its answers beside its weights."""
        return {}

    @classmethod
    @abstractmethod
    def load(cls, folder: str, *, device: str = "cpu") -> Self:
        """What `fit` left in a folder; `CheckpointError` where there is none."""

    def normalised(self, rows: Sequence[Sample]) -> np.ndarray:
        """Rows of one shape as `predict` takes them; a `CheckpointError` where they are on another scale."""
        for row in rows:
            if self.rule not in (None, row.intensity_rule):
                raise CheckpointError(
                    f"this segmenter was trained on {self.rule}",
                    found=str(row.intensity_rule),
                    where=row.sample_id,
                    next_step="ingest the rows alike, or fit another segmenter",
                )
        return np.stack([normalise(row) for row in rows])

    def predict(
        self,
        images: np.ndarray,
        seeds: Sequence[int] | None = None,
        acquisitions: Sequence[Acquisition] | None = None,
    ) -> np.ndarray:
        """Probability of each region in each pixel; in a region where it is above 0.5.

        A row's result does not depend on the rows beside it, up to the rounding of batched arithmetic.

        Args:
            images: float32 (B, C, *), normalised (`augengine.intensity.normalise`).
            seeds: one per row, for segmenters that sample; by default they follow from the row's bytes.
            acquisitions: how each row was acquired, for networks that were trained to be told; others do not read it.

        Returns:
            float32 (B, R, *), from 0 to 1, in the order of `regions`.

        Raises:
            DataError: another number of channels, images that are not finite, or as many seeds as rows are missing.
        """
        x, row_seeds = self.checked(images, seeds)
        with torch.no_grad():
            return self._predict(x, row_seeds).float().cpu().numpy()

    @abstractmethod
    def _predict(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """Probabilities (B, R, *) of checked images (B, C, *)."""

    def checked(self, images: np.ndarray, seeds: Sequence[int] | None) -> tuple[Tensor, list[int]]:
        """Images as a tensor and a seed for each of them, or what `predict` raises."""
        images = np.ascontiguousarray(images, np.float32)
        if images.ndim not in (4, 5) or images.shape[1] != len(self.channels):
            raise DataError(f"images are (B, C, *) with the channels {', '.join(self.channels)}", found=images.shape)
        if not np.isfinite(images).all():
            raise DataError("images are finite", next_step="check how they were normalised")
        if seeds is not None and len(seeds) != len(images):
            raise DataError("there is one seed per image", found=f"{len(seeds)} for {len(images)}")
        return torch.from_numpy(images), row_seeds(images) if seeds is None else list(seeds)


def row_seeds(images: np.ndarray) -> list[int]:
    """A seed for each image that follows from its bytes, and neither from its place nor from its neighbours."""
    return [derive("segment", hashlib.blake2b(image.tobytes()).hexdigest()) for image in images]
