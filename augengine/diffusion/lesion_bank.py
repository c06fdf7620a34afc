"""Lesions cut from training scans, kept as a model is: what a policy may lay into other scans.

Nothing is learnt by gradients. A lesion is held as the logarithm of its intensities over those of the tissue around it,
so that it takes the brightness of the place that it is laid into.
Legend: N lesions, C channels, L labels of the model, `*` the axes of a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from augengine.yaml_config import Strict


class LesionBankSpec(Strict):
    """How many lesions there are, in boxes of so many voxels along each axis."""

    body: Literal["lesion_bank"] = "lesion_bank"
    lesions: int = Field(ge=1, le=100_000)
    size: int = Field(ge=4, le=512)


@dataclass(frozen=True, eq=False)
class Crop:
    """One lesion in the middle of its box.

    Attributes:
        log_ratio: float32 (C, *), log of intensity over the median of the tissue around the lesion; beyond the lesion
            it is as at the nearest of its voxels.
        label: uint8 (*), n for the n-th label of the model, 0 beyond the lesion.
        spacing_mm: voxel size along each axis of the box.
    """

    log_ratio: np.ndarray
    label: np.ndarray
    spacing_mm: tuple[float, ...]

    def contrast(self) -> np.ndarray:
        """float32 (C,): median of the log ratio in the whole lesion."""
        return np.asarray(np.median(self.log_ratio[:, self.label > 0], axis=1), np.float32)


class LesionBank(nn.Module):
    """Buffers alone: `log_ratio` float16 (N, C, *), `label` uint8 (N, *), `spacing_mm` float32 (N, axes)."""

    log_ratio: Tensor
    label: Tensor
    spacing_mm: Tensor

    def __init__(self, spec: LesionBankSpec, channels: int, spatial_dims: int) -> None:
        super().__init__()
        box = (spec.size,) * spatial_dims
        self.register_buffer("log_ratio", torch.zeros((spec.lesions, channels, *box), dtype=torch.float16))
        self.register_buffer("label", torch.zeros((spec.lesions, *box), dtype=torch.uint8))
        self.register_buffer("spacing_mm", torch.ones((spec.lesions, spatial_dims)))

    def __len__(self) -> int:
        return len(self.label)

    def crop(self, number: int) -> Crop:
        """The lesion of a number from 0 on."""
        spacing_mm = tuple(float(v) for v in self.spacing_mm[number].tolist())
        return Crop(self.log_ratio[number].float().cpu().numpy(), self.label[number].cpu().numpy(), spacing_mm)


def bank_weights(crops: Sequence[Crop]) -> dict[str, Tensor]:
    """The buffers of a bank that holds these lesions, at least one."""
    return {
        "log_ratio": torch.from_numpy(np.stack([crop.log_ratio for crop in crops]).astype(np.float16)),
        "label": torch.from_numpy(np.stack([crop.label for crop in crops])),
        "spacing_mm": torch.tensor([crop.spacing_mm for crop in crops], dtype=torch.float32),
    }
