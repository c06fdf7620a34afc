"""Autoencoding: images or label planes in; reconstruction, divergence and adversarial losses out (paper 002, 2.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from augengine.diffusion.autoencoding_loss import AutoencodingLoss
from augengine.diffusion.discriminative import Segmenter
from augengine.diffusion.label_planes import signed_planes
from augengine.diffusion.samplers import row_generators
from augengine.diffusion.spec import ModelSpec
from augengine.rng import derive
from augengine.train.config import Recipe
from augengine.train.data import Batch
from augengine.train.objectives.base import PICTURE_ROWS, Objective, Picture
from augengine.train.objectives.examples import regions


class Autoencoding(Objective):
    """An autoencoder and, where its loss asks for one, a discriminator, which stays out of the checkpoint."""

    def __init__(
        self, recipe: Recipe, spec: ModelSpec, network: nn.Module, parts: Mapping[str, nn.Module] | None = None
    ) -> None:
        super().__init__(recipe, spec, network)
        assert recipe.autoencoding is not None  # `Recipe` sees to it
        features = (parts or {}).get("features")
        extractor = None
        if isinstance(features, Segmenter):
            self.segmenter = features.requires_grad_(False)  # a submodule, so that it moves to the network's device
            extractor = features.features
        self.loss = AutoencodingLoss(recipe.autoencoding, spec.content_channels, spec.spatial_dims, extractor)

    def forward(self, batch: Batch, seed: int, step: int) -> dict[str, Tensor]:
        """The terms of `AutoencodingLoss`; in evaluation mode latents are means."""
        x = self._content(batch, torch.Generator().manual_seed(seed))
        generators = row_generators([derive(seed, row) for row in range(len(x))]) if self.training else None
        reconstruction, mean, log_variance = self.network(x, generators)
        losses: dict[str, Tensor] = self.loss(x, reconstruction, mean, log_variance, step)
        return losses if self.training else {**losses, "total": losses["reconstruction"]}

    @torch.no_grad()
    def pictures(self, batch: Batch, seed: int) -> list[Picture]:
        """Of each row: content and reconstruction."""
        x = self._content(batch.part(slice(PICTURE_ROWS)), torch.Generator().manual_seed(seed))
        shown = [images.float().cpu().numpy() for images in (x, self.network(x)[0])]
        return [(f"row {n}: content | reconstruction", [images[n] for images in shown]) for n in range(len(x))]

    def finish(self, batches: Iterable[Batch]) -> None:
        """Measure the latents' spread, which diffusion needs."""
        self.network.measure_scale(self._content(batch, torch.Generator()) for batch in batches)

    def _content(self, batch: Batch, generator: torch.Generator) -> Tensor:
        images, tissue = self.tensors(batch, generator)
        content = images if self.spec.content == "image" else signed_planes(regions(self, tissue))
        return content.to(self.device)
