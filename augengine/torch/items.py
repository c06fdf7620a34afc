"""A row of a shard in; the item that a training loop gets, out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from augengine.errors import ConfigError, DataError
from augengine.intensity import normalise
from augengine.io.shards import from_row
from augengine.records import Sample
from augengine.selection import Labels, Selected
from augengine.selection.conform import conformed
from augengine.torch.as_monai import as_monai
from augengine.torch.as_torchio import as_torchio

Item = Any
"""A dictionary, or a `torchio.Subject`, or what a transform makes of it."""
Normalise = Literal["volume", "channel"]
Layout = Literal["native", "slice3d"]
As = Literal["tensor", "monai", "torchio"]
IGNORED = -100
"""Label of every voxel of a row without label map: what PyTorch's cross entropy leaves out."""


@dataclass(frozen=True)
class Form:
    """What an item looks like.

    Attributes:
        normalise: `volume` maps each channel's intensity range in the source volume to 0 and 1; `channel` gives each
            channel of the item mean 0 and standard deviation 1; None leaves intensities as the source states them.
        layout: `native` is (C, I, J) of a slice and (C, I, J, K) of a volume; `slice3d` makes a slice (C, I, J, 1).
        as_: `tensor`, a dictionary of tensors; `monai`, one of MetaTensors; `torchio`, a Subject.
        transform: applied to the finished item.
        augmented_weight: `weight` of augmented items; that of real ones is 1.
    """

    normalise: Normalise | None = "volume"
    layout: Layout = "native"
    as_: As = "tensor"
    transform: Callable[[Item], Item] | None = None
    augmented_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, valid in (("normalise", (*get_args(Normalise), None)), ("layout", get_args(Layout)),
                            ("as_", get_args(As))):  # fmt: skip
            if (found := getattr(self, name)) not in valid:
                raise ConfigError(f"{name} is one of {', '.join(map(str, valid))}", found=found)

    def check(self, selected: Selected) -> None:
        """Refuse rows that would not be on one scale."""
        first, *others = selected.intensity.items()
        if self.normalise == "volume" and others:
            raise DataError(
                f"intensity ranges must be measured by one rule; {first[1]} has {first[0]}", found=str(others[0][0]),
                where=others[0][1], next_step="ingest anew, or say normalise='channel' or None",
            )  # fmt: skip


class Items:
    """Makes items of rows, as `augengine.torch.choice` describes them."""

    def __init__(self, selected: Selected, form: Form) -> None:
        form.check(selected)
        self.channels, self.label_names = selected.channels, selected.label_names
        self.labels: Labels = selected.request.labels
        self.form = form

    def __call__(self, row: dict[str, Any]) -> Item:
        """One item."""
        sample = conformed(from_row(row), self.channels, self.labels, self.label_names)
        item = self._tensors(sample)
        if self.form.as_ == "monai":
            item = as_monai(item)
        elif self.form.as_ == "torchio":
            item = as_torchio(item)
        return item if self.form.transform is None else self.form.transform(item)

    def _tensors(self, sample: Sample) -> dict[str, Any]:
        image, space = self._image(sample), sample.image.shape[1:]
        label = np.full(space, IGNORED, np.int64) if sample.label is None else sample.label.astype(np.int64)
        if sample.label_confidence is not None:
            confidence = sample.label_confidence.astype(np.float32) / np.float32(255)
        else:
            confidence = np.full(space, 0 if sample.label is None else 1, np.float32)
        if self.form.layout == "slice3d" and len(space) == 2:
            image, label, confidence = image[..., None], label[..., None], confidence[..., None]
        made = sample.provenance
        return {
            "image": torch.from_numpy(image),
            "label": torch.from_numpy(label),
            "confidence": torch.from_numpy(confidence),
            "affine": torch.from_numpy(sample.affine),
            "weight": 1.0 if made is None else self.form.augmented_weight,
            "synthetic": made is not None,
            "sample_id": sample.sample_id,
            "subject_id": sample.subject_id,
            "volume_id": sample.volume_id,
            "slice_index": -1 if sample.slice_index is None else sample.slice_index,
            "parent_id": "" if made is None else made.parent_id,
            "policy": "" if made is None else made.policy,
            "site": sample.site or "",
            "split": sample.split or "",
        }

    def _image(self, sample: Sample) -> np.ndarray:
        """float32, and nobody else's memory."""
        if self.form.normalise == "volume":
            return normalise(sample)
        if self.form.normalise is None:
            return sample.image
        axes = tuple(range(1, sample.image.ndim))
        mean = sample.image.mean(axes, np.float64, keepdims=True)
        deviation = sample.image.std(axes, np.float64, keepdims=True)
        deviation[deviation == 0] = 1  # a channel of one value becomes 0
        image: np.ndarray = ((sample.image - mean) / deviation).astype(np.float32)
        return image
