"""A row group of a shard, and the places of the rows in it that are wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Group:
    """Wanted rows of one row group.

    Attributes:
        source: number of its data set among `Selected.sources`.
        name, group: shard, and number of the row group within it.
        augmented: True if they are augmented rows.
        rows: places within the row group, rising, int32.
        subjects: of each row, its number among `Selected.subjects`, int32.
        nbytes: of the whole row group, decompressed.
        kinds: of each row, see `augengine.selection.balance`, uint8; None where no labels are balanced.
    """

    source: int
    name: str
    group: int
    augmented: bool
    rows: np.ndarray
    subjects: np.ndarray
    nbytes: int
    kinds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: np.ndarray) -> Group:
        """The same with some of its rows; `chosen` is a mask or places."""
        kinds = None if self.kinds is None else self.kinds[chosen]
        return replace(self, rows=self.rows[chosen], subjects=self.subjects[chosen], kinds=kinds)
