"""The variational autoencoder of latent diffusion: images or label planes in; latents of unit spread, and back.

Rombach et al. 2022 over MONAI's `AutoencoderKL`, in 2D and 3D, or over Stable Diffusion's network, in 2D.
Legend: B rows, C channels, Z latent channels, `*` spatial axes, f the downsampling factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from augengine.diffusion import stable_diffusion_vae
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
        rgb: every image channel goes through the network by itself, as the three channels of a grey photograph, and
            comes back as their mean (paper 000, 2.2); the latents of C channels are stacked to C x Z.
        design: `stable_diffusion` is the network of diffusers, which has a residual block more in every level of the
            decoder than MONAI's and therefore holds Stable Diffusion's weights; slices only, and `rgb`.
    """

    body: Literal["autoencoder_kl"] = "autoencoder_kl"
    channels: tuple[Width, ...] = Field(min_length=2, max_length=10)
    latent_channels: int = Field(default=4, ge=1, le=1024)
    res_blocks: Count = 2
    norm_groups: Width = 32
    attention_levels: tuple[int, ...] = ()
    middle_attention: bool = False
    recompute: bool = False
    rgb: bool = Field(default=False, exclude_if=lambda value: not value)
    design: Literal["monai", "stable_diffusion"] = Field(default="monai", exclude_if=lambda value: value == "monai")

    @model_validator(mode="after")
    def _fits(self) -> AutoencoderSpec:
        if any(c % self.norm_groups for c in self.channels):
            raise ValueError(f"every entry of channels must be a multiple of norm_groups {self.norm_groups}")
        if any(not 1 <= level <= len(self.channels) for level in self.attention_levels):
            raise ValueError(f"attention_levels count from 1 to {len(self.channels)}, the number of channels")
        if self.design == "stable_diffusion" and not self.rgb:
            raise ValueError("design stable_diffusion takes photographs: set rgb true")
        if self.design == "stable_diffusion" and self.attention_levels:
            raise ValueError("design stable_diffusion has attention in its middle alone: leave out attention_levels")
        return self

    @property
    def factor(self) -> int:
        """f, the ratio of an image's side to its latent's."""
        return int(2 ** (len(self.channels) - 1))

    @property
    def diffusers(self) -> dict[str, Any]:
        """The same in the words of diffusers' `AutoencoderKL`."""
        levels = len(self.channels)
        return {
            "in_channels": 3,
            "out_channels": 3,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "block_out_channels": self.channels,
            "layers_per_block": self.res_blocks,
            "latent_channels": self.latent_channels,
            "norm_num_groups": self.norm_groups,
            "mid_block_add_attention": self.middle_attention,
        }


class Autoencoder(nn.Module):
    """Encoder and decoder for images (B, channels, *) of any size; sizes are padded to multiples of f inside.

    `scale`, saved with the weights, is 1 / SD(z): latents for diffusion have unit spread once `measure_scale` ran.

    Args:
        spec: the network.
        channels: C.
        spatial_dims: 2 or 3.
        of_images: C are images, most of whose values lie from 0 to 1; otherwise planes from -1 to 1, as Stable
            Diffusion's network takes its photographs.
    """

    scale: Tensor

    def __init__(self, spec: AutoencoderSpec, channels: int, spatial_dims: int, *, of_images: bool = True) -> None:
        super().__init__()
        self.spec = spec
        photographs = spec.design == "stable_diffusion"
        if photographs and spatial_dims != 2:
            raise ConfigError("network.design stable_diffusion is for slices", found=f"{spatial_dims} axes")
        self.body: Any = (
            stable_diffusion_vae.network(spec.diffusers)
            if photographs
            else _monai(spec, 3 if spec.rgb else channels, spatial_dims)
        )
        self.latent_channels = spec.latent_channels * (channels if spec.rgb else 1)
        self.span = (0.0, 1.0) if photographs and of_images else (-1.0, 1.0)
        self.register_buffer("scale", torch.ones(()))

    def start_from(self, folder: str) -> None:
        """Take the weights of a folder of pretrained ones (`stable_diffusion_vae.check` says whether they fit)."""
        self.body.load_state_dict(stable_diffusion_vae.read(folder))

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
        """Mean and log variance (B, Z, *) of the unscaled latent of `x` (B, C, *); with `rgb` (B, C x Z, *)."""
        h = self._run(self.body.encoder, self._shown(pad(x, self.factor)))
        if self.spec.design == "stable_diffusion":
            mean, log_variance = self.body.quant_conv(h).chunk(2, dim=1)
        else:
            mean, log_variance = self.body.quant_conv_mu(h), self.body.quant_conv_log_sigma(h)
        stacked = (len(x), self.latent_channels, *mean.shape[2:])
        return mean.reshape(stacked), log_variance.clamp(-30.0, 20.0).reshape(stacked)

    def decode(self, z: Tensor, size: Sequence[int]) -> Tensor:
        """Image (B, C, *size) of the unscaled latent `z` of an image of `size`."""
        if tuple(z.shape[2:]) != self.latent_size(size):
            raise ConfigError(
                f"the latent of an image of {tuple(size)} has the size {self.latent_size(size)}",
                found=tuple(z.shape[2:]),
                next_step="pass the size of the image that was encoded",
            )
        single = z.reshape(-1, self.spec.latent_channels, *z.shape[2:])
        drawn = self._run(self.body.decoder, self.body.post_quant_conv(single))
        return crop(self._returned(drawn, len(z)), size)

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
                "the latents of the training images must vary",
                found=f"{count} values, variance {variance:g}",
                next_step="train the autoencoder further, or check that its images are not empty",
            )
        self.scale.fill_(variance**-0.5)

    def _shown(self, x: Tensor) -> Tensor:
        """What the network sees of `x` (B, C, *): itself, or with `rgb` grey photographs (B x C, 3, *)."""
        if not self.spec.rgb:
            return x
        low, high = self.span
        grey = x.flatten(0, 1).unsqueeze(1) * (2 / (high - low)) - (high + low) / (high - low)
        return grey.expand(-1, 3, *x.shape[2:])

    def _returned(self, drawn: Tensor, rows: int) -> Tensor:
        """Inverse of `_shown` for what the network drew: (B, C, *)."""
        if not self.spec.rgb:
            return drawn
        low, high = self.span
        grey = drawn.mean(1) * ((high - low) / 2) + (high + low) / 2
        return grey.reshape(rows, -1, *drawn.shape[2:])

    def _run(self, part: nn.Module, x: Tensor) -> Tensor:
        recomputed = self.spec.recompute and torch.is_grad_enabled()
        # Unchecked: on the dry run's fake tensors, group norms recompute their statistics in another type.
        out: Tensor = checkpoint(part, x, use_reentrant=False, determinism_check="none") if recomputed else part(x)
        return out


def _monai(spec: AutoencoderSpec, channels: int, spatial_dims: int) -> nn.Module:
    from monai.networks.nets import AutoencoderKL  # late: importing MONAI takes seconds

    body: nn.Module = AutoencoderKL(
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
    return body


def _drawn(mean: Tensor, log_variance: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    if generators is None:
        return mean
    noise = torch.stack([torch.randn(mean.shape[1:], generator=g) for g in generators]).to(mean)
    return mean + (log_variance / 2).exp() * noise
