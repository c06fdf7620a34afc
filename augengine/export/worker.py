"""A unit of cases in; its files in the output folder, and a table of what was written, out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from augengine.errors import DataError
from augengine.export.case import Case
from augengine.export.item import Item, Items
from augengine.export.target import About, Target
from augengine.io.store import Store
from augengine.selection import Labels

FILES, CLEARED = "files", "cleared"
_FILES = pa.schema(
    [("name", pa.string()), ("sha256", pa.string()), ("bytes", pa.int64()), ("cases", pa.list_(pa.string()))]
)
_CLEARED = pa.schema([("case", pa.string()), ("voxels", pa.int64())])


class ExportWorker:
    """Writes the files of units; done twice, a unit writes the same bytes under the same names."""

    def __init__(
        self, target: Target, sources: Sequence[Store], labels: Labels, clear: bool, about: About, out: Store
    ) -> None:
        self.target, self.about, self.out = target, about, out
        self.read = Items(sources, about.channels, labels, clear)

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Tables `files` and, of synthetic cases in which voxels were set to 0, `cleared`."""
        cleared: list[dict[str, Any]] = []
        rows = []
        for file in self.target.files(self._items(spec["cases"], cleared), spec["unit"], self.about):
            self.out.write(file.name, file.content)
            rows.append(
                {
                    "name": file.name,
                    "sha256": hashlib.sha256(file.content).hexdigest(),
                    "bytes": len(file.content),
                    "cases": list(file.cases),
                }
            )
        return {
            FILES: pa.Table.from_pylist(rows, schema=_FILES),
            CLEARED: pa.Table.from_pylist(cleared, schema=_CLEARED),
        }

    def _items(self, cases: Sequence[dict[str, Any]], cleared: list[dict[str, Any]]) -> Iterator[Item]:
        for values in cases:
            case = Case.from_json(values)
            item = self.read(case)
            if item.label is not None and item.label.size and int(item.label.max()) > len(self.about.labels):
                raise DataError("a label must have a name", found=int(item.label.max()), where=case.sample_id)
            if item.cleared:
                cleared.append({"case": case.name, "voxels": item.cleared})
            yield item
