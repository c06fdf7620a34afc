"""The networks that judge: an image in; region logits (segmenter) or a flat vector (acquisition predictor) out.

Normalisation is by group or instance everywhere, so that a row's result does not depend on its batch.
Legend: B rows, C image channels, R regions, `*` spatial axes.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from augengine.diffusion.conditions import Condition, Vocabulary
from augengine.diffusion.film import Film, FilmSpec
from augengine.diffusion.intensity_spec import IntensityRecipe
from augengine.diffusion.padding import crop, pad
from augengine.errors import ConfigError
from augengine.yaml_config import Count, Strict, Width, unset


class SegmenterSpec(Strict):
    """A residual U-Net (Kerfoot et al. 2019).

    Attributes:
        channels: feature channels of each level.
        strides: downsampling between levels; empty is 2 everywhere.
        res_units: convolutions of each residual unit.
        norm: normalisation of every unit, affine.
        norm_groups: groups of norm `group`.
        dropout: probability in every unit.
        acquisition: scale and shift of every normalisation follow from how the row was acquired; none, the default,
            leaves the network to its image.
    """

    body: Literal["residual_unet"] = "residual_unet"
    channels: tuple[Width, ...] = Field(min_length=2, max_length=10)
    strides: tuple[int, ...] = ()
    res_units: Count = 2
    norm: Literal["instance", "group"] = "instance"
    norm_groups: Width = 8
    dropout: float = Field(default=0.0, ge=0, lt=1)
    acquisition: FilmSpec | None = Field(default=None, exclude_if=unset)

    @model_validator(mode="after")
    def _fits(self) -> SegmenterSpec:
        if self.strides and len(self.strides) != len(self.channels) - 1:
            raise ValueError(f"{len(self.channels)} levels have {len(self.channels) - 1} strides")
        if any(not 1 <= stride <= 16 for stride in self.strides):
            raise ValueError("strides are 1 to 16")
        if self.norm == "group" and any(c % self.norm_groups for c in self.channels):
            raise ValueError(f"every entry of channels must be a multiple of norm_groups {self.norm_groups}")
        return self


class PredictorSpec(Strict):
    """A ResNet-18 (He et al. 2016) with group normalisation (Wu and He 2018) and random weights.

    Attributes:
        width: features of the first stage, 64 in the paper; they double three times.
        norm_groups: groups of every normalisation.
    """

    body: Literal["resnet18"] = "resnet18"
    width: Width = 64
    norm_groups: Width = 32

    @model_validator(mode="after")
    def _fits(self) -> PredictorSpec:
        if self.width % self.norm_groups:
            raise ValueError(f"width must be a multiple of norm_groups {self.norm_groups}")
        return self


class Segmenter(nn.Module):
    """`forward(x)`: normalised image (B, channels, *) of any size to logits (B, regions, *).

    `intensity` is the scale that the network itself sees images on, `vocabulary` what it can be told of acquisitions
    where `spec.acquisition` asks for that.
    """

    def __init__(
        self,
        spec: SegmenterSpec,
        channels: int,
        regions: int,
        spatial_dims: int,
        intensity: IntensityRecipe = IntensityRecipe(),  # noqa: B008  (frozen)
        vocabulary: Vocabulary | None = None,
    ) -> None:
        from monai.networks.nets import UNet  # late: importing MONAI takes seconds

        super().__init__()
        self.spec, self.intensity = spec, intensity
        strides = spec.strides or (2,) * (len(spec.channels) - 1)
        self.multiple = math.prod(strides)
        options: dict[str, Any] = {"affine": True} if spec.norm == "instance" else {"num_groups": spec.norm_groups}
        # MONAI's UNet normalises its last features. As logits these would say nothing of how much of a region an
        # image holds; a linear head on full features is free to.
        self.body = UNet(
            spatial_dims=spatial_dims,
            in_channels=channels,
            out_channels=spec.channels[0],
            channels=spec.channels,
            strides=strides,
            num_res_units=spec.res_units,
            norm=(spec.norm, options),
            dropout=spec.dropout,
        )
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.head = conv(spec.channels[0], regions, 1)
        self.film: Film | None = None
        if spec.acquisition is not None:
            assert vocabulary is not None  # `model_spec` sees to it
            self.film = Film(spec.acquisition, vocabulary, self.body)

    def features(self, x: Tensor) -> list[Tensor]:
        """What the head reads (B, F, *), as one layer: an extractor for perceptual distances."""
        if self.film is not None:
            self.film.tell(None, len(x))
        return [self.body(pad(self.intensity.shown(x), self.multiple))]

    def forward(self, x: Tensor, acquired: Condition | None = None) -> Tensor:
        """Logits (B, R, *); norm `instance` needs more than one cell at the coarsest level, or `ConfigError`.

        Args:
            acquired: how each row was acquired, which only a network with `spec.acquisition` reads; None: unknown.
        """
        padded = pad(self.intensity.shown(x), self.multiple)
        if self.spec.norm == "instance" and all(n == self.multiple for n in padded.shape[2:]):
            raise ConfigError(
                f"with norm instance an image is larger than {self.multiple} along one axis",
                found=tuple(x.shape[2:]),
                next_step="take fewer levels, or norm: group",
            )
        if self.film is not None:
            self.film.tell(acquired, len(x))
        logits: Tensor = self.head(self.body(padded))
        return crop(logits, x.shape[2:])


class Predictor(nn.Module):
    """`forward(x)`: normalised image (B, channels, *) of any size to a vector (B, outputs); `intensity` as above."""

    def __init__(
        self,
        spec: PredictorSpec,
        channels: int,
        outputs: int,
        spatial_dims: int,
        intensity: IntensityRecipe = IntensityRecipe(),  # noqa: B008  (frozen)
    ) -> None:
        from monai.networks.nets import resnet18  # late: importing MONAI takes seconds

        super().__init__()
        self.intensity = intensity
        self.body = resnet18(
            spatial_dims=spatial_dims,
            n_input_channels=channels,
            num_classes=outputs,
            conv1_t_stride=2,
            widen_factor=spec.width / 64,
        )
        # MONAI's `norm` argument reaches the first layer only, so the norms are exchanged here.
        _group_norms(self.body, spec.norm_groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, outputs)."""
        out: Tensor = self.body(self.intensity.shown(x))
        return out


def _group_norms(module: nn.Module, groups: int) -> None:
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, nn.GroupNorm(groups, child.num_features))
        else:
            _group_norms(child, groups)
