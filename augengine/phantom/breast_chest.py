"""An outer shape in, the chest behind the breasts out: muscle, ribs, breastbone, lungs, heart, liver and spine."""

from __future__ import annotations

import numpy as np

from augengine.phantom.breast_shape import Torso
from augengine.phantom.fields import Canvas, coverage
from augengine.random_fields import smooth_field


def paint_chest(
    canvas: Canvas,
    rng: np.random.Generator,
    torso: Torso,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    skin_depth: np.ndarray,
    spacing: tuple[float, float, float],
) -> np.ndarray:
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
    r = np.sqrt(
        (p / np.float32(rng.uniform(36, 42))) ** 2
        + (q / np.float32(rng.uniform(44, 54))) ** 2
        + ((z - hz) / np.float32(rng.uniform(62, 80))) ** 2
    )
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
    return np.asarray(wall)
