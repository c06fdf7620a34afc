"""An image under one acquisition in; its own pixels, changed by what surrounds each of them, under another out.

Nothing is painted: every voxel of the body is one evaluation of a small network on `local_features` of the source and
on how source and target were made. Anatomy stays where it is, and the finest detail is the source's own. Volumes are
looked at slice by slice, along their last axis.
Legend: B rows, C channels, N voxels of the body, K members of the ensemble, D inputs, S settings, `*` spatial
axes, H, W of a slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from augengine.diffusion import settings
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.local_features import FEATURES, NEIGHBOURS
from augengine.diffusion.slices import Slices, View
from augengine.records import Acquisition
from augengine.yaml_config import Strict

# The source's finest detail is not made brighter than this, where it is made brighter.
_STRONGEST = 1.5
# A row's bright end: from the one percentile of its body to the other, and from no more than this share of the latter.
_BRIGHT, _BRIGHTEST, _KNEE = 94.0, 99.0, 0.8

# How far from its ends a slab is taken to be tilted as its middle is, and lengths over which a pulse may fall off.
_INNER_MM, _FALL_OFF_MM = 60.0, (10.0, 25.0)
SLAB = 2 + len(_FALL_OFF_MM)
"""Inputs that say where in the slab a voxel lies."""


class LocalContrastSpec(Strict):
    """A small network for each voxel, several times over.

    Attributes:
        members: networks of the ensemble; their mean is the prediction, their deviation its spread.
        width, layers: of the hidden layers.
        slab: it sees how far each voxel lies from the ends of what was acquired (`Sample.slab_end_mm`): there the pulse
            of a scan that is encoded in three dimensions tilts less. Not for scans of single slices, of which the
            distance only says which part of the body one sees.
        neighbours: it sees how bright the slices beside a slice are, where a row is a volume.
    """

    body: Literal["local_contrast"] = "local_contrast"
    members: int = Field(default=4, ge=1, le=32)
    width: int = Field(default=64, ge=4, le=1024)
    layers: int = Field(default=2, ge=1, le=8)
    slab: bool = False
    neighbours: bool = False

    @property
    def features(self) -> int:
        """How many it sees of each channel."""
        return len(FEATURES) if self.neighbours else len(FEATURES) - NEIGHBOURS


class LocalContrast(nn.Module):
    """`forward(x)`: inputs (K, N, D) of `inputs` to normalised intensities (K, N, C).

    Buffers of what training held, each (D,): `mean` and `deviation` of the inputs, `low` and `high` end of each.
    """

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, spec: LocalContrastSpec, channels: int, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.spec, self.channels, self.vocabulary = spec, channels, vocabulary
        size = channels * (spec.features + 2) + settings.width(vocabulary) + SLAB * spec.slab
        widths = [size, *[spec.width] * spec.layers, channels]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(spec.members, a, b) * (2 / a) ** 0.5) for a, b in pairwise(widths)
        )
        self.weights[-1].data *= 0.2
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(spec.members, 1, b)) for b in widths[1:])
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.register_buffer("low", torch.full((size,), -math.inf))
        self.register_buffer("high", torch.full((size,), math.inf))

    def forward(self, x: Tensor) -> Tensor:
        """Intensities (K, N, C); the last layer adds to 0.5, about the mean of a body."""
        # Beyond what training held a network would only extrapolate: its ends stand for what lies there.
        h = (x.clamp(self.low, self.high) - self.mean) / self.deviation
        for n, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if n < len(self.weights) - 1:
                h = functional.silu(h)
        return h + 0.5

    @torch.no_grad()
    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread (N, C) of inputs (N, D) float32, on the network's device."""
        if not len(inputs):  # a slice that shows nothing; PyTorch warns of deviations of nothing
            return (empty := np.empty((0, self.channels), np.float32)), empty
        x = torch.from_numpy(inputs).to(self.mean.device)
        members = self(x[None].expand(self.spec.members, -1, -1)).float().cpu()
        return members.mean(0).numpy(), members.std(0, correction=0).numpy()


def inputs(
    spec: LocalContrastSpec, view: View, clipped: tuple[Sequence[bool], Sequence[bool]], condition: np.ndarray
) -> np.ndarray:
    """float32 (N, D): features of every channel, which of source and target reach full scale, and `condition`."""
    flags = [float(flag) for both in clipped for flag in both]
    rest = np.concatenate([np.asarray(flags, np.float32), condition])
    features = [f if spec.neighbours else f[:, :-NEIGHBOURS] for f in view.features]
    parts = [*features, np.broadcast_to(rest, (len(view.slab_mm), len(rest)))]
    return np.concatenate([*parts, _of_slab(view.slab_mm)] if spec.slab else parts, axis=1, dtype=np.float32)


def _of_slab(slab_mm: np.ndarray) -> np.ndarray:
    """(N, SLAB): the distance from the ends, twice more as it matters near them, and whether it is known; else 0."""
    known = np.isfinite(slab_mm)
    distance = np.where(known, slab_mm, 0)
    found = [np.minimum(distance, _INNER_MM) / _INNER_MM, *(np.exp(-distance / mm) for mm in _FALL_OFF_MM)]
    return np.stack([*(known * f for f in found), known], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Rendered:
    """One row under its target, normalised (C, *).

    Attributes:
        mean: the prediction.
        draw: the same with the source's finest detail.
        spread: standard deviation of the ensemble; 0 outside the body.
    """

    mean: np.ndarray
    draw: np.ndarray
    spread: np.ndarray


def render(
    network: LocalContrast,
    image: np.ndarray,
    spacing_mm: Sequence[float],
    source: Acquisition,
    target: Acquisition,
    texture: float,
    slab_end_mm: float | None = None,
) -> Rendered:
    """A normalised image (C, *) of `source` as `target` would have shown it; outside the body it stays as it is.

    Args:
        texture: share of the source's own finest detail (what a Gaussian of one voxel removes) that is added.
        slab_end_mm: of `Sample`.
    """
    slices = Slices.of(image, spacing_mm, slab_end_mm)
    bodies = slices.bodies()
    where = bodies[0] if image.ndim == 3 else np.stack(bodies, axis=-1)
    mean, draw, spread = image.copy(), image.copy(), np.zeros_like(image)
    if not where.any():
        return Rendered(mean, mean, spread)
    # A scanner's gain is its own: what clips at one setting clips at the other; another vendor's does not.
    stays, clipped = settings.same_vendor(source, target), slices.clipped(bodies)
    clips = [flag and stays for flag in clipped]
    condition = settings.condition(source, target, network.vocabulary)
    for k, view in enumerate(slices.views(bodies)):
        place = (slice(None), view.where) if image.ndim == 3 else (slice(None), view.where, k)
        values, deviations = network.predict(inputs(network.spec, view, (clipped, clips), condition))
        mean[place], spread[place] = values.T, deviations.T
    for c, channel in enumerate(image):
        own = channel[where]
        full = own.max() if clips[c] else np.inf
        bright = np.minimum(brought_to(mean[c][where], own), full)
        finest = texture * _detail(channel)[where] * np.clip(bright / np.maximum(own, 0.05), 0, _STRONGEST)
        mean[c][where] = bright
        draw[c][where] = np.clip(bright + finest, 0, full)
    return Rendered(mean, draw, spread)


def brought_to(predicted: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Predictions (N,) of a row, as bright at their bright end as the row's own values (N,); all below stays.

    A mean is less bright there than what it is the mean of, and a scanner's gain is not known. Normalised volumes are 1
    at their bright end under every setting, and a row is taken to lie as far from there as it does in the source.
    """
    wanted = float(np.percentile(own, _BRIGHTEST))
    start, end = (float(v) for v in np.percentile(predicted, (_BRIGHT, _BRIGHTEST)))
    start = min(start, _KNEE * wanted)
    if end - start < 1e-4:
        return np.asarray(np.maximum(predicted, 0))
    above = np.maximum(predicted - start, 0) * ((wanted - start) / (end - start))
    return np.asarray(np.maximum(np.minimum(predicted, start) + above, 0), predicted.dtype)


def _detail(channel: np.ndarray) -> np.ndarray:
    """What a Gaussian of one voxel removes, in the plane of the first two axes."""
    sigma = (1.0, 1.0, *[0.0] * (channel.ndim - 2))
    return np.asarray(channel - ndimage.gaussian_filter(channel, sigma, mode="nearest"))
