"""Rows in; the same rows with the ghosts of a periodic motion along the phase-encoding axis, labels untouched, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from augengine.edits.base import Context, Drawing, Plan, Skip
from augengine.policy.spec import Sampler
from augengine.records import Sample
from augengine.yaml_config import Strict

Share = Annotated[float, Field(gt=0, le=0.5)]


class MotionParams(Strict):
    """What a policy may say under `params`; both ranges are drawn from evenly, anew for each row.

    Attributes:
        depth: how much the motion modulates the signal of a line of k-space, relative to the signal.
        shift: distance of the ghosts from what they copy, relative to the field of view along the axis.
        axes: of the slice's two axes, those that may be the phase-encoding one.
    """

    depth: tuple[Share, Share] = (0.05, 0.2)
    shift: tuple[Share, Share] = (0.15, 0.5)
    axes: tuple[int, ...] = (0, 1)

    @field_validator("depth", "shift")
    @classmethod
    def _rising(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if bounds[0] > bounds[1]:
            raise ValueError("a range is two rising numbers")
        return bounds

    @field_validator("axes")
    @classmethod
    def _in_plane(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        if not axes or not set(axes) <= {0, 1}:
            raise ValueError("axes are 0, 1 or both")
        return axes


class MotionGhosting:
    """Ghosts of a periodic motion, such as breathing, along the phase-encoding axis; the label map stays.

    Lines of k-space are acquired one after another, and a periodic motion modulates their signal by
    1 + depth · cos(2π · shift · k + phase). In the image that adds two copies, moved by ± shift of the field of view
    and depth / 2 as strong, which is how it is computed here. Nothing is displaced itself, so labels keep their
    place, and no voxel changes by more than depth times the brightest voxel of its line.
    """

    name: ClassVar[str] = "motion_ghosting"
    Params: ClassVar[type[Strict]] = MotionParams
    MODELS: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def check(self, params: Any, sampler: Sampler, specs: Mapping[str, Any]) -> None:
        """Nothing to refuse that `MotionParams` do not: there is no model."""

    def plan(self, sample: Sample, params: MotionParams, rng: np.random.Generator, context: Context) -> Drawing | Skip:
        """Draw axis, depth, shift and phase."""
        if sample.image.min() < 0:
            return Skip("ghosts are made of magnitude images, and this one has negative values")
        axis = int(rng.choice(params.axes))
        width = sample.image.shape[1 + axis]
        return Drawing(
            {
                "axis": axis,
                "depth": float(rng.uniform(*params.depth)),
                "shift_voxels": max(1, round(float(rng.uniform(*params.shift)) * width)),
                "phase_rad": float(rng.uniform(0, 2 * np.pi)),
            }
        )

    def apply(
        self,
        samples: Sequence[Sample],
        plans: Sequence[Plan],
        models: Mapping[str, Any],
        params: MotionParams,
        sampler: Sampler,
    ) -> list[Sample]:
        """Each row by itself."""
        return [
            sample.replace(image=ghosted(sample.image, **plan.params))
            for sample, plan in zip(samples, plans, strict=True)
        ]

    def region(self, sample: Sample, plan: Plan) -> np.ndarray | None:
        """Ghosts may fall anywhere."""
        return None


def ghosted(image: np.ndarray, axis: int, depth: float, shift_voxels: int, phase_rad: float) -> np.ndarray:
    """Magnitude of an image (C, *) and its two ghosts along a spatial axis, float32."""
    x = image.astype(np.float64)
    turn = np.exp(1j * phase_rad)
    ghosts = turn * np.roll(x, shift_voxels, axis + 1) + np.conj(turn) * np.roll(x, -shift_voxels, axis + 1)
    magnitude: np.ndarray = np.abs(x + depth / 2 * ghosts)
    return magnitude.astype(np.float32)
