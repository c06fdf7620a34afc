"""Reconstruction: the whole frame painted anew on the source's own label map, to see how well a painter follows it.

Source: paper 001, 4.8, mode 1, whose images its Table 2 measures by FID, KID, SSIM and GenDice. What a painter draws
that is shown no label map (M1) is an unconditional sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from augengine.diffusion.checkpoint import Generator
from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Context, Drawing, Plan, Skip
from augengine.edits.lesions import LesionParams, normalised, painted_sample, repaint
from augengine.errors import CheckpointError
from augengine.policy.spec import Sampler
from augengine.records import Sample
from augengine.yaml_config import Strict


class ReconstructionParams(Strict):
    """There is nothing to choose: the label map says it all."""


class ReconstructionEdit:
    """Paints an image from noise on the label map of the source; label and acquisition stay the source's."""

    name: ClassVar[str] = "reconstruction"
    Params: ClassVar[type[Strict]] = ReconstructionParams
    MODELS: ClassVar[Mapping[str, tuple[str, ...]]] = {"generator": ("painter",)}

    def check(self, params: ReconstructionParams, sampler: Sampler, specs: Mapping[str, ModelSpec]) -> None:
        """The painter sees single rows."""
        if specs["generator"].context:
            raise CheckpointError("a reconstruction shows its painter single rows", found=specs["generator"].context)

    def plan(
        self, sample: Sample, params: ReconstructionParams, rng: np.random.Generator, context: Context
    ) -> Drawing | Skip:
        """Nothing is drawn at random but the noise."""
        spec = context.specs.get("generator")
        if sample.label is None and (spec is None or spec.mask != "none"):
            return Skip("the sample has no label map to be painted on")
        return Drawing({})

    def apply(
        self,
        samples: Sequence[Sample],
        plans: Sequence[Plan],
        models: Mapping[str, Generator],
        params: ReconstructionParams,
        sampler: Sampler,
    ) -> list[Sample]:
        """Paint every sample. Raises `CheckpointError` where the painter was made for other channels."""
        generator, seeds = models["generator"], [plan.seed for plan in plans]
        frame = np.ones((len(samples), *samples[0].image.shape[1:]), bool)
        x = normalised(samples, generator)
        x = repaint(generator, samples, x, frame, seeds, LesionParams(), sampler, ill=True)
        return [painted_sample(*row) for row in zip(samples, x.numpy(), frame, strict=True)]

    def apart(self, models: Mapping[str, Generator], params: ReconstructionParams) -> bool:
        """Where the rows are painted one by one."""
        return models["generator"].apart

    def region(self, sample: Sample, plan: Plan) -> np.ndarray | None:
        """Everything."""
        return None
