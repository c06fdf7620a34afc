"""On which scale a model sees its images: how their ranges were measured, and what becomes of 0 and 1."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from pydantic import model_validator
from torch import Tensor

from augengine.records import IntensityRule
from augengine.yaml_config import Strict


class IntensityRecipe(Strict):
    """What a recipe asks for.

    Ranges are measured when data are ingested, of whole volumes; a recipe can only say which ranges it takes. `scale`
    and `clip` are the network's own first step, so that everything around it knows one scale. With `nonzero`, air lies
    below 0: about -0.4 to -1.1 in sequences of a skull-stripped glioma, which `diffusion.x0_range` must leave room for.

    Attributes:
        percentiles: of each channel of the source volume, which rows have at 0 and 1.
        foreground: voxels that these are taken of: `all`, those that are not 0 (`nonzero`), or those of the body.
        scale: what the network sees in place of 0 and 1.
        clip: values beyond 0 and 1 become these.
    """

    percentiles: tuple[float, float] = (10.0, 99.0)
    foreground: Literal["all", "nonzero", "body"] = "all"
    scale: tuple[float, float] = (0.0, 1.0)
    clip: bool = False

    @model_validator(mode="after")
    def _fits(self) -> IntensityRecipe:
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError("percentiles are two rising numbers from 0 to 100")
        if not self.scale[0] < self.scale[1]:
            raise ValueError("scale is two rising numbers")
        return self

    @property
    def plain(self) -> bool:
        """True if the network sees rows as they are normalised."""
        return self.scale == (0.0, 1.0) and not self.clip

    def shown(self, x: Tensor) -> Tensor:
        """Normalised images (B, C, *) as the network sees them."""
        if self.plain:
            return x
        low, high = self.scale
        return (x.clamp(0, 1) if self.clip else x) * (high - low) + low


class IntensitySpec(IntensityRecipe):
    """What a model was trained with.

    Attributes:
        together: its rows had one range for all channels, as shards of schema version 1 have.
    """

    together: bool = False

    @property
    def rule(self) -> IntensityRule:
        """How the ranges of its rows were measured."""
        return IntensityRule(self.percentiles, self.foreground, self.together)


NAMED = MappingProxyType(
    {
        # Paper 004, A.1: "setting the 10th percentile to 0 and the 99th percentile to 1, without clipping values".
        "cddgm": IntensityRecipe(),
        # Paper 002, 2.5: "images were range scaled from [0, 99.5] intensity percentile to [-1, 1]". That what is
        # brighter is clipped, and that each sequence has its own range, is left unsaid there.
        "ldm_seg": IntensityRecipe(percentiles=(0.0, 99.5), scale=(-1.0, 1.0), clip=True),
        # Paper 003, 4.1: "clipping the top and bottom 1st percentile of voxel intensities". The scale is left unsaid.
        "dmcie": IntensityRecipe(percentiles=(1.0, 99.0), clip=True),
    }
)


def named(value: object) -> object:
    """The section that a name stands for; anything else as it is, with tuples for the lists that a file has.

    Raises:
        ValueError: no such name.
    """
    if isinstance(value, dict):  # what a validator hands on is Python's, in which pydantic takes no list for a tuple
        return {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
    if not isinstance(value, str):
        return value
    if value not in NAMED:
        raise ValueError(f"intensity is a section or one of {', '.join(NAMED)}")
    return NAMED[value]
