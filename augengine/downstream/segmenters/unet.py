"""Shards in, a residual U-Net out; images in, its probabilities out (Kerfoot et al. 2019; papers 003 and 004).

Regions that exclude each other share a softmax with the background; nested ones have a sigmoid each. The recipe says
which, and whether images are slices or volumes follows from the shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from augengine.diffusion.checkpoint import Model, load_model
from augengine.diffusion.conditions import Condition
from augengine.diffusion.segmentation import probabilities
from augengine.diffusion.spec import Kind
from augengine.downstream.segmenters.base import PLAIN, Segmenter, Training
from augengine.downstream.segmenters.fitting import adapted, checkpoint, fit_network, mark, need_roles
from augengine.errors import DataError
from augengine.records import Acquisition
from augengine.train.config import Recipe


class UNet(Segmenter):
    """One network; `unet` is a recipe of kind segmenter."""

    name: ClassVar[str] = "unet"
    roles: ClassVar[Mapping[str, Kind]] = {"unet": "segmenter"}
    loaded = ("unet",)

    def __init__(self, model: Model) -> None:
        self.model = model
        self.channels, self.regions = model.spec.channels, model.spec.regions
        self.rule = model.spec.intensity.rule

    @classmethod
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
        """Train the network."""
        need_roles(cls, recipes)
        fit_network("unet", adapted(recipes["unet"], steps, seed, training), shards, out, training)
        return mark(cls, out)

    @classmethod
    def regions_of(cls, recipes: Mapping[str, Recipe]) -> dict[str, tuple[str, ...]]:
        """Those of the recipe."""
        return dict(recipes["unet"].data.regions)

    @classmethod
    def load(cls, folder: str, *, device: str = "cpu") -> Self:
        """The fitted network."""
        return cls(load_model(checkpoint(cls, folder, "unet"), device))

    def predict(
        self,
        images: np.ndarray,
        seeds: Sequence[int] | None = None,
        acquisitions: Sequence[Acquisition] | None = None,
    ) -> np.ndarray:
        """As of every segmenter; a network with `acquisition` in its recipe reads how the rows were acquired."""
        vocabulary = self.model.spec.vocabulary
        if vocabulary is None or acquisitions is None:
            return super().predict(images, seeds)
        x, _ = self.checked(images, seeds)
        if len(acquisitions) != len(x):
            raise DataError("there is one acquisition per image", found=f"{len(acquisitions)} for {len(x)}")
        with torch.no_grad():
            return self._probabilities(x, vocabulary.encode(acquisitions)).cpu().numpy()

    def _predict(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return self._probabilities(x)

    def _probabilities(self, x: Tensor, acquired: Condition | None = None) -> Tensor:
        device = self.model.device
        told = () if acquired is None else (acquired.to(device),)
        return probabilities(self.model.spec, self.model.network(x.to(device), *told).float())
