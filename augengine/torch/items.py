"""A row of a shard in; the item that a training loop gets, out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.utils.data import get_worker_info

from augengine.errors import ConfigError, DataError
from augengine.intensity import scaled
from augengine.io.shards import intensity_range, pixels
from augengine.selection import Labels, Selected
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
        for name, valid in (
            ("normalise", (*get_args(Normalise), None)),
            ("layout", get_args(Layout)),
            ("as_", get_args(As)),
        ):
            if (found := getattr(self, name)) not in valid:
                raise ConfigError(f"{name} is one of {', '.join(map(str, valid))}", found=found)

    def check(self, selected: Selected) -> None:
        """Refuse rows that would not be on one scale."""
        first, *others = selected.intensity.items()
        if self.normalise == "volume" and others:
            raise DataError(
                f"intensity ranges must be measured by one rule; {first[1]} has {first[0]}",
                found=str(others[0][0]),
                where=others[0][1],
                next_step="ingest anew, or say normalise='channel' or None",
            )


class Items:
    """Makes items of rows, as `augengine.torch.choice` describes them."""

    def __init__(self, selected: Selected, form: Form) -> None:
        form.check(selected)
        self.channels = list(selected.channels)
        self.labels: Labels = selected.request.labels
        self.form = form
        self._seed: int | None = None

    def __call__(self, row: Mapping[str, Any]) -> Item:
        """One item; nothing of it is shared with the row, so that a transform may write into it."""
        self._seed_transform()
        item = self._tensors(row)
        if self.form.as_ == "monai":
            item = as_monai(item)
        elif self.form.as_ == "torchio":
            item = as_torchio(item)
        return item if self.form.transform is None else self.form.transform(item)

    def _seed_transform(self) -> None:
        """Seed MONAI's transforms once in each worker, as its own loader does.

        Every worker of every epoch starts from a copy of one random state, so that by PyTorch's loader all of them
        make the same changes: of 64 draws by two workers in two epochs there are 16 different ones.
        """
        worker = get_worker_info()
        if worker is None or worker.seed == self._seed or "monai" not in sys.modules:
            return
        from monai.data.utils import set_rnd

        set_rnd(self.form.transform, worker.seed)
        self._seed = worker.seed

    def _tensors(self, row: Mapping[str, Any]) -> dict[str, Any]:
        pixels_of_row = pixels(row)
        image = self._image(pixels_of_row[0], row)
        label, confidence = self._label(*pixels_of_row[1:], image.shape[1:], row)
        if self.form.layout == "slice3d" and image.ndim == 3:
            image, label, confidence = image[..., None], label[..., None], confidence[..., None]
        return {
            "image": torch.from_numpy(image),
            "label": torch.from_numpy(label),
            "confidence": torch.from_numpy(confidence),
            "affine": torch.tensor(row["affine"], dtype=torch.float64).reshape(4, 4),
            "weight": self.form.augmented_weight if row["synthetic"] else 1.0,
            "synthetic": row["synthetic"],
            "sample_id": row["sample_id"],
            "subject_id": row["subject_id"],
            "volume_id": row["volume_id"],
            "slice_index": -1 if row["slice_index"] is None else row["slice_index"],
            "parent_id": row["parent_id"] or "",
            "policy": row["policy"] or "",
            "site": row["site"] or "",
            "split": row["split"] or "",
        }

    def _image(self, image: np.ndarray, row: Mapping[str, Any]) -> np.ndarray:
        """float32 (C, *); `image` is changed."""
        if self.form.normalise == "volume":
            scaled(image, row["channels"], intensity_range(row), row["sample_id"], out=image)
        if row["channels"] != self.channels:
            image = image[[row["channels"].index(name) for name in self.channels]]
        if self.form.normalise != "channel":
            return image
        axes = tuple(range(1, image.ndim))
        mean = image.mean(axes, np.float64, keepdims=True)
        deviation = image.std(axes, np.float64, keepdims=True)
        deviation[deviation == 0] = 1  # a channel of one value becomes 0
        even: np.ndarray = ((image - mean) / deviation).astype(np.float32)
        return even

    def _label(
        self, label: np.ndarray | None, confidence: np.ndarray | None, space: tuple[int, ...], row: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """int64 in the codes of `label_names`, and float32."""
        if label is None:
            return np.full(space, IGNORED, np.int64), np.zeros(space, np.float32)
        codes = self.labels.mapped(label, row["label_names"], row["label_codes"], row["sample_id"]).astype(np.int64)
        if confidence is None:
            return codes, np.ones(space, np.float32)
        return codes, confidence.astype(np.float32) / np.float32(255)
