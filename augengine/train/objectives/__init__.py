"""The objective of each kind of model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from augengine.diffusion.spec import GENERATORS, ModelSpec
from augengine.train.config import Recipe
from augengine.train.objectives.autoencoding import Autoencoding
from augengine.train.objectives.back_translation import BackTranslation
from augengine.train.objectives.base import Objective
from augengine.train.objectives.denoising import Denoising
from augengine.train.objectives.predicting import Predicting
from augengine.train.objectives.segmenting import Segmenting

OBJECTIVES: dict[str, type[Objective]] = {
    **dict.fromkeys(GENERATORS, Denoising),
    "autoencoder": Autoencoding,
    "segmenter": Segmenting,
    "acquisition_predictor": Predicting,
}


def objective(
    recipe: Recipe, spec: ModelSpec, network: nn.Module, parts: Mapping[str, nn.Module] | None = None
) -> Objective:
    """What trains `network`, which `build(spec, seed, parts)` made."""
    kind = BackTranslation if spec.changes_contrast else OBJECTIVES[spec.kind]
    return kind(recipe, spec, network, parts)
