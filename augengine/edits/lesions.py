"""What the edits of lesions share: which lesion is meant, what heals it, and how a model paints in its place."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from augengine import masks
from augengine.diffusion.checkpoint import Generator
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.guidance import Guidance
from augengine.diffusion.painting import Sampling, healthy, paint, unhealthy
from augengine.diffusion.promptable import Prompting
from augengine.diffusion.spec import ModelSpec
from augengine.diffusion.tissue import tissue_index
from augengine.edits.base import Context, Skip
from augengine.errors import ConfigError
from augengine.intensity import denormalise, normalise
from augengine.policy.spec import Sampler
from augengine.records import Sample
from augengine.yaml_config import Strict

Names = tuple[str, ...]
Ranks = tuple[Annotated[int, Field(ge=1)], ...]
PAINTERS = ("counterfactual", "painter")


class PromptingParams(Strict):
    """How the known part is held while the rest is generated; see `augengine.diffusion.promptable.Prompting`."""

    known: Literal["posterior", "repaint"] = "posterior"
    jump_length: int = Field(default=1, ge=1, le=100)
    resamples: int = Field(default=1, ge=1, le=20)


class LesionParams(Strict):
    """Which lesions of a row are meant, and how they are healed.

    Attributes:
        labels: names of the labels that make a lesion; None takes those that the generator was trained with.
        components: connected lesions by rank of size, 1 the largest; or all.
        min_volume_ml, max_volume_ml: bounds on each of them; a slice counts with its distance to the next one.
        margin_mm: painted beyond the lesion, for partial volume and what the mask misses.
        mass_effect_margin_mm: painted beyond that, for tissue that the lesion displaced.
        beyond_brain: the margin goes on into the air; otherwise it stops where the scan has no signal.
        fill: label of healed voxels: that of the nearest voxel of host tissue, where the label map names any, or
            background.
        roi_margin_mm: surroundings of the prompt that the network sees; None shows it the whole frame.
    """

    labels: Names | None = Field(default=None, min_length=1)
    components: Literal["all"] | Ranks = "all"
    min_volume_ml: float = Field(default=0.0, ge=0)
    max_volume_ml: float | None = Field(default=None, gt=0)
    margin_mm: float = Field(default=3.0, ge=0, le=50)
    mass_effect_margin_mm: float = Field(default=0.0, ge=0, le=50)
    beyond_brain: bool = Field(default=False, exclude_if=operator.not_)
    fill: Literal["nearest", "background"] = "nearest"
    prompting: PromptingParams = Field(default_factory=PromptingParams)
    roi_margin_mm: float | None = Field(default=None, ge=0)


class NewLesionParams(LesionParams):
    """How a lesion is painted where none was.

    Attributes:
        new_margin_mm: painted beyond the new lesion, since a lesion's border is soft and its label's is not; None takes
            `margin_mm` for a painter and 0 for a healthy/unhealthy model, whose lesion is as wide as its prompt.
    """

    new_margin_mm: float | None = Field(default=None, ge=0, le=50)

    def beyond_mm(self, spec: ModelSpec | None) -> float:
        """`new_margin_mm`, or what it is by default for the model that paints."""
        if self.new_margin_mm is not None:
            return self.new_margin_mm
        return self.margin_mm if spec is not None and spec.kind == "painter" else 0.0


class Healing(Strict):
    """The part of a plan that says what is healed; with the sample it gives the same masks again.

    Attributes:
        labels: names whose union is split into lesions.
        kept: further names that make a lesion; they stay as they are.
        components: ranks of the chosen lesions.
        volume_ml: theirs together.
        margin_mm: painted beyond them.
        beyond_brain: into the air, too.
        host: names that healed voxels may take; none leaves background.
    """

    labels: Names
    kept: Names
    components: Ranks
    volume_ml: float
    margin_mm: float
    beyond_brain: bool = Field(default=False, exclude_if=operator.not_)
    host: Names

    def lesion(self, sample: Sample) -> np.ndarray:
        """bool (*): the chosen lesions."""
        return np.isin(masks.components(named(sample, self.labels)), self.components)

    def others(self, sample: Sample) -> np.ndarray:
        """bool (*): every other lesion, which no edit touches."""
        return np.asarray(named(sample, (*self.labels, *self.kept)) & ~self.lesion(sample))

    def region(self, sample: Sample) -> np.ndarray:
        """bool (*): what is painted to heal the chosen lesions."""
        return around(sample, self.lesion(sample), self.margin_mm, self.others(sample), self.beyond_brain)

    def healed(self, sample: Sample) -> np.ndarray:
        """uint8 (*): the label map without the chosen lesions."""
        assert sample.label is not None  # or there would be no plan
        codes = [sample.labels[name] for name in self.host]
        return masks.fill_nearest(sample.label, self.lesion(sample), codes, voxel_mm(sample))


def voxel_mm(sample: Sample) -> tuple[float, ...]:
    """Voxel size along each axis that the sample's arrays have."""
    return sample.spacing_mm[: sample.image.ndim - 1]


def named(sample: Sample, names: Sequence[str]) -> np.ndarray:
    """bool (*): the union of labels by name; a name that the sample does not know covers nothing."""
    assert sample.label is not None  # `choose` sees to it
    return np.isin(sample.label, [sample.labels[name] for name in names if name in sample.labels])


def around(
    sample: Sample, lesion: np.ndarray, margin_mm: float, others: np.ndarray, beyond_brain: bool = False
) -> np.ndarray:
    """bool (*): a lesion and its margin, as far as that is no other lesion and, unless asked for, no air."""
    margin = masks.dilate(lesion, margin_mm, voxel_mm(sample))
    margin = margin if beyond_brain else margin & masks.foreground(sample.image)
    return np.asarray((margin | lesion) & ~others)


def choose(sample: Sample, params: LesionParams, context: Context, none: bool = False) -> Healing | Skip:
    """The lesions that `params` means, or why there are none; `none` chooses no lesion, which is no reason to skip."""
    if sample.intensity_range is None:
        return Skip("the sample carries no intensity range; ingest it again")
    if sample.label is None:
        return Skip("the sample has no label map (one of zeros says that it is healthy)")
    trained = context.specs["generator"].lesion if "generator" in context.specs else ()
    labels = params.labels or trained
    if not labels:
        raise ConfigError("nobody says which labels make a lesion", next_step="name them in params.labels")
    kept = tuple(name for name in trained if name not in labels)
    found = masks.components(named(sample, labels))
    volumes_ml = np.bincount(found.ravel())[1:] * np.prod(sample.spacing_mm) / 1000
    chosen = tuple(
        rank
        for rank, volume in enumerate(volumes_ml.tolist(), 1)
        if not none
        and (params.components == "all" or rank in params.components)
        and params.min_volume_ml <= volume <= (params.max_volume_ml or math.inf)
    )
    if not chosen and not none:
        return Skip(_why(sample, labels, volumes_ml))
    lesions = (*labels, *kept)
    return Healing(
        labels=labels,
        kept=kept,
        components=chosen,
        volume_ml=round(float(sum(volumes_ml[rank - 1] for rank in chosen)), 4),
        margin_mm=params.margin_mm + params.mass_effect_margin_mm,
        beyond_brain=params.beyond_brain,
        host=() if params.fill == "background" else tuple(n for n in sorted(sample.labels) if n not in lesions),
    )


def _why(sample: Sample, labels: Names, volumes_ml: np.ndarray) -> str:
    if not any(name in sample.labels for name in labels):
        return f"the label map names {', '.join(sample.labels) or 'nothing'}, none of {', '.join(labels)}"
    if not len(volumes_ml):
        return f"no lesion ({', '.join(labels)})"
    return (
        f"none of {len(volumes_ml)} lesions (the largest has {volumes_ml[0]:.3g} ml) has the rank and the volume that "
        "params ask for"
    )


def check_prompting(params: LesionParams, sampler: Sampler, specs: Mapping[str, ModelSpec]) -> None:
    """Refuse a lesion that nobody names, and a solver that cannot hold the known part as asked."""
    if not (params.labels or specs["generator"].lesion):
        raise ConfigError(
            "which labels make a lesion is said neither by the policy nor by the model",
            next_step="name them in params.labels",
        )
    jumps = params.prompting.known == "repaint" or params.prompting.resamples > 1
    if jumps and sampler.solver not in ("ddpm", "ddim"):
        raise ConfigError(
            "known repaint and resamples above 1 need a solver without memory",
            found=sampler.solver,
            next_step="set sampler.solver ddpm or ddim, or known posterior with resamples 1",
        )


def normalised(samples: Sequence[Sample], generator: Generator) -> Tensor:
    """float32 (B, C, *); a `CheckpointError` where the generator was made for other channels or ranges."""
    for channels, rule in {(s.channels, s.intensity_rule) for s in samples}:
        generator.check(channels, rule)
    return torch.from_numpy(np.stack([normalise(s) for s in samples]))


def painted_apart(generator: Generator, params: LesionParams) -> bool:
    """True where `repaint` computes each row by itself: in a box of its own, or by a generator that does."""
    return params.roi_margin_mm is not None or generator.apart


def repaint(
    generator: Generator,
    samples: Sequence[Sample],
    x: Tensor,
    edit: np.ndarray,
    seeds: Sequence[int],
    params: LesionParams,
    sampler: Sampler,
    *,
    ill: bool,
) -> Tensor:
    """`x` (B, C, *) with what `edit` (B, *) covers generated, as healthy tissue or as the label maps show it.

    Args:
        samples: their label maps are what a painter is shown; their voxel sizes turn mm into voxels.
        x: normalised images, which need not be those of `samples`.
        seeds: one per row.
        ill: with the lesions of the label maps, or without any.
    """
    names, prompt = generator.spec.labels, torch.from_numpy(edit[:, None])
    tissue = torch.from_numpy(np.stack([tissue_index(s.label, s.labels, names, s.image) for s in samples]))
    wanted = unhealthy(generator, tissue) if ill else healthy(generator, tissue, prompt)
    sampling = Sampling(
        solver=sampler.solver,
        steps=sampler.steps,
        strength=sampler.strength,
        guidance=Guidance(sampler.guidance, sampler.guidance_interval, sampler.guidance_rescale),
        prompting=Prompting(params.prompting.known, params.prompting.jump_length, params.prompting.resamples),
    )
    if params.roi_margin_mm is None:
        return paint(generator, x, prompt, wanted, seeds, sampling)
    return torch.cat(
        [
            _paint_box(generator, x, prompt, wanted, seeds, sampling, n, params.roi_margin_mm / min(voxel_mm(s)))
            for n, s in enumerate(samples)
        ]
    )


def _paint_box(
    generator: Generator,
    x: Tensor,
    edit: Tensor,
    wanted: Conditioning,
    seeds: Sequence[int],
    sampling: Sampling,
    n: int,
    margin: float,
) -> Tensor:
    """Row n, since voxel sizes may differ between rows and every row has a box of its own anyway."""
    row = slice(n, n + 1)
    boxed = replace(sampling, roi_margin=math.ceil(margin))
    return paint(generator, x[row], edit[row], wanted.rows(row), seeds[row], boxed)


def painted_sample(sample: Sample, x: np.ndarray, region: np.ndarray, **changes: object) -> Sample:
    """`sample` with the normalised image `x` (C, *) inside `region`; outside, its own values bit for bit."""
    return sample.replace(image=np.where(region, denormalise(x, sample), sample.image), **changes)
