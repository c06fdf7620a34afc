"""Ids of augmented rows and a ratio to real ones in; which augmented rows are taken, out."""

from __future__ import annotations

from collections.abc import Sequence

from augengine import rng
from augengine.errors import DataError


def rank(sample_id: str) -> int:
    """The place of an augmented row, from its id alone: those of a smaller ratio are among those of a larger."""
    return rng.derive("share of augmented rows", sample_id)


def rank_limit(ranks: Sequence[int], real: int, ratio: float, split: str, where: str, kind: str = "") -> int:
    """Augmented rows whose rank is below this are `ratio` for each of `real` rows.

    `kind` says which rows were counted where it is not all of them, such as "that show lesion".

    Raises:
        DataError: there are fewer.
    """
    wanted = round(ratio * real)
    if wanted > len(ranks):
        raise DataError(
            " ".join(filter(None, (f"{ratio:g} augmented rows", kind, f"for each of {real} real ones are {wanted}"))),
            found=f"{len(ranks)} of split '{split}'",
            where=where,
            next_step="augment with more replicates, or lower augmented_per_real",
        )
    return sorted(ranks)[wanted - 1] + 1 if wanted else 0
