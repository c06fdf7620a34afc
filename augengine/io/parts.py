"""A work unit's rows in; a Parquet file named after the unit and its own content out.

The name ends in 12 digits of the sha256 of the file and 12 of that of its footer, by which a damaged one is told before
it is parsed (`augengine.io.shard_file`). Another attempt at the same unit writes the same name only if it writes the
same bytes, so it never replaces a file that counts with anything else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from augengine.io.shard_file import footer_sha256
from augengine.io.shards import to_bytes
from augengine.io.store import Store

_PART = re.compile(r"part-(?P<unit>.+)-[0-9a-f]{12}(?:[0-9a-f]{12})?\.parquet")
_ROW = re.compile(r"(?P<unit>.+)-row\d{4,}")


@dataclass(frozen=True)
class Part:
    """A file of rows: its name relative to the folder of the run or data set, how many rows, and what it holds.

    Rows and sha256 are None where an older version wrote it.
    """

    name: str
    rows: int | None
    sha256: str | None
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"name": self.name, "rows": self.rows, "sha256": self.sha256, "bytes": self.bytes}


def write_part(store: Store, folder: str, unit_id: str, table: pa.Table) -> Part:
    """Write the rows of a unit that belong to one folder."""
    content = to_bytes(table)
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"{folder}/part-{unit_id}-{sha256[:12]}{footer_sha256(content)[:12]}.parquet".lstrip("/")
    store.write(name, content)
    return Part(name, table.num_rows, sha256, len(content))


def row_unit(unit_id: str, n: int) -> str:
    """Id of the n-th row of a unit that is done row by row."""
    return f"{unit_id}-row{n:04d}"


def unit_of(name: str, units: Container[str]) -> str | None:
    """Which of some units wrote a file, whole or row by row, judging by its base name; None where none did.

    >>> unit_of("part-u1-0123456789ab.parquet", {"u1"}), unit_of("part-u1-row0002-0123456789ab.parquet", {"u1"})
    ('u1', 'u1')
    >>> unit_of("part-u2-0123456789ab.parquet", {"u1"}), unit_of("notes.txt", {"u1"})
    (None, None)
    """
    found = _PART.fullmatch(name)
    return owner(found["unit"], units) if found else None


def owner(unit_id: str, units: Container[str]) -> str | None:
    """Which of some units an id belongs to: itself, or the one that it is a row of."""
    if unit_id in units:
        return unit_id
    row = _ROW.fullmatch(unit_id)
    return row["unit"] if row and row["unit"] in units else None
