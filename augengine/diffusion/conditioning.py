"""What a denoiser knows besides the noisy image and the timestep, as one bundle of batched tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from augengine.diffusion.conditions import Condition


@dataclass(frozen=True)
class Conditioning:
    """Each part is None where a model has no such input, or sees nothing.

    Attributes:
        planes: (B, P, *) float32 at full resolution: structure images, masks, an image to be segmented.
        classes: (B,) int64, 1 for the first class; 0 means "no class".
        acquisition: acquisition parameters, encoded.
        tokens: (B, P, D), what a network made of classes and acquisition, so that a chain of steps computes it once
            (`DenoisingUNet.prepared`).
    """

    planes: Tensor | None = None
    classes: Tensor | None = None
    acquisition: Condition | None = None
    tokens: Tensor | None = None

    def unconditional(self) -> Conditioning:
        """The same rows without class and acquisition, for guidance; planes say where, not what, and stay."""
        return replace(
            self,
            classes=None if self.classes is None else torch.zeros_like(self.classes),
            acquisition=None if self.acquisition is None else self.acquisition.unconditional(),
            tokens=None,
        )

    def drop(self, rows_B: Tensor) -> Conditioning:
        """No class and no acquisition in the rows where `rows_B` is True."""
        return replace(
            self,
            classes=None if self.classes is None else self.classes * ~rows_B,
            acquisition=None if self.acquisition is None else self.acquisition.drop(rows_B),
            tokens=None,
        )

    def cat(self, other: Conditioning) -> Conditioning:
        """Rows of both, which must have the same parts."""
        return Conditioning(
            planes=_cat(self.planes, other.planes),
            classes=_cat(self.classes, other.classes),
            acquisition=None
            if self.acquisition is None or other.acquisition is None
            else self.acquisition.cat(other.acquisition),
            tokens=_cat(self.tokens, other.tokens),
        )

    def rows(self, chosen: slice | Tensor) -> Conditioning:
        """Some of the rows, as a slice or by their numbers."""
        acquired = self.acquisition
        return Conditioning(
            planes=None if self.planes is None else self.planes[chosen],
            classes=None if self.classes is None else self.classes[chosen],
            acquisition=None if acquired is None else Condition(acquired.features[chosen], acquired.present[chosen]),
            tokens=None if self.tokens is None else self.tokens[chosen],
        )

    def to(self, device: torch.device | str) -> Conditioning:
        """A copy on `device`."""
        return Conditioning(
            planes=None if self.planes is None else self.planes.to(device),
            classes=None if self.classes is None else self.classes.to(device),
            acquisition=None if self.acquisition is None else self.acquisition.to(device),
            tokens=None if self.tokens is None else self.tokens.to(device),
        )


def _cat(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else torch.cat([a, b])
