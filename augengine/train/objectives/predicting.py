"""Predicting acquisition parameters: images in; weighted cross-entropies and squared errors out (paper 004, 3.1.1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from augengine.diffusion.conditions import CATEGORICAL, MULTI_LABEL
from augengine.train.data import Batch
from augengine.train.objectives.base import PICTURE_ROWS, Objective, Picture


class Predicting(Objective):
    """One output per feature of the vocabulary; what a row does not state is left out of its loss."""

    def forward(self, batch: Batch, seed: int, step: int) -> dict[str, Tensor]:
        """One term per parameter, by name, and their sum."""
        images, _ = self.tensors(batch, torch.Generator().manual_seed(seed))
        assert self.spec.vocabulary is not None  # the recipe's kind sees to it
        wanted = self.spec.vocabulary.encode(batch.acquisitions).to(self.device)
        widths = self.spec.vocabulary.widths
        found = torch.split(self.network(images.to(self.device)).float(), list(widths.values()), dim=1)
        truth = torch.split(wanted.features, list(widths.values()), dim=1)
        losses = {
            name: _loss(name, found[n], truth[n], wanted.present[:, n])
            for n, (name, width) in enumerate(widths.items())
            if width
        }
        return {**losses, "total": torch.stack(list(losses.values())).sum()}

    @torch.no_grad()
    def pictures(self, batch: Batch, seed: int) -> list[Picture]:
        """The images with what was predicted of their first parameters."""
        batch = batch.part(slice(PICTURE_ROWS))
        assert self.spec.vocabulary is not None
        found = self.spec.vocabulary.decode(self.network(torch.from_numpy(batch.images).to(self.device)).float().cpu())
        return [
            (f"{a.model} predicted {p.model}; TE {a.echo_time_ms} ms predicted {p.echo_time_ms} ms", [image])
            for image, a, p in zip(batch.images, batch.acquisitions, found, strict=True)
        ]


def _loss(name: str, found: Tensor, truth: Tensor, present_B: Tensor) -> Tensor:
    """Mean over the rows that state the parameter; classes weigh by the inverse of their share of the batch."""
    if name in CATEGORICAL:
        index = truth.argmax(1)
        # An absent row's truth is all zero, so that a batch without the parameter has shares of 0, not 0 / 0.
        share = (truth.sum(0) / present_B.sum().clamp(min=1)).clamp(min=1 / (2 * len(truth)))
        each = functional.cross_entropy(found, index, weight=1 / share, reduction="none") / (1 / share).mean()
    elif name == MULTI_LABEL:
        each = functional.binary_cross_entropy_with_logits(found, truth, reduction="none").mean(1)
    else:
        each = (found - truth).square().mean(1)
    return (each * present_B).sum() / present_B.sum().clamp(min=1)
