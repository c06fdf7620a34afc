"""What a gate is: its options from the policy and one row before and after its edit in, one number out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from augengine.diffusion.checkpoint import Model, load_model, read_spec
from augengine.diffusion.spec import Kind, ModelSpec
from augengine.errors import CheckpointError, ConfigError, DataError
from augengine.gates.reference import Reference, RowKind, labels_digest, read_reference, training_kinds
from augengine.gates.training_images import TrainingImages
from augengine.intensity import normalise
from augengine.policy.spec import ModelRef
from augengine.records import Sample
from augengine.yaml_config import Strict

LESION = ("necrosis", "enhancing", "oedema", "lesion")
"""Labels that make a lesion unless the policy names others."""

RealPair = Literal["itself", "recoloured", "neighbour", "stranger", "mirrored", "elsewhere", "unseen", "held_out"]


@dataclass(frozen=True)
class Case:
    """One row to be judged.

    Attributes:
        before: the source.
        after: its edit, on the source's grid.
        region: bool (*spatial), the voxels that the edit may change; None: all.
        kept: digests (`image_digest`) of what was kept of the same unit before.
    """

    before: Sample
    after: Sample
    region: np.ndarray | None = None
    kept: Collection[str] = ()

    def normalised(self) -> tuple[np.ndarray, np.ndarray]:
        """Both images (C, *) on the source's scale; without an intensity range a `DataError`."""
        return normalise(self.before), normalise(self.before.replace(image=self.after.image))

    def within(self, mask: np.ndarray) -> np.ndarray:
        """The part of a mask that the edit may change."""
        return mask if self.region is None else mask & self.region


class Tools:
    """Models and training rows that gates need, each read once per process."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._models: dict[str, Model] = {}
        self._references: dict[str, Reference] = {}
        self._training_images: dict[str, TrainingImages] = {}

    def model(self, ref: ModelRef) -> Model:
        """The checkpoint that a gate's options name."""
        uri = named(ref, "model")
        if uri not in self._models:
            self._models[uri] = load_model(uri, self.device)
        return self._models[uri]

    def reference(self, ref: ModelRef, labels: tuple[str, ...]) -> Reference:
        """The training label maps that a gate's options name."""
        uri = named(ref, "reference")
        key = f"{uri} {labels}"
        if key not in self._references:
            self._references[key] = read_reference(uri, labels)
        return self._references[key]

    def training_images(self, ref: ModelRef) -> TrainingImages:
        """The training rows that a gate's options name."""
        uri = named(ref, "reference")
        if uri not in self._training_images:
            self._training_images[uri] = TrainingImages.read(uri)
        return self._training_images[uri]


class Gate(Strict):
    """One kind of gate. Its fields are its options in the policy; `value` is what the bounds are for.

    Attributes:
        comparison: the pair of real rows that calibration measures instead of an edit, see `calibration`.
    """

    comparison: ClassVar[RealPair] = "recoloured"

    def value(self, case: Case, tools: Tools) -> float:
        """The measured value. NaN, infinity or an exception fails the row."""
        raise NotImplementedError

    def open(self, tools: Tools) -> None:
        """Read what `value` needs, so that what is missing shows before any row is made."""

    def hashes(self) -> Mapping[str, str]:
        """Option to sha256 of every file that decides the value; checks them without loading weights."""
        return {}

    def check_rows(self, kinds: Collection[RowKind]) -> None:
        """Refuse kinds of rows that can never be measured, by the metadata of the gate's files: a `DataError`."""

    def refs(self) -> dict[str, ModelRef]:
        """Option to the folder that it names."""
        given = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in given if isinstance(value, ModelRef)}


class LesionGate(Gate):
    """A gate about the lesion, the union of the labels `lesion`."""

    lesion: tuple[str, ...] = LESION

    def mask(self, sample: Sample) -> np.ndarray:
        """bool (*spatial): the lesion."""
        return label_mask(sample, self.lesion)


class ModelGate(Gate):
    """A gate that asks a trained model."""

    kind: ClassVar[Kind]
    model: ModelRef

    def open(self, tools: Tools) -> None:
        """Load the model."""
        tools.model(self.model)

    def hashes(self) -> Mapping[str, str]:
        """Of the weights; another kind of model, or other weights than the policy's, are a `CheckpointError`."""
        uri = named(self.model, "model")
        spec = read_spec(uri)
        if spec.kind != self.kind:
            raise CheckpointError(f"this gate needs a model of kind '{self.kind}'", found=spec.kind, where=uri)
        if spec.context:
            raise CheckpointError("a gate shows its model single rows", found=f"context {spec.context}", where=uri)
        same_hash(self.model, spec.sha256)
        self.accept(spec)
        return {"model": spec.sha256}

    def accept(self, spec: ModelSpec) -> None:
        """Refuse a model that cannot answer this gate's question."""


class ReferenceGate(Gate):
    """A gate that compares with the training label maps of a folder of shards."""

    reference: ModelRef

    def hashes(self) -> Mapping[str, str]:
        """Of the label maps."""
        uri = named(self.reference, "reference")
        found = labels_digest(uri)
        same_hash(self.reference, found)
        return {"reference": found}

    def check_rows(self, kinds: Collection[RowKind]) -> None:
        """Label maps are compared voxel by voxel; channels do not matter."""
        uri = named(self.reference, "reference")
        there = {kind.shape for kind in training_kinds(uri, labelled=True)}
        for kind in kinds:
            if kind.shape not in there:
                raise unlike(uri, _shapes([kind.shape]), _shapes(there))


def named(ref: ModelRef, option: str) -> str:
    """The path of a reference in a gate's options; without one a `ConfigError`."""
    if ref.ref is None:
        raise ConfigError(f"this gate needs options.{option}.ref", next_step="set it to a folder")
    return ref.ref


def unlike(uri: str, found: str, there: str) -> DataError:
    """The error for rows that training rows cannot be compared with."""
    return DataError(
        "a gate compares rows with training rows of their channels and matrix",
        found=found,
        where=uri,
        next_step=f"there are {there or 'none'}: give shards that were ingested as the data were",
    )


def _shapes(shapes: Collection[tuple[int, ...]]) -> str:
    return ", ".join(" × ".join(map(str, shape)) for shape in sorted(shapes))


def same_hash(ref: ModelRef, found: str) -> None:
    """Refuse other content than the policy asks for."""
    if ref.sha256 and ref.sha256 != found:
        raise CheckpointError(f"the policy asks for sha256 {ref.sha256}", found=found, where=ref.ref)


def label_of(sample: Sample) -> np.ndarray:
    """The row's label map; a row without one is a `DataError`."""
    if sample.label is None:
        raise DataError("this gate needs a label", where=sample.sample_id)
    return sample.label


def label_mask(sample: Sample, names: Collection[str]) -> np.ndarray:
    """bool (*spatial): the union of some labels; names that the row's scheme does not know are empty."""
    return np.isin(label_of(sample), [code for name, code in sample.labels.items() if name in names])


def present(sample: Sample) -> dict[str, np.ndarray]:
    """Mask of every label that the row holds, by name."""
    label = label_of(sample)
    return {name: mask for name, code in sample.labels.items() if (mask := label == code).any()}
