"""The typed description of a trained generator: what `model.json` holds besides the weights' bytes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from augengine.diffusion.conditions import Vocabulary
from augengine.yaml_config import Strict

FORMAT_VERSION = 1
Parametrisation = Literal["x0", "epsilon", "v"]


class NetworkSpec(Strict):
    """A denoiser with acquisition tokens.

    Attributes:
        body: MONAI's `DiffusionModelUNet`, or `compact` (see `augengine.diffusion.compact`): one residual block per
            level and attention in the middle only.
        channels: feature channels of each level.
        res_blocks: residual blocks per level.
        attention_levels: levels (1 is the finest) with cross-attention over the tokens; the middle always has it.
        head_channels: channels of one attention head.
        norm_groups: groups of every group normalisation.
        token_dim: width of one acquisition token.
        unshuffle: space-to-depth factor before the first convolution (1 = none); lossless, and cheaper by its square.
        local_curves: hat functions of a local look-up table (0 = none): the network then also draws, for every
            coarse cell, a curve from the structure image's value to the output, so that detail at full resolution
            need not pass through it. Needs `structure`.
        structure: True if the network also sees a structure image (method `structure`).
    """

    body: Literal["monai", "compact"] = "monai"
    channels: tuple[int, ...] = Field(min_length=2)
    res_blocks: int = Field(default=1, ge=1)
    attention_levels: tuple[int, ...] = ()
    head_channels: int = Field(ge=1)
    norm_groups: int = Field(default=32, ge=1)
    token_dim: int = Field(default=128, ge=1)
    unshuffle: int = Field(default=1, ge=1)
    structure: bool = False
    local_curves: int = Field(default=0, ge=0, le=64)

    @model_validator(mode="after")
    def _fits(self) -> NetworkSpec:
        if any(c % self.norm_groups for c in self.channels):
            raise ValueError(f"every entry of channels must be a multiple of norm_groups {self.norm_groups}")
        wrong = [a for a in self.attention_levels if not 1 <= a <= len(self.channels)]
        if wrong:
            raise ValueError(f"attention_levels count from 1 to {len(self.channels)}, the number of channels")
        if any(self.channels[a - 1] % self.head_channels for a in (*self.attention_levels, len(self.channels))):
            raise ValueError(f"channels of attention levels must be multiples of head_channels {self.head_channels}")
        if self.local_curves == 1 or (self.local_curves and not self.structure):
            raise ValueError("local_curves is 0, or at least 2 together with structure")
        if self.body == "compact" and (self.res_blocks != 1 or self.attention_levels):
            raise ValueError("body compact has one residual block per level and no attention_levels")
        return self


class DiffusionSpec(Strict):
    """The forward process and what the network's output means.

    Attributes:
        parametrisation: the network predicts the clean image (`x0`), the noise (`epsilon`) or the velocity (`v`).
        schedule: variance schedule over `timesteps` steps.
        shift: moves the schedule towards noise, alpha_bar' with logit(alpha_bar) - 2 ln(shift) (Hoogeboom et al. 2023,
            eq. 4): a denoiser that sees the structure has little to learn where little noise is left.
        x0_range: normalised intensities that a clean image can have; estimates are clamped to it, which keeps
            `epsilon` networks finite where almost no signal is left.
    """

    parametrisation: Parametrisation
    schedule: Literal["linear", "scaled_linear", "cosine"]
    timesteps: int = Field(default=1000, ge=2)
    shift: float = Field(default=1.0, gt=0, le=64)
    x0_range: tuple[float, float] = (-1.0, 6.0)


class ModelSpec(Strict):
    """Everything that `load_generator` needs besides the weights.

    `labels` names the tissues that the structure input shows, in the order of its planes. `percentiles` are those
    of a whole volume that normalisation maps to 0 and 1; `subject_hashes` name the training subjects (see
    `checkpoint.subject_hash`); `sha256` is that of `model.safetensors`.
    """

    format_version: Literal[1] = 1
    kind: Literal["acquisition"] = "acquisition"
    network: NetworkSpec
    diffusion: DiffusionSpec
    vocabulary: Vocabulary
    channels: tuple[str, ...] = Field(min_length=1)
    labels: tuple[str, ...] = ()
    image_size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    percentiles: tuple[float, float] = (10.0, 99.0)
    subject_hashes: tuple[str, ...] = ()
    metrics: dict[str, float] = Field(default_factory=dict)
    recipe: str = ""
    engine_version: str = ""
    sha256: str = ""
