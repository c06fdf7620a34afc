"""Random numbers in, the outer shape of a torso and of a breast out: depths below implicit surfaces, in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from augengine.phantom.fields import smooth_union


@dataclass(frozen=True)
class Torso:
    """A superellipse in every axial plane: half width, half depth (mm), squareness, fat under the skin."""

    half_width: float
    half_depth: float
    power: float
    fat_mm: float
    tilt: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Torso:
        """A torso of an adult woman, at times wider than the field of view."""
        return cls(
            rng.uniform(150, 188),
            rng.uniform(105, 130),
            rng.uniform(2.2, 2.7),
            rng.uniform(5, 16),
            rng.uniform(-0.05, 0.05),
        )

    def depth(self, x: np.ndarray, y: np.ndarray, inset: float) -> np.ndarray:
        """Depth below the surface that lies `inset` mm inside the torso."""
        a, b, n = self.half_width - inset, self.half_depth - inset, self.power
        across, along = np.abs(x / np.float32(a)), np.abs((y + self.half_depth) + self.tilt * x) / np.float32(b)
        return np.asarray((1 - (across**n + along**n) ** np.float32(1 / n)) * np.float32(b), np.float32)

    def front(self, x: float) -> float:
        """y of the skin of the chest at lateral position x, without breasts."""
        return (
            float(self.half_depth * (1 - abs(x / self.half_width) ** self.power) ** (1 / self.power)) - self.half_depth
        )


@dataclass(frozen=True)
class Breast:
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
    def draw(cls, rng: np.random.Generator, side: int, size: float, torso: Torso) -> Breast:
        """A breast on one side (-1 left, 1 right), from small (size 0) to large (1)."""
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
        """Approximate depth (mm) below the skin of the breast, nipple included."""
        t, u, w = self.local(x, y, z)
        along = np.where(t > 0, np.maximum(t, 0) ** np.float32(self.point), (t * np.float32(self.length / 40)) ** 2)
        # A rounder, fuller underside: the radius grows a little before it closes at the nipple.
        q = (u / np.float32(self.radius_x)) ** 2 + (w / np.float32(self.radius_z)) ** 2 + along
        # The nipple is a small knob on the axis at the tip.
        knob = 1 - np.sqrt((u / 6) ** 2 + (w / 6) ** 2 + ((t - 1) * np.float32(self.length / 8)) ** 2)
        return smooth_union(np.asarray(knob * 6, np.float32), (1 - np.sqrt(q)) * np.float32(self.radius_x), 3.0)
