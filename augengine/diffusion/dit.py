"""The diffusion transformer: noisy latent image, timestep and class in; raw output out (Peebles and Xie 2023, DiT).

The blocks are those of diffusers' `DiTTransformer2DModel` (adaLN-Zero). Three things it leaves to its user are done
here: one embedding of time and class serves all blocks, as in the paper (diffusers gives each block its own); "no
class" is an index of its own and classes are never dropped inside; and the modulation starts at zero.
Legend: B rows, C channels, H W pixels, D width of the transformer.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from augengine.diffusion.padding import crop, pad
from augengine.errors import ConfigError
from augengine.yaml_config import Count, Strict, Width

FREQUENCIES = 256


class DiTSize(Strict):
    """Layers, attention heads, channels of one head and pixels of a patch's side; the width is heads x channels."""

    layers: Count
    heads: Count
    head_channels: Width = 64
    patch: int = Field(default=2, ge=1, le=64)

    @model_validator(mode="after")
    def _fits(self) -> DiTSize:
        if self.width % 4:
            raise ValueError("heads x head_channels must be a multiple of 4 (sines and cosines of two axes)")
        return self

    @property
    def width(self) -> int:
        """D."""
        return self.heads * self.head_channels


SIZES = {"S/2": DiTSize(layers=12, heads=6), "B/2": DiTSize(layers=12, heads=12)}


class DiTSpec(Strict):
    """A diffusion transformer.

    Attributes:
        size: a size of the paper (table 1, with its patch) or explicit layers, heads, head_channels and patch.
    """

    body: Literal["dit"] = "dit"
    size: Literal["S/2", "B/2"] | DiTSize

    @property
    def layout(self) -> DiTSize:
        """`size`, spelt out."""
        return SIZES[self.size] if isinstance(self.size, str) else self.size


class DiT(nn.Module):
    """`forward(x, t, class_index)` to the raw output.

    Args:
        spec: the size.
        inputs: channels of `x`.
        outputs: channels of the output.
        classes: number of classes; index 0 of the embedding is "no class".
        image_size: (H, W) of `x`; equal after padding to the patch, or `ConfigError`.
    """

    def __init__(self, spec: DiTSpec, inputs: int, outputs: int, classes: int, image_size: tuple[int, ...]) -> None:
        from diffusers import DiTTransformer2DModel  # late: importing diffusers takes seconds
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps

        super().__init__()
        layout = spec.layout
        self.image_size, self.patch = tuple(image_size), layout.patch
        padded = {-(-n // layout.patch) * layout.patch for n in image_size}
        if len(image_size) != 2 or len(padded) != 1:
            raise ConfigError(
                "a diffusion transformer takes square two-dimensional images",
                found=tuple(image_size),
                next_step="crop or pad the images to a square, or use a UNet",
            )
        self.frequencies = Timesteps(FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(FREQUENCIES, layout.width)
        self.classes = nn.Embedding(classes + 1, layout.width)
        self.body = DiTTransformer2DModel(
            num_attention_heads=layout.heads,
            attention_head_dim=layout.head_channels,
            in_channels=inputs,
            out_channels=outputs,
            num_layers=layout.layers,
            sample_size=padded.pop(),
            patch_size=layout.patch,
            num_embeds_ada_norm=1,
        )
        for block in self.body.transformer_blocks:
            block.norm1.emb = _Embedded()
        self._initialise()

    def forward(self, x: Tensor, t_B: Tensor, class_index: Tensor) -> Tensor:
        """Output (B, outputs, H, W) for `x` (B, inputs, H, W), `t_B` and `class_index` (B,) long, 0 for no class."""
        if tuple(x.shape[2:]) != self.image_size:
            raise ConfigError(
                f"this diffusion transformer takes images of {self.image_size}",
                found=tuple(x.shape[2:]),
                next_step="positions are part of its training; resize or pad the images",
            )
        weight = self.classes.weight
        embedding_BD = self.time(self.frequencies(t_B).to(weight.dtype)) + self.classes(class_index)
        out: Tensor = self.body(pad(x, self.patch), timestep=embedding_BD).sample
        return crop(out, self.image_size)

    def _initialise(self) -> None:
        """Peebles and Xie 2023, section 3.2 (adaLN-Zero): every block is the identity and the output is zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        patches = self.body.pos_embed.proj
        nn.init.xavier_uniform_(patches.weight.flatten(1))
        nn.init.zeros_(patches.bias)
        for weight in (self.classes.weight, self.time.linear_1.weight, self.time.linear_2.weight):
            nn.init.normal_(weight, std=0.02)
        modulations = [block.norm1.linear for block in self.body.transformer_blocks]
        for layer in (*modulations, self.body.proj_out_1, self.body.proj_out_2):
            nn.init.zeros_(layer.weight)


class _Embedded(nn.Module):
    """Stands where a block would embed time and class: what arrives as the timestep is the embedding (B, D)."""

    def forward(self, timestep: Tensor, class_labels: object = None, hidden_dtype: object = None) -> Tensor:
        return timestep
