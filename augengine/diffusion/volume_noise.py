"""A volume's seed and slice positions in; each slice's start noise out, cut from one 3D field of the volume.

Slices that start from independent noise flicker along z. Here the noise is white in-plane and correlated through the
planes, so that neighbours start alike; further noise of a stochastic sampler likewise, from a field per step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from augengine.errors import ConfigError
from augengine.rng import derive

# Knots stand half a correlation length apart and reach three: the correlation is then Gaussian to within 1e-4.
KNOTS_PER_LENGTH = 2
REACH_LENGTHS = 3


@dataclass
class VolumeNoise:
    """A source of noise for slices (`samplers.NoiseSource`): one field per volume and draw.

    Attributes:
        seeds: one per row, equal for the slices of a volume.
        positions_mm: of each row along the through-plane axis.
        correlation_mm: see `volume_noise`.
    """

    seeds: Sequence[int]
    positions_mm: Sequence[float]
    correlation_mm: float
    drawn: int = 0

    def draw(self, like: Tensor) -> Tensor:
        """Noise (B, *) in the shape of `like`; a row follows from its own seed and position and the draw's number."""
        noise = torch.empty(like.shape)
        for seed in dict.fromkeys(self.seeds):
            rows = [n for n, own in enumerate(self.seeds) if own == seed]
            positions = [self.positions_mm[n] for n in rows]
            noise[rows] = volume_noise(derive(seed, self.drawn), positions, tuple(like.shape[1:]), self.correlation_mm)
        self.drawn += 1
        return noise.to(like)


def volume_noise(seed: int, positions_mm: Sequence[float], shape: tuple[int, ...], correlation_mm: float) -> Tensor:
    """Start noise of slices, each from its own position alone, so in any batch and by any worker.

    Seeded white images ("knots") stand at fixed positions along z; a slice is the sum of those nearby, weighted by
    w(s) = exp(-s^2 / L^2) of their distance s and scaled to sum(w^2) = 1 (a kernel convolved with white noise). With
    L = `correlation_mm`, two slices d mm apart correlate by w*w = exp(-d^2 / (2 L^2)): 0.61 at d = L, 0.14 at 2 L.

    Args:
        seed: of the volume; equal for all its slices.
        positions_mm: position of each slice along the through-plane axis.
        shape: of one slice, e.g. (C, I, J).
        correlation_mm: L; 0 gives independent slices (positions are told apart to 1 um).

    Returns:
        float32 (len(positions_mm), *shape), on the CPU; each element N(0, 1), elements of a slice independent.

    Raises:
        ConfigError: `correlation_mm` is negative or not finite.
    """
    if not 0 <= correlation_mm < math.inf:
        raise ConfigError("correlation_mm must be 0 (independent slices) or more", found=correlation_mm)

    @lru_cache(maxsize=4 * KNOTS_PER_LENGTH * REACH_LENGTHS)
    def white(kind: str, key: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(derive("volume noise", seed, kind, key)))

    def at(position_mm: float) -> Tensor:
        if correlation_mm == 0:
            return white("slice", round(position_mm * 1000))
        centre = position_mm / correlation_mm * KNOTS_PER_LENGTH
        reach = REACH_LENGTHS * KNOTS_PER_LENGTH
        knots = range(math.ceil(centre - reach), math.floor(centre + reach) + 1)
        weights = [math.exp(-(((k - centre) / KNOTS_PER_LENGTH) ** 2)) for k in knots]
        norm = math.hypot(*weights)
        noise = torch.zeros(shape)
        for knot, weight in zip(knots, weights, strict=True):
            noise += white("knot", knot) * (weight / norm)
        return noise

    return torch.stack([at(position) for position in positions_mm])
