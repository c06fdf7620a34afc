"""Shards in, a label diffusion model steered by images out; images in, an ensemble of label maps out (paper 002).

A label autoencoder, an unconditional diffusion model of its latents, and a ControlNet on that frozen prior. A
prediction is the mean of several samples (2.5), and their variance says where they disagree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from augengine.diffusion.checkpoint import Generator, load_generator
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.label_planes import enforce_nesting
from augengine.diffusion.painting import Sampling, generate
from augengine.diffusion.spec import Kind
from augengine.downstream.segmenters.base import PLAIN, Segmenter, Training
from augengine.downstream.segmenters.fitting import adapted, checkpoint, fit_network, mark, need_roles
from augengine.rng import derive
from augengine.train.config import Recipe

SAMPLES, SAMPLING = 30, Sampling(solver="dpmpp_2m", steps=25)


class LdmSeg(Segmenter):
    """Recipes: `autoencoder` of label content, `prior` of kind label_prior, `control` of kind label_segmenter.

    Args:
        generator: the ControlNet, with prior and autoencoder in it.
        samples: of the ensemble, 30 in the paper.
        sampling: how each of them is drawn.
    """

    name: ClassVar[str] = "ldm_seg"
    roles: ClassVar[Mapping[str, Kind]] = {
        "autoencoder": "autoencoder",
        "prior": "label_prior",
        "control": "label_segmenter",
    }
    made_parts = ("autoencoder", "prior")
    loaded = ("control",)

    def __init__(self, generator: Generator, samples: int = SAMPLES, sampling: Sampling = SAMPLING) -> None:
        self.generator, self.samples, self.sampling = generator, samples, sampling
        self.channels, self.regions = generator.spec.channels, generator.spec.regions
        self.rule = generator.spec.intensity.rule

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
        """Train the three networks one upon the other; classical augmentation changes what the last of them sees."""
        need_roles(cls, recipes)
        parts: dict[str, str] = {}
        for role, how in (("autoencoder", training.natural), ("prior", training.natural), ("control", training)):
            recipe = adapted(recipes[role], steps, seed, how)
            parts = {role: fit_network(role, recipe, shards, out, training, parts)}
        return mark(cls, out)

    @classmethod
    def regions_of(cls, recipes: Mapping[str, Recipe]) -> dict[str, tuple[str, ...]]:
        """Those of the ControlNet."""
        return dict(recipes["control"].data.regions)

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """Size of the ensemble and its sampling."""
        return {"samples": SAMPLES, "sampling": asdict(SAMPLING)}

    @classmethod
    def load(cls, folder: str, *, device: str = "cpu", samples: int = SAMPLES, sampling: Sampling = SAMPLING) -> Self:
        """The fitted ControlNet; `samples=1` is the single sample that an ensemble is compared with."""
        return cls(load_generator(checkpoint(cls, folder, "control"), device), samples, sampling)

    def predict_with_variance(
        self, images: np.ndarray, seeds: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `predict`, and the variance over the samples, float32 (B, R, *), from 0 to 0.25: low is confident."""
        x, row_seeds = self.checked(images, seeds)
        mean, variance = self._moments(x, row_seeds)
        return mean.numpy(), variance.numpy()

    def predict_by_size(self, images: np.ndarray, sizes: Collection[int]) -> dict[int, np.ndarray]:
        """What `predict` says with ensembles of several sizes, of which the smaller are the beginning of the largest.

        Costs what the largest alone does.
        """
        x, row_seeds = self.checked(images, None)
        total, found = torch.zeros(()), {}
        for n, value in enumerate(self._drawn(x, row_seeds, max(sizes)), 1):
            total = total + value
            if n in sizes:
                found[n] = (total / n).float().cpu().numpy()
        return found

    def _predict(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return self._moments(x, seeds)[0]

    def _moments(self, x: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        total = square = torch.zeros(())
        for value in self._drawn(x, seeds, self.samples):
            total, square = total + value, square + value.square()
        mean = total / self.samples
        return mean, (square / self.samples - mean.square()).clamp(min=0)

    def _drawn(self, x: Tensor, seeds: Sequence[int], samples: int) -> Iterator[Tensor]:
        """Sample after sample, each (B, R, *) from 0 to 1; sample n follows from the seeds and n alone."""
        shown = Conditioning(x.to(self.generator.device))
        for n in range(samples):
            with torch.no_grad():
                drawn = generate(self.generator, shown, [derive(s, n) for s in seeds], self.sampling, x.shape[2:])
            value = ((drawn + 1) / 2).clamp(0, 1)  # of planes from -1 to 1
            yield value if self.generator.spec.exclusive else enforce_nesting(value)
