"""A frozen denoiser steered by an image: noisy latents, timestep and full-size image in; raw output out.

ControlNet (Zhang et al. 2023): a trainable copy of the frozen UNet's way down sees the image, and what it adds to
the UNet's skips and middle passes through convolutions that start at zero. The copy's and the UNet's modules are
MONAI's; they are joined here, with sizes checked, because `ControlNet.forward` adds image features to the noisy ones
by broadcasting, whatever their size. Legend: B rows, Z latent channels, C image channels, `*` spatial axes.
"""

from __future__ import annotations

import copy
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from augengine.diffusion.padding import crop, pad, pad_to
from augengine.errors import ConfigError
from augengine.yaml_config import Strict, Width

COPIED = ("conv_in", "time_embed", "down_blocks", "middle_block")


class ControlSpec(Strict):
    """A ControlNet on a frozen UNet.

    Attributes:
        encoder_channels: feature channels of the image encoder, trained along; every entry after the first halves
            the image, so that n entries serve latents with an autoencoder's factor of 2**(n - 1).
    """

    body: Literal["control"] = "control"
    encoder_channels: tuple[Width, ...] = Field(min_length=1, max_length=10)

    @property
    def factor(self) -> int:
        """Ratio of the image's side to the latents'."""
        return int(2 ** (len(self.encoder_channels) - 1))


class ControlledUNet(nn.Module):
    """`forward(x_t, t, image)` to the raw output of the steered prior.

    Args:
        spec: the image encoder.
        prior: a trained, unconditional `DiffusionModelUNet` (`with_conditioning=False`, no classes). It is frozen and
            becomes part of this module; its weights are saved with it. Give a copy if it is used elsewhere.
        image_channels: C.
        spatial_dims: 2 or 3, as the prior's.

    Raises:
        ConfigError: the prior is another network, or takes tokens or classes.
    """

    def __init__(self, spec: ControlSpec, prior: nn.Module, image_channels: int, spatial_dims: int) -> None:
        from monai.networks.nets import ControlNet, DiffusionModelUNet  # late: importing MONAI takes seconds

        super().__init__()
        if not isinstance(prior, DiffusionModelUNet) or prior.with_conditioning or prior.num_class_embeds is not None:
            raise ConfigError(
                "a controlled prior is MONAI's UNet, unconditional",
                found=type(prior).__name__,
                next_step="train the prior with body: monai, without tokens and classes",
            )
        self.factor = spec.factor
        self.multiple = 2 ** (len(prior.block_out_channels) - 1)
        self.control = ControlNet(
            spatial_dims=spatial_dims,
            in_channels=prior.in_channels,
            num_res_blocks=prior.num_res_blocks,
            channels=prior.block_out_channels,
            attention_levels=prior.attention_levels,
            num_head_channels=prior.num_head_channels,
            norm_num_groups=1,
            conditioning_embedding_in_channels=image_channels,
            conditioning_embedding_num_channels=spec.encoder_channels,
        )
        # Copies of the modules and not only of their weights: no option of the prior can be missed.
        for name in COPIED:
            setattr(self.control, name, copy.deepcopy(getattr(prior, name)).requires_grad_())
        self.prior = prior.requires_grad_(False)

    def forward(self, x_t: Tensor, t_B: Tensor, image: Tensor) -> Tensor:
        """Output (B, Z, *) for `x_t` (B, Z, *), `t_B` (B,) and `image` (B, C, *), `factor` times as large.

        The image's size may be up to `factor` - 1 less than the latents' times `factor`: that of the images that an
        autoencoder pads. Other sizes, and other numbers of rows, are a `ConfigError`.
        """
        size = x_t.shape[2:]
        expected = (len(x_t), *size)
        if (len(image), *(-(-n // self.factor) for n in image.shape[2:])) != expected:
            raise ConfigError(
                f"the image is {self.factor} times as large as the latents {tuple(x_t.shape)}",
                found=tuple(image.shape),
                next_step="resample it to the grid of the encoded label map",
            )
        padded = pad(x_t, self.multiple)
        seen = pad_to(image, [n * self.factor for n in padded.shape[2:]])
        skips, middle = self.control(padded, t_B, seen)
        out: Tensor = self.prior(
            padded, t_B, down_block_additional_residuals=skips, mid_block_additional_residual=middle
        )
        return crop(out, size)
