"""A seed in, a skull-stripped brain out: tissue fractions in 3D with an optional tumour laid over them.

Axes are RAS+, lengths mm, the origin between the thalami. The tumour displaces nothing (no mass effect), so the
anatomy without it is exactly what stood there before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import ndimage

from augengine.errors import DataError
from augengine.phantom.fields import Canvas, coverage, look_up, noise_cube, smooth_union, true_depth
from augengine.random_fields import smooth_field
from augengine.rng import generator

FIELD_OF_VIEW_MM = 192.0
BOTTOM_MM, TOP_MM = -56.0, 74.0
LESION_LABELS = {"necrosis": 1, "oedema": 2, "enhancing": 4}  # BraTS 2020 and 2021: NCR, ED, ET
# Tissue codes lie above every year's BraTS codes, so that none is mistaken for a part of the tumour.
TISSUE_LABELS = {**LESION_LABELS, "csf": 5, "grey_matter": 6, "white_matter": 7}
Labels = Literal["lesion", "tissue"]


@dataclass(frozen=True, eq=False)
class BrainAnatomy:
    """One subject, independent of any scanner.

    Attributes:
        fractions: tissue name to float32 (I, J, K), healthy; the rest of a voxel is void.
        lesion: part of the tumour ("core", "necrosis", "enhancing", "oedema") to its share of the voxel; empty
            for a healthy subject.
        contrast_mmol_l: concentration of contrast agent in the enhancing rim.
        t1_scale: tissue name to this subject's deviation from the table.
        affine: float64 (4, 4).
    """

    fractions: Mapping[str, np.ndarray]
    lesion: Mapping[str, np.ndarray]
    contrast_mmol_l: float
    t1_scale: Mapping[str, float]
    affine: np.ndarray = field(repr=False)

    def without_lesion(self) -> BrainAnatomy:
        """The same subject, never ill."""
        return dataclasses.replace(self, lesion={})

    def with_lesion(self, label: np.ndarray) -> BrainAnatomy:
        """The same subject with the tumour that a label map draws, instead of its own.

        Borders are as soft as those of a drawn tumour, and oedema spreads in white matter above all. The core is
        solid or necrotic as the subject's own is; in a subject without a tumour, solid where nothing enhances.

        Args:
            label: uint8 (I, J, K) in BraTS-2021 codes (`LESION_LABELS`); codes of tissues count as none.

        Raises:
            DataError: a label map of another shape.
        """
        if label.shape != self.fractions["csf"].shape:
            raise DataError(
                "a tumour's label map has the anatomy's shape",
                found=label.shape,
                next_step=f"it is {self.fractions['csf'].shape}",
            )
        brain = np.asarray(sum(self.fractions.values()), np.float32)
        parts = {
            n: ndimage.gaussian_filter((label == c).astype(np.float32), (0.5, 0.5, 0)) * brain
            for n, c in LESION_LABELS.items()
        }
        # Where the label map says oedema, grey matter holds what the median voxel of a drawn one does.
        infiltrated = self.fractions["white_matter"] + 0.25 * self.fractions["grey_matter"]
        parts["oedema"] *= np.clip(infiltrated, 0.7, 1) * np.float32(0.9)
        high_grade = (self.lesion or parts)["enhancing"].any()
        core, other = ("necrosis", "core") if high_grade else ("core", "necrosis")
        parts[core], parts[other] = parts["necrosis"], np.zeros_like(brain)
        return dataclasses.replace(self, lesion=parts)

    @property
    def brain_mask(self) -> np.ndarray:
        """bool (I, J, K): what skull stripping keeps."""
        return np.asarray(sum(self.fractions.values()) >= 0.5)

    def lesion_share(self) -> np.ndarray:
        """float32 (I, J, K): share of the voxel that any part of the tumour takes."""
        none = np.zeros(self.fractions["csf"].shape, np.float32)
        return np.asarray(sum(self.lesion.values(), start=none))

    def label(self) -> np.ndarray:
        """uint8 (I, J, K) in BraTS-2021 codes (`LESION_LABELS`); the non-enhancing core counts as necrosis."""
        out = np.zeros(self.fractions["csf"].shape, np.uint8)
        if not self.lesion:
            return out
        parts = {
            LESION_LABELS["necrosis"]: self.lesion["necrosis"] + self.lesion["core"],
            LESION_LABELS["oedema"]: self.lesion["oedema"],
            LESION_LABELS["enhancing"]: self.lesion["enhancing"],
        }
        most = np.argmax(np.stack(list(parts.values())), axis=0)
        out = np.array(list(parts), np.uint8)[most]
        return np.where((self.lesion_share() >= 0.4) & self.brain_mask, out, np.uint8(0))

    def tissue_map(self) -> np.ndarray:
        """uint8 (I, J, K) in `TISSUE_LABELS`: the tumour's parts over the tissue that fills most of the voxel.

        Every voxel of the brain mask has a label, and no voxel outside; vessels count as the tissue beside them.
        """
        names = ("csf", "grey_matter", "white_matter")
        codes = np.array([TISSUE_LABELS[n] for n in names], np.uint8)
        healthy = codes[np.argmax(np.stack([self.fractions[n] for n in names]), axis=0)]
        lesion = self.label()
        return np.where(lesion > 0, lesion, np.where(self.brain_mask, healthy, np.uint8(0)))


def draw_brain(
    *seed: object, matrix: int = 128, slices: int = 48, slice_spacing_mm: float | None = None, lesion: bool = True
) -> BrainAnatomy:
    """Draw one subject.

    Args:
        seed: JSON-able parts; equal parts give an equal subject.
        matrix: voxels along i and along j, of a field of view of 192 mm.
        slices: slices along k.
        slice_spacing_mm: distance between slices; by default they cover the whole brain.
        lesion: give the subject a tumour. The healthy part of the anatomy does not depend on it.
    """
    rng = generator("brain anatomy", *seed)
    voxel = FIELD_OF_VIEW_MM / matrix
    slice_spacing_mm = slice_spacing_mm or max(round((TOP_MM - BOTTOM_MM) / slices, 2), round(voxel, 2))
    shape, spacing = (matrix, matrix, slices), (voxel, voxel, slice_spacing_mm)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [
        -(matrix - 1) / 2 * voxel,
        -(matrix - 1) / 2 * voxel,
        (BOTTOM_MM + TOP_MM) / 2 - (slices - 1) / 2 * slice_spacing_mm,
    ]
    grid = [affine[d, 3] + spacing[d] * np.arange(shape[d], dtype=np.float32) for d in range(3)]
    size = rng.normal(1, 0.035, 3) * rng.normal(1, 0.03)
    warped = []
    for axis, (coordinate, scale) in enumerate(zip(grid, size, strict=True)):
        column = coordinate.reshape([-1 if d == axis else 1 for d in range(3)])
        warp = smooth_field(rng, shape, spacing, 45) * np.float32(2.2)
        warped.append(((column + warp) / scale).astype(np.float32))
    fractions = _healthy(rng, shape, spacing, *warped)
    parts: dict[str, np.ndarray] = {}
    ill = generator("brain lesion", *seed)
    if lesion:
        parts = _tumour(ill, fractions, shape, spacing, warped)
    return BrainAnatomy(
        fractions=fractions,
        lesion=parts,
        contrast_mmol_l=float(ill.uniform(0.15, 0.35)),
        t1_scale={n: float(rng.normal(1, 0.03)) for n in ("grey_matter", "white_matter", "tumour", "oedema")},
        affine=affine,
    )


def _ellipsoid(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]
) -> np.ndarray:
    """Approximate depth (mm) below an ellipsoid."""
    r2 = sum(((c - m) / np.float32(r)) ** 2 for c, m, r in zip((x, y, z), centre, radii, strict=True))
    return np.asarray((1 - np.sqrt(r2)) * np.float32(min(radii)), np.float32)


def _hypot(*parts: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(sum(p * p for p in parts)))


def _beyond(offset: np.ndarray, reach: float) -> np.ndarray:
    """How far an offset lies beyond +-reach."""
    return np.asarray(np.maximum(np.abs(offset) - reach, 0))


def _fold_distance(
    rng: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    radial: np.ndarray,
    wavelength_mm: float,
    spacing: tuple[float, ...],
) -> np.ndarray:
    """Distance (mm) to the nearest fold: the sheets where a texture over the directions changes its sign."""
    norm = np.sqrt((x / 67) ** 2 + (y / 84) ** 2 + (z / 64) ** 2) + np.float32(0.02)
    cells = np.float32(8 / wavelength_mm)
    # Folds do not run straight to the centre: they lean with depth, and meander.
    bend = np.clip(radial, 0, 40) * np.float32(0.3) + 3 * smooth_field(rng, radial.shape, spacing, 16)
    flat = [
        (c / (norm * r) * np.float32(68) + bend * lean) * cells
        for c, r, lean in zip((x, y, z), (67, 84, 64), (1, -1, 1), strict=True)
    ]
    cube = noise_cube(rng)
    return np.asarray(np.abs(true_depth(look_up(cube, *flat) * np.float32(6), spacing)))


def _healthy(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
) -> dict[str, np.ndarray]:
    edge = spacing[0]
    side = np.abs(x)
    # Hull: hemispheres, temporal lobes, cerebellum, brainstem.
    upper = _ellipsoid(x, y, z, (0, 2, 4), (67, 84, 64))
    upper = np.minimum(upper, z + 24 - 0.0012 * y * y)  # the base is cut off
    temporal = _ellipsoid(side, y, z, (42, 6, -24), (23, 41, 21))
    cerebrum = smooth_union(upper, temporal, 8.0)
    cerebellum = _ellipsoid(side, y, z, (16, -56, -36), (36, 29, 21))
    stem = np.minimum(13 - np.hypot(x, (y + 24 - 0.25 * z) * 1.0), -2 - z)
    basal = _ellipsoid(x, y, z, (0, -4, -22), (32, 30, 14))  # cisterns around the stem
    hull = np.maximum(np.maximum(cerebrum, cerebellum), np.maximum(stem, basal))
    atrophy = rng.uniform(0.3, 1.0)

    # Cortex: sulci are sheets where a texture over the directions changes its sign; they end at their own depth.
    depth = true_depth(cerebrum, spacing)
    radial = np.maximum(_ellipsoid(x, y, z, (0, 2, 4), (67, 84, 64)), true_depth(temporal, spacing))
    wobble = smooth_field(rng, shape, spacing, 25) * 1.2
    bottom = 20 + 6 * smooth_field(rng, shape, spacing, 30)
    gap = np.float32(0.2 + 0.7 * atrophy)
    pial = depth
    for wavelength, deep in ((rng.uniform(22, 26), 1.0), (rng.uniform(15, 18), 0.5)):
        sheet = _fold_distance(rng, x, y, z, radial, wavelength, spacing)
        sulcus = np.hypot(sheet, np.maximum(radial - bottom * deep, 0))
        width = gap * (1 + np.clip(bottom * deep - radial, 0, 12) / 24)
        pial = np.minimum(pial, sulcus - width)
    fissure = np.hypot(x + wobble, np.maximum(np.minimum(30 - (z + 4), 40 - np.abs(y - 4)), 0) * 0.6)
    insula = _hypot(side - 38 + 0.010 * (y - 4) ** 2 + 2.5 * wobble, _beyond(y - 4, 19), _beyond(z - 2, 13))
    cleft = _hypot(
        (y - 8 - 1.4 * z + 5 * wobble + 0.3 * (side - 45)) * 0.58, np.maximum(37 - side, 0), _beyond(z - 2, 15)
    )
    pial = np.minimum(pial, np.minimum(fissure, np.minimum(insula, cleft) - 0.5) - gap)
    thickness = np.float32(rng.uniform(3.2, 4.0)) + 0.3 * smooth_field(rng, shape, spacing, 20)

    canvas = Canvas(shape)
    canvas.paint("csf", coverage(hull, edge))
    inside = coverage(cerebrum, edge)
    canvas.paint("grey_matter", coverage(pial - 0.3, edge) * inside)
    grain = 0.93 + 0.05 * smooth_field(rng, shape, spacing, 7)
    canvas.paint("white_matter", coverage(pial - thickness, edge) * inside * np.clip(grain, 0, 1))
    _paint_cerebellum(canvas, rng, cerebellum, stem, x, y, z, edge)
    _paint_deep(canvas, rng, x, y, z, edge, atrophy)
    vessel = np.clip(1.4 - np.hypot(x + wobble, (depth + 1.0) * 0.6), 0, 1) * (z > 10)
    canvas.paint("blood", np.asarray(vessel * inside * np.float32(0.8), np.float32))
    return canvas.fractions


def _paint_cerebellum(
    canvas: Canvas,
    rng: np.random.Generator,
    cerebellum: np.ndarray,
    stem: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    edge: float,
) -> None:
    leaves = np.cos((np.hypot(y + 20, z + 30) + 0.25 * np.abs(x)) * np.float32(2 * np.pi / rng.uniform(6, 8)))
    cover = coverage(cerebellum, edge)
    canvas.paint("csf", cover)
    canvas.paint("grey_matter", coverage(cerebellum - 0.8 - 0.7 * (leaves > 0.75), edge))
    canvas.paint("white_matter", coverage(cerebellum - 9 + 3.5 * leaves, 2 * edge))
    canvas.paint("white_matter", coverage(stem - 1.5, edge) * np.float32(0.95))
    fourth = _ellipsoid(x, y, z, (0, -38, -32), (8, 5, 11))
    canvas.paint("csf", coverage(fourth, edge))


def _paint_deep(
    canvas: Canvas, rng: np.random.Generator, x: np.ndarray, y: np.ndarray, z: np.ndarray, edge: float, atrophy: float
) -> None:
    """Ventricles and deep grey matter, left and right a little different."""
    for sign in (-1, 1):
        u = x * sign
        wide = float(rng.uniform(0.85, 1.15) * (0.7 + 0.6 * atrophy))
        half = coverage(u, edge)
        thalamus = _ellipsoid(u, y, z, (13, -12, 2), (10.8, 13.2, 14))
        lentiform = _ellipsoid(u, y, z, (26, 4, 4), (5, 19, 12))
        for nucleus in (thalamus, lentiform):
            canvas.paint("grey_matter", coverage(nucleus, 1.6 * edge) * half * np.float32(0.85))
        arch = 0.012 * (y - 2) ** 2  # the lateral ventricle bends down and out, in front and behind
        body = _ellipsoid(u - 8 - 0.006 * (y - 2) ** 2, y, z - 17 + arch, (0, -4, 0), (5.5 * wide, 38, 6.5 * wide))
        caudate = _ellipsoid(u - 15 - 0.004 * (y - 2) ** 2, y, z - 15 + arch, (0, 14, 0), (5, 20, 8))
        canvas.paint("grey_matter", coverage(caudate, edge) * half * np.float32(0.9))
        canvas.paint("csf", coverage(body, edge) * half)
        temporal_horn = _ellipsoid(u - 30, y, z + 16, (0, -8, 0), (2.6 * wide, 16, 2.6 * wide))
        canvas.paint("csf", coverage(temporal_horn, edge) * half)
    third = _ellipsoid(x, y, z, (0, -6, 0), (1.2 + 1.4 * atrophy, 13, 10))
    canvas.paint("csf", coverage(third, edge))


def _tumour(
    rng: np.random.Generator,
    fractions: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    xyz: list[np.ndarray],
) -> dict[str, np.ndarray]:
    """A glioma: core with necrosis and enhancing rim (four of five), and oedema that follows the white matter."""
    x, _, z = xyz
    white = fractions["white_matter"]
    brain = np.asarray(sum(fractions.values()), np.float32)
    spots = np.flatnonzero((white > 0.8) & (z > -20) & (z < 48) & (np.abs(x) > 16))
    spot = np.unravel_index(spots[int(rng.integers(spots.size))], shape)
    offset = np.stack([c - c[spot] for c in xyz])
    distance = np.sqrt((offset**2).sum(axis=0))
    direction = offset / np.maximum(distance, 1e-3)
    radius = rng.uniform(8, 22)
    cube = noise_cube(rng)
    lobes = look_up(cube, *(direction * 6 + 30)) + 0.4 * smooth_field(rng, shape, spacing, 8)
    depth = radius * (1 + 0.16 * lobes) - distance
    edge = spacing[0]
    core = coverage(depth, 1.5 * edge) * brain
    rim = np.float32(rng.uniform(2.0, 5.0)) + 1.2 * smooth_field(rng, shape, spacing, 10)
    necrosis = coverage(depth - rim, 1.2 * edge) * core
    enhancing = core - necrosis
    if rng.random() < 0.2:  # lower grade: nothing enhances, the core is solid
        necrosis, enhancing = np.zeros_like(core), np.zeros_like(core)
    else:
        patchy = coverage(smooth_field(rng, shape, spacing, 12) + 1.7, 1.0)  # the rim has gaps
        core, enhancing = enhancing * (1 - patchy), enhancing * patchy
    reach = rng.uniform(6, 20) * (1 + 0.35 * smooth_field(rng, shape, spacing, 18))
    spread = coverage(depth + reach, 4 * edge) * np.clip(white + 0.25 * fractions["grey_matter"], 0, 1)
    oedema = np.clip(spread * np.float32(0.9), 0, 1) * (1 - core - necrosis - enhancing)
    return {"core": core, "necrosis": necrosis, "enhancing": enhancing, "oedema": oedema.astype(np.float32)}
