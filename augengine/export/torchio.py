"""Cases in; NIfTI files, a table of subjects and a module of a few lines that makes TorchIO subjects of it, out.

TorchIO's `LabelSampler` fails on a subject without labelled voxels, as healed rows are. So every training subject has a
map `sampling` that is above 0 where patches are to be centred: on the labels, or else on what is not air.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from augengine.export.case import Case
from augengine.export.images import case_files, image_names, label_name, labelled
from augengine.export.item import Item
from augengine.export.nifti import nifti_bytes
from augengine.export.target import About, File, Unit, by_row_group
from augengine.yaml_config import Strict

SUBJECTS = "subjects.json"
READER = "augengine_subjects.py"


class TorchIO(Strict):
    """Subjects of TorchIO."""

    name: ClassVar[str] = "torchio"

    def check(self, cases: Sequence[Case], about: About) -> None:
        """TorchIO takes all that the shards can hold."""

    def units(self, cases: Sequence[Case], about: About) -> Iterable[Unit]:
        """A row group each."""
        return by_row_group(cases)

    def files(self, items: Iterator[Item], unit: str, about: About) -> Iterator[File]:
        """One NIfTI file per channel, one of the labels and one of where to sample."""
        for item in items:
            yield from case_files(item, about)
            yield File(
                _sampling_name(item.case),
                nifti_bytes(sampling(item), item.affine, item.case.synthetic),
                (item.case.name,),
            )

    def finish(self, cases: Sequence[Case], about: About, listed: Mapping[str, Sequence[str]]) -> Iterator[File]:
        """The table, and the module that reads it."""
        values = {
            "channels": list(about.channels),
            "labels": {name: n for n, name in enumerate(about.labels, 1)},
            "licence": about.licence,
            "subjects": [self._entry(case, about, listed[case.name]) for case in cases],
        }
        yield File(SUBJECTS, json.dumps(values, indent=1).encode())
        content = importlib.resources.files("augengine.export.torchio_tools").joinpath(READER).read_bytes()
        yield File(READER, content)

    def identity(self) -> dict[str, Any]:
        """All options."""
        return {}

    def _entry(self, case: Case, about: About, files: Sequence[str]) -> dict[str, Any]:
        label = label_name(case) if labelled(case, files) else None
        return {
            "name": case.name,
            "subject": case.subject_id,
            "split": case.split,
            "synthetic": case.synthetic,
            "images": image_names(case, about),
            "label": label,
            "sampling": _sampling_name(case),
        }


def sampling(item: Item) -> np.ndarray:
    """uint8 `(I, J, K)`: 1 on the labels; without any, on what is not 0; without that, everywhere."""
    if item.label is not None and item.label.any():
        return np.asarray(item.label > 0, np.uint8)
    body = (item.image != 0).any(0)
    return np.asarray(body if body.any() else np.ones_like(body), np.uint8)


def _sampling_name(case: Case) -> str:
    return f"sampling/{case.name}.nii.gz"
