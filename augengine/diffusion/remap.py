"""The structure image of training: a source whose contrast is destroyed by a random curve, its anatomy kept.

The network must then take contrast from the acquisition tokens and anatomy from this image; no pair of the same
anatomy at two acquisitions is needed. The curves are NOT monotone: with monotone ones the order of the tissues
leaks through, and a fat-saturated target comes out with bright fat.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Normalised intensities that the knots span; values beyond take the last knot's.
LOW, HIGH = -0.2, 1.6


def random_remap(x: Tensor, generator: torch.Generator, knots: int) -> Tensor:
    """Each row and channel of `x` (B, C, *) through its own smooth random curve, to values of about 0 to 1.

    The curve runs through `knots` heights drawn uniformly from [0, 1], joined by cubic smooth steps.
    """
    b, c = x.shape[:2]
    heights = torch.rand(b, c, knots, generator=generator).to(x)
    place = ((x.flatten(2) - LOW) / (HIGH - LOW)).clamp(0, 1) * (knots - 1)
    left = place.floor().clamp(max=knots - 2)
    part = place - left
    part = part * part * (3 - 2 * part)
    low, high = (heights.gather(2, (left + k).long()) for k in (0, 1))
    return torch.lerp(low, high, part).view_as(x)
