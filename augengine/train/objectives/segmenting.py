"""Segmenting: images in, Dice and cross-entropy of the regions out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from augengine.diffusion.autoencoding_loss import soft_dice_loss
from augengine.diffusion.conditions import Condition
from augengine.diffusion.discriminative import SegmenterSpec
from augengine.diffusion.segmentation import probabilities
from augengine.train.data import Batch
from augengine.train.objectives.base import PICTURE_ROWS, Objective, Picture
from augengine.train.objectives.examples import regions


class Segmenting(Objective):
    """A segmenter of regions that exclude each other (softmax with the background) or not (sigmoids)."""

    def forward(self, batch: Batch, seed: int, step: int) -> dict[str, Tensor]:
        """`dice` (1 - soft Dice over the batch, mean of regions), `cross_entropy` and their sum."""
        generator = torch.Generator().manual_seed(seed)
        images, tissue = self.tensors(batch, generator)
        truth = regions(self, tissue).to(self.device)
        logits = self.network(images.to(self.device), *self._told(batch, generator)).float()
        if self.spec.exclusive:
            background = ~truth.any(1, keepdim=True)
            entropy = functional.cross_entropy(logits, torch.cat([background, truth], dim=1).float())
        else:
            entropy = functional.binary_cross_entropy_with_logits(logits, truth.float())
        dice = soft_dice_loss(probabilities(self.spec, logits), truth.float())
        return {"dice": dice, "cross_entropy": entropy, "total": dice + entropy}

    def _told(self, batch: Batch, generator: torch.Generator) -> tuple[Condition, ...]:
        """How the rows were acquired, where the network reads it; in training hidden in some rows."""
        film = self.spec.network.acquisition if isinstance(self.spec.network, SegmenterSpec) else None
        if film is None:
            return ()
        assert self.spec.vocabulary is not None  # `model_spec` sees to it
        known = self.spec.vocabulary.encode(batch.acquisitions)
        if self.training:
            known = known.drop(torch.rand(len(batch), generator=generator) < film.dropout)
        return (known.to(self.device),)

    @torch.no_grad()
    def pictures(self, batch: Batch, seed: int) -> list[Picture]:
        """Of each row: the image, the truth and the prediction, regions in colours."""
        images, tissue = self.tensors(batch.part(slice(PICTURE_ROWS)), torch.Generator().manual_seed(seed))
        truth = regions(self, tissue)
        told = self._told(batch.part(slice(PICTURE_ROWS)), torch.Generator())
        found = probabilities(self.spec, self.network(images.to(self.device), *told).float()).cpu() > 0.5
        numbers = torch.arange(1, truth.shape[1] + 1).view(-1, *[1] * (tissue.ndim - 1))
        maps = [(planes * numbers).amax(1, keepdim=True) for planes in (truth, found)]
        columns = [images[:, :1], *maps]
        return [(f"row {n}: image | truth | found", [c[n].numpy() for c in columns]) for n in range(len(images))]
