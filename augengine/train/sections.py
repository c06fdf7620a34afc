"""The sections of a training recipe: each a strict model that refuses what it cannot obey."""

from __future__ import annotations

import operator
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from augengine.policy.spec import Where, check_where
from augengine.train.rows import SplitRows
from augengine.yaml_config import Strict, unset


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
        flip_axes: mirror these axes, each in half the rows, instead of the first; slices have no third.
    """

    rotation_deg: float = Field(default=15.0, ge=0, le=180)
    scale: float = Field(default=0.2, ge=0, lt=1)
    shift: float = Field(default=0.12, ge=0, lt=1)
    flip: bool = True
    flip_axes: tuple[Literal[0, 1, 2], ...] = Field(default=(0,), exclude_if=lambda value: value == (0,))


class ClassicalRecipe(Strict):
    """Random change of training images as nnU-Net makes it (Isensee et al. 2021, supplementary note 4.4).

    Each change comes to a share of the rows, nnU-Net's, by itself; see `augengine.train.classical`.

    Attributes:
        rotation_deg: largest angle; of volumes in the plane of the first two axes.
        scale: smallest and largest factor, the same along all axes.
        noise_sd: largest standard deviation of added noise, normalised intensity (nnU-Net's 0.1, which it calls a
            variance and uses as a standard deviation, is of images with unit variance; ours have a tenth of that).
        blur_px: smallest and largest standard deviation of a Gaussian blur, pixels.
        brightness: largest relative change of all values.
        contrast: largest relative change of the distance from the mean.
        low_resolution: smallest and largest share of the pixels along an axis that is left.
        gamma: smallest and largest exponent, on the image or its negative.
    """

    rotation_deg: float = Field(default=30.0, ge=0, le=180)
    scale: tuple[float, float] = (1 / 1.4, 1 / 0.7)
    noise_sd: float = Field(default=0.03, ge=0)
    blur_px: tuple[float, float] = (0.5, 1.0)
    brightness: float = Field(default=0.25, ge=0, lt=1)
    contrast: float = Field(default=0.25, ge=0, lt=1)
    low_resolution: tuple[float, float] = (0.5, 1.0)
    gamma: tuple[float, float] = (0.7, 1.5)

    @model_validator(mode="after")
    def _fits(self) -> ClassicalRecipe:
        for name in ("scale", "blur_px", "low_resolution", "gamma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is two rising numbers above 0")
        if self.low_resolution[1] > 1:
            raise ValueError("low_resolution is two shares of at most 1")
        return self


class RandomContrastRecipe(Strict):
    """Images whose tissues change their brightness at random; see `augengine.train.random_contrast`.

    Attributes:
        share: of the rows that are changed; the others stay as they were scanned.
        noise_sd: largest standard deviation of noise added to a changed row, normalised intensity.
    """

    share: float = Field(default=0.8, ge=0, le=1)
    noise_sd: float = Field(default=0.05, ge=0)


class Batchgeneratorsv2Recipe(Strict):
    """The transforms of nnU-Net's trainer, by its own package; see `augengine.train.nnunet_transforms`.

    Attributes:
        mirror: mirror each axis of half the rows, as nnU-Net does; off, since labels may have a side.
    """

    mirror: bool = False


class MaskRecipe(Strict):
    """What a painter is shown of the label map, and mask-ablated training (paper 001, 4.6), drawn per row.

    Attributes:
        ablation: `none`; `paper`: the lesion's labels become background while the image keeps the lesion;
            `unknown`: the region gets a plane of its own, lesion pixels drop out of the loss, and healthy tissue where
            another row of the batch has its lesion trains the same plane with its pixels in the loss.
        probability: share of rows that are ablated; never in validation.
        blob: smallest and largest radius, relative to the field of view, of the ellipsoid that serves where the other
            row has no lesion.
        hosts: tissues that a part of a lesion grows in, by label. Borrowed holes keep to them, or a network that is to
            fill oedema, which spreads in white matter and spares the cortex, learns to fill other mixtures of tissue.
        margin: pixels by which the region grows at most, as policies paint a margin around a lesion; half on average.
            A lesion's soft border is taken to reach as far beyond its mask, and drops out of the loss with it.
        surroundings: show the image around the region as well, without noise: a chain that starts from noise alone
            cannot see how this scan renders tissue before most of its steps are done. Of the rows that are not ablated
            half show it, too, with the labels of what lies in the region, so that lesions are painted likewise.
    """

    ablation: Literal["none", "paper", "unknown"] = "none"
    probability: float = Field(default=0.3, ge=0, le=1)
    blob: tuple[float, float] = (0.05, 0.2)
    hosts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    margin: int = Field(default=0, ge=0, le=32)
    surroundings: bool = False

    @model_validator(mode="after")
    def _fits(self) -> MaskRecipe:
        if (self.hosts or self.margin or self.surroundings) and self.ablation != "unknown":
            raise ValueError("hosts, margin and surroundings are of regions that are unknown: set ablation unknown")
        if not 0 < self.blob[0] <= self.blob[1] <= 1:
            raise ValueError("blob is two rising shares of the field of view, above 0 and at most 1")
        return self


class BackTranslationRecipe(Strict):
    """How a network that changes contrast is trained on scans that were never made twice.

    Every round makes pseudo-scans of a sample of the training scans, as another setting would show them, and trains
    the way back to the real ones. The first round's are made by `augengine.diffusion.band_transport`, later ones by
    the network of the round before, and moved to the quantiles of the setting's real scans again.

    Attributes:
        rounds: equal parts of the steps.
        scans: at most so many training scans are looked at, the same in every round.
        rows_per_scan: slices of each, evenly spread.
        targets_per_scan: pseudo-scans of each scan and round, of its own vendor and as many of others.
        voxels_per_scan: voxels of each pseudo-scan that are trained on, each also at another gain.
        motion_mm: standard deviation of a shift of every slice between the two, as patients move.
        gain_sd: standard deviation of the logarithm of that gain.
        unshared: pairs of a length in mm and a standard deviation: pseudo-scans are multiplied by random fields that
            change over such lengths and whose logarithms deviate by so much, since two scans of one anatomy share
            neither noise nor shading.
        pairs: where a subject was scanned twice on one voxel grid with different settings, the last round trains from
            one real scan to the other.
    """

    rounds: int = Field(default=3, ge=1, le=20)
    scans: int = Field(default=128, ge=2)
    rows_per_scan: int = Field(default=8, ge=1)
    targets_per_scan: int = Field(default=1, ge=1)
    voxels_per_scan: int = Field(default=8000, ge=100)
    motion_mm: float = Field(default=0.35, ge=0)
    gain_sd: float = Field(default=0.08, ge=0)
    unshared: tuple[tuple[PositiveFloat, NonNegativeFloat], ...] = ()
    pairs: bool = False


class DataRecipe(Strict):
    """How shards are read and what their labels mean.

    Attributes:
        content: what an autoencoder encodes: the image or the label map (the planes of `regions`).
        regions: named unions of labels, outermost first where they nest.
        lesion: labels that make a lesion.
        context: offsets of neighbouring slices shown as further inputs (2.5D), such as `[-1, 1]`.
        split: rows that train; the validation loss is of split `val`, or of none where that trains.
        where: acquisition parameters that a row must state, as in a policy's `select`; the validation loss follows.
        labelled: rows with a label map (true) or without one (false); none takes both. What has `regions` needs label
            maps anyway.
        showing: labels of which a row must show one to be trained on; none takes every row.
        fold: `[k, n]` leaves out the subjects of fold k (from 0) of n, for out-of-fold predictions.
        augmented_per_real: augmented rows, those with provenance, for every real row (see `train.rows.SplitRows`); none
            takes every row. The validation loss then is of real rows alone.
        balance: labels whose share of the rows stays as it is in the real ones: `augmented_per_real`, 0 to 1, then is
            the share of real rows whose place is taken by augmented ones that, like them, show one of the labels, or
            none (see `train.rows.SplitRows`). For rows with new lesions: without it a segmenter learns that lesions are
            more common than they are.
        validation_rows: at most so many rows of split `val` make the validation loss.
        window_groups: row groups whose rows are shuffled together.
        cache_mb: MiB of decoded row groups that a worker keeps in memory; where one window needs more, that is used,
            and said.
    """

    content: Literal["image", "labels"] = "image"
    regions: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    lesion: tuple[str, ...] = ()
    context: tuple[int, ...] = ()
    split: Literal["train", "val", "test"] = Field(default="train", exclude_if=lambda value: value == "train")
    where: Where = Field(default_factory=dict, exclude_if=unset)
    labelled: bool | None = Field(default=None, exclude_if=unset)
    showing: tuple[str, ...] = ()
    fold: tuple[int, int] | None = None
    augmented_per_real: float | None = Field(default=None, ge=0, exclude_if=unset)
    balance: tuple[str, ...] = Field(default=(), exclude_if=operator.not_)
    validation_rows: int = Field(default=32, ge=0)
    window_groups: int = Field(default=8, ge=1, le=2**20)
    cache_mb: int = Field(default=1024, ge=16)

    _check_where = field_validator("where")(check_where)

    def rows(self, use: Literal["train", "val"]) -> SplitRows:
        """The rows that this recipe takes for training, or for the validation loss; folds divide the first alone.

        Whatever learns regions takes rows with a label map only: without one, all would seem to be background.
        """
        labelled, ratio = True if self.regions else self.labelled, self.augmented_per_real
        if use == "train":
            return SplitRows(self.split, self.fold, self.showing, labelled, ratio, self.where, self.balance)
        return SplitRows("val", None, self.showing, labelled, None if ratio is None else 0, self.where)

    @model_validator(mode="after")
    def _fits(self) -> DataRecipe:
        if self.fold is not None and not 0 <= self.fold[0] < self.fold[1]:
            raise ValueError("fold is [k, n] with k from 0 to n - 1")
        if self.labelled is False and (self.regions or self.showing):
            raise ValueError("rows without label maps (labelled: false) have no regions and show no labels")
        if self.split == "val" and self.validation_rows:
            raise ValueError("rows of split val that train cannot validate: set validation_rows: 0")
        return self


class OptimiserRecipe(Strict):
    """AdamW with linear warm-up, then a cosine to zero or a constant rate.

    Attributes:
        batch_size: rows of one step over all workers and accumulated parts.
        accumulation: parts that a worker's share of the batch is computed in, one after the other.
        clip_norm: largest norm of the gradient.
    """

    batch_size: int = Field(ge=1, le=2**16)
    accumulation: int = Field(default=1, ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    decay: Literal["constant", "cosine"] = "cosine"
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)


class BestCheckpointRecipe(Strict):
    """The checkpoint gets the averaged weights of the least validation loss, the first of equal ones, not the last.

    Attributes:
        patience: training ends early after so many validations in a row without a lower loss; none trains all steps.
    """

    patience: int | None = Field(default=None, ge=1)


class LossRecipe(Strict):
    """Mean squared error of a diffusion model.

    Attributes:
        weighting: over timesteps, `simple` (1) or min-SNR-gamma (Hang et al. 2023).
        lesion_weight: pixels of the lesion count 1 + this much (LeFusion, Zhang et al. 2025).
    """

    weighting: Literal["simple", "min_snr"] = "simple"
    min_snr_gamma: float = Field(default=5.0, gt=0)
    lesion_weight: float = Field(default=0.0, ge=0)


class HardwareRecipe(Strict):
    """Switches that change speed and memory, and of the result only the last bits.

    Attributes:
        precision: `auto` is bfloat16 where the hardware multiplies it, float32 elsewhere.
        compile: `torch.compile` the network.
        channels_last: memory format of 2D and 3D convolutions.
        shard: spread weights, gradients and moments over the workers (FSDP2) instead of copying them.
    """

    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    channels_last: bool = False
    shard: bool = False
