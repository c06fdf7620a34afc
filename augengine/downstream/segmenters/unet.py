"""Shards in, a residual U-Net out; images in, its probabilities out (Kerfoot et al. 2019; papers 003 and 004).

Regions that exclude each other share a softmax with the background; nested ones have a sigmoid each. The recipe says
which, and whether images are slices or volumes follows from the shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor

from augengine.diffusion.checkpoint import Model, load_model
from augengine.diffusion.segmentation import probabilities
from augengine.diffusion.spec import Kind
from augengine.downstream.segmenters.base import PLAIN, Segmenter, Training
from augengine.downstream.segmenters.fitting import adapted, checkpoint, fit_network, mark, need_roles
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
        cls, shards: Sequence[str], steps: int, seed: int, out: str, *, recipes: Mapping[str, Recipe],
        training: Training = PLAIN,
    ) -> str:  # fmt: skip
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

    def _predict(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return probabilities(self.model.spec, self.model.network(x.to(self.model.device)).float())
