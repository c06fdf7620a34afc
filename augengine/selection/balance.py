"""Kinds of rows and a share in; which rows an epoch leaves out, so that labels keep their share of the rows, out.

There are two kinds of rows, those that show one of some labels and those that show none. In every epoch a share of the
real rows of each kind that there are augmented ones of gives way to as many of these, in each epoch others. So a
training sees labels as often as in the real rows alone, and meets all rows in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from augengine import rng
from augengine.errors import DataError

REAL, AUGMENTED = 0, 2
"""A row's kind is one of these, plus 1 if it shows one of the labels."""
KEPT = 4
"""The kind of real rows that are not for training: none of them gives way."""


def shows(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    """True if a shard's row has a label map that shows one of these labels."""
    codes = [code for name, code in zip(row["label_names"], row["label_codes"], strict=True) if name in names]
    return row["label"] is not None and bool(np.isin(np.frombuffer(row["label"], np.uint8), codes).any())


def kind_told(kind: int, names: Sequence[str]) -> str:
    """The kind of rows in words.

    >>> kind_told(1, ["core", "rim"]), kind_told(0, ["core", "rim"])
    ('that show core or rim', 'without core or rim')
    """
    return f"{'that show' if kind else 'without'} {' or '.join(names)}"


def left_out(kinds: np.ndarray, share: float, seed: int, epoch: int) -> np.ndarray:
    """Numbers of the rows that an epoch leaves out: real ones that are replaced, and augmented ones not drawn.

    Every epoch leaves out equally many.

    Args:
        kinds: uint8 (rows,), see `REAL`.
        share: of the real rows of a kind, 0 to 1.
        seed, epoch: that the choice follows from.
    """
    random, found = rng.generator("left out", seed, epoch), []
    for kind in (0, 1):
        real, made = (random.permutation(np.flatnonzero(kinds == of + kind)) for of in (REAL, AUGMENTED))
        taken = round(share * len(real)) if len(made) else 0
        found += [real[:taken], made[taken:]]
    return np.concatenate(found)


def check_share(share: float | None, where: str) -> float:
    """The share; a `DataError` for none, or one that is no share."""
    if share is None or not 0 <= share <= 1:
        raise DataError(
            "where augmented rows take the place of real ones (balance), augmented_per_real says which share of them, "
            "0 to 1",
            found=share,
            where=where,
            next_step="set augmented_per_real, say to 0.5",
        )
    return share
