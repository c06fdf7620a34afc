"""A training recipe: YAML in, a strict `Recipe` out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from augengine import rng
from augengine.bundled import recipe_file
from augengine.diffusion.autoencoding_loss import AutoencodingLossSpec
from augengine.diffusion.intensity_spec import IntensityRecipe, named
from augengine.diffusion.schedules import ending_signal, lost_mean
from augengine.diffusion.spec import GENERATORS, DiffusionSpec, Kind, NetworkSpec
from augengine.train.sections import (
    BackTranslationRecipe,
    Batchgeneratorsv2Recipe,
    BestCheckpointRecipe,
    ClassicalRecipe,
    DataRecipe,
    HardwareRecipe,
    LossRecipe,
    MaskRecipe,
    OptimiserRecipe,
    RandomContrastRecipe,
    StructureRecipe,
    WarpRecipe,
)
from augengine.train.trackers import TRACKERS
from augengine.yaml_config import Document, Strict, unset


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
    def any_shape(self) -> bool:
        """Rows may differ in shape: what is trained sees single voxels."""
        return self.network.body == "local_contrast"

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
