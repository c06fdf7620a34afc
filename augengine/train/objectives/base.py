"""What training minimises: a batch in; named losses with their `total`, and pictures of what was learnt, out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from augengine.diffusion.spec import ModelSpec
from augengine.train.config import Recipe
from augengine.train.data import Batch, BatchReader
from augengine.train.random_contrast import random_contrast
from augengine.train.warp import warp

Picture = tuple[str, list[np.ndarray]]
PICTURE_ROWS = 4


class Share(Protocol):
    """What one step trains on: rows, or whatever the objective counts."""

    def __len__(self) -> int: ...

    def part(self, rows: slice) -> Any:
        """Some of it."""


class Stream(Protocol):
    """Where the steps' batches come from."""

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Share:
        """What worker `rank` of `world` trains on in a step; called from another thread."""


class Objective(nn.Module):
    """One kind of training. `network` is what a checkpoint holds; other submodules only train along.

    The whole objective is one module, so that one backward pass over `total`, one optimiser and one gradient
    exchange between workers serve every kind.
    """

    network: Any  # an `nn.Module` of the kind's own type

    def __init__(
        self, recipe: Recipe, spec: ModelSpec, network: nn.Module, parts: Mapping[str, nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.recipe, self.spec, self.network = recipe, spec, network

    def forward(self, batch: Any, seed: int, step: int) -> dict[str, Tensor]:
        """Scalars by name, `total` among them; all random numbers come from `seed`.

        In evaluation mode nothing is dropped, ablated or warped: the loss of the validation rows.
        """
        raise NotImplementedError

    def begin(self, reader: BatchReader) -> Stream:
        """Before the first step, and before a resumed one: look at the training rows, and say what the steps take."""
        return reader

    def pictures(self, batch: Batch, seed: int) -> list[Picture]:
        """A title and images (C, *) for each of a few rows: what went in, what came out."""
        raise NotImplementedError

    def finish(self, batches: Iterable[Batch]) -> None:
        """After the last step, on the averaged weights: measure what gradients do not teach."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        parameter: Tensor = next(self.network.parameters())
        return parameter.device

    def tensors(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images with their context (B, C + context, *) and tissue maps (B, *), changed at random in training."""
        images = torch.from_numpy(np.concatenate([batch.images, batch.context], axis=1))
        tissue = torch.from_numpy(batch.tissue)
        if not self.training:
            return images, tissue.clone()
        with torch.autocast("cpu", enabled=False):  # places rounded to bfloat16 would tear the images
            if self.recipe.warp is not None:
                images, tissue = warp(images, tissue, self.recipe.warp, generator)
            if self.recipe.classical is not None:
                from augengine.train.classical import classical  # late: importing MONAI takes seconds

                images, tissue = classical(images, tissue, self.recipe.classical, generator)
            if self.recipe.batchgeneratorsv2 is not None:
                from augengine.train.nnunet_transforms import nnunet_transforms  # late: an optional package

                images, tissue = nnunet_transforms(images, tissue, self.recipe.batchgeneratorsv2, generator)
            if self.recipe.random_contrast is not None:
                labels = len(self.spec.labels)
                images = random_contrast(images, tissue, labels, self.recipe.random_contrast, generator)
        return images, tissue.clone()
