"""What the method `structure` shows the network: the source with its contrast destroyed, and where its tissues are.

Every labelled tissue, and the rest of the image, passes through a random intensity curve of its own. The network
must then take contrast from the acquisition tokens and anatomy from this picture; no pair of the same anatomy at two
acquisitions is needed. The curves are NOT monotone, and differ between tissues: a single curve for the whole image
can be inferred from what it leaves untouched (skin, noise, shading) and undone, and the order of the tissues would
follow the source instead of the target. Rows without a mask get a single curve. Having learnt to trust no curve, the
network is shown two opposed ones when it samples.
Legend: B rows, C channels, L labelled tissues, `*` spatial axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from augengine.diffusion.tissue import NO_MASK, one_hot

# Normalised intensities that the knots span; values beyond take the last knot's.
LOW, HIGH = 0.0, 1.2
KNOTS = 6


def draw_heights(rows: int, tissues: int, channels: int, generator: torch.Generator) -> Tensor:
    """Random curves (rows, L + 1, C, knots) for `recolour`: uniform heights, but the first is 0, so air stays dark."""
    heights = torch.rand(rows, tissues + 1, channels, KNOTS, generator=generator)
    heights[..., 0] = 0
    return heights


def opposed_heights(tissues: int, channels: int) -> Tensor:
    """Two fixed curves (2, L + 1, C, knots), the same for every tissue: brightness rising, and falling from the second
    knot on. Together they lose little of what tells places apart, which a random curve may map onto one value.
    """
    rising = torch.linspace(0, 1, KNOTS)
    falling = 1 + rising[1] - rising
    falling[0] = 0
    return torch.stack([rising, falling])[:, None, None].repeat(1, tissues + 1, channels, 1)


def recolour(x: Tensor, tissue: Tensor, heights: Tensor) -> Tensor:
    """`x` (B, C, *) with each tissue through its own piecewise linear curve, to values of 0 to 1.

    Args:
        tissue: int (B, *) as of `tissue.tissue_index`; -1 counts as the rest.
        heights: (B, L + 1, C, knots) in [0, 1] of `draw_heights` or `opposed_heights`; or of one row, for all.
    """
    b, knots = len(x), heights.shape[-1]
    place = ((x.flatten(2) - LOW) / (HIGH - LOW)).clamp(0, 1) * (knots - 1)
    left = place.floor().clamp(max=knots - 2)
    # One flat table per row and channel, the tissues' curves end to end.
    table = heights.to(x).transpose(1, 2).flatten(2).expand(b, -1, -1)
    start = left.long() + knots * tissue.clamp(min=0).view(b, 1, -1).long()
    return torch.lerp(table.gather(2, start), table.gather(2, start + 1), place - left).view_as(x)


def structure_planes(image: Tensor, tissue: Tensor, tissues: int) -> Tensor:
    """Network input (B, C + 2 + L, *): image, a plane of ones, "has a mask", and one plane per tissue.

    A row of zeros instead means "no structure" and makes the network an ordinary conditional denoiser.
    """
    flags = torch.stack([torch.ones_like(tissue), tissue != NO_MASK], dim=1)
    return torch.cat([image, flags.to(image), one_hot(tissue, tissues).to(image)], dim=1)
