"""What tests of experiments share: a segmenter that is fitted in no time and remembers how, and silent progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from augengine.downstream.segmenters.base import Segmenter, Training
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.train.config import Recipe


class Threshold(Segmenter):
    """Fat is whatever is brighter than halfway between the mean fat and the mean rest of its training rows."""

    name: ClassVar[str] = "threshold"
    fits: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, level: float) -> None:
        self.level, self.channels, self.regions = level, ("t1",), {"fat": ("fat",)}

    @classmethod
    def fit(
        cls,
        shards: Sequence[str],
        steps: int,
        seed: int,
        out: str,
        *,
        recipes: Mapping[str, Recipe],
        training: Training = Training(),  # noqa: B008  (frozen)
    ) -> str:
        rows = [s for uri in shards for s in iter_samples(Store(uri), dataset_files(Store(uri))) if s.split == "train"]
        cls.fits.append({"rows": rows, "steps": steps, "seed": seed, "training": training})
        fat, rest = (np.mean([normalise(s)[0][(s.label == 1) == flag].mean() for s in rows]) for flag in (True, False))
        Store(out).write_json("level.json", float(fat + rest) / 2 + 0.0001 * (seed % 1000) + 0.02 * training.classical)
        return out

    @classmethod
    def load(cls, folder: str, *, device: str = "cpu") -> Self:
        return cls(Store(folder).read_json("level.json"))

    def _predict(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return torch.sigmoid(10 * (x - self.level))


@contextmanager
def quiet(title: str) -> Iterator[Callable[..., None]]:
    yield lambda done, total, details: None
