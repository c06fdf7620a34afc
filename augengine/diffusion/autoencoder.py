"""The variational autoencoder of latent diffusion: images or label planes in; latents of unit spread, and back.

Rombach et al. 2022 over MONAI's `AutoencoderKL`, in 2D and 3D. Legend: B rows, C channels, Z latent channels,
`*` spatial axes, f the downsampling factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from augengine.diffusion.padding import crop, pad
from augengine.errors import ConfigError, DataError
from augengine.yaml_config import Count, Strict, Width


class AutoencoderSpec(Strict):
    """A variational autoencoder.

    Attributes:
        channels: feature channels of each level; every level after the first halves the size (f = 2**(levels - 1)).
        latent_channels: Z.
        res_blocks: residual blocks per level.
        norm_groups: groups of every group normalisation.
        attention_levels: levels (1 is the finest) with self-attention.
        middle_attention: self-attention at the latent's size; its cost grows with the square of the latent's cells.
        recompute: activations are recomputed in the backward pass; less memory, a third more time.
    """

    body: Literal["autoencoder_kl"] = "autoencoder_kl"
    channels: tuple[Width, ...] = Field(min_length=2, max_length=10)
    latent_channels: int = Field(default=4, ge=1, le=1024)
    res_blocks: Count = 2
    norm_groups: Width = 32
    attention_levels: tuple[int, ...] = ()
    middle_attention: bool = False
    recompute: bool = False

    @model_validator(mode="after")
    def _fits(self) -> AutoencoderSpec:
        if any(c % self.norm_groups for c in self.channels):
            raise ValueError(f"every entry of channels must be a multiple of norm_groups {self.norm_groups}")
        if any(not 1 <= level <= len(self.channels) for level in self.attention_levels):
            raise ValueError(f"attention_levels count from 1 to {len(self.channels)}, the number of channels")
        return self

    @property
    def factor(self) -> int:
        """f, the ratio of an image's side to its latent's."""
        return int(2 ** (len(self.channels) - 1))


class Autoencoder(nn.Module):
    """Encoder and decoder for images (B, channels, *) of any size; sizes are padded to multiples of f inside.

    `scale`, saved with the weights, is 1 / SD(z): latents for diffusion have unit spread once `measure_scale` ran.
    """

    scale: Tensor

    def __init__(self, spec: AutoencoderSpec, channels: int, spatial_dims: int) -> None:
        from monai.networks.nets import AutoencoderKL  # late: importing MONAI takes seconds

        super().__init__()
        self.spec = spec
        self.body = AutoencoderKL(
            spatial_dims=spatial_dims,
            in_channels=channels,
            out_channels=channels,
            num_res_blocks=spec.res_blocks,
            channels=spec.channels,
            attention_levels=[level + 1 in spec.attention_levels for level in range(len(spec.channels))],
            latent_channels=spec.latent_channels,
            norm_num_groups=spec.norm_groups,
            with_encoder_nonlocal_attn=spec.middle_attention,
            with_decoder_nonlocal_attn=spec.middle_attention,
            use_flash_attention=True,
        )
        self.register_buffer("scale", torch.ones(()))

    @property
    def factor(self) -> int:
        """f."""
        return self.spec.factor

    def latent_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the latents of images of `size`."""
        return tuple(-(-n // self.factor) for n in size)

    def forward(self, x: Tensor, generators: Sequence[torch.Generator] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, C, *) of `x`, mean and log variance, for training; `generators` as in `latents`."""
        mean, log_variance = self.encode(x)
        return self.decode(_drawn(mean, log_variance, generators), x.shape[2:]), mean, log_variance

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, Z, *) of the unscaled latent of `x` (B, C, *)."""
        h = self._run(self.body.encoder, pad(x, self.factor))
        return self.body.quant_conv_mu(h), self.body.quant_conv_log_sigma(h).clamp(-30.0, 20.0)

    def decode(self, z: Tensor, size: Sequence[int]) -> Tensor:
        """Image (B, C, *size) of the unscaled latent `z` of an image of `size`."""
        if tuple(z.shape[2:]) != self.latent_size(size):
            raise ConfigError(
                f"the latent of an image of {tuple(size)} has the size {self.latent_size(size)}",
                found=tuple(z.shape[2:]), next_step="pass the size of the image that was encoded",
            )  # fmt: skip
        return crop(self._run(self.body.decoder, self.body.post_quant_conv(z)), size)

    def latents(self, x: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Scaled latents (B, Z, *) for diffusion: the mean, or a draw with row b's noise from `generators[b]`."""
        return _drawn(*self.encode(x), generators) * self.scale

    def images(self, z: Tensor, size: Sequence[int]) -> Tensor:
        """Images (B, C, *size) of scaled latents: the inverse of `latents` up to the autoencoder's own error."""
        return self.decode(z / self.scale, size)

    @torch.no_grad()
    def measure_scale(self, images: Iterable[Tensor]) -> None:
        """Set `scale` to 1 / SD of the drawn latents of a stream of batches (B, C, *) (Rombach et al. 2022, app. G).

        The variance of the draws is added in closed form, so that the result needs no noise.
        """
        count, total, squares = 0, 0.0, 0.0
        for x in images:
            mean, log_variance = (v.double() for v in self.encode(x))
            count += mean.numel()
            total += float(mean.sum())
            squares += float((mean**2 + log_variance.exp()).sum())
        variance = squares / count - (total / count) ** 2 if count else 0.0
        if not (math.isfinite(variance) and variance > 0):
            raise DataError(
                "the latents of the training images must vary", found=f"{count} values, variance {variance:g}",
                next_step="train the autoencoder further, or check that its images are not empty",
            )  # fmt: skip
        self.scale.fill_(variance**-0.5)

    def _run(self, part: nn.Module, x: Tensor) -> Tensor:
        recomputed = self.spec.recompute and torch.is_grad_enabled()
        out: Tensor = checkpoint(part, x, use_reentrant=False) if recomputed else part(x)
        return out


def _drawn(mean: Tensor, log_variance: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    if generators is None:
        return mean
    noise = torch.stack([torch.randn(mean.shape[1:], generator=g) for g in generators]).to(mean)
    return mean + (log_variance / 2).exp() * noise
