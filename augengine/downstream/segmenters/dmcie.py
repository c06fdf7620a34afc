"""Shards in, U-Nets on folds and a diffusion model of their errors out; images in, corrected masks out (paper 003).

The paper adds E = M - truth to the initial mask M, which gives 2M - truth; here E is taken from it. The model is
trained on what each U-Net says of subjects that it did not see, is shown M beside the image, and starts from noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from augengine.diffusion.checkpoint import Generator, load_generator
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.painting import Sampling, generate
from augengine.diffusion.segmentation import probabilities
from augengine.diffusion.spec import Kind
from augengine.downstream.segmenters.base import PLAIN, Segmenter, Training
from augengine.downstream.segmenters.fitting import adapted, checkpoint, fit_network, mark, need_roles
from augengine.rng import derive
from augengine.train.config import Recipe

SAMPLES, SAMPLING = 5, Sampling(solver="ddim", steps=20)


class Dmcie(Segmenter):
    """`unet` is a recipe of kind segmenter, `error` of kind error_corrector, which says by its parts how many folds.

    Args:
        generator: the corrector, with the U-Nets in it.
        samples: corrections that are averaged.
        sampling: how each of them is drawn.
    """

    name: ClassVar[str] = "dmcie"
    roles: ClassVar[Mapping[str, Kind]] = {"unet": "segmenter", "error": "error_corrector"}
    made_parts = ("fold_",)
    loaded = ("error",)

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
        """Train one U-Net without each fold, then the corrector on what they say of the folds that they left out."""
        need_roles(cls, recipes)
        folds = sorted(recipes["error"].parts)
        parts = {}
        for k, role in enumerate(folds):
            without = adapted(recipes["unet"], steps, seed, training, fold=(k, len(folds)))
            parts[role] = fit_network(role, without, shards, out, training)
        fit_network("error", adapted(recipes["error"], steps, seed, training), shards, out, training, parts)
        return mark(cls, out)

    @classmethod
    def regions_of(cls, recipes: Mapping[str, Recipe]) -> dict[str, tuple[str, ...]]:
        """Those of the corrector."""
        return dict(recipes["error"].data.regions)

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """Size of the ensemble and its sampling."""
        return {"samples": SAMPLES, "sampling": asdict(SAMPLING)}

    @classmethod
    def load(cls, folder: str, *, device: str = "cpu", samples: int = SAMPLES, sampling: Sampling = SAMPLING) -> Self:
        """The fitted corrector."""
        return cls(load_generator(checkpoint(cls, folder, "error"), device), samples, sampling)

    def initial(self, images: np.ndarray) -> np.ndarray:
        """What its own U-Nets say before the correction, their mean: as `predict`."""
        x, _ = self.checked(images, None)
        with torch.no_grad():
            return self._initial(x.to(self.generator.device)).cpu().numpy()

    def _initial(self, x: Tensor) -> Tensor:
        parts = self.generator.network.parts
        found = [probabilities(spec, parts[role](x).float()) for role, spec in self.generator.spec.parts.items()]
        return torch.stack(found).mean(0)

    def _predict(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        x = x.to(self.generator.device)
        initial = self._initial(x)
        shown, corrected = Conditioning(torch.cat([x, initial], dim=1)), torch.zeros_like(initial)
        for n in range(self.samples):
            error = generate(self.generator, shown, [derive(s, n) for s in seeds], self.sampling, x.shape[2:])
            corrected += (initial - error.to(initial)).clamp(0, 1)
        return corrected / self.samples
