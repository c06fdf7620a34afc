"""A seed in, a breast anatomy out: tissue fractions, label and off-resonance of one prone subject in 3D.

Axes are RAS+ (i to the right, j to the front, k to the head), lengths mm. y = 0 is the skin over the breastbone,
the breasts hang towards +y. Fractions live on a grid with three sub-slices per slice, so that a slice thickness
can act on them; within a voxel they are partial volumes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from augengine.phantom.breast_chest import paint_chest
from augengine.phantom.breast_shape import Breast, Torso
from augengine.phantom.breast_tissue import draw_lesion, paint_gland, paint_vessels
from augengine.phantom.fields import Canvas, coverage, smooth_union, true_depth
from augengine.random_fields import smooth_field
from augengine.rng import generator

SUB_SLICES = 3
LABELS = {"fat": 1, "fibroglandular": 2}
LESION_LABELS = {**LABELS, "lesion": 3}


@dataclass(frozen=True, eq=False)
class BreastAnatomy:
    """One subject, independent of any scanner.

    Attributes:
        fractions: tissue name to float32 (I, J, 3 K), without the lesion; the rest of a voxel is air.
        tissue_label: uint8 (I, J, K): 0, fat 1, fibroglandular 2, within the breasts only.
        lesion: float32 (I, J, 3 K) share of the voxel that the lesion takes, or None.
        lesion_kind: "cancer" or "benign"; None without a lesion.
        off_resonance_ppm: float32 (I, J, K), what is left after shimming.
        t1_scale: tissue name to this subject's deviation from the table.
        affine: float64 (4, 4) of the slice grid.
    """

    fractions: Mapping[str, np.ndarray]
    tissue_label: np.ndarray
    lesion: np.ndarray | None
    lesion_kind: str | None
    off_resonance_ppm: np.ndarray
    t1_scale: Mapping[str, float]
    affine: np.ndarray

    @property
    def density(self) -> float:
        """Fibroglandular share of the labelled breast volume."""
        return float((self.tissue_label == 2).sum() / (self.tissue_label > 0).sum())

    def without_lesion(self) -> BreastAnatomy:
        """The same subject, never ill."""
        return dataclasses.replace(self, lesion=None, lesion_kind=None)

    def lesion_mask(self) -> np.ndarray:
        """bool (I, J, K): the lesion fills at least half of the voxel."""
        if self.lesion is None:
            return np.zeros(self.tissue_label.shape, bool)
        return slice_mean(self.lesion) >= 0.5

    def label(self, *, lesion_label: bool = False) -> np.ndarray:
        """uint8 (I, J, K). The lesion counts as fibroglandular tissue unless `lesion_label` gives it code 3."""
        code = LESION_LABELS["lesion"] if lesion_label else LABELS["fibroglandular"]
        return np.where(self.lesion_mask(), np.uint8(code), self.tissue_label)

    def dense_and_vessels(self) -> np.ndarray:
        """uint8 (I, J, K): vessels in fat 1, dense tissue 2, as in Duke's second mask."""
        label = self.label()
        vessels = (slice_mean(self.fractions["blood"]) >= 0.3) & (label == LABELS["fat"])
        return np.where(label == LABELS["fibroglandular"], np.uint8(2), vessels.astype(np.uint8))


def slice_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the sub-slices of each slice: (I, J, 3 K) to (I, J, K)."""
    i, j, k = values.shape
    return np.asarray(values.reshape(i, j, k // SUB_SLICES, SUB_SLICES).mean(-1))


def draw_breast(
    *seed: object, matrix: int = 128, slices: int = 24, slice_spacing_mm: float | None = None, lesion: bool = False
) -> BreastAnatomy:
    """Draw one subject.

    Args:
        seed: JSON-able parts; equal parts give an equal subject.
        matrix: voxels along i and along j.
        slices: slices along k, centred on the breasts.
        slice_spacing_mm: distance between slice centres; by default 4 mm, or more where the voxels are so large
            that the slices would no longer be the coarsest direction.
        lesion: give the subject one lesion. The healthy part of the anatomy does not depend on it.
    """
    rng = generator("breast anatomy", *seed)
    fov = rng.uniform(310, 350)
    voxel = fov / matrix
    slice_spacing_mm = slice_spacing_mm or max(4.0, round(1.1 * voxel, 1))
    spacing = (voxel, voxel, slice_spacing_mm / SUB_SLICES)
    shape = (matrix, matrix, slices * SUB_SLICES)
    origin = np.array([-(matrix - 1) / 2 * voxel, rng.uniform(-20, -8) - fov / 2 + 0.02 * fov, 0.0])
    centre_z = (shape[2] - 1) / 2 * spacing[2]
    x = (origin[0] + voxel * np.arange(matrix, dtype=np.float32))[:, None, None]
    y = (origin[1] + voxel * np.arange(matrix, dtype=np.float32))[None, :, None]
    z = (spacing[2] * np.arange(shape[2], dtype=np.float32) - centre_z)[None, None, :]
    warp = [smooth_field(rng, shape, spacing, 55) * rng.uniform(2.0, 5.0) for _ in range(3)]
    x, y, z = ((c + w).astype(np.float32) for c, w in zip((x, y, z), warp, strict=True))

    torso = Torso.draw(rng)
    size = rng.uniform(0, 1)  # small to large; both breasts of a subject are alike
    breasts = [Breast.draw(rng, side, size, torso) for side in (-1, 1)]
    depth = torso.depth(x, y, inset=0.0)
    hanging = [b.depth(x, y, z) for b in breasts]
    for b in hanging:
        depth = smooth_union(b, depth, 14.0)
    skin_depth = true_depth(depth, spacing)

    canvas = Canvas(shape)
    body = coverage(skin_depth, voxel)
    canvas.paint("fat", body)
    wall = paint_chest(canvas, rng, torso, x, y, z, skin_depth, spacing)
    region = np.maximum(*hanging) > -6.0
    region &= (skin_depth > 1.5) & (wall < -1.0)
    paint_gland(canvas, rng, breasts, hanging, region, (x, y, z), skin_depth, wall)
    paint_vessels(canvas, rng, breasts, hanging, region, (x, y, z), spacing)
    inner = coverage(skin_depth - np.float32(rng.uniform(1.4, 2.4)), voxel)
    for fraction in canvas.fractions.values():
        fraction *= inner
    canvas.fractions["skin"] = body - inner

    in_breast = slice_mean(region.astype(np.float32)) >= 0.5
    dense = slice_mean(canvas.fractions["fibroglandular"]) >= 0.5
    label = np.where(in_breast, np.where(dense, np.uint8(2), np.uint8(1)), np.uint8(0))
    slice_affine = np.diag([voxel, voxel, slice_spacing_mm, 1.0])
    slice_affine[:3, 3] = [origin[0], origin[1], -(slices - 1) / 2 * slice_spacing_mm]
    ill = draw_lesion(generator("breast lesion", *seed), canvas, region, (x, y, z), spacing) if lesion else None
    return BreastAnatomy(
        fractions=canvas.fractions,
        tissue_label=label,
        lesion=None if ill is None else ill[0],
        lesion_kind=None if ill is None else ill[1],
        off_resonance_ppm=_off_resonance(rng, (matrix, matrix, slices), (voxel, voxel, slice_spacing_mm)),
        t1_scale={n: float(rng.normal(1, 0.05)) for n in ("fibroglandular", "fat", "muscle", "cancer", "benign")},
        affine=slice_affine,
    )


def _off_resonance(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> np.ndarray:
    """ppm: a smooth field that is worst at the sides and at the skin folds, after shimming."""
    return smooth_field(rng, shape, spacing, 110) * np.float32(rng.uniform(0.3, 0.9)) + smooth_field(
        rng, shape, spacing, 50
    ) * np.float32(rng.uniform(0.1, 0.4))
