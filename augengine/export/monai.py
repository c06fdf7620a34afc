"""Cases in; NIfTI files and a datalist that MONAI's `load_decathlon_datalist` reads, out.

MONAI gives a two-dimensional NIfTI of an oblique slice a wrong voxel size, so slices are `(I, J, 1)`: drop the last
axis after loading (`SqueezeDimd(keys, dim=-1)`), or train on slabs of one slice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from augengine.export.case import Case
from augengine.export.images import case_files, image_names, label_name, labelled
from augengine.export.item import Item
from augengine.export.target import About, File, Unit, by_row_group
from augengine.yaml_config import Strict

DATALIST = "datalist.json"
_KEYS = {"train": "training", "val": "validation", "test": "test"}


class Monai(Strict):
    """A datalist with `training`, `validation` and `test`."""

    name: ClassVar[str] = "monai"

    def check(self, cases: Sequence[Case], about: About) -> None:
        """MONAI takes all that the shards can hold."""

    def units(self, cases: Sequence[Case], about: About) -> Iterable[Unit]:
        """A row group each."""
        return by_row_group(cases)

    def files(self, items: Iterator[Item], unit: str, about: About) -> Iterator[File]:
        """One NIfTI file per channel and one of the labels."""
        for item in items:
            yield from case_files(item, about)

    def finish(self, cases: Sequence[Case], about: About, listed: Mapping[str, Sequence[str]]) -> Iterator[File]:
        """The datalist, its paths relative to itself."""
        lists: dict[str, list[dict[str, Any]]] = {key: [] for key in _KEYS.values()}
        for case in cases:
            lists[_KEYS[case.split or "train"]].append(self._entry(case, about, listed[case.name]))
        made = sum(case.synthetic for case in cases)
        values = {
            "name": about.folder,
            "description": f"{len(cases) - made} real and {made} synthetic cases (synthetic: true), by augengine",
            "licence": about.licence or "not stated",
            "modality": {str(n): name for n, name in enumerate(about.channels)},
            "labels": {str(n): name for n, name in enumerate(("background", *about.labels))},
            "numTraining": len(lists["training"]),
            "numValidation": len(lists["validation"]),
            "numTest": len(lists["test"]),
            **lists,
        }
        yield File(DATALIST, json.dumps(values, indent=1).encode())

    def identity(self) -> dict[str, Any]:
        """All options."""
        return {}

    def _entry(self, case: Case, about: About, files: Sequence[str]) -> dict[str, Any]:
        images = image_names(case, about)
        found: dict[str, Any] = {"image": images if len(images) > 1 else images[0]}
        if labelled(case, files):
            found["label"] = label_name(case)
        return {**found, "case": case.name, "subject": case.subject_id, "synthetic": case.synthetic}
