"""Tumour relocation: a lesion healed where it was and generated elsewhere, resized, or added to a healthy scan.

Source: the two steps of position transfer, paper 000. A healthy/unhealthy model paints a lesion of its own kind into
the new mask; a painter is shown the label map and paints the parts where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from augengine import masks
from augengine.diffusion.checkpoint import Generator
from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Context, Drawing, Plan, Skip
from augengine.edits.lesions import (
    PAINTERS,
    Healing,
    Names,
    NewLesionParams,
    around,
    check_prompting,
    choose,
    named,
    normalised,
    painted_apart,
    painted_sample,
    repaint,
    voxel_mm,
)
from augengine.errors import CheckpointError, ConfigError
from augengine.policy.spec import Sampler
from augengine.records import Sample
from augengine.rng import derive
from augengine.yaml_config import Strict


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("a range is two rising numbers")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_rising)]


class Part(Strict):
    """One of the nested parts of a drawn lesion and its share of the volume."""

    label: str
    share: float = Field(gt=0)


class DrawnLesion(Strict):
    """A lesion that no scan had: nested ellipsoids, outermost part first.

    `diameter_mm` is that of the disc (slice) or ball (volume) of the same size; `elongation` the longest axis over
    the shortest.
    """

    diameter_mm: Range
    elongation: Range = (1.0, 1.5)
    parts: tuple[Part, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _possible(self) -> DrawnLesion:
        if self.diameter_mm[0] <= 0 or self.elongation[0] < 1:
            raise ValueError("diameter_mm must be positive and elongation at least 1")
        return self


class Host(Strict):
    """Where a lesion may lie.

    Attributes:
        labels: tissues that it may lie in; none means everything that is not air.
        exclude: tissues that it may not cover, such as ventricles.
        edge_mm: distance from the edge of the tissue or brain.
        clearance_mm: distance from other lesions.
        inside: share of the lesion that must find room; what does not is cut off, as at a ventricle's wall.
    """

    labels: Names = ()
    exclude: Names = ()
    edge_mm: float = Field(default=3.0, ge=0, le=100)
    clearance_mm: float = Field(default=3.0, ge=0, le=100)
    inside: float = Field(default=0.95, gt=0, le=1)

    def room(self, sample: Sample, healing: Healing) -> np.ndarray:
        """bool (*): where a new lesion may lie once the chosen ones are healed; their place is free."""
        spacing, healed = voxel_mm(sample), sample.replace(label=healing.healed(sample))
        tissue = named(healed, self.labels) if self.labels else masks.foreground(sample.image)
        others = masks.dilate(healing.others(sample), self.clearance_mm, spacing)
        return np.asarray(masks.erode(tissue, self.edge_mm, spacing) & ~(others | named(healed, self.exclude)))


class RelocationParams(NewLesionParams):
    """Parameters of the edit in a policy file, beside those that say which lesion is meant and how it is healed.

    Attributes:
        add: draw this lesion and heal none, instead of moving the sample's own.
        keep_position: the lesion stays where it is; scale, rotation and elastic deformation alone act.
        shift_mm: distance of the new centre from the old one or its mirror image; None means anywhere in the host.
        mirror: to the other side of the body, the lesion's shape included.
        rotation_deg: in the plane, or about each axis of a volume.
        scale: of every length.
        elastic_mm: root mean square displacement of a smooth random deformation.
        elastic_length_mm: how smooth.
        texture: channel to evenly spaced quantiles, lowest to highest, that the new lesion's intensities shall have
            (0 is the 10th and 1 the 99th percentile of the volume).
        tries: places that are tried before the row is skipped.
    """

    add: DrawnLesion | None = None
    keep_position: bool = False
    shift_mm: Range | None = None
    mirror: Literal["never", "always", "random"] = "never"
    rotation_deg: Range = (0.0, 0.0)
    scale: Range = (1.0, 1.0)
    elastic_mm: Range = (0.0, 0.0)
    elastic_length_mm: float = Field(default=10.0, gt=0)
    host: Host = Field(default_factory=Host)
    texture: dict[str, Annotated[tuple[float, ...], Field(min_length=2)]] = Field(default_factory=dict)
    tries: int = Field(default=100, ge=1, le=10_000)

    @model_validator(mode="after")
    def _agree(self) -> RelocationParams:
        if self.keep_position and (self.shift_mm is not None or self.mirror != "never" or self.add is not None):
            raise ValueError("keep_position goes with neither shift_mm, mirror nor add")
        if self.add is not None and (self.shift_mm is not None or self.mirror != "never"):
            raise ValueError("a lesion that is added has no old place: leave out shift_mm and mirror")
        if self.mirror != "never" and self.shift_mm is None:
            raise ValueError("mirror needs shift_mm, the distance from the mirror image (say, [0, 10])")
        if self.shift_mm is not None and self.shift_mm[0] < 0:
            raise ValueError("shift_mm is a distance: not negative")
        if self.scale[0] <= 0:
            raise ValueError("scale must be positive")
        if not 0 <= self.elastic_mm[0] <= self.elastic_mm[1] <= self.elastic_length_mm / 2:
            raise ValueError("elastic_mm must lie between 0 and half of elastic_length_mm, or the lesion folds")
        if any(list(q) != sorted(q) for q in self.texture.values()):
            raise ValueError("quantiles of a texture must rise")
        return self


class Ellipsoid(Strict):
    """The drawn form of an added lesion, in a plan."""

    diameter_mm: float
    elongation: float
    parts: tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """What a plan makes of a sample; boolean and uint8 arrays (*).

    `old` and `new` are what is painted in the first and in the second step, `lesion` the new one alone, `label` the
    finished label map in the codes of `labels`.
    """

    old: np.ndarray
    new: np.ndarray
    lesion: np.ndarray
    label: np.ndarray
    labels: dict[str, int]


class Relocation(Strict):
    """A plan's own parameters: with the sample they give the same masks and label map again."""

    healing: Healing
    ellipsoid: Ellipsoid | None
    motion: dict[str, Any]
    host: Host
    new_margin_mm: float

    def codes(self, sample: Sample) -> dict[str, int]:
        """Label name to code; a drawn part that the sample has no code for takes the next free one."""
        codes = dict(sample.labels)
        for part in self.ellipsoid.parts if self.ellipsoid else ():
            codes.setdefault(part.label, max(codes.values(), default=0) + 1)
        return codes

    def moved(self, sample: Sample) -> tuple[np.ndarray, int]:
        """The new lesion's label map, not yet cut to its room, and its voxels; see `masks.place`."""
        motion, spacing, shape = masks.Motion(**self.motion), voxel_mm(sample), sample.image.shape[1:]
        if self.ellipsoid is not None:
            parts = {self.codes(sample)[p.label]: p.share for p in self.ellipsoid.parts}
            shape_map = masks.ellipsoid(self.ellipsoid.diameter_mm, self.ellipsoid.elongation, parts, spacing)
            return masks.place(
                shape_map, [n // 2 for n in shape_map.shape], [n // 2 for n in shape], shape, motion, spacing
            )
        lesion = self.healing.lesion(sample)
        origin = masks.centre(lesion)
        target = origin if motion.mirrored_axis is None else mirrored(sample, origin, motion.mirrored_axis)
        assert sample.label is not None  # or there would be no plan
        own = np.where(lesion, sample.label, np.uint8(0))
        return masks.place(own, origin.tolist(), target.tolist(), shape, motion, spacing)

    def scene(self, sample: Sample) -> Scene:
        """All masks and the finished label map."""
        moved = np.where(self.host.room(sample, self.healing), self.moved(sample)[0], np.uint8(0))
        lesion = moved > 0
        return Scene(
            old=self.healing.region(sample),
            new=around(sample, lesion, self.new_margin_mm, self.healing.others(sample)),
            lesion=lesion,
            label=np.where(lesion, moved, self.healing.healed(sample)),
            labels=self.codes(sample),
        )


class TumorRelocationEdit:
    """Heals the old place, then generates at the new one; parts move together and keep their nesting."""

    name: ClassVar[str] = "tumor_relocation"
    Params: ClassVar[type[Strict]] = RelocationParams
    MODELS: ClassVar[Mapping[str, tuple[str, ...]]] = {"generator": PAINTERS}

    def check(self, params: RelocationParams, sampler: Sampler, specs: Mapping[str, ModelSpec]) -> None:
        """The generator can be told where the lesion is, and knows the channels whose texture is set."""
        check_prompting(params, sampler, specs)
        spec = specs["generator"]
        wanted = params.labels or spec.lesion
        if params.add is not None:
            wanted = tuple(part.label for part in params.add.parts)
            if unnamed := [name for name in wanted if name not in (params.labels or spec.lesion)]:
                raise ConfigError("every part of an added lesion is one of its labels", found=", ".join(unnamed))
        if spec.kind == "painter" and (spec.mask == "none" or not set(wanted) <= set(spec.labels)):
            raise CheckpointError(
                f"to paint {', '.join(wanted)}, a painter must be shown these labels",
                found=f"mask {spec.mask}, labels {', '.join(spec.labels) or 'none'}",
                next_step="train a painter with mask planes of these labels, or use a counterfactual generator",
            )
        if unknown := [name for name in params.texture if name not in spec.channels]:
            raise ConfigError(
                f"texture names channels of the model: {', '.join(spec.channels)}", found=", ".join(unknown)
            )

    def plan(
        self, sample: Sample, params: RelocationParams, rng: np.random.Generator, context: Context
    ) -> Drawing | Skip:
        """Draw places until one has room for the lesion."""
        healing = choose(sample, params, context, none=params.add is not None)
        if isinstance(healing, Skip):
            return healing
        if missing := [n for n in (*params.host.labels, *params.host.exclude) if n not in sample.labels]:
            return Skip(f"the label map does not name {', '.join(missing)}, which params.host does")
        axis = masks.left_right_axis(sample.affine, sample.image.ndim - 1)
        if params.mirror != "never" and axis is None:
            return Skip("the slice has no left and right")
        beyond_mm = params.beyond_mm(context.specs.get("generator"))
        common = {"healing": healing, "host": params.host, "new_margin_mm": beyond_mm}
        room = params.host.room(sample, healing)
        places = np.argwhere(room)
        if not len(places):
            return Skip("the host region is empty")
        best = 0.0
        for _ in range(params.tries):
            ellipsoid = None if params.add is None else _ellipsoid(params.add, rng)
            motion = _motion(sample, params, healing, places, axis, rng)
            drawn = Relocation(**common, ellipsoid=ellipsoid, motion=motion)
            moved, voxels = drawn.moved(sample)
            share = np.count_nonzero(moved[room]) / voxels if voxels else 0.0
            if share >= params.host.inside:
                return Drawing(drawn.model_dump(mode="json"))
            best = max(best, share)
        return Skip(f"no place for the lesion after {params.tries} tries: at most {best:.0%} of it inside the host")

    def apply(
        self,
        samples: Sequence[Sample],
        plans: Sequence[Plan],
        models: Mapping[str, Generator],
        params: RelocationParams,
        sampler: Sampler,
    ) -> list[Sample]:
        """Heal and generate. Raises `CheckpointError` where the generator was made for other channels."""
        generator, seeds = models["generator"], [p.seed for p in plans]
        scenes = [Relocation.model_validate(p.params).scene(s) for s, p in zip(samples, plans, strict=True)]
        x = normalised(samples, generator)
        if params.add is None:
            old = np.stack([scene.old for scene in scenes])
            x = repaint(generator, samples, x, old, seeds, params, sampler, ill=False)
        shown = [s.replace(label=v.label, labels=v.labels) for s, v in zip(samples, scenes, strict=True)]
        new = np.stack([scene.new for scene in scenes])
        x = repaint(generator, shown, x, new, [derive("second step", n) for n in seeds], params, sampler, ill=True)
        return [
            painted_sample(
                s,
                textured(row, scene.lesion, s.channels, params.texture),
                scene.old | scene.new,
                label=scene.label,
                labels=scene.labels,
            )
            for s, row, scene in zip(samples, x.numpy(), scenes, strict=True)
        ]

    def apart(self, models: Mapping[str, Generator], params: RelocationParams) -> bool:
        """Where the rows are painted one by one."""
        return painted_apart(models["generator"], params)

    def region(self, sample: Sample, plan: Plan) -> np.ndarray | None:
        """The old and the new place with their margins."""
        scene = Relocation.model_validate(plan.params).scene(sample)
        return np.asarray(scene.old | scene.new)


def mirrored(sample: Sample, voxel: np.ndarray, axis: int) -> np.ndarray:
    """The voxel on the other side of the plane, across `axis`, that halves what is not air."""
    other = voxel.copy()
    other[axis] = round(2 * masks.midplane(sample.image, axis)) - voxel[axis]
    return other


def textured(
    x: np.ndarray, lesion: np.ndarray, channels: Sequence[str], texture: Mapping[str, Sequence[float]]
) -> np.ndarray:
    """`x` (C, *), mapped monotonically inside `lesion` (*) so that each named channel has its quantiles there."""
    from scipy.stats import rankdata  # slow to import

    x = x.copy()
    for channel, quantiles in texture.items():
        plane = x[channels.index(channel)]
        rank = (rankdata(plane[lesion]) - 1) / max(1, np.count_nonzero(lesion) - 1)
        plane[lesion] = np.interp(rank, np.linspace(0, 1, len(quantiles)), quantiles)
    return x


def _ellipsoid(add: DrawnLesion, rng: np.random.Generator) -> Ellipsoid:
    return Ellipsoid(
        diameter_mm=_uniform(add.diameter_mm, rng), elongation=_uniform(add.elongation, rng), parts=add.parts
    )


def _motion(
    sample: Sample,
    params: RelocationParams,
    healing: Healing,
    places: np.ndarray,
    axis: int | None,
    rng: np.random.Generator,
) -> dict[str, Any]:
    axes, spacing = sample.image.ndim - 1, np.asarray(voxel_mm(sample))
    mirror = params.mirror == "always" or (params.mirror == "random" and rng.random() < 0.5)
    if params.keep_position:
        shift = np.zeros(axes)
    elif params.shift_mm is not None:
        direction = rng.standard_normal(axes)
        shift = direction / np.linalg.norm(direction) * _uniform(params.shift_mm, rng)
    else:
        start = [n // 2 for n in sample.image.shape[1:]] if params.add else masks.centre(healing.lesion(sample))
        shift = (places[rng.integers(len(places))] - start) * spacing
    motion = masks.Motion(
        shift_mm=tuple(round(float(v), 3) for v in shift),
        rotation_deg=tuple(_uniform(params.rotation_deg, rng) for _ in range(3 if axes == 3 else 1)),
        mirrored_axis=axis if mirror else None,
        scale=_uniform(params.scale, rng),
        elastic_mm=_uniform(params.elastic_mm, rng),
        elastic_length_mm=params.elastic_length_mm,
        elastic_seed=int(rng.integers(2**31)),
    )
    return asdict(motion)


def _uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return round(float(rng.uniform(*bounds)), 4)
