"""Lesion insertion: another training patient's lesion, or a drawn one, in a place where the scan has none.

No network paints: the lesion multiplies the scan's own pixels (`augengine.edits.lesion_rendering`), so that it is as
bright beside its new surroundings as it was beside its own. The lesions are those of a bank (`augengine lesions`). It
also knows which slices bear lesions at all. The scan's own lesions stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from augengine import masks, rng
from augengine.diffusion.checkpoint import Model
from augengine.diffusion.lesion_bank import Crop, LesionBank, LesionBankSpec
from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Context, Drawing, Plan, Skip, SkippedError
from augengine.edits.lesion_rendering import BORDER_MM, donor_texture, drawn_texture, laid_into, reach
from augengine.edits.lesions import Names, named, voxel_mm
from augengine.edits.tumor_relocation import Host, Range
from augengine.errors import CheckpointError, ConfigError
from augengine.geometry import background
from augengine.lesion_scene import Scene, field
from augengine.policy.spec import Sampler
from augengine.records import Sample
from augengine.yaml_config import Strict

Share = Annotated[float, Field(ge=0, le=1)]
LEAST_BODY, LEAST_BRIGHTNESS = "recipient_least_body", "recipient_least_brightness"
MOST_ROUGHNESS = "recipient_most_roughness"
"""Of a bank's metrics: what rows with lesions are like (see `Scene`)."""


class Ball(Strict):
    """A drawn shape: a ball (a disc in a slice) with an uneven surface."""

    diameter_mm: Range = (20.0, 64.0)
    unevenness: float = Field(default=0.35, ge=0, le=0.6)

    @model_validator(mode="after")
    def _possible(self) -> Ball:
        if self.diameter_mm[0] <= 0:
            raise ValueError("diameter_mm must be positive")
        return self


class InsertionParams(Strict):
    """Parameters of the edit in a policy file.

    Attributes:
        texture: `donor` keeps the structure of a bank's lesion; `drawn` draws one at a contrast that is drawn.
        gain: range that a donor's contrast, as logarithm of its ratio to the surroundings, is multiplied by.
        contrast: with `drawn`, channel to the range of the ratio of lesion and surroundings, drawn evenly in its
            logarithm; a channel that is not named takes that of a bank's lesion times a drawn `gain`.
        own: range of the share of the recipient's own structure that shines through.
        ball: with `drawn`, shapes that are no lesion's, for half of the rows; a bank of one label alone has them.
        dark_core: with `drawn`, share of the rows whose lesion has a dark inner half.
        rotation_deg, scale, mirror, elastic_mm: of the lesion's shape; `mirror` is the share of mirrored ones.
        host: where it may lie; besides, on tissue (see `Scene.tissue`).
        recipients: `learnt` leaves out rows unlike those that bear lesions; `any` takes all.
        tries: lesions and places that are tried before the row is skipped.
    """

    texture: Literal["donor", "drawn"] = "donor"
    gain: Range = (0.6, 1.3)
    contrast: dict[str, Range] = Field(default_factory=dict)
    own: Range = (0.3, 0.3)
    ball: Ball | None = None
    dark_core: Share = 0.0
    rotation_deg: Range = (-180.0, 180.0)
    scale: Range = (0.6, 1.3)
    mirror: Share = 0.5
    elastic_mm: Range = (0.0, 0.0)
    elastic_length_mm: float = Field(default=12.0, gt=0)
    host: Host = Field(default_factory=lambda: Host(inside=0.88))
    recipients: Literal["learnt", "any"] = "learnt"
    tries: int = Field(default=24, ge=1, le=1000)

    @model_validator(mode="after")
    def _agree(self) -> InsertionParams:
        if self.texture == "donor" and (self.contrast or self.ball or self.dark_core):
            raise ValueError("contrast, ball and dark_core go with texture drawn: a donor's lesion has its own")
        if any(low <= 0 for low, _ in self.contrast.values()):
            raise ValueError("contrast is a ratio of intensities: positive")
        if self.scale[0] <= 0 or self.gain[0] < 0 or not 0 <= self.own[0] <= self.own[1] <= 1:
            raise ValueError("scale must be positive, gain not negative, own between 0 and 1")
        if not 0 <= self.elastic_mm[0] <= self.elastic_mm[1] <= self.elastic_length_mm / 2:
            raise ValueError("elastic_mm must lie between 0 and half of elastic_length_mm, or the lesion folds")
        return self


class Try(Strict):
    """One lesion of the bank, or a ball (`ball_mm` is its diameter), with its place."""

    lesion: int
    ball_mm: float | None
    centre: tuple[int, ...]
    motion: dict[str, Any]


class Insertion(Strict):
    """A plan's own parameters; the first of the tries that finds room is taken.

    Attributes:
        labels: names that make a lesion.
        gain, own: as drawn.
        log_contrast: channel to a drawn logarithm of its ratio.
        dark_core: the inner half is a cyst.
    """

    labels: Names
    host: Host
    texture: Literal["donor", "drawn"]
    gain: float
    own: float
    log_contrast: dict[str, float]
    dark_core: bool
    unevenness: float
    tries: tuple[Try, ...]


class LesionInsertionEdit:
    """Lays a lesion into a scan and its label map."""

    name: ClassVar[str] = "lesion_insertion"
    Params: ClassVar[type[Strict]] = InsertionParams
    MODELS: ClassVar[Mapping[str, tuple[str, ...]]] = {"bank": ("lesion_bank",)}

    def check(self, params: InsertionParams, sampler: Sampler, specs: Mapping[str, ModelSpec]) -> None:
        """The bank knows the channels whose contrast is set, and has one label where balls are drawn."""
        spec = specs["bank"]
        if unknown := [name for name in params.contrast if name not in spec.channels]:
            raise ConfigError(
                f"contrast names channels of the bank: {', '.join(spec.channels)}", found=", ".join(unknown)
            )
        if params.ball is not None and len(spec.lesion) > 1:
            raise CheckpointError(
                "a ball has one part, and goes with a bank of one label",
                found=", ".join(spec.lesion),
                next_step="leave params.ball out",
            )

    def plan(
        self, sample: Sample, params: InsertionParams, rng: np.random.Generator, context: Context
    ) -> Drawing | Skip:
        """Draw lesions and places; whether one finds room is known when its shape is (`apply`)."""
        if sample.label is None:
            return Skip("the sample has no label map (one of zeros says that it is healthy)")
        if missing := [n for n in (*params.host.labels, *params.host.exclude) if n not in sample.labels]:
            return Skip(f"the label map does not name {', '.join(missing)}, which params.host does")
        spec = context.specs.get("bank")
        lesions = spec.lesion if spec is not None else ()
        count = spec.network.lesions if spec is not None and isinstance(spec.network, LesionBankSpec) else 1
        if spec is not None and spec.spatial_dims != sample.image.ndim - 1:
            return Skip(f"the bank's lesions have {spec.spatial_dims} axes, the row has {sample.image.ndim - 1}")
        if sample.intensity_range is None:
            return Skip("the sample carries no intensity range; ingest it again")
        scene = Scene.of(sample.image, named(sample, lesions), voxel_mm(sample))
        brightness = scene.brightness(sample.intensity_range)
        if params.recipients == "learnt" and spec is not None and (why := unlike(scene, brightness, spec.metrics)):
            return Skip(why)
        places = np.argwhere(room(sample, scene, params.host, lesions))
        if not len(places):
            return Skip("the host region is empty")
        channels = params.contrast if params.texture == "drawn" else {}
        ball = params.ball or Ball()
        drawn = Insertion(
            labels=lesions,
            host=params.host,
            texture=params.texture,
            gain=_uniform(params.gain, rng),
            own=_uniform(params.own, rng),
            log_contrast={name: _uniform((np.log(low), np.log(high)), rng) for name, (low, high) in channels.items()},
            dark_core=bool(rng.random() < params.dark_core),
            unevenness=ball.unevenness,
            tries=tuple(_try(params, ball, count, places, rng) for _ in range(params.tries)),
        )
        return Drawing(drawn.model_dump(mode="json"))

    def apply(
        self,
        samples: Sequence[Sample],
        plans: Sequence[Plan],
        models: Mapping[str, Model],
        params: InsertionParams,
        sampler: Sampler,
    ) -> list[Sample]:
        """Lay a lesion into every sample.

        Raises:
            CheckpointError: the bank was cut from other channels.
            SkippedError: no lesion of a plan finds room.
        """
        bank = models["bank"]
        for channels in {s.channels for s in samples}:
            if channels != bank.spec.channels:
                raise CheckpointError(
                    f"this bank was cut from channels {', '.join(bank.spec.channels)}",
                    found=", ".join(channels),
                    next_step="cut one from these channels, or select samples that have the bank's",
                )
        return [
            _inserted(s, Insertion.model_validate(p.params), p.seed, bank) for s, p in zip(samples, plans, strict=True)
        ]

    def apart(self, models: Mapping[str, Model], params: InsertionParams) -> bool:
        """Rows are made one by one."""
        return True

    def region(self, sample: Sample, plan: Plan) -> np.ndarray | None:
        """Wherever the host region lets a lesion come to lie, and its soft border."""
        drawn = Insertion.model_validate(plan.params)
        scene = Scene.of(sample.image, named(sample, drawn.labels), voxel_mm(sample))
        return reach(room(sample, scene, drawn.host, drawn.labels), BORDER_MM, voxel_mm(sample))


def unlike(scene: Scene, brightness: float, learnt: Mapping[str, float]) -> str | None:
    """Why a row is unlike those that bear lesions, by what a bank learnt of them; None if it is not."""
    unit = "mm²" if len(scene.spacing_mm) == 2 else "mm³"
    if scene.body_size < (least := learnt.get(LEAST_BODY, 0.0)):
        return f"unlike rows with lesions: the body has {scene.body_size:.3g} {unit}, theirs {least:.3g} at least"
    if brightness < (dim := learnt.get(LEAST_BRIGHTNESS, 0.0)):
        return f"unlike rows with lesions: its brightness is {brightness:.3g}, theirs {dim:.3g} at least"
    if scene.roughness > (most := learnt.get(MOST_ROUGHNESS, np.inf)):
        return f"unlike rows with lesions: its roughness is {scene.roughness:.4g}, theirs {most:.4g} at most"
    return None


def room(sample: Sample, scene: Scene, host: Host, lesions: Names) -> np.ndarray:
    """bool (*): where a new lesion may lie: in the host's labels or the body, on tissue, off other lesions."""
    spacing = voxel_mm(sample)
    inside = named(sample, host.labels) if host.labels else scene.body
    others = masks.dilate(named(sample, lesions), host.clearance_mm, spacing)
    kept = masks.erode(inside, host.edge_mm, spacing) & ~(others | named(sample, host.exclude))
    return np.asarray(kept & scene.common_tissue)


def _inserted(sample: Sample, plan: Insertion, seed: int, bank: Model) -> Sample:
    assert isinstance(bank.network, LesionBank)
    assert sample.label is not None  # or there would be no plan
    spacing, shape = voxel_mm(sample), sample.image.shape[1:]
    scene = Scene.of(sample.image, named(sample, plan.labels), spacing)
    free = room(sample, scene, plan.host, plan.labels)
    best = 0.0
    for n, tried in enumerate(plan.tries):
        random = rng.generator("lesion insertion", seed, n)
        crop = bank.network.crop(tried.lesion)
        if tried.ball_mm is not None:
            crop = _ball(crop, tried.ball_mm, plan.unevenness, spacing, random)
        at = ([size // 2 for size in crop.label.shape], tried.centre, shape, masks.Motion(**tried.motion), spacing)
        moved, voxels = masks.place(crop.label, *at, crop.spacing_mm)
        moved = np.where(free, moved, np.uint8(0))
        lesion = moved > 0
        share = np.count_nonzero(lesion) / voxels if voxels else 0.0
        if share < plan.host.inside:
            best = max(best, share)
            continue
        carried = masks.carry(crop.log_ratio, crop.label, *at, crop.spacing_mm)
        if plan.texture == "donor":
            texture = donor_texture(carried, lesion, plan.gain, spacing)
        else:
            contrast = _contrast(crop, moved, bank.spec.channels, plan)
            texture = drawn_texture(random, contrast, lesion, plan.dark_core, spacing)
        air = background(sample.image).reshape(-1, *[1] * len(shape))
        made = laid_into(scene, lesion, texture, plan.own) + air
        inside = reach(lesion, BORDER_MM, spacing)
        label, labels = _labelled(sample, moved, bank.spec.labels)
        return sample.replace(image=np.where(inside, made, sample.image).astype(np.float32), label=label, labels=labels)
    raise SkippedError(f"no room for a lesion in {len(plan.tries)} tries: at most {best:.0%} of one on free tissue")


def _labelled(sample: Sample, moved: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, dict[str, int]]:
    """The label map with the lesion, and its codes; a part that the sample has no code for takes the next free one."""
    assert sample.label is not None
    label, codes = sample.label.copy(), dict(sample.labels)
    for n in np.unique(moved[moved > 0]).tolist():
        label[moved == n] = codes.setdefault(names[n - 1], max(codes.values(), default=0) + 1)
    return label, codes


def _contrast(crop: Crop, moved: np.ndarray, channels: Sequence[str], plan: Insertion) -> np.ndarray:
    """float (C, *): the log ratio at every voxel, that of the crop's part there, or what was drawn for the channel."""
    planes = []
    for c, name in enumerate(channels):
        if name in plan.log_contrast:
            planes.append(np.full(moved.shape, plan.log_contrast[name]))
            continue
        whole = float(crop.contrast()[c])
        plane = np.full(moved.shape, whole)
        for n in np.unique(crop.label[crop.label > 0]).tolist():
            plane[moved == n] = float(np.median(crop.log_ratio[c][crop.label == n]))
        planes.append(plan.gain * plane)
    return np.stack(planes)


def _ball(
    crop: Crop, diameter_mm: float, unevenness: float, spacing_mm: Sequence[float], random: np.random.Generator
) -> Crop:
    """A drawn shape with the contrast of a bank's lesion, in voxels of the recipient."""
    radius_mm = diameter_mm / 2
    half = [int(np.ceil(1.6 * radius_mm / s)) + 1 for s in spacing_mm]
    grid = np.meshgrid(*(np.arange(-h, h + 1.0) for h in half), indexing="ij", sparse=True)
    away_mm = np.sqrt(sum((g * s) ** 2 for g, s in zip(grid, spacing_mm, strict=True)))
    shape = away_mm.shape
    uneven = field(random, shape, 10.0, spacing_mm) + 0.4 * field(random, shape, 4.0, spacing_mm)
    inside = away_mm + radius_mm * unevenness * uneven < radius_mm
    only = int(crop.label.max())
    whole = crop.contrast().reshape(-1, *[1] * len(shape))
    return Crop(
        np.broadcast_to(whole, (len(whole), *shape)).astype(np.float32),
        np.where(masks.components(inside) == 1, only, 0).astype(np.uint8),
        tuple(spacing_mm),
    )


def _try(params: InsertionParams, ball: Ball, count: int, places: np.ndarray, rng: np.random.Generator) -> Try:
    axes = places.shape[1]
    drawn = params.ball is not None and rng.random() < 0.5
    motion = masks.Motion(
        shift_mm=(0.0,) * axes,
        rotation_deg=tuple(_uniform(params.rotation_deg, rng) for _ in range(3 if axes == 3 else 1)),
        mirrored_axis=0 if rng.random() < params.mirror else None,
        scale=1.0 if drawn else _uniform(params.scale, rng),
        elastic_mm=_uniform(params.elastic_mm, rng),
        elastic_length_mm=params.elastic_length_mm,
        elastic_seed=int(rng.integers(2**63)),
    )
    return Try(
        lesion=int(rng.integers(count)),
        ball_mm=_uniform(ball.diameter_mm, rng) if drawn else None,
        centre=tuple(places[int(rng.integers(len(places)))].tolist()),
        motion=asdict(motion),
    )


def _uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return round(float(rng.uniform(*bounds)), 4)
