"""The acquisition denoiser: a MONAI diffusion UNet that takes acquisition tokens in two ways at once.

Hybrid conditioning (paper 004, 2.2 and figure 3): an embedding of all parameters is added to the time embedding,
and the attention blocks attend to the tokens, one per parameter.
Legend: B rows, C image channels, H W pixels, P parameters, D token width. `*` stands for any spatial axes.
"""

from __future__ import annotations

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn
from torch.nn import functional

from augengine.diffusion.conditions import Condition, TokenEmbedding, Vocabulary
from augengine.diffusion.spec import NetworkSpec


class AcquisitionUNet(nn.Module):
    """`forward(x, t, condition, structure)` to the raw output, in the shape of `x`.

    With `spec.structure`, two more inputs are concatenated: the structure image and a plane that is 1 where the
    row has one; rows without one see zeros, which makes the network an ordinary conditional denoiser.
    """

    def __init__(self, spec: NetworkSpec, channels: int, vocabulary: Vocabulary, spatial_dims: int = 2) -> None:
        super().__init__()
        self.spec = spec
        factor = spec.unshuffle**spatial_dims
        inputs = channels * 2 + 1 if spec.structure else channels
        self.tokens = TokenEmbedding(vocabulary, spec.token_dim)
        self.unet = DiffusionModelUNet(
            spatial_dims=spatial_dims,
            in_channels=inputs * factor,
            out_channels=channels * factor,
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
        # MONAI adds `class_embedding(class_labels)` to the time embedding. The acquisition takes that place: the
        # "label" is the sum of a row's tokens, and its embedding is this perceptron.
        width = spec.channels[0] * 4
        self.unet.class_embedding = nn.Sequential(nn.Linear(spec.token_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.multiple = spec.unshuffle * 2 ** (len(spec.channels) - 1)

    def forward(self, x: Tensor, t_B: Tensor, condition: Condition, structure: Tensor | None = None) -> Tensor:
        """Output (B, C, *) for noisy `x` (B, C, *) at timesteps `t_B`; any size, padded to the multiple inside."""
        size = x.shape[2:]
        inputs = self._pad(torch.cat([x, *self._structure(x, structure)], dim=1))
        tokens = self.tokens(condition)
        out = self.unet(space_to_depth(inputs, self.spec.unshuffle), t_B, context=tokens, class_labels=tokens.sum(1))
        out = depth_to_space(out, self.spec.unshuffle)
        for axis, n in enumerate(size, start=2):
            out = out.narrow(axis, 0, n)
        return out

    def _structure(self, x: Tensor, structure: Tensor | None) -> list[Tensor]:
        if not self.spec.structure:
            return []
        seen = x.new_zeros(len(x), 1, *x.shape[2:])
        if structure is None:
            return [torch.zeros_like(x), seen]
        # A row of NaN marks "no structure" within a batch that has some (training drops rows at random).
        present = ~structure.isnan().flatten(1).any(1)
        return [structure.nan_to_num(0.0), seen + present.view(-1, *[1] * (x.ndim - 1))]

    def _pad(self, x: Tensor) -> Tensor:
        missing = [(-n) % self.multiple for n in x.shape[2:]]
        if not any(missing):
            return x
        return functional.pad(x, [v for n in reversed(missing) for v in (0, n)], mode="replicate")


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
