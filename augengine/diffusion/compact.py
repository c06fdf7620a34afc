"""A compact UNet for two cores: noisy image, time and acquisition embedding, and tokens in; raw output out.

Its training step takes 1 / 1.7 of that of a `DiffusionModelUNet` of the same width on two cores
(`benchmarks/network_speed.py`): one residual block per level on both ways, scale-and-shift conditioning (Dhariwal and
Nichol 2021, AdaGN), attention in the middle only (over the tokens, or the image itself where there are none), and the
input once more before the last convolution, so that fine detail need not pass through the bottleneck.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class CompactUNet(nn.Module):
    """`forward(x, embedding, tokens)`: x (B, inputs, *), embedding (B, E), tokens (B, P, D) to (B, outputs, *).

    With `token_dim` None there are no tokens and the middle attends to its own image.
    """

    def __init__(
        self,
        spatial_dims: int,
        inputs: int,
        outputs: int,
        channels: Sequence[int],
        *,
        embedding_dim: int,
        token_dim: int | None,
        heads: int,
        norm_groups: int,
    ) -> None:
        super().__init__()
        conv = _CONV[spatial_dims]
        options = {"spatial_dims": spatial_dims, "embedding_dim": embedding_dim, "norm_groups": norm_groups}
        deepest = channels[-1]
        self.first = conv(inputs, channels[0], 3, padding=1)
        before = [channels[0], *channels[:-1]]
        self.down = nn.ModuleList(Block(a, b, **options) for a, b in zip(before, channels, strict=True))
        self.middle = Block(deepest, deepest, **options)
        self.norm = nn.GroupNorm(norm_groups, deepest)
        self.attention = nn.MultiheadAttention(deepest, heads, kdim=token_dim, vdim=token_dim, batch_first=True)
        below = [*channels[1:], deepest]
        upwards = reversed(list(zip(channels, below, strict=True)))
        self.up = nn.ModuleList(Block(c + b, c, **options) for c, b in upwards)
        self.pool = _POOL[spatial_dims](2)
        self.last = conv(channels[0] + inputs, outputs, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tensor | None) -> Tensor:
        """Raw output; spatial sizes must be multiples of 2 to the number of levels less one."""
        h, skips = self.first(x), []
        for level, block in enumerate(self.down):
            h = block(self.pool(h) if level else h, embedding)
            skips.append(h)
        h = self._attend(self.middle(h, embedding), tokens)
        for level, block in enumerate(self.up):
            h = functional.interpolate(h, scale_factor=2.0) if level else h
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        out: Tensor = self.last(torch.cat([h, x], dim=1))
        return out

    def _attend(self, h: Tensor, tokens: Tensor | None) -> Tensor:
        query = self.norm(h).flatten(2).transpose(1, 2)
        context = query if tokens is None else tokens
        found: Tensor = self.attention(query, context, context, need_weights=False)[0]
        return h + found.transpose(1, 2).reshape(h.shape)


class Block(nn.Module):
    """Residual block of two convolutions; the embedding scales and shifts the second normalisation."""

    def __init__(self, inputs: int, outputs: int, *, spatial_dims: int, embedding_dim: int, norm_groups: int) -> None:
        super().__init__()
        conv = _CONV[spatial_dims]
        self.norm1, self.norm2 = nn.GroupNorm(norm_groups, inputs), nn.GroupNorm(norm_groups, outputs)
        self.conv1, self.conv2 = conv(inputs, outputs, 3, padding=1), conv(outputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding_dim, 2 * outputs)
        self.skip = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, inputs, *) to (B, outputs, *)."""
        scale, shift = self.modulation(embedding).view(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h) * (1 + scale) + shift))
        out: Tensor = self.skip(x) + h
        return out
