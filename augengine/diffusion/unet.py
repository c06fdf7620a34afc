"""The denoising UNet: noisy image, planes, timestep and tokens in; raw output out.

Hybrid conditioning (paper 004, 2.2): an embedding of all parameters is added to the time embedding,
and the attention blocks attend to the tokens, one per parameter. A class is one token more.
Legend: B rows, C content channels, P planes, D token width. `*` stands for any spatial axes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from augengine.diffusion.compact import CompactUNet
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.conditions import TokenEmbedding, Vocabulary
from augengine.diffusion.padding import crop, pad
from augengine.yaml_config import Count, Strict, Width


class UNetSpec(Strict):
    """A denoising UNet.

    Attributes:
        body: MONAI's `DiffusionModelUNet`, or `compact` (see `augengine.diffusion.compact`): one residual block per
            level and attention in the middle only.
        channels: feature channels of each level.
        res_blocks: residual blocks per level.
        attention_levels: levels (1 is the finest) with attention, over the tokens where there are any; the middle
            always has it.
        head_channels: channels of one attention head.
        norm_groups: groups of every group normalisation.
        token_dim: width of one acquisition token.
        unshuffle: space-to-depth factor before the first convolution (1 = none); lossless, and cheaper by its square.
        local_curves: hat functions of a local look-up table (0 = none): the network then also draws, for every
            coarse cell, a curve from the structure image's value to the output, so that detail at full resolution
            need not pass through it. Needs `structure`.
        tissue_curves: a table for every tissue, so that borders lie where the label map has them: sharper, and as hard
            as the map's; a step takes longer. For label maps that are not exact. Needs `local_curves`.
        structure: True if an acquisition model also sees a structure image (method `structure`).
    """

    body: Literal["monai", "compact"] = "monai"
    channels: tuple[Width, ...] = Field(min_length=2, max_length=10)
    res_blocks: Count = 1
    attention_levels: tuple[int, ...] = ()
    head_channels: Width
    norm_groups: Width = 32
    token_dim: Width = 128
    unshuffle: int = Field(default=1, ge=1, le=64)
    structure: bool = False
    local_curves: int = Field(default=0, ge=0, le=64)
    tissue_curves: bool = False

    @model_validator(mode="after")
    def _fits(self) -> UNetSpec:
        if any(c % self.norm_groups for c in self.channels):
            raise ValueError(f"every entry of channels must be a multiple of norm_groups {self.norm_groups}")
        wrong = [a for a in self.attention_levels if not 1 <= a <= len(self.channels)]
        if wrong:
            raise ValueError(f"attention_levels count from 1 to {len(self.channels)}, the number of channels")
        if any(self.channels[a - 1] % self.head_channels for a in (*self.attention_levels, len(self.channels))):
            raise ValueError(f"channels of attention levels must be multiples of head_channels {self.head_channels}")
        if self.local_curves == 1 or (self.local_curves and not self.structure):
            raise ValueError("local_curves is 0, or at least 2 together with structure")
        if self.tissue_curves and not self.local_curves:
            raise ValueError("tissue_curves go together with local_curves")
        if self.body == "compact" and (self.res_blocks != 1 or self.attention_levels):
            raise ValueError("body compact has one residual block per level and no attention_levels")
        return self


class DenoisingUNet(nn.Module):
    """`forward(x, t, conditioning)` to the raw output, in the shape of `x`.

    Args:
        spec: widths and depths.
        channels: of the noisy image and of the output.
        condition_planes: spatial maps concatenated to the input; a batch without them sees zeros.
        tissues: of `tissue_curves`: how many of the planes say where labelled tissues are (`structure_planes`).
        classes: number of classes, 0 for none.
        vocabulary: of the acquisition tokens, or None.
        spatial_dims: 2 or 3.
    """

    def __init__(
        self,
        spec: UNetSpec,
        channels: int,
        *,
        condition_planes: int = 0,
        tissues: int = 0,
        classes: int = 0,
        vocabulary: Vocabulary | None = None,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        self.spec, self.condition_planes = spec, condition_planes
        factor = spec.unshuffle**spatial_dims
        self.tokens = None if vocabulary is None else TokenEmbedding(vocabulary, spec.token_dim)
        self.classes = nn.Embedding(classes + 1, spec.token_dim) if classes else None
        self.tissues = tissues
        self.curves = channels * (spec.local_curves * (tissues + 1) + 1) if spec.local_curves else 0
        body = _monai_unet if spec.body == "monai" else _CompactBody
        self.unet = body(
            spec,
            spatial_dims,
            (channels + condition_planes) * factor,
            channels * factor + self.curves,
            with_tokens=bool(classes) or vocabulary is not None,
        )
        self.multiple = spec.unshuffle * 2 ** (len(spec.channels) - 1)

    def forward(self, x: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        """Output (B, C, *) for noisy `x` (B, C, *) at timesteps `t_B`; any size, padded to the multiple inside."""
        size = x.shape[2:]
        planes = (
            x.new_zeros(len(x), self.condition_planes, *size) if conditioning.planes is None else conditioning.planes
        )
        inputs = pad(torch.cat([x, planes.to(x)], dim=1), self.multiple)
        tokens = self._tokens(conditioning, len(x))
        coarse = space_to_depth(inputs, self.spec.unshuffle)
        labels = None if tokens is None else tokens.sum(1)
        out: Tensor = self.unet(coarse, t_B, context=tokens, class_labels=labels)
        image = depth_to_space(out[:, self.curves :], self.spec.unshuffle)
        if self.curves:
            image = image + self._curved(out[:, : self.curves].float(), inputs, x.shape[1])
        return crop(image, size)

    def prepared(self, conditioning: Conditioning, rows: int) -> Conditioning:
        """`conditioning` of so many rows with its tokens, which no step of a chain changes."""
        return replace(conditioning, tokens=self._tokens(conditioning, rows))

    def _tokens(self, conditioning: Conditioning, rows: int) -> Tensor | None:
        if conditioning.tokens is not None:
            return conditioning.tokens
        tokens = []
        if self.tokens is not None:
            tokens.append(self.tokens(conditioning.acquisition or self.tokens.nothing(rows)))
        if self.classes is not None:
            classes = conditioning.classes
            none = torch.zeros(rows, dtype=torch.long, device=self.classes.weight.device)
            tokens.append(self.classes(none if classes is None else classes)[:, None])
        return torch.cat(tokens, dim=1) if tokens else None

    def _curved(self, coefficients: Tensor, inputs: Tensor, channels: int) -> Tensor:
        """Each tissue's local look-up table of the structure image, and a local gain of the noisy one.

        `coefficients` (B, C * ((L + 1) * knots + 1), *) are coarse.
        """
        mode = "bilinear" if inputs.ndim == 4 else "trilinear"
        fine = functional.interpolate(coefficients, size=inputs.shape[2:], mode=mode)
        fine = fine.view(len(fine), channels, -1, *inputs.shape[2:])
        noisy, shown = inputs[:, :channels], inputs[:, channels : 2 * channels]
        tissues = inputs[:, 2 * channels + 2 :][:, : self.tissues]
        parts = torch.cat([1 - tissues.sum(1, keepdim=True), tissues], dim=1)
        knots = self.spec.local_curves
        centres = torch.arange(knots, device=inputs.device).view(1, 1, -1, *[1] * (inputs.ndim - 2))
        hats = (1 - (shown.unsqueeze(2) * (knots - 1) - centres).abs()).clamp(min=0)
        tables = fine[:, :, :-1].reshape(len(fine), channels, -1, knots, *inputs.shape[2:])
        own = (tables * parts[:, None, :, None]).sum(2)
        curved: Tensor = (own * hats).sum(2) + fine[:, :, -1] * noisy
        return curved


def _monai_unet(spec: UNetSpec, spatial_dims: int, inputs: int, outputs: int, *, with_tokens: bool) -> nn.Module:
    from monai.networks.nets import DiffusionModelUNet  # late: importing MONAI takes seconds

    unet: nn.Module = DiffusionModelUNet(
        spatial_dims=spatial_dims,
        in_channels=inputs,
        out_channels=outputs,
        num_res_blocks=spec.res_blocks,
        channels=spec.channels,
        attention_levels=[level + 1 in spec.attention_levels for level in range(len(spec.channels))],
        norm_num_groups=spec.norm_groups,
        num_head_channels=spec.head_channels,
        with_conditioning=with_tokens,
        cross_attention_dim=spec.token_dim if with_tokens else None,
        num_class_embeds=1 if with_tokens else None,
        use_flash_attention=True,
    )
    if with_tokens:
        # MONAI adds `class_embedding(class_labels)` to the time embedding. The tokens take that place: the "label"
        # is the sum of a row's tokens, and its embedding is this perceptron.
        unet.class_embedding = _perceptron(spec.token_dim, spec.channels[0] * 4)
    return unet


def timestep_embedding(t_B: Tensor, width: int) -> Tensor:
    """Cosines and sines of the timesteps, (B, width) float32 for an even width (Ho et al. 2020; as MONAI's UNet)."""
    exponents = -math.log(10_000) * torch.arange(width // 2, dtype=torch.float32, device=t_B.device)
    angles = t_B[:, None].float() * torch.exp(exponents / (width // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class _CompactBody(nn.Module):
    """A `CompactUNet` behind the same call as MONAI's: the embeddings of time and of the tokens are added."""

    def __init__(self, spec: UNetSpec, spatial_dims: int, inputs: int, outputs: int, *, with_tokens: bool) -> None:
        super().__init__()
        self.width = spec.channels[0]
        embedding_dim = self.width * 4
        self.time = _perceptron(self.width, embedding_dim)
        self.acquisition = _perceptron(spec.token_dim, embedding_dim) if with_tokens else None
        self.unet = CompactUNet(
            spatial_dims,
            inputs,
            outputs,
            spec.channels,
            embedding_dim=embedding_dim,
            token_dim=spec.token_dim if with_tokens else None,
            heads=spec.channels[-1] // spec.head_channels,
            norm_groups=spec.norm_groups,
        )

    def forward(self, x: Tensor, t_B: Tensor, context: Tensor | None, class_labels: Tensor | None) -> Tensor:
        """As MONAI's `DiffusionModelUNet`."""
        embedding = self.time(timestep_embedding(t_B, self.width))
        if self.acquisition is not None:
            embedding = embedding + self.acquisition(class_labels)
        out: Tensor = self.unet(x, embedding, context)
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
