"""Synthetic labels: a lesion that a label prior drew on a real scan's anatomy, and the image painted to that label map.

Source: a diffusion model of label maps is paper 002; painting an image on a label map, paper 001. The anatomy is the
source row's: its own lesions go from the label map, and what the prior draws takes their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from augengine import masks
from augengine.diffusion.checkpoint import Generator
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.label_planes import enforce_nesting
from augengine.diffusion.painting import Sampling, generate
from augengine.diffusion.samplers import Solver
from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Context, Drawing, Plan, Skip
from augengine.edits.label_candidates import Candidate, Wanted, candidate, laid, region_labels
from augengine.edits.lesions import (
    Healing,
    NewLesionParams,
    around,
    check_prompting,
    choose,
    normalised,
    painted_apart,
    painted_sample,
    repaint,
    voxel_mm,
)
from augengine.edits.tumor_relocation import Host, Range
from augengine.errors import CheckpointError, DataError
from augengine.intensity import match_quantiles
from augengine.policy.spec import Sampler
from augengine.records import Acquisition, Sample
from augengine.rng import derive
from augengine.yaml_config import Strict

Side = Literal["any", "left", "right"]
Paint = Literal["all", "lesion"]
Count = Annotated[int, Field(ge=1)]


class PriorSampling(Strict):
    """How the label prior is sampled; the policy's `sampler` is the painter's."""

    solver: Solver = "ddpm"
    steps: int = Field(default=50, ge=1, le=1000)


class SyntheticLabelsParams(NewLesionParams):
    """Parameters of the edit in a policy file, beside those that say which of the source's lesions go.

    The margins say what `paint: lesion` paints.

    Attributes:
        volume_ml: range of the new lesion's volume, all parts together; None leaves it to the prior.
        lesions: least and greatest number of its connected parts; None leaves it to the prior.
        min_component_ml: smaller parts are removed.
        host: where it may lie.
        side: half of the body that it may lie in.
        place: `host` lays the largest part's middle on a place drawn evenly from the host region; `prior` leaves the
            lesion where the prior drew it in its frame.
        places: drawn with `host`; each map is tried at each.
        candidates: maps drawn for a row, of which the one nearest to the drawn targets is taken.
        prior: how they are sampled.
        paint: the image of the whole foreground, or only of the old and the new lesion.
        style: with paint `all`, intensities mapped to those of the source's healthy tissue (`source`), or as the
            painter made them (`painter`), whose acquisition nobody knows.
    """

    volume_ml: Range | None = None
    lesions: tuple[Count, Count] | None = None
    min_component_ml: float = Field(default=0.1, ge=0)
    host: Host = Field(default_factory=Host)
    side: Side = "any"
    place: Literal["prior", "host"] = "host"
    places: int = Field(default=8, ge=1, le=1000)
    candidates: int = Field(default=8, ge=1, le=256)
    prior: PriorSampling = Field(default_factory=PriorSampling)
    paint: Paint = "all"
    style: Literal["source", "painter"] = "source"

    @model_validator(mode="after")
    def _agree(self) -> SyntheticLabelsParams:
        if self.volume_ml is not None and self.volume_ml[0] <= 0:
            raise ValueError("volume_ml must be positive")
        if self.lesions is not None and self.lesions[0] > self.lesions[1]:
            raise ValueError("lesions are two rising numbers")
        if self.paint == "lesion" and self.style != "source":
            raise ValueError("style painter goes with paint all: a lesion alone has the style of the scan around it")
        return self


class SyntheticLesion(Strict):
    """A plan's own parameters. `centres` holds the voxels to try, or None where the prior decides."""

    healing: Healing
    host: Host
    side: Side
    paint: Paint
    new_margin_mm: float
    volume_ml: float | None
    lesions: int | None
    min_component_ml: float
    centres: tuple[tuple[int, ...] | None, ...]
    candidates: int

    def room(self, sample: Sample) -> np.ndarray:
        """bool (*): where the new lesion may lie; the old place is free."""
        return np.asarray(self.host.room(sample, self.healing) & side(sample, self.side))

    def new(self, sample: Sample, lesion: np.ndarray) -> np.ndarray:
        """bool (*): what is painted for a new lesion alone."""
        return around(sample, lesion, self.new_margin_mm, self.healing.others(sample))

    def wanted(self) -> Wanted:
        """The drawn targets."""
        return Wanted(self.volume_ml, self.lesions, self.min_component_ml, self.host.inside)


class SyntheticLabelsEdit:
    """Draws a lesion from a prior of label maps into a real anatomy, and paints the image of the new label map."""

    name: ClassVar[str] = "synthetic_labels"
    Params: ClassVar[type[Strict]] = SyntheticLabelsParams
    MODELS: ClassVar[Mapping[str, tuple[str, ...]]] = {"prior": ("label_prior",), "painter": ("painter",)}

    def check(self, params: SyntheticLabelsParams, sampler: Sampler, specs: Mapping[str, ModelSpec]) -> None:
        """The prior's regions make a label map, and the painter can be shown it."""
        prior, painter = specs["prior"], specs["painter"]
        check_prompting(params, sampler, {"generator": painter})
        drawn = region_labels(prior.regions)
        if painter.mask == "none" or painter.context or not set(drawn) <= set(painter.labels):
            raise CheckpointError(
                f"the painter must be shown single slices or volumes with the prior's labels: {', '.join(drawn)}",
                found=f"mask {painter.mask}, labels {', '.join(painter.labels) or 'none'}, context {painter.context}",
                next_step="train a painter with mask planes of these labels and without context",
            )
        if prior.spatial_dims != painter.spatial_dims:
            raise CheckpointError(
                "prior and painter must both be of slices or both of volumes",
                found=f"{prior.spatial_dims} and {painter.spatial_dims} axes",
            )

    def plan(
        self, sample: Sample, params: SyntheticLabelsParams, rng: np.random.Generator, context: Context
    ) -> Drawing | Skip:
        """Draw volume, number and places; the maps themselves are drawn by `apply`."""
        known = Context(context.donors, {"generator": context.specs["painter"]} if "painter" in context.specs else {})
        healing = choose(sample, params, known)
        if isinstance(healing, Skip):
            healing = choose(sample, params, known, none=True)  # a scan without lesions has nothing to heal
        if isinstance(healing, Skip):
            return healing
        if missing := [n for n in (*params.host.labels, *params.host.exclude) if n not in sample.labels]:
            return Skip(f"the label map does not name {', '.join(missing)}, which params.host does")
        axes = sample.image.ndim - 1
        if "prior" in context.specs and context.specs["prior"].spatial_dims != axes:
            return Skip(f"the prior draws label maps of {context.specs['prior'].spatial_dims} axes, the row has {axes}")
        if params.side != "any" and masks.left_right_axis(sample.affine, axes) is None:
            return Skip("the slice has no left and right")
        plan = SyntheticLesion(
            healing=healing,
            host=params.host,
            side=params.side,
            paint=params.paint,
            volume_ml=None,
            lesions=None,
            new_margin_mm=params.beyond_mm(context.specs.get("painter")),
            min_component_ml=params.min_component_ml,
            centres=(),
            candidates=params.candidates,
        )
        places = np.argwhere(plan.room(sample))
        low, high = params.volume_ml or (params.min_component_ml, np.inf)
        room_ml = len(places) * voxel_ml(sample)
        if not len(places) or room_ml < low:
            return Skip(f"the host region has {room_ml:.3g} ml, the smallest lesion asked for {low:.3g} ml")
        volume = rng.uniform(low, min(high, room_ml)) if params.volume_ml else None
        lesions = rng.integers(params.lesions[0], params.lesions[1] + 1) if params.lesions else None
        centres = places[rng.integers(len(places), size=params.places)].tolist()
        drawn = {
            "volume_ml": None if volume is None else round(float(volume), 4),
            "lesions": None if lesions is None else int(lesions),
            "centres": centres if params.place == "host" else [None],
        }
        return Drawing({**plan.model_dump(mode="json"), **drawn})

    def apply(
        self,
        samples: Sequence[Sample],
        plans: Sequence[Plan],
        models: Mapping[str, Generator],
        params: SyntheticLabelsParams,
        sampler: Sampler,
    ) -> list[Sample]:
        """Draw the label maps, then paint them.

        Raises:
            CheckpointError: the painter was made for other channels.
            DataError: no candidate of some row left a lesion in its host region.
        """
        painter, seeds = models["painter"], [p.seed for p in plans]
        drawn = [SyntheticLesion.model_validate(p.params) for p in plans]
        chosen = _nearest(models["prior"], samples, drawn, seeds, params.prior)
        parts = region_labels(models["prior"].spec.regions)
        shown = [_labelled(*row, parts) for row in zip(samples, drawn, chosen, strict=True)]
        old = np.stack([d.healing.region(s) for d, s in zip(drawn, samples, strict=True)])
        x = source = normalised(samples, painter)
        if params.paint == "all":
            edit = np.stack([masks.foreground(s.image) for s in samples])
        else:
            edit = np.stack([d.new(s, c.lesion) for d, s, c in zip(drawn, samples, chosen, strict=True)])
            x = repaint(painter, samples, x, old, [derive("healing", n) for n in seeds], params, sampler, ill=False)
        x = repaint(painter, shown, x, edit, [derive("image", n) for n in seeds], params, sampler, ill=True)
        made = x.numpy()
        if params.paint == "lesion":
            edit |= old
        elif params.style == "source":
            same = [e & ~o & ~c.lesion for e, o, c in zip(edit, old, chosen, strict=True)]
            made = np.stack([restyled(*row) for row in zip(made, source.numpy(), same, strict=True)])
        known = params.style == "source"
        return [
            painted_sample(
                s,
                row,
                region,
                label=new.label,
                label_confidence=new.label_confidence,
                labels=new.labels,
                acquisition=s.acquisition if known else Acquisition(),
            )
            for s, row, region, new in zip(samples, made, edit, shown, strict=True)
        ]

    def apart(self, models: Mapping[str, Generator], params: SyntheticLabelsParams) -> bool:
        """Where the rows are painted one by one."""
        return models["prior"].apart and painted_apart(models["painter"], params)

    def region(self, sample: Sample, plan: Plan) -> np.ndarray | None:
        """Everything; or the old lesion and wherever in the host region the new one may come to lie."""
        drawn = SyntheticLesion.model_validate(plan.params)
        if drawn.paint == "all":
            return None
        return np.asarray(drawn.healing.region(sample) | drawn.new(sample, drawn.room(sample)))


def voxel_ml(sample: Sample) -> float:
    """Volume of a voxel; one of a slice reaches to the next slice."""
    return float(np.prod(sample.spacing_mm)) / 1000


def side(sample: Sample, wanted: Side) -> np.ndarray:
    """bool (*): a half of what is not air; the plane between belongs to neither."""
    half = np.ones(sample.image.shape[1:], bool)
    axis = masks.left_right_axis(sample.affine, half.ndim)
    if wanted == "any" or axis is None:
        return half
    index = np.arange(half.shape[axis])
    column = [-1 if n == axis else 1 for n in range(half.ndim)]
    middle = masks.midplane(sample.image, axis)  # world coordinates grow to the right (RAS)
    right = (index - middle) * sample.affine[0, axis] > 0
    left = (index - middle) * sample.affine[0, axis] < 0
    return np.asarray(half & (right if wanted == "right" else left).reshape(column))


def _nearest(
    prior: Generator,
    samples: Sequence[Sample],
    plans: Sequence[SyntheticLesion],
    seeds: Sequence[int],
    sampling: PriorSampling,
) -> list[Candidate]:
    """The best candidate of every row; one map per row at a time, so that memory does not grow with their number."""
    rooms = [plan.room(s) for plan, s in zip(plans, samples, strict=True)]
    best: list[list[Candidate]] = [[] for _ in samples]
    for n in range(plans[0].candidates):
        drawn = generate(
            prior,
            Conditioning(),
            [derive("label map", seed, n) for seed in seeds],
            Sampling(solver=sampling.solver, steps=sampling.steps),
        )
        maps = enforce_nesting(drawn).numpy()
        for row, (values, s, plan, room) in enumerate(zip(maps, samples, plans, rooms, strict=True)):
            planes = laid(values, prior.spec.spacing_mm[: room.ndim], room.shape, voxel_mm(s))
            tried = (candidate(planes, room, voxel_ml(s), centre, plan.wanted()) for centre in plan.centres)
            best[row] = [min(chain(best[row], tried), key=lambda found: found.misfit)]
    for s, plan, (found,) in zip(samples, plans, best, strict=True):
        if not found.lesion.any():
            raise DataError(
                "a label map that the prior drew must leave a lesion in the host region",
                found=f"none of at least {plan.min_component_ml:g} ml in {plan.candidates} maps",
                where=s.sample_id,
                next_step="raise params.candidates, or loosen params.host and params.min_component_ml",
            )
    return [found for (found,) in best]


def _labelled(sample: Sample, plan: SyntheticLesion, found: Candidate, parts: Sequence[str]) -> Sample:
    """The sample with the new label map and its confidence; a part that it has no code for takes the next free one."""
    codes = dict(sample.labels)
    label = plan.healing.healed(sample)
    for name, region in zip(parts, found.regions, strict=True):  # the innermost region wins
        label[region] = codes.setdefault(name, max(codes.values(), default=0) + 1)
    confidence = np.rint(255 * found.confidence).astype(np.uint8)
    return sample.replace(label=label, label_confidence=confidence, labels=codes)


def restyled(x: np.ndarray, source: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`x` (C, *), each channel with the quantiles of `source` (C, *) inside `where` (*); see `match_quantiles`."""
    return np.stack([match_quantiles(*planes, where) for planes in zip(x, source, strict=True)])
