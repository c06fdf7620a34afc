"""What every feature extractor must keep: finite features, one row of them per image, that no other image decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from augengine.contracts.base import Checks, must, own_code
from augengine.metrics.extractor import Extractor
from augengine.records import Sample

CLOSE = 1e-3
"""Relative to the largest feature: batched arithmetic differs in the last bits."""


@dataclass(frozen=True)
class ExtractorCase:
    """An extractor with its weights, and rows that it takes."""

    extractor: Extractor
    samples: Sequence[Sample]


def extracts(case: ExtractorCase) -> None:
    """float (N, F), finite, and not the same for all."""
    with own_code("the features of three rows"):
        found = case.extractor.of(case.samples)
    must(
        found.ndim == 2 and len(found) == len(case.samples),
        "features are (N, F)",
        found=found.shape,
        mend="return one row of features per image",
    )
    must(
        len(np.unique(found, axis=0)) > 1,
        "features tell images apart",
        found="the same for all",
        mend="compute them from the image",
    )


def ignores_neighbours(case: ExtractorCase) -> None:
    """An image's features do not depend on the other images."""
    together = case.extractor.of(case.samples)
    alone = np.concatenate([case.extractor.of([sample]) for sample in case.samples])
    apart = float(np.abs(alone - together).max() / max(float(np.abs(together).max()), 1e-12))
    must(
        apart <= CLOSE,
        "an image's features do not depend on the images beside it",
        found=f"{apart:.2g} apart",
        mend="set the network to eval, and normalise each image by itself",
    )


CHECKS: Checks[ExtractorCase] = {
    "features are finite and tell images apart": extracts,
    "neighbours decide nothing": ignores_neighbours,
}
