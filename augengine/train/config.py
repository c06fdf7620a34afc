"""A training recipe: YAML in, a strict `Recipe` out."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from augengine import rng
from augengine.bundled import recipe_file
from augengine.diffusion.autoencoding_loss import AutoencodingLossSpec
from augengine.diffusion.intensity_spec import IntensityRecipe, named
from augengine.diffusion.schedules import ending_signal, lost_mean
from augengine.diffusion.spec import GENERATORS, DiffusionSpec, Kind, NetworkSpec
from augengine.policy.spec import Where, check_where
from augengine.train.data import SplitRows
from augengine.train.trackers import TRACKERS
from augengine.yaml_config import Document, Strict, unset


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
        augmented_per_real: augmented rows, those with provenance, for every real row (see `train.data.SplitRows`); none
            takes every row. The validation loss then is of real rows alone.
        balance: labels whose share of the rows stays as it is in the real ones: `augmented_per_real`, 0 to 1, then is
            the share of real rows whose place is taken by augmented ones that, like them, show one of the labels, or
            none (see `train.data.SplitRows`). For rows with new lesions: without it a segmenter learns that lesions are
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


def _tracker(name: str) -> str:
    if name not in TRACKERS:
        raise ValueError(f"a tracker is one of {', '.join(TRACKERS)}")
    return name


class Recipe(Strict):
    """One model and how to train it.

    Training ends after `steps`, or after `max_minutes` of training time if that comes first. With `max_minutes`
    the learning rate follows whichever limit is nearer, so the result then depends on the machine's speed.
    `best_checkpoint` may end it earlier, by the validation loss alone.

    Attributes:
        parts: models that this one is built on and keeps frozen, by role: folder of the checkpoint, or null where
            the command line gives it.
        pretrained: local folder of Stable Diffusion's autoencoder, as diffusers writes it, whose weights training
            starts from; with `steps: 0` they stay as they are.
        intensity: which intensity ranges its rows have and what the network makes of them, a section or the name of a
            published setting (see `augengine.diffusion.intensity_spec`); the 10th and 99th percentile by default.
        condition_dropout: share of rows trained without a condition, for classifier-free guidance.
        best_checkpoint: choose the checkpoint by validation loss, with or without early stopping; none takes the last.
        validate_every, pictures_every: steps between validations and between sample pictures (0: none).
        checkpoint_minutes: time between checkpoints for resuming.
        keep_checkpoints: how many of these are kept.
        trackers: where metrics and pictures go besides the console and `metrics.jsonl`.
    """

    version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    kind: Kind
    seed: int = Field(default=0, ge=0)
    network: NetworkSpec
    parts: dict[str, str | None] = Field(default_factory=dict)
    pretrained: str | None = Field(default=None, exclude_if=unset)
    diffusion: DiffusionSpec | None = None
    structure: StructureRecipe | None = None
    mask: MaskRecipe | None = None
    autoencoding: AutoencodingLossSpec | None = None
    warp: WarpRecipe | None = None
    classical: ClassicalRecipe | None = Field(default=None, exclude_if=unset)
    random_contrast: RandomContrastRecipe | None = Field(default=None, exclude_if=unset)
    batchgeneratorsv2: Batchgeneratorsv2Recipe | None = Field(default=None, exclude_if=unset)
    back_translation: BackTranslationRecipe | None = Field(default=None, exclude_if=unset)
    data: DataRecipe = Field(default_factory=DataRecipe)
    intensity: Annotated[IntensityRecipe | None, BeforeValidator(named)] = Field(default=None, exclude_if=unset)
    optimiser: OptimiserRecipe
    loss: LossRecipe = Field(default_factory=LossRecipe)
    condition_dropout: float = Field(default=0.15, ge=0, lt=1)
    steps: int = Field(ge=0)
    best_checkpoint: BestCheckpointRecipe | None = Field(default=None, exclude_if=unset)
    max_minutes: float | None = Field(default=None, gt=0)
    hardware: HardwareRecipe = Field(default_factory=HardwareRecipe)
    validate_every: int = Field(default=200, ge=1)
    pictures_every: int = Field(default=0, ge=0)
    checkpoint_minutes: float = Field(default=5.0, gt=0)
    keep_checkpoints: int = Field(default=2, ge=1)
    trackers: tuple[Annotated[str, AfterValidator(_tracker), WithJsonSchema({"enum": list(TRACKERS)})], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        check(self)
        return self

    @property
    def digest(self) -> str:
        """Identity of everything in the recipe but where its parts and pretrained weights lie."""
        return rng.digest(self.model_dump(mode="json", exclude={"parts": True, "pretrained": True}))


# Network bodies and parts of each kind; a part in brackets may be left out.
_RULES: dict[str, tuple[set[str], set[str]]] = {
    "acquisition": ({"monai", "compact", "local_contrast"}, set()),
    "counterfactual": ({"monai", "compact", "dit"}, {"[autoencoder]"}),
    "painter": ({"monai", "compact"}, set()),
    "label_prior": ({"monai", "compact", "dit"}, {"[autoencoder]"}),
    "label_segmenter": ({"control"}, {"prior"}),
    "error_corrector": ({"monai", "compact"}, {"fold_0", "fold_1"}),
    "autoencoder": ({"autoencoder_kl"}, {"[features]"}),
    "segmenter": ({"residual_unet"}, set()),
    "acquisition_predictor": ({"resnet18"}, set()),
}


# What starts from nothing but noise; painters and counterfactuals are held by what they see of the image.
_FROM_NOISE = ("label_prior", "label_segmenter", "error_corrector")
_NO_SIGNAL = 1e-3


def check(recipe: Recipe) -> None:
    """Refuse sections that do not go together; a `ValueError` with rule and value."""
    kind, network, data = recipe.kind, recipe.network, recipe.data
    bodies, roles = _RULES[kind]
    structure, changes = getattr(network, "structure", False), network.body == "local_contrast"
    needed = {role for role in roles if not role.startswith("[")}
    allowed = {role.strip("[]") for role in roles}
    folds = kind == "error_corrector"  # as many as there are
    strange = sorted(r for r in recipe.parts if r not in allowed and not (folds and re.fullmatch(r"fold_\d+", r)))
    of_pixels = kind in ("acquisition", "painter", "counterfactual") and not recipe.parts
    segments = kind in ("segmenter", "label_segmenter", "error_corrector")
    intensity = recipe.intensity or IntensityRecipe()
    reads = segments or kind == "acquisition_predictor"
    labels = kind in ("label_prior", "label_segmenter", "error_corrector", "segmenter") or data.content == "labels"
    rules = [
        (network.body in bodies, f"kind {kind} takes network.body {' or '.join(sorted(bodies))}, not {network.body}"),
        (needed <= set(recipe.parts), f"kind {kind} needs parts: {', '.join(sorted(needed))}"),
        (not strange, f"kind {kind} takes parts: {', '.join(sorted(allowed)) or 'none'}, not {', '.join(strange)}"),
        (
            (recipe.diffusion is not None) == (kind in GENERATORS and not changes),
            "generators, and only they, have a section diffusion"
            + (", but for network.body local_contrast" if kind == "acquisition" else ""),
        ),
        (
            (recipe.back_translation is not None) == changes,
            "network.body local_contrast and the section back_translation go together",
        ),
        (not changes or recipe.warp is None, "network.body local_contrast takes no section warp: it knows no place"),
        (not (changes and recipe.hardware.shard), "network.body local_contrast is too small for hardware.shard"),
        (not (changes and recipe.hardware.channels_last), "hardware.channels_last is for convolutions"),
        (
            not changes or intensity.foreground != "nonzero",
            "network.body local_contrast takes intensity.foreground all or body: it looks for a body above air, 0",
        ),
        (structure == (recipe.structure is not None), "network.structure true and the section structure go together"),
        (not structure or kind == "acquisition", "only kind acquisition takes network.structure true"),
        (recipe.classical is None or segments, "only segmenters and correctors take the section classical"),
        (recipe.batchgeneratorsv2 is None or segments, "only segmenters and correctors take batchgeneratorsv2"),
        (recipe.random_contrast is None or segments, "only segmenters and correctors take the section random_contrast"),
        (
            recipe.intensity is None or (kind != "label_prior" and data.content == "image"),
            "a model of label maps alone takes no section intensity",
        ),
        (
            intensity.plain or reads,
            f"intensity.scale and intensity.clip are for models that draw no images; this is kind {kind}",
        ),
        (
            intensity.foreground == "all" or not (structure or recipe.random_contrast),
            "network.structure and random_contrast recolour tissue from 0 on: foreground "
            f"{intensity.foreground} puts some of it below",
        ),
        (recipe.mask is None or kind == "painter", "only kind painter takes the section mask"),
        (
            (recipe.autoencoding is not None) == (kind == "autoencoder"),
            "kind autoencoder, and only it, has a section autoencoding",
        ),
        (
            recipe.pretrained is None or (network.body == "autoencoder_kl" and network.design == "stable_diffusion"),
            "pretrained goes with network.design stable_diffusion",
        ),
        ("features" not in recipe.parts or data.content == "image", "the part features sees images, not label maps"),
        (
            recipe.autoencoding is None or (recipe.autoencoding.perceptual_weight > 0) == ("features" in recipe.parts),
            "autoencoding.perceptual_weight and the part features (a segmenter) go together",
        ),
        (bool(data.regions) == labels, "data.regions goes with label content, segmenters and correctors"),
        (data.content == "image" or kind == "autoencoder", "data.content labels goes with kind autoencoder"),
        ((kind == "counterfactual") <= bool(data.lesion), "kind counterfactual needs data.lesion"),
        (
            (recipe.mask is not None and recipe.mask.ablation != "none") <= bool(data.lesion),
            "mask-ablated training needs data.lesion",
        ),
        (recipe.mask is None or set(recipe.mask.hosts) <= set(data.lesion), "mask.hosts names labels of data.lesion"),
        (
            recipe.mask is None or not set(data.lesion) & {n for names in recipe.mask.hosts.values() for n in names},
            "a lesion is no host of another: mask.hosts maps labels of data.lesion to healthy tissue",
        ),
        (
            not recipe.loss.lesion_weight or (bool(data.lesion) and of_pixels),
            "loss.lesion_weight needs data.lesion and a generator of images, without an autoencoder",
        ),
        (
            not data.context or (of_pixels and kind != "acquisition"),
            f"data.context needs a painter or counterfactual generator of pixels; this is kind {kind}",
        ),
        (
            not (recipe.hardware.shard and recipe.hardware.channels_last),
            "hardware.shard and hardware.channels_last exclude each other",
        ),
        (
            recipe.best_checkpoint is None or data.validation_rows > 0,
            "best_checkpoint chooses by validation loss: it needs data.validation_rows above 0",
        ),
        (
            recipe.optimiser.batch_size % recipe.optimiser.accumulation == 0,
            f"optimiser.batch_size {recipe.optimiser.batch_size} must be a multiple of accumulation",
        ),
    ]
    if kind in _FROM_NOISE and (why := starting_level(recipe)) is not None:
        mend = "use schedule cosine, or zero_terminal_snr with parametrisation v or x0"
        rules.append((False, f"kind {kind} samples from noise, and {why}; {mend}"))
    for holds, rule in rules:
        if not holds:
            raise ValueError(rule)


def starting_level(recipe: Recipe) -> str | None:
    """What sampling from noise loses by a schedule that does not end in it, in words; None where it does."""
    if recipe.diffusion is None or (keeps := ending_signal(recipe.diffusion)) <= _NO_SIGNAL:
        return None
    lost = [f"{lost_mean(keeps, side * side):.0%} at {side} x {side}" for side in (64, 256)]
    return (
        f"its schedule keeps a signal of {keeps:.2g} at the last step: an image sampled from pure noise loses of its "
        f"mean level {' and '.join(lost)} pixels (or latents), so that dark ones of [-1, 1] are too bright"
    )


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, or of a name that ships with augengine, after `overrides` (`key.of.it=YAML`).

    Raises:
        ConfigError: mistakes, with `file:line`.
    """
    document = Document.read(recipe_file(path))
    for assignment in overrides:
        document.override(assignment)
    return document.validate(Recipe)
