"""Images in, feature vectors out, under a name and the hash of the weights that made them.

Numbers that rest on different features do not compare: whatever is computed from features carries `Extractor.id`, and
what takes several refuses different ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.records import Sample


@dataclass(frozen=True)
class Extractor:
    """Turns normalised images, float32 (B, C, *spatial), into features (B, F).

    Attributes:
        name: of the method; two methods never share one.
        features: the function; a row's features do not depend on the other rows.
        sha256: of the weights; empty where there are none.
        channels: the only channels, in order, that it takes; empty takes any.
    """

    name: str
    features: Callable[[np.ndarray], np.ndarray]
    sha256: str = ""
    channels: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Name and the beginning of the hash."""
        return f"{self.name}:{self.sha256[:12]}" if self.sha256 else self.name

    def of(self, samples: Sequence[Sample]) -> np.ndarray:
        """float32 (N, F), in order; rows of one shape go together.

        Raises:
            DataError: other channels, no intensity range, or features that are not finite.
        """
        shapes: dict[tuple[int, ...], list[int]] = {}
        for n, sample in enumerate(samples):
            if self.channels and sample.channels != self.channels:
                raise DataError(
                    f"extractor {self.id} takes channels {', '.join(self.channels)}",
                    found=", ".join(sample.channels),
                    where=sample.sample_id,
                )
            shapes.setdefault(sample.image.shape, []).append(n)
        rows: dict[int, np.ndarray] = {}
        for numbers in shapes.values():
            found = self.features(np.stack([normalise(samples[n]) for n in numbers]))
            rows.update(zip(numbers, np.asarray(found, np.float32), strict=True))
        features = np.stack([rows[n] for n in range(len(samples))])
        if not np.isfinite(features).all():
            worst = int(np.argmin(np.isfinite(features).all(axis=1)))
            raise DataError("features are finite numbers", where=samples[worst].sample_id)
        return features


def same_extractor(*ids: str) -> str:
    """The one extractor of several numbers or sets.

    Raises:
        DataError: there are several, or none.
    """
    found = sorted(set(ids))
    if len(found) != 1:
        raise DataError(
            "numbers compare only if one extractor made the features",
            found=", ".join(found) or "none",
            next_step="extract all with the same weights",
        )
    return found[0]
