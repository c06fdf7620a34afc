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

from augengine.phantom.fields import Canvas, coverage, look_up, noise_cube, smooth_field, smooth_union, true_depth
from augengine.rng import generator

SUB_SLICES = 3
LABELS = {"fat": 1, "fibroglandular": 2}
LESION_LABELS = {**LABELS, "lesion": 3}
NIPPLE_FOCUS = 1.2  # ducts point to a spot this share of the breast's length from the chest wall


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
        density: fibroglandular share of the breast volume as drawn.
    """

    fractions: Mapping[str, np.ndarray]
    tissue_label: np.ndarray
    lesion: np.ndarray | None
    lesion_kind: str | None
    off_resonance_ppm: np.ndarray
    t1_scale: Mapping[str, float]
    affine: np.ndarray
    density: float

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

    torso = _Torso.draw(rng)
    size = rng.uniform(0, 1)  # small to large; both breasts of a subject are alike
    breasts = [_Breast.draw(rng, side, size, torso) for side in (-1, 1)]
    depth = torso.depth(x, y, inset=0.0)
    hanging = [b.depth(x, y, z) for b in breasts]
    for b in hanging:
        depth = smooth_union(b, depth, 14.0)
    skin_depth = true_depth(depth, spacing)

    canvas = Canvas(shape)
    body = coverage(skin_depth, voxel)
    canvas.paint("fat", body)
    wall = _paint_chest(canvas, rng, torso, x, y, z, skin_depth, spacing)
    region = np.maximum(*hanging) > -6.0
    region &= (skin_depth > 1.5) & (wall < -1.0)
    density = _paint_gland(canvas, rng, breasts, hanging, region, (x, y, z), skin_depth, wall)
    _paint_vessels(canvas, rng, breasts, hanging, region, (x, y, z), spacing)
    inner = coverage(skin_depth - np.float32(rng.uniform(1.4, 2.4)), voxel)
    for fraction in canvas.fractions.values():
        fraction *= inner
    canvas.fractions["skin"] = body - inner

    in_breast = slice_mean(region.astype(np.float32)) >= 0.5
    dense = slice_mean(canvas.fractions["fibroglandular"]) >= 0.5
    label = np.where(in_breast, np.where(dense, np.uint8(2), np.uint8(1)), np.uint8(0))
    slice_affine = np.diag([voxel, voxel, slice_spacing_mm, 1.0])
    slice_affine[:3, 3] = [origin[0], origin[1], -(slices - 1) / 2 * slice_spacing_mm]
    ill = _lesion(generator("breast lesion", *seed), canvas, region, (x, y, z), spacing) if lesion else None
    return BreastAnatomy(
        fractions=canvas.fractions,
        tissue_label=label,
        lesion=None if ill is None else ill[0],
        lesion_kind=None if ill is None else ill[1],
        off_resonance_ppm=_off_resonance(rng, (matrix, matrix, slices), (voxel, voxel, slice_spacing_mm)),
        t1_scale={n: float(rng.normal(1, 0.05)) for n in ("fibroglandular", "fat", "muscle", "cancer", "benign")},
        affine=slice_affine,
        density=density,
    )


@dataclass(frozen=True)
class _Torso:
    """A superellipse in every axial plane: half width, half depth (mm), squareness, fat under the skin."""

    half_width: float
    half_depth: float
    power: float
    fat_mm: float
    tilt: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Torso:
        return cls(
            rng.uniform(150, 188), rng.uniform(105, 130), rng.uniform(2.2, 2.7), rng.uniform(5, 16),
            rng.uniform(-0.05, 0.05),
        )  # fmt: skip

    def depth(self, x: np.ndarray, y: np.ndarray, inset: float) -> np.ndarray:
        """Depth below the surface that lies `inset` mm inside the torso."""
        a, b, n = self.half_width - inset, self.half_depth - inset, self.power
        across, along = np.abs(x / np.float32(a)), np.abs((y + self.half_depth) + self.tilt * x) / np.float32(b)
        return np.asarray((1 - (across**n + along**n) ** np.float32(1 / n)) * np.float32(b), np.float32)

    def front(self, x: float) -> float:
        """y of the skin of the chest at lateral position x, without breasts."""
        return float(self.half_depth * (1 - abs(x / self.half_width) ** self.power) ** (1 / self.power)) - self.half_depth


@dataclass(frozen=True)
class _Breast:
    """One breast: a bent, pointed ellipsoid from its base on the chest wall to the nipple."""

    side: int
    base: tuple[float, float, float]
    length: float
    radius_x: float
    radius_z: float
    point: float
    splay: float
    sag: float

    @classmethod
    def draw(cls, rng: np.random.Generator, side: int, size: float, torso: _Torso) -> _Breast:
        size = float(np.clip(size + rng.normal(0, 0.07), 0, 1))
        lateral = rng.uniform(70, 80) + 8 * size
        radius = 47 + 19 * size + rng.uniform(-3, 3)
        return cls(
            side=side,
            base=(side * lateral, torso.front(lateral) - 6, rng.uniform(-8, 8)),
            length=48 + 68 * size + rng.uniform(-10, 12),
            radius_x=radius,
            radius_z=radius * rng.uniform(1.0, 1.25),
            point=rng.uniform(1.7, 2.9),
            splay=rng.uniform(-6, 16),
            sag=rng.uniform(-4, 22),
        )

    def local(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(t, u, w): share of the way to the nipple, outward and upward distance (mm) from the bent axis."""
        t = (y - self.base[1]) * np.float32(1 / self.length)
        ahead = np.clip(t, 0, 1.2)
        outward = (x - self.base[0]) * self.side - self.splay * ahead
        return t, outward, z - self.base[2] + self.sag * ahead * ahead

    def depth(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        t, u, w = self.local(x, y, z)
        along = np.where(t > 0, np.maximum(t, 0) ** np.float32(self.point), (t * np.float32(self.length / 40)) ** 2)
        # A rounder, fuller underside: the radius grows a little before it closes at the nipple.
        q = (u / np.float32(self.radius_x)) ** 2 + (w / np.float32(self.radius_z)) ** 2 + along
        # The nipple is a small knob on the axis at the tip.
        knob = 1 - np.sqrt((u / 6) ** 2 + (w / 6) ** 2 + ((t - 1) * np.float32(self.length / 8)) ** 2)
        return smooth_union(np.asarray(knob * 6, np.float32), (1 - np.sqrt(q)) * np.float32(self.radius_x), 3.0)


def _paint_chest(
    canvas: Canvas, rng: np.random.Generator, torso: _Torso, x: np.ndarray, y: np.ndarray, z: np.ndarray,
    skin_depth: np.ndarray, spacing: tuple[float, float, float],
) -> np.ndarray:  # fmt: skip
    """Muscle, ribs, breastbone, lungs, heart, liver, aorta and spine; returns the depth below the muscle surface."""
    edge = spacing[0]
    wall = np.minimum(torso.depth(x, y, inset=torso.fat_mm), skin_depth - np.float32(1.5))
    # The pectoral muscles are thick to the sides of the breastbone and taper towards the armpits.
    spread = np.abs(x) / np.float32(torso.half_width)
    pectoral = np.exp(-(((spread - 0.48) / 0.26) ** 2)) * np.float32(rng.uniform(6, 15)) + 1.5
    canvas.paint("muscle", coverage(wall, edge))
    streaks = smooth_field(rng, canvas.shape, spacing, 9)
    marbling = coverage(streaks * 1.6 - np.float32(rng.uniform(2.4, 3.4)), 1.5) * coverage(wall - 1, edge)
    canvas.paint("fat", marbling * np.float32(0.8))
    seam = wall - pectoral  # a fat plane between pectoral muscle and ribs
    canvas.paint("fat", np.exp(-((seam / 1.6) ** 2)) * np.float32(rng.uniform(0.3, 0.8)))
    ribs = np.cos((z * 1.0 + np.abs(x) * np.float32(rng.uniform(0.5, 0.9)) + y * 0.5) * np.float32(2 * np.pi / 30))
    rib = np.minimum(5.0 - np.abs(seam - 8), (ribs - 0.15) * 7)
    canvas.paint("bone", coverage(rib, edge))
    canvas.paint("fat", coverage(rib - 2.2, edge) * np.float32(0.45))
    sternum = (1 - np.sqrt((x / np.float32(rng.uniform(15, 20))) ** 2 + ((wall - 8) / 6.5) ** 2)) * 6.5
    canvas.paint("bone", coverage(sternum, edge))
    canvas.paint("fat", coverage(sternum - 1.8, edge) * np.float32(0.5))
    canvas.paint("blood", coverage(sternum - 1.8, edge) * np.float32(0.2))
    cavity = seam - 15
    canvas.paint("lung", coverage(cavity, edge))
    vessels = smooth_field(rng, canvas.shape, spacing, 10)
    canvas.paint("blood", coverage(vessels - 2.1, 0.8) * coverage(cavity - 4, edge) * np.float32(0.6))
    ripple = smooth_field(rng, canvas.shape, spacing, 22)
    middle = x - np.float32(rng.uniform(-6, 6)) + 3 * ripple
    # Fat hides behind the breastbone and around the great vessels; between the two lie heart and lungs.
    thymic = np.minimum(22 - 0.9 * cavity - np.abs(middle) * np.float32(rng.uniform(0.5, 0.9)) + 3 * ripple, cavity)
    canvas.paint("fat", coverage(thymic, edge) * np.float32(0.9))
    back = np.minimum(15 - np.abs(middle + 6) + 4 * ripple, cavity)
    canvas.paint("muscle", coverage(back, edge) * np.float32(0.9))
    canvas.paint("fat", coverage(back, edge) * coverage(ripple - 0.1, 1.5) * np.float32(0.85))
    hx, hy, hz = rng.uniform(-34, -16), rng.uniform(-74, -60), rng.uniform(-25, 0)
    turn = rng.uniform(0.3, 0.9)
    p, q = (x - hx) * np.cos(turn) + (y - hy) * np.sin(turn), (y - hy) * np.cos(turn) - (x - hx) * np.sin(turn)
    r = np.sqrt((p / np.float32(rng.uniform(36, 42))) ** 2 + (q / np.float32(rng.uniform(44, 54))) ** 2
                + ((z - hz) / np.float32(rng.uniform(62, 80))) ** 2)  # fmt: skip
    heart = np.minimum((1 - r) * 42 + 2.5 * ripple, cavity)
    canvas.paint("fat", coverage(heart + 4, edge) * coverage(cavity, edge))
    canvas.paint("muscle", coverage(heart, edge))
    septum = np.abs(p + 4) - 4
    canvas.paint("blood", coverage(np.minimum(heart - 9 - 1.5 * streaks, septum + streaks), edge))
    dome = (1 - np.sqrt(((x - 62) / 80) ** 2 + ((y + 95) / 75) ** 2 + ((z + rng.uniform(75, 110)) / 60) ** 2)) * 60
    canvas.paint("liver", coverage(np.minimum(dome, cavity), edge))
    aorta = 12 - np.hypot(x + 24, y + np.float32(1.48 * torso.half_depth))
    canvas.paint("blood", coverage(aorta, edge))
    spine = 20 - np.hypot(x, (y + np.float32(1.62 * torso.half_depth)) * 1.15)
    canvas.paint("bone", coverage(spine, edge))
    canvas.paint("fat", coverage(spine - 2, edge) * np.float32(0.5))
    canvas.paint("blood", coverage(spine - 2, edge) * np.float32(0.2))
    return wall


def _draw_density(rng: np.random.Generator) -> float:
    """Fibroglandular share: BI-RADS a to d at roughly their share among women (10, 40, 40, 10%)."""
    low, high = ((0.06, 0.10), (0.10, 0.22), (0.22, 0.40), (0.40, 0.58))[int(rng.choice(4, p=(0.1, 0.4, 0.4, 0.1)))]
    return float(rng.uniform(low, high))


def _paint_gland(
    canvas: Canvas, rng: np.random.Generator, breasts: list[_Breast], hanging: list[np.ndarray], region: np.ndarray,
    xyz: tuple[np.ndarray, ...], skin_depth: np.ndarray, wall: np.ndarray,
) -> float:  # fmt: skip
    """Fibroglandular tissue: streaks that converge on the nipple, wrapped in fat; returns its share as drawn."""
    target = _draw_density(rng)
    clumping = rng.uniform(0.25, 1.0)  # 0.25: one solid cone of tissue; 1: scattered islands and strands
    softness = rng.uniform(0.10, 0.22)
    under_skin, behind = rng.uniform(6, 15) * (1.15 - target), rng.uniform(3, 9)
    septa, interspersed = rng.uniform(0.1, 0.4), rng.uniform(0.15, 0.4)
    first = hanging[0] > hanging[1]
    gland = np.zeros(canvas.shape, np.float32)
    total = 0.0
    for breast, mine in zip(breasts, (region & first, region & ~first), strict=True):
        at = np.nonzero(mine)
        t, u, w = breast.local(*(c[at] for c in xyz))
        coarse, fine = noise_cube(rng), noise_cube(rng, wavelength=5.0)
        narrowing = np.maximum(NIPPLE_FOCUS - t, 0.12)
        a, b = u / narrowing, w / narrowing
        long, wide = rng.uniform(60, 110), rng.uniform(38, 60)  # mm per texture wave, along and across the ducts
        ahead = t * np.float32(breast.length)
        clumps = look_up(coarse, ahead * np.float32(8 / long), a * np.float32(8 / wide), b * np.float32(8 / wide))
        strands = look_up(fine, ahead * np.float32(5 / 34), a * np.float32(5 / 15), b * np.float32(5 / 15))
        lobules = look_up(fine, ahead * np.float32(5 / 9), u * np.float32(5 / 8), w * np.float32(5 / 8))
        to_nipple = np.hypot(np.hypot(u, w), (1 - t) * np.float32(breast.length))
        rim = (skin_depth[at] - under_skin * (1 - np.exp(-((to_nipple / 22) ** 2)))) / 9
        rear = (-wall[at] - behind) / 9
        wrap = np.tanh(np.minimum(np.minimum(rim, rear), 1.5))
        r2 = (u / np.float32(breast.radius_x)) ** 2 + (w / np.float32(breast.radius_z)) ** 2
        cone = 1 - r2 / np.maximum(1.15 - t, 0.1) + 0.25 * (u + w) / np.float32(breast.radius_x)
        score = 1.3 * wrap + np.maximum(0.55 * cone, -2) + clumping * (0.75 * clumps + 0.45 * strands) + 0.22 * lobules
        share = float(np.clip(target * rng.normal(1, 0.08), 0.05, 0.6))
        cut = np.quantile(score, 1 - share)
        dense = 1 / (1 + np.exp((cut - score) / np.float32(softness)))
        # Cooper's ligaments: thin sheets of connective tissue where a texture changes its sign.
        sheets = np.exp(-((strands / 0.14) ** 2)) * np.float32(septa) * np.clip(skin_depth[at] / 6, 0, 1)
        # Fat lobules between the ducts keep even dense tissue from being solid.
        lace = 1 - np.float32(interspersed) * np.clip(0.5 + 0.5 * lobules + 0.35 * strands, 0, 1)
        gland[at] = np.clip(np.maximum(dense * lace, sheets), 0, 0.97)
        total += share * at[0].size
    canvas.paint("fibroglandular", gland)
    return total / max(1, int(region.sum()))


def _paint_vessels(
    canvas: Canvas, rng: np.random.Generator, breasts: list[_Breast], hanging: list[np.ndarray], region: np.ndarray,
    xyz: tuple[np.ndarray, ...], spacing: tuple[float, float, float],
) -> None:  # fmt: skip
    """Veins from the chest wall towards the nipple, as curves whose volume is spread over the voxels they cross."""
    volume = np.zeros(canvas.shape, np.float32)
    origin = np.array([np.median(c) for c in xyz])
    centre = (np.array(canvas.shape) - 1) / 2
    for breast in breasts:
        for _ in range(int(rng.integers(2, 5))):
            s = np.linspace(0, 1, 400)
            angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.02, s.size))
            wobble = np.cumsum(rng.normal(0, 0.004, s.size))
            t = 0.1 + 0.75 * s
            rho = np.sqrt(np.maximum(1 - t**breast.point, 0.02)) * (0.80 + wobble)
            u, w = rho * breast.radius_x * np.cos(angle), rho * breast.radius_z * np.sin(angle)
            point = np.stack([
                breast.base[0] + breast.side * (u + breast.splay * t),
                breast.base[1] + t * breast.length,
                breast.base[2] + w - breast.sag * t * t,
            ])  # fmt: skip
            length = np.linalg.norm(np.gradient(point, axis=1), axis=0)
            bulk = np.pi * rng.uniform(0.9, 1.7) ** 2 * length * (1 - 0.6 * s) / np.prod(spacing)
            cell = (point - origin[:, None]) / np.array(spacing)[:, None] + centre[:, None]
            _splat(volume, cell, bulk)
    canvas.paint("blood", np.clip(volume, 0, 0.9) * region)


def _splat(volume: np.ndarray, cell: np.ndarray, amount: np.ndarray) -> None:
    """Add amounts at fractional cells, shared linearly among the eight voxels around each."""
    low = np.floor(cell).astype(int)
    part = cell - low
    for corner in np.ndindex(2, 2, 2):
        c = np.array(corner)[:, None]
        at = low + c
        inside = ((at >= 0) & (at < np.array(volume.shape)[:, None])).all(axis=0)
        weight = np.prod(np.where(c == 1, part, 1 - part), axis=0) * amount
        np.add.at(volume, tuple(at[:, inside]), weight[inside].astype(np.float32))


def _lesion(
    rng: np.random.Generator, canvas: Canvas, region: np.ndarray, xyz: tuple[np.ndarray, ...],
    spacing: tuple[float, float, float],
) -> tuple[np.ndarray, str] | None:  # fmt: skip
    """A spiculated cancer or a lobulated benign lesion on the border of the gland; None where there is no room."""
    gland = canvas.fractions["fibroglandular"]
    border = region & (gland > 0.3) & (gland < 0.8)
    margin = max(1, border.shape[2] // 8)
    border[:, :, :margin] = border[:, :, -margin:] = False
    spots = np.flatnonzero(border)
    if spots.size == 0:
        return None
    spot = np.unravel_index(spots[int(rng.integers(spots.size))], border.shape)
    offset = np.stack([c - c[spot] for c in xyz])
    radius = rng.uniform(6, 14)
    distance = np.sqrt((offset**2).sum(axis=0))
    near = np.nonzero(distance < 2.6 * radius)
    d, direction = distance[near], offset[(slice(None), *near)] / np.maximum(distance[near], 1e-3)
    cube = noise_cube(rng)
    kind = "cancer" if rng.random() < 0.6 else "benign"
    lobes = look_up(cube, *(direction * 7 + 20))
    if kind == "cancer":  # thin rays: the sharp ridges of a texture on the sphere of directions
        rays = np.exp(-((look_up(cube, *(direction * 22)) - 1.4) ** 2) / 0.08)
        surface = radius * (0.8 + 0.16 * lobes + 1.1 * rays)
    else:
        surface = radius * (0.95 + 0.10 * lobes)
    cover = np.zeros(canvas.shape, np.float32)
    cover[near] = coverage(surface - d, spacing[0]) * region[near]
    return cover, kind


def _off_resonance(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> np.ndarray:
    """ppm: a smooth field that is worst at the sides and at the skin folds, after shimming."""
    return smooth_field(rng, shape, spacing, 110) * np.float32(rng.uniform(0.3, 0.9)) + smooth_field(
        rng, shape, spacing, 50
    ) * np.float32(rng.uniform(0.1, 0.4))
