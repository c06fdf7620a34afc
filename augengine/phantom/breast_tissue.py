"""An outer shape in, what a breast is made of out: fibroglandular tissue, ligaments, veins and a lesion."""

from __future__ import annotations

import numpy as np

from augengine.phantom.breast_shape import Breast
from augengine.phantom.fields import Canvas, coverage, look_up, noise_cube

NIPPLE_FOCUS = 1.2  # ducts point to a spot this share of the breast's length from the chest wall


def paint_gland(
    canvas: Canvas,
    rng: np.random.Generator,
    breasts: list[Breast],
    hanging: list[np.ndarray],
    region: np.ndarray,
    xyz: tuple[np.ndarray, ...],
    skin_depth: np.ndarray,
    wall: np.ndarray,
) -> None:
    """Fibroglandular tissue: streaks that converge on the nipple, wrapped in fat."""
    target = _draw_density(rng)
    clumping = rng.uniform(0.25, 1.0)  # 0.25: one solid cone of tissue; 1: scattered islands and strands
    softness = rng.uniform(0.10, 0.22)
    under_skin, behind = rng.uniform(6, 15) * (1.15 - target), rng.uniform(3, 9)
    septa, interspersed = rng.uniform(0.1, 0.4), rng.uniform(0.15, 0.4)
    first = hanging[0] > hanging[1]
    gland = np.zeros(canvas.shape, np.float32)
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
        share = float(np.clip(1.1 * target * rng.normal(1, 0.08), 0.095, 0.61))  # the lace takes its tenth back
        cut = np.quantile(score, 1 - share)
        dense = 1 / (1 + np.exp((cut - score) / np.float32(softness)))
        # Cooper's ligaments: thin sheets of connective tissue where a texture changes its sign.
        sheets = np.exp(-((strands / 0.14) ** 2)) * np.float32(septa) * np.clip(skin_depth[at] / 6, 0, 1)
        # Fat lobules between the ducts keep even dense tissue from being solid.
        lace = 1 - np.float32(interspersed) * np.clip(0.5 + 0.5 * lobules + 0.35 * strands, 0, 1)
        gland[at] = np.clip(np.maximum(dense * lace, sheets), 0, 0.97)
    canvas.paint("fibroglandular", gland)


def paint_vessels(
    canvas: Canvas,
    rng: np.random.Generator,
    breasts: list[Breast],
    hanging: list[np.ndarray],
    region: np.ndarray,
    xyz: tuple[np.ndarray, ...],
    spacing: tuple[float, float, float],
) -> None:
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
            point = np.stack(
                [
                    breast.base[0] + breast.side * (u + breast.splay * t),
                    breast.base[1] + t * breast.length,
                    breast.base[2] + w - breast.sag * t * t,
                ]
            )
            length = np.linalg.norm(np.gradient(point, axis=1), axis=0)
            bulk = np.pi * rng.uniform(0.9, 1.7) ** 2 * length * (1 - 0.6 * s) / np.prod(spacing)
            cell = (point - origin[:, None]) / np.array(spacing)[:, None] + centre[:, None]
            _splat(volume, cell, bulk)
    canvas.paint("blood", np.clip(volume, 0, 0.9) * region)


def draw_lesion(
    rng: np.random.Generator,
    canvas: Canvas,
    region: np.ndarray,
    xyz: tuple[np.ndarray, ...],
    spacing: tuple[float, float, float],
) -> tuple[np.ndarray, str] | None:
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
    d = distance[near]
    direction = offset[:, near[0], near[1], near[2]] / np.maximum(d, 1e-3)
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


def _draw_density(rng: np.random.Generator) -> float:
    """Fibroglandular share: BI-RADS a to d at roughly their share among women (10, 40, 40, 10%)."""
    low, high = ((0.08, 0.12), (0.12, 0.24), (0.24, 0.42), (0.42, 0.60))[int(rng.choice(4, p=(0.1, 0.4, 0.4, 0.1)))]
    return float(rng.uniform(low, high))


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
