"""The typed description of a trained model: what `model.json` holds besides the weights' bytes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from augengine.diffusion.autoencoder import AutoencoderSpec
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.control import ControlSpec
from augengine.diffusion.discriminative import PredictorSpec, SegmenterSpec
from augengine.diffusion.dit import DiTSpec
from augengine.diffusion.intensity_spec import IntensitySpec
from augengine.diffusion.lesion_bank import LesionBankSpec
from augengine.diffusion.local_contrast import LocalContrastSpec
from augengine.diffusion.unet import UNetSpec
from augengine.yaml_config import Strict, unset

FORMAT_VERSION = 1
GENERATORS = ("acquisition", "counterfactual", "painter", "label_prior", "label_segmenter", "error_corrector")
Kind = Literal[
    "acquisition",  # image under acquisition parameters (paper 004)
    "counterfactual",  # image, healthy or not (paper 000)
    "painter",  # image on a label map, or on none (paper 001)
    "label_prior",  # label map (paper 002)
    "label_segmenter",  # label map of an image (paper 002)
    "error_corrector",  # error of a segmenter on an image (paper 003)
    "autoencoder",
    "segmenter",
    "acquisition_predictor",
    "lesion_bank",  # lesions of training scans
]
NetworkSpec = Annotated[
    UNetSpec
    | DiTSpec
    | ControlSpec
    | AutoencoderSpec
    | SegmenterSpec
    | PredictorSpec
    | LocalContrastSpec
    | LesionBankSpec,
    Field(discriminator="body"),
]
Parametrisation = Literal["x0", "epsilon", "v", "flow"]


class DiffusionSpec(Strict):
    """The forward process and what the network's output means.

    Attributes:
        parametrisation: the network predicts the clean image (`x0`), the noise (`epsilon`), the velocity (`v`) or,
            along the straight path of rectified flow, noise less image (`flow`).
        schedule: variance schedule over `timesteps` steps; `rectified`, (1 - s) x0 + s noise, belongs to `flow`.
        shift: moves the schedule towards noise: the ratio of noise to signal is `shift` times what it was at every
            timestep (Hoogeboom et al. 2023, eq. 4; for `rectified` Esser et al. 2024, eq. 23). A denoiser that sees
            the structure has little to learn where little noise is left.
        zero_terminal_snr: the last timestep holds no signal (Lin et al. 2024), so that sampling from pure noise
            starts where training ended; `rectified` ends there anyway.
        x0_range: normalised intensities that a clean image can have; estimates are clamped to it, which keeps
            `epsilon` networks finite where almost no signal is left.
    """

    parametrisation: Parametrisation
    schedule: Literal["linear", "scaled_linear", "cosine", "rectified"]
    timesteps: int = Field(default=1000, ge=2, le=100_000)
    shift: float = Field(default=1.0, gt=0, le=64)
    zero_terminal_snr: bool = False
    x0_range: tuple[float, float] = (-1.0, 6.0)

    @model_validator(mode="after")
    def _agrees(self) -> DiffusionSpec:
        if (self.parametrisation == "flow") != (self.schedule == "rectified"):
            raise ValueError("parametrisation flow and schedule rectified belong together")
        if self.zero_terminal_snr and self.parametrisation == "epsilon":
            raise ValueError("zero_terminal_snr needs x0 or v: without signal, no image follows from epsilon")
        return self


class ModelSpec(Strict):
    """Everything that loading a model needs besides the weights.

    Attributes:
        kind: what the model is for; decides its inputs and outputs (see `content_channels`, `planes`).
        vocabulary: acquisition parameters seen in training, of kinds that take or predict them.
        classes: names of the classes that it is conditioned on; class n is `classes[n - 1]`.
        channels: image channels, in order.
        content: what an autoencoder encodes.
        labels: label names that the tissue planes show, in order.
        regions: named unions of labels that the model draws or segments, outermost first where they nest.
        lesion: labels that make a lesion.
        mask: what a painter is shown: `none`, `labels` (one plane per label), or `labels_unknown` (and one plane for
            "anything healthy may be here").
        surroundings: a painter is also shown the image around what it paints, and where that is.
        context: offsets of neighbouring slices that are shown as further planes (2.5D).
        parts: models that this one is built on and holds frozen, by role.
        intensity: how the ranges of its rows were measured, and the scale that it sees them on.
        subject_hashes: the training subjects (see `checkpoint.subject_hash`), those of the parts included. None at all
            are not nobody, but unknown, unless `untrained_seed` is set.
        selection_hashes: subjects whose validation loss chose the weights among those of several steps.
        donor_hashes: subjects that augmented training rows borrowed from.
        teachers: sha256 of the models that made, judged or labelled training rows; those of older models are unknown.
        initialised_from: sha256 of the model whose weights training began from (`train --init`); what that was trained
            on stands among this one's own.
        pretrained: sha256 of weights that training began from and others made; whom those saw, nothing here knows.
        manufacturers: whose scans trained it or its parts, in the normal form; None if some row did not say.
        untrained_seed: nobody trained it: the weights, those of the parts too, were drawn at random from this seed
            (`checkpoint.untrained`). None: it was trained.
        sha256: that of `model.safetensors`.
    """

    format_version: Literal[1] = 1
    kind: Kind = "acquisition"
    network: NetworkSpec
    diffusion: DiffusionSpec | None = None
    vocabulary: Vocabulary | None = None
    classes: tuple[str, ...] = ()
    channels: tuple[str, ...] = Field(min_length=1)
    content: Literal["image", "labels"] = "image"
    labels: tuple[str, ...] = ()
    regions: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    lesion: tuple[str, ...] = ()
    mask: Literal["none", "labels", "labels_unknown"] = "none"
    surroundings: bool = False
    context: tuple[int, ...] = ()
    parts: dict[str, ModelSpec] = Field(default_factory=dict)
    image_size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    intensity: IntensitySpec = Field(default_factory=IntensitySpec)
    subject_hashes: tuple[str, ...] = ()
    selection_hashes: tuple[str, ...] = ()
    donor_hashes: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    initialised_from: str | None = Field(default=None, exclude_if=unset)
    pretrained: str | None = None
    manufacturers: tuple[str, ...] | None = None
    untrained_seed: int | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    recipe: str = ""
    engine_version: str = ""
    sha256: str = ""

    @model_validator(mode="before")
    @classmethod
    def _former(cls, values: Any) -> Any:
        """Of a model from before ranges were per channel: it saw several channels on one scale."""
        if isinstance(values, dict) and "percentiles" in values:
            values = dict(values)
            together = len(values.get("channels", ())) > 1
            values["intensity"] = {"percentiles": values.pop("percentiles"), "together": together}
        return values

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return len(self.image_size)

    @property
    def content_channels(self) -> int:
        """Channels, at full resolution, of what a generator or autoencoder makes."""
        of_labels = self.kind in ("label_prior", "label_segmenter", "error_corrector") or self.content == "labels"
        return len(self.regions) if of_labels else len(self.channels)

    @property
    def sees_images(self) -> bool:
        """False for a model of label maps alone."""
        return self.kind != "label_prior" and self.content == "image"

    @property
    def takes_structure(self) -> bool:
        """True for an acquisition model that is also shown a structure image."""
        return self.kind == "acquisition" and isinstance(self.network, UNetSpec) and self.network.structure

    @property
    def changes_contrast(self) -> bool:
        """True for an acquisition model that changes the source's own pixels and diffuses nothing."""
        return isinstance(self.network, LocalContrastSpec)

    @property
    def condition_planes(self) -> int:
        """Spatial maps that a generator is shown besides the noisy content."""
        shown = len(self.context) * len(self.channels)
        if self.takes_structure:
            return shown + len(self.channels) + 2 + len(self.labels)
        if self.kind == "painter":
            shown += self.surroundings * (len(self.channels) + 1)
            return shown + {"none": 0, "labels": len(self.labels), "labels_unknown": len(self.labels) + 1}[self.mask]
        if self.kind == "label_segmenter":
            return shown + len(self.channels)
        if self.kind == "error_corrector":
            return shown + len(self.channels) + len(self.regions)
        return shown

    @property
    def exclusive(self) -> bool:
        """True if no label lies in two regions: a segmenter then chooses among them and the background."""
        names = [name for labels in self.regions.values() for name in labels]
        return len(names) == len(set(names))

    @property
    def outputs(self) -> int:
        """Outputs of a segmenter (the background first where regions exclude each other) or predictor."""
        if self.kind == "acquisition_predictor":
            assert self.vocabulary is not None  # the recipe's kind sees to it
            return sum(self.vocabulary.widths.values())
        return len(self.regions) + self.exclusive
