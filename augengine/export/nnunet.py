"""Cases in; an nnU-Net raw data set out, with its split, a planner's script that looks at real cases, and a trainer.

Facts of nnU-Net 2.8 that this goes by: it plans the slicing axis as the one of the largest spacing, so a slice's third
spacing is 999; its readers but `NibabelIOWithReorient` ignore directions, so that one is asked for; its default folds
mix augmented cases into validation, so the split is written; its plans follow the fingerprint of all training cases, so
`prepare.py` takes that of the real ones.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from augengine.errors import ConfigError, DataError
from augengine.export.case import Case
from augengine.export.item import Item
from augengine.export.nifti import nifti_bytes, oriented
from augengine.export.target import About, File, Unit, by_row_group
from augengine.yaml_config import Strict, unknown_name

SLICE_SPACING_MM = 999.0
READER = "NibabelIOWithReorient"
BRATS_REGIONS = {
    "whole_tumour": ("oedema", "necrosis", "enhancing"),
    "tumour_core": ("necrosis", "enhancing"),
    "enhancing_tumour": ("enhancing",),
}
_FOLDER = re.compile(r"Dataset\d{3}_[A-Za-z0-9_-]+")
TOOLS = ("augengine_trainer.py", "prepare.py")


class NnUnet(Strict):
    """nnU-Net's raw layout.

    Attributes:
        source_orientation: of the axes of volumes and the directions of slices in the files.
        regions: named unions of labels, outermost first, for region-based training.
        ignore_below: voxels of augmented training cases whose label confidence (0 to 255) is lower are ignored.
        sampling_ratio: augmented cases that the trainer draws for every real one; None draws all alike.
        weights: how often the trainer draws a training case, by its sample id; 1 where nothing stands.
    """

    name: ClassVar[str] = "nnunet"
    source_orientation: str = "RAS"
    regions: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    ignore_below: int | None = Field(default=None, ge=1, le=255)
    sampling_ratio: float | None = Field(default=None, ge=0)
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)

    @field_validator("source_orientation")
    @classmethod
    def _letters(cls, text: str) -> str:
        if len(text) != 3 or {*text.upper()} & {*"RL"} == set() or sorted(map(_axis, text.upper())) != [0, 1, 2]:
            raise ValueError("an orientation is three letters, one of R or L, A or P, S or I each, such as LPS")
        return text.upper()

    def check(self, cases: Sequence[Case], about: About) -> None:
        """Refuse a folder that nnU-Net does not know, regions that it cannot train, and a split without validation."""
        if not _FOLDER.fullmatch(about.folder):
            raise ConfigError(
                "nnU-Net finds data sets in folders Dataset<3 digits>_<name>",
                found=about.folder,
                where="--out",
                next_step="for example --out $nnUNet_raw/Dataset501_Breast",
            )
        if not about.labels:
            raise DataError("nnU-Net trains on labels", found="none", next_step="name them with --labels")
        self._order(about.labels)
        self._weights(cases)
        for split in ("train", "val"):
            if not any(case.split == split and not case.synthetic for case in cases):
                raise DataError(
                    "a fold needs real cases in train and val, or nnU-Net draws its own",
                    found=f"none in {split}",
                    next_step="ingest with --fractions that leave some for each",
                )

    def units(self, cases: Sequence[Case], about: About) -> Iterable[Unit]:
        """A row group each."""
        return by_row_group(cases)

    def files(self, items: Iterator[Item], unit: str, about: About) -> Iterator[File]:
        """Images by channel and the label map of every case."""
        for item in items:
            case = item.case
            kind = "Ts" if case.split == "test" else "Tr"
            if item.label is None and kind == "Tr":
                raise DataError("a training case must have a label map", where=case.sample_id)
            image, label, affine = self._placed(item, len(about.labels) + 1)
            for n, channel in enumerate(image):
                name = f"images{kind}/{case.name}_{n:04d}.nii.gz"
                yield File(name, nifti_bytes(channel, affine, case.synthetic), (case.name,))
            if label is not None:
                yield File(f"labels{kind}/{case.name}.nii.gz", nifti_bytes(label, affine, case.synthetic), (case.name,))

    def finish(self, cases: Sequence[Case], about: About, listed: Mapping[str, Sequence[str]]) -> Iterator[File]:
        """`dataset.json`, the folds, and the scripts for nnU-Net's environment."""
        yield File("dataset.json", self._dataset(cases, about))
        yield File("splits_final.json", _json(self.folds(cases)))
        for tool in TOOLS:
            content = importlib.resources.files("augengine.export.nnunet_tools").joinpath(tool).read_bytes()
            yield File(f"augengine/{tool}", content)

    def identity(self) -> dict[str, Any]:
        """All options."""
        return self.model_dump(mode="json")

    def folds(self, cases: Sequence[Case]) -> list[dict[str, list[str]]]:
        """Fold 0: augmented cases join the training; fold 1, if there are any: the same without them."""
        real = [case.name for case in cases if case.split == "train" and not case.synthetic]
        made = [case.name for case in cases if case.split == "train" and case.synthetic]
        val = [case.name for case in cases if case.split == "val" and not case.synthetic]
        return [{"train": train, "val": val} for train in ([real + made, real] if made else [real])]

    def _placed(self, item: Item, ignore: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Image, label map and affine as they are written."""
        label, affine = item.label, item.affine
        if self.ignore_below is not None and item.case.synthetic and item.confidence is not None and label is not None:
            label = np.where(item.confidence < self.ignore_below, np.uint8(ignore), label)
        if item.case.slice_index is not None:
            affine = affine.copy()
            affine[:3, 2] *= SLICE_SPACING_MM / np.linalg.norm(affine[:3, 2])
        arrays = [item.image] if label is None else [item.image, label]
        arrays, affine = oriented(arrays, affine, self.source_orientation)
        return arrays[0], None if label is None else arrays[1], affine

    def _order(self, labels: Sequence[str]) -> tuple[int, ...] | None:
        """`regions_class_order`: of each region the code that it has and no later one; None without regions."""
        if not self.regions:
            return None
        order = []
        for n, (region, names) in enumerate(self.regions.items()):
            for name in names:
                if name not in labels:
                    raise unknown_name("label", name, labels, "--regions")
            inner = {name for other in list(self.regions.values())[n + 1 :] for name in other}
            own = [name for name in names if name not in inner]
            if len(own) != 1:
                raise ConfigError(
                    "a region must have one label that no later region has, from the outermost inwards",
                    found=f"{region}: {', '.join(own) or 'none'}",
                    where="--regions",
                )
            order.append(labels.index(own[0]) + 1)
        if left := [name for name in labels if name not in {n for names in self.regions.values() for n in names}]:
            raise ConfigError("every label must be in a region", found=", ".join(left), where="--regions")
        return tuple(order)

    def _weights(self, cases: Sequence[Case]) -> dict[str, float]:
        """Weights by the names of cases."""
        names = {case.sample_id: case.name for case in cases if case.trains}
        for sample_id in self.weights:
            if sample_id not in names:
                raise unknown_name("training case", sample_id, list(names), "--weights")
        found = {names[sample_id]: weight for sample_id, weight in self.weights.items()}
        if names and not any(found.get(name, 1.0) for name in names.values()):
            raise ConfigError("some training case must have a weight above 0", found="none", where="--weights")
        return found

    def _dataset(self, cases: Sequence[Case], about: About) -> bytes:
        labels: dict[str, Any] = {"background": 0}
        if self.regions:
            codes = {name: n for n, name in enumerate(about.labels, 1)}
            for region, names in self.regions.items():
                found = sorted(codes[name] for name in names)
                labels[region] = found if len(found) > 1 else found[0]
        else:
            labels |= {name: n for n, name in enumerate(about.labels, 1)}
        if self.ignore_below is not None:
            labels["ignore"] = len(about.labels) + 1
        training = [case for case in cases if case.split != "test"]
        values: dict[str, Any] = {
            "channel_names": {str(n): name for n, name in enumerate(about.channels)},
            "labels": labels,
            "num_training_cases": len(training),
            "file_ending": ".nii.gz",
            "regions_class_order": self._order(about.labels),
            "overwrite_image_reader_writer": READER,
            "license": about.licence or "not stated",
            "converted_by": "augengine",
            "description": _description(training),
            "augengine": {
                "synthetic": [case.name for case in training if case.synthetic],
                "sampling_ratio": self.sampling_ratio,
                "weights": self._weights(cases),
            },
        }
        return dataset_json(values)


def dataset_json(values: Mapping[str, Any]) -> bytes:
    """`dataset.json`: by nnU-Net's own function where it is installed, else the same text without it."""
    try:
        from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
    except ImportError:
        return own_dataset_json(values)
    with tempfile.TemporaryDirectory() as folder:
        generate_dataset_json(folder, **values)
        return Path(folder, "dataset.json").read_bytes()


def own_dataset_json(values: Mapping[str, Any]) -> bytes:
    """What nnU-Net's `generate_dataset_json` writes of its arguments."""
    named = {"num_training_cases": "numTraining", "license": "licence"}
    first = ("channel_names", "labels", "num_training_cases", "file_ending", "license", "converted_by")
    then = ("description", "overwrite_image_reader_writer", "regions_class_order")
    rest = [key for key in values if key not in (*first, *then)]
    found = {named.get(key, key): values[key] for key in (*first, *then, *rest)}
    return _json({key: value for key, value in found.items() if key not in then or value is not None})


def _description(cases: Sequence[Case]) -> str:
    made = sum(case.synthetic for case in cases)
    return f"{len(cases) - made} real and {made} synthetic training cases; synthetic ones are named syn-…"


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=4).encode()


def _axis(letter: str) -> int:
    return next((n for n, pair in enumerate(("RL", "AP", "SI")) if letter in pair), -1)
