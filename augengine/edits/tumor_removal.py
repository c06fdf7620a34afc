"""Tumour removal: the same scan had the subject, or that lesion, never been ill.

Source: healing inside a prompt by a healthy/unhealthy model is paper 000, algorithm 1; by a painter that is shown the
label map with the lesion's place unknown, paper 001, 4.8, as `augengine.diffusion.painting` has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from augengine.diffusion.checkpoint import Generator
from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Context, Drawing, Plan, Skip
from augengine.edits.lesions import (
    PAINTERS,
    Healing,
    LesionParams,
    check_prompting,
    choose,
    normalised,
    painted_apart,
    painted_sample,
    repaint,
)
from augengine.policy.spec import Sampler
from augengine.records import Sample
from augengine.yaml_config import Strict


class TumorRemovalEdit:
    """Paints healthy tissue over lesions and their margin, all channels together; the label becomes the host's."""

    name: ClassVar[str] = "tumor_removal"
    Params: ClassVar[type[Strict]] = LesionParams
    MODELS: ClassVar[Mapping[str, tuple[str, ...]]] = {"generator": PAINTERS}

    def check(self, params: LesionParams, sampler: Sampler, specs: Mapping[str, ModelSpec]) -> None:
        """Somebody names the lesion, and the solver can hold the known part."""
        check_prompting(params, sampler, specs)

    def plan(self, sample: Sample, params: LesionParams, rng: np.random.Generator, context: Context) -> Drawing | Skip:
        """Choose the lesions; nothing is drawn at random but the noise."""
        healing = choose(sample, params, context)
        return healing if isinstance(healing, Skip) else Drawing(healing.model_dump(mode="json"))

    def apply(
        self,
        samples: Sequence[Sample],
        plans: Sequence[Plan],
        models: Mapping[str, Generator],
        params: LesionParams,
        sampler: Sampler,
    ) -> list[Sample]:
        """Heal every sample. Raises `CheckpointError` where the generator was made for other channels."""
        generator, seeds = models["generator"], [p.seed for p in plans]
        healings = [Healing.model_validate(p.params) for p in plans]
        regions = np.stack([h.region(s) for h, s in zip(healings, samples, strict=True)])
        x = repaint(generator, samples, normalised(samples, generator), regions, seeds, params, sampler, ill=False)
        return [
            painted_sample(s, row, region, label=h.healed(s))
            for s, h, row, region in zip(samples, healings, x.numpy(), regions, strict=True)
        ]

    def apart(self, models: Mapping[str, Generator], params: LesionParams) -> bool:
        """Where the rows are painted one by one."""
        return painted_apart(models["generator"], params)

    def region(self, sample: Sample, plan: Plan) -> np.ndarray | None:
        """The lesions and their margin."""
        return Healing.model_validate(plan.params).region(sample)
