"""A training recipe: YAML in, a strict `Recipe` out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from augengine import rng
from augengine.diffusion.spec import DiffusionSpec, NetworkSpec
from augengine.yaml_config import Document, Strict


class StructureRecipe(Strict):
    """How the structure image of training is made from the source (see `augengine.diffusion.structure`).

    Attributes:
        dropout: share of rows without structure, which keeps the network fit for `sdedit` and `inversion`.
        mask_dropout: share of rows whose mask is hidden, which keeps it fit for sources without one.
    """

    dropout: float = Field(default=0.15, ge=0, le=1)
    mask_dropout: float = Field(default=0.15, ge=0, le=1)


class WarpRecipe(Strict):
    """Random rotation, scaling, shift and reflection of training images, so that few subjects are not memorised.

    Attributes:
        rotation_deg, scale, shift: largest deviation; scale relative to 1, shift relative to the field of view.
        flip: mirror the first axis (left and right) of half the rows.
    """

    rotation_deg: float = Field(default=15.0, ge=0, le=180)
    scale: float = Field(default=0.2, ge=0, lt=1)
    shift: float = Field(default=0.12, ge=0, lt=1)
    flip: bool = True


class DataRecipe(Strict):
    """How shards are read.

    Attributes:
        validation_rows: at most so many rows of split `val` make the validation loss.
        window_groups: row groups whose rows are shuffled together.
        cache_mb: decoded row groups that a worker keeps in memory; must hold one window.
    """

    validation_rows: int = Field(default=32, ge=0)
    window_groups: int = Field(default=8, ge=1)
    cache_mb: int = Field(default=1024, ge=16)


class OptimiserRecipe(Strict):
    """AdamW with linear warm-up, then a cosine to zero or a constant rate.

    `batch_size` is that of one step over all workers; `decay_by` the wall clock too when `max_minutes` is set.
    """

    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    decay: Literal["constant", "cosine"] = "cosine"
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)


class LossRecipe(Strict):
    """Mean squared error, weighted over timesteps: `simple` (1) or min-SNR-gamma (Hang et al. 2023)."""

    weighting: Literal["simple", "min_snr"] = "simple"
    min_snr_gamma: float = Field(default=5.0, gt=0)


class Recipe(Strict):
    """One model and how to train it.

    Training ends after `steps`, or after `max_minutes` of training time if that comes first. With `max_minutes`
    the learning rate follows whichever limit is nearer, so the result then depends on the machine's speed.

    Attributes:
        condition_dropout: share of rows trained without a condition, for classifier-free guidance.
        precision: `auto` is bfloat16 where the hardware multiplies it, float32 elsewhere.
        validate_every: steps between validations.
        checkpoint_minutes: time between checkpoints for resuming.
    """

    version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    kind: Literal["acquisition"]
    seed: int = Field(default=0, ge=0)
    network: NetworkSpec
    diffusion: DiffusionSpec
    structure: StructureRecipe | None = None
    warp: WarpRecipe | None = None
    data: DataRecipe = Field(default_factory=DataRecipe)
    optimiser: OptimiserRecipe
    loss: LossRecipe = Field(default_factory=LossRecipe)
    condition_dropout: float = Field(default=0.15, ge=0, lt=1)
    steps: int = Field(ge=1)
    max_minutes: float | None = Field(default=None, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    validate_every: int = Field(default=200, ge=1)
    checkpoint_minutes: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.network.structure != (self.structure is not None):
            raise ValueError("network.structure true and the section 'structure' go together")
        return self

    @property
    def digest(self) -> str:
        """Identity of everything in the recipe."""
        return rng.digest(self.model_dump(mode="json"))


def read_recipe(path: str) -> Recipe:
    """The recipe in a YAML file; mistakes are `ConfigError`s with `file:line`."""
    return Document.read(path).validate(Recipe)
