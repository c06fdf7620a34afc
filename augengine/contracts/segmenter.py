"""What every segmenter must keep: probabilities in order, of images alone, that neither place nor neighbours decide."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from augengine.contracts.base import Checks, must, own_code
from augengine.downstream.segmenters import Segmenter
from augengine.downstream.segmenters.base import Training
from augengine.errors import DataError
from augengine.io.dataset import write_dataset
from augengine.io.shards import to_table
from augengine.records import Sample
from augengine.rng import canonical_json

SAME = 2e-4
"""Probabilities that differ by less are the same, up to the rounding of batched arithmetic."""
STEPS = 4


@dataclass(frozen=True)
class SegmenterCase:
    """A fitted segmenter and normalised images (B, C, *) that it takes."""

    segmenter: Segmenter
    images: np.ndarray
    undecided: float = 0.0
    """Share of pixels that may differ all the same: where a vote is 0 or 1, one on its threshold may go either way."""


def fitted(cls: type[Segmenter], samples: Sequence[Sample]) -> SegmenterCase:
    """A segmenter that takes no recipes, fitted to a few rows for a few steps.

    Raises:
        ContractError: `fit` or `load` fails, or does not return its folder.
    """
    rows = [sample.replace(split="train") for sample in samples]
    with tempfile.TemporaryDirectory() as folder:
        shards = write_dataset(str(Path(folder, "shards")), [to_table(rows)]).uri
        out = str(Path(folder, "out"))
        with own_code("fit"):
            returned = cls.fit([shards], STEPS, 0, out, recipes={}, training=Training(progress=_quiet))
        must(returned == out, "fit returns its folder", found=returned, mend="return out")
        with own_code("load of what fit left"):
            segmenter = cls.load(out)
        must(
            bool(segmenter.channels and segmenter.regions),
            "a fitted segmenter has channels and regions",
            mend="set them in load",
        )
        with own_code("normalised"):
            return SegmenterCase(segmenter, segmenter.normalised(rows))


def predicts_probabilities(case: SegmenterCase) -> None:
    """float32 (B, R, *) from 0 to 1, R as there are regions."""
    with own_code("predict"):
        found = case.segmenter.predict(case.images)
    wanted = (len(case.images), len(case.segmenter.regions), *case.images.shape[2:])
    must(
        found.dtype == np.float32 and found.shape == wanted,
        "predict returns float32 (B, R, *)",
        found=f"{found.dtype} {found.shape}, not {wanted}",
        mend="return one channel per region",
    )
    must(
        bool((found >= 0).all() and (found <= 1).all()),
        "what predict returns are probabilities",
        found=f"{found.min():g} to {found.max():g}",
        mend="end in a sigmoid or softmax",
    )


def ignores_neighbours(case: SegmenterCase) -> None:
    """A row's result depends on neither its place nor the rows beside it."""
    predict = case.segmenter.predict
    together = predict(case.images)
    again = predict(case.images)
    must(
        again.tobytes() == together.tobytes(),
        "the same images have the same prediction",
        mend="draw from the seeds that _predict is given, or not at all, and switch dropout off",
    )
    alone, backwards = np.concatenate([predict(i[None]) for i in case.images]), predict(case.images[::-1])[::-1]
    loud = case.images.copy()
    loud[1:] *= 3
    pairs = ((alone, together), (backwards, together), (predict(loud)[:1], together[:1]))
    share = max(float((np.abs(other - same) > SAME).mean()) for other, same in pairs)
    must(
        share <= case.undecided,
        "a row's prediction depends on neither its place nor its neighbours",
        found=f"{share:.1%} of the pixels differ",
        mend="compute rows by themselves, in eval mode",
    )


def refuses(case: SegmenterCase) -> None:
    """Other channels, and images that are not finite, are a `DataError`."""
    broken = case.images.copy()
    broken[0, 0, 0] = np.nan
    for what, images in {"one channel more": np.repeat(case.images, 2, axis=1), "no numbers": broken}.items():
        try:
            case.segmenter.predict(images)
        except DataError:
            continue
        must(
            False,
            "images that do not fit are refused by a DataError",
            found=what,
            mend="override _predict, and leave predict as it is",
        )


CHECKS: Checks[SegmenterCase] = {
    "it predicts probabilities of its regions": predicts_probabilities,
    "place and neighbours decide nothing": ignores_neighbours,
    "images that do not fit are refused": refuses,
}


def says_how_it_predicts(cls: type[Segmenter]) -> None:
    """`settings` is plain JSON, since it is part of an identity."""
    with own_code("settings"):
        canonical_json(cls.settings())
    must(
        isinstance(cls.roles, dict | MappingProxyType),
        "roles map the recipes' roles to kinds",
        found=cls.roles,
        mend="set roles to a mapping, empty if fit takes no recipes",
    )


def _quiet(line: str) -> None:
    return None
