"""The acquisition denoiser: a diffusion UNet that takes acquisition tokens in two ways at once.

Hybrid conditioning (paper 004, 2.2 and figure 3): an embedding of all parameters is added to the time embedding,
and the attention blocks attend to the tokens, one per parameter.
Legend: B rows, C image channels, H W pixels, P parameters, D token width. `*` stands for any spatial axes.
"""

from __future__ import annotations

from types import EllipsisType

import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional

from augengine.diffusion.compact import CompactUNet
from augengine.diffusion.conditions import Condition, TokenEmbedding, Vocabulary
from augengine.diffusion.spec import NetworkSpec


class AcquisitionUNet(nn.Module):
    """`forward(x, t, condition, structure)` to the raw output, in the shape of `x`.

    With `spec.structure`, the planes of `augengine.diffusion.structure.planes` are concatenated to the input; rows
    without one see zeros, which makes the network an ordinary conditional denoiser.
    """

    def __init__(
        self, spec: NetworkSpec, channels: int, vocabulary: Vocabulary, tissues: int = 0, spatial_dims: int = 2
    ) -> None:
        super().__init__()
        self.spec = spec
        factor = spec.unshuffle**spatial_dims
        self.structure_planes = channels + 2 + tissues if spec.structure else 0
        inputs = channels + self.structure_planes
        self.tokens = TokenEmbedding(vocabulary, spec.token_dim)
        self.curves = channels * (spec.local_curves + 1) if spec.local_curves else 0
        body = _monai_unet if spec.body == "monai" else _CompactBody
        self.unet = body(spec, spatial_dims, inputs * factor, channels * factor + self.curves)
        self.multiple = spec.unshuffle * 2 ** (len(spec.channels) - 1)

    def forward(self, x: Tensor, t_B: Tensor, condition: Condition, structure: Tensor | None = None) -> Tensor:
        """Output (B, C, *) for noisy `x` (B, C, *) at timesteps `t_B`; any size, padded to the multiple inside."""
        size = x.shape[2:]
        if structure is None:
            structure = x.new_zeros(len(x), self.structure_planes, *size)
        inputs = self._pad(torch.cat([x, structure], dim=1))
        tokens = self.tokens(condition)
        coarse = space_to_depth(inputs, self.spec.unshuffle)
        out: Tensor = self.unet(coarse, t_B, context=tokens, class_labels=tokens.sum(1))
        image = depth_to_space(out[:, self.curves :], self.spec.unshuffle)
        if self.curves:
            image = image + self._curved(out[:, : self.curves].float(), inputs, x.shape[1])
        kept: tuple[slice | EllipsisType, ...] = (..., *(slice(n) for n in size))
        return image[kept]

    def _curved(self, coefficients: Tensor, inputs: Tensor, channels: int) -> Tensor:
        """Local look-up table of the structure image plus a local gain of the noisy one; `coefficients` are coarse."""
        mode = "bilinear" if inputs.ndim == 4 else "trilinear"
        fine = functional.interpolate(coefficients, size=inputs.shape[2:], mode=mode)
        fine = fine.view(len(fine), channels, -1, *inputs.shape[2:])
        noisy, shown = inputs[:, :channels], inputs[:, channels : 2 * channels]
        knots = self.spec.local_curves
        centres = torch.arange(knots, device=inputs.device).view(1, 1, -1, *[1] * (inputs.ndim - 2))
        hats = (1 - (shown.unsqueeze(2) * (knots - 1) - centres).abs()).clamp(min=0)
        curved: Tensor = (fine[:, :, :-1] * hats).sum(2) + fine[:, :, -1] * noisy
        return curved

    def _pad(self, x: Tensor) -> Tensor:
        missing = [(-n) % self.multiple for n in x.shape[2:]]
        if not any(missing):
            return x
        return functional.pad(x, [v for n in reversed(missing) for v in (0, n)], mode="replicate")


def _monai_unet(spec: NetworkSpec, spatial_dims: int, inputs: int, outputs: int) -> nn.Module:
    unet: nn.Module = DiffusionModelUNet(
        spatial_dims=spatial_dims,
        in_channels=inputs,
        out_channels=outputs,
        num_res_blocks=spec.res_blocks,
        channels=spec.channels,
        attention_levels=[level + 1 in spec.attention_levels for level in range(len(spec.channels))],
        norm_num_groups=spec.norm_groups,
        num_head_channels=spec.head_channels,
        with_conditioning=True,
        cross_attention_dim=spec.token_dim,
        num_class_embeds=1,
        use_flash_attention=True,
    )
    # MONAI adds `class_embedding(class_labels)` to the time embedding. The acquisition takes that place: the "label"
    # is the sum of a row's tokens, and its embedding is this perceptron.
    unet.class_embedding = _perceptron(spec.token_dim, spec.channels[0] * 4)
    return unet


class _CompactBody(nn.Module):
    """A `CompactUNet` behind the same call as MONAI's: time and acquisition embeddings are added."""

    def __init__(self, spec: NetworkSpec, spatial_dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.width = spec.channels[0]
        embedding_dim = self.width * 4
        self.time, self.acquisition = (_perceptron(d, embedding_dim) for d in (self.width, spec.token_dim))
        self.unet = CompactUNet(
            spatial_dims, inputs, outputs, spec.channels, embedding_dim=embedding_dim, token_dim=spec.token_dim,
            heads=spec.channels[-1] // spec.head_channels, norm_groups=spec.norm_groups,
        )  # fmt: skip

    def forward(self, x: Tensor, t_B: Tensor, context: Tensor, class_labels: Tensor) -> Tensor:
        """As MONAI's `DiffusionModelUNet`."""
        time = get_timestep_embedding(t_B, self.width)
        out: Tensor = self.unet(x, self.time(time) + self.acquisition(class_labels), context)
        return out


def _perceptron(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """(B, C, *n) to (B, C * factor**d, *n / factor), lossless; n must be multiples of `factor`."""
    if factor == 1:
        return x
    if x.ndim == 4:
        return functional.pixel_unshuffle(x, factor)
    b, c, *sizes = x.shape
    split = x.reshape(b, c, *(v for n in sizes for v in (n // factor, factor)))
    inner, outer = [3 + 2 * i for i in range(len(sizes))], [2 + 2 * i for i in range(len(sizes))]
    return split.permute(0, 1, *inner, *outer).reshape(b, -1, *(n // factor for n in sizes))


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """Inverse of `space_to_depth`."""
    if factor == 1:
        return x
    if x.ndim == 4:
        return functional.pixel_shuffle(x, factor)
    b, _, *sizes = x.shape
    d = len(sizes)
    split = x.reshape(b, -1, *[factor] * d, *sizes)
    order = [v for i in range(d) for v in (2 + d + i, 2 + i)]
    return split.permute(0, 1, *order).reshape(b, -1, *(n * factor for n in sizes))
